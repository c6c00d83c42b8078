"""A function of a vector as a function of the vector's pieces, as `re(flat)` cuts them.

To differentiate by some parameters with the others fixed, JAX must not see one vector: the tangent
of a vector with zeros in it is carried through the whole model, that of an absent piece is not.
So the function is traced, and the `split` of its vector replaced by its results. A function that
uses its vector in another way is given the pieces put together, which is right, and as slow as it
was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun
from jax.interpreters.partial_eval import dce_jaxpr

from .call import traced as trace

Pieces = Sequence[jax.Array]


class Cut(NamedTuple):
    """A function of the pieces of a vector.

    Attributes:
      sizes: the lengths of the pieces.
      function: from a list of pieces to the function's one result.
      order: the numbers of the pieces, in the order in which the function first uses them.
    """

    sizes: tuple[int, ...]
    function: Callable[[Pieces], Any]
    order: tuple[int, ...]


def cut(
    function: Callable[[Any], Any], flat: jax.Array, sizes: tuple[int, ...] | None = None
) -> Cut:
    """Return a function of a vector as one of its pieces, of these sizes or as it splits itself."""
    whole = trace(function, flat)
    sizes = sizes or _sizes_of_split(whole) or (flat.size,)
    parts = trace(lambda *pieces: _evaluate(whole, pieces), *split(flat, sizes))
    run = jaxpr_as_fun(parts)
    return Cut(sizes, lambda pieces: run(*pieces)[0], _order(parts))


def split(flat: jax.Array, sizes: Sequence[int]) -> list[jax.Array]:
    """Return the pieces of a vector."""
    return list(lax.split(flat, list(sizes)))


def join(pieces: Pieces) -> jax.Array:
    """Return the vector that pieces make up."""
    return pieces[0] if len(pieces) == 1 else jnp.concatenate(list(pieces))


def _inner(eqn: Any) -> ClosedJaxpr | None:
    """Return the body of a call of a jitted function."""
    return eqn.params["jaxpr"] if eqn.primitive.name in ("jit", "pjit") else None


def _sizes_of_split(whole: ClosedJaxpr) -> tuple[int, ...] | None:
    """Return the sizes that the first split of the vector has."""
    jaxpr = whole.jaxpr
    var = jaxpr.invars[0]
    todo = list(reversed(jaxpr.eqns))
    while todo:
        eqn = todo.pop()
        if not any(x is var for x in eqn.invars):
            continue
        if eqn.primitive.name == "split":
            return tuple(map(int, eqn.params["sizes"]))
        body = _inner(eqn)
        if body is not None:
            place = next(i for i, x in enumerate(eqn.invars) if x is var)
            var, todo = body.jaxpr.invars[place], list(reversed(body.jaxpr.eqns))
    return None


def _evaluate(whole: ClosedJaxpr, pieces: Pieces) -> list[Any]:
    """Evaluate a traced function of a vector at the vector's pieces.

    Calls of jitted functions that get the vector are evaluated in line.
    """
    sizes = tuple(x.size for x in pieces)
    values: dict[Any, Any] = dict(zip(whole.jaxpr.constvars, whole.consts, strict=True))
    values[whole.jaxpr.invars[0]] = _Vector(pieces)

    def read(x: Any) -> Any:
        return x.val if isinstance(x, Literal) else values[x]

    todo: list[Any] = list(reversed(whole.jaxpr.eqns))
    while todo:
        eqn = todo.pop()
        if callable(eqn):
            eqn()
            continue
        inputs = [read(x) for x in eqn.invars]
        given = [x for x in inputs if isinstance(x, _Vector)]
        body = _inner(eqn)
        if given and body is not None:
            _enter(eqn, body, inputs, values, todo)
        elif given and eqn.primitive.name == "split" and tuple(eqn.params["sizes"]) == sizes:
            values.update(zip(eqn.outvars, pieces, strict=True))
        else:
            values.update(zip(eqn.outvars, _bind(eqn, list(map(_joined, inputs))), strict=True))
    return [_joined(read(x)) for x in whole.jaxpr.outvars]


class _Vector(NamedTuple):
    pieces: Pieces


def _joined(x: Any) -> Any:
    return join(x.pieces) if isinstance(x, _Vector) else x


def _enter(
    eqn: Any, body: ClosedJaxpr, inputs: list[Any], values: dict[Any, Any], todo: list[Any]
) -> None:
    """Put the equations of a jitted function's body in line, and behind them its results."""
    values.update(zip(body.jaxpr.constvars, body.consts, strict=True))
    values.update(zip(body.jaxpr.invars, inputs, strict=True))

    def leave() -> None:
        found = [x.val if isinstance(x, Literal) else values[x] for x in body.jaxpr.outvars]
        values.update(zip(eqn.outvars, found, strict=True))

    todo.append(leave)
    todo.extend(reversed(body.jaxpr.eqns))


def _bind(eqn: Any, inputs: list[Any]) -> list[Any]:
    """Evaluate one equation, as JAX does it."""
    found = eqn.primitive.get_bind_params(eqn.params)
    subfuns, params = found if isinstance(found, tuple) else ((), found)  # before JAX 0.10
    with eqn.ctx.manager:
        out = eqn.primitive.bind(*subfuns, *inputs, **params)
    return list(out) if eqn.primitive.multiple_results else [out]


_PREPARING = {"reshape", "convert_element_type", "transpose", "broadcast_in_dim", "squeeze"}


def _order(parts: ClosedJaxpr) -> tuple[int, ...]:
    """Return the pieces' numbers, in the order in which something is computed from them."""
    owner = {var: k for k, var in enumerate(parts.jaxpr.invars)}
    first: dict[int, int] = {}
    for step, eqn in enumerate(parts.jaxpr.eqns):
        owned = [owner[x] for x in eqn.invars if not isinstance(x, Literal) and x in owner]
        if len(owned) == 1 and eqn.primitive.name in _PREPARING:
            owner[eqn.outvars[0]] = owned[0]
        else:
            for k in owned:
                first.setdefault(k, step)
    last = len(parts.jaxpr.eqns)
    return tuple(sorted(range(len(parts.jaxpr.invars)), key=lambda k: first.get(k, last)))


def used(function: Cut, flat: jax.Array) -> list[bool]:
    """Tell of each piece whether the function's result can depend on it."""
    whole = trace(lambda *pieces: function.function(pieces), *split(flat, function.sizes))
    return list(dce_jaxpr(whole.jaxpr, [True] * len(whole.jaxpr.outvars))[1])


def uses(whole: ClosedJaxpr) -> bool:
    """Tell whether the results of a traced function can depend on its vector."""
    return bool(dce_jaxpr(whole.jaxpr, [True] * len(whole.jaxpr.outvars))[1][0])
