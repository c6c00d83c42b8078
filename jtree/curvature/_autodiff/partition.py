"""A function of a vector as a function of the vector's pieces, as `re(flat)` splits it.

To JAX a tangent is zero as a whole or not at all. The tangent of a vector that is zero but for one
parameter is therefore carried through the whole model, while that of a separate parameter is not.
So the function is traced, and the `split` of its vector is replaced by the pieces. A function that
uses its vector in another way gets the concatenated pieces, which is correct and saves nothing.

No version of JAX ends this: `nzs` of `jax.linearize` (https://github.com/jax-ml/jax/pull/39835)
and symbolic zeros speak of whole arguments. `dce_jaxpr` is not documented; it is used until
`make_jaxpr` can tell which inputs matter (https://github.com/jax-ml/jax/issues/4818).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun
from jax.interpreters.partial_eval import dce_jaxpr

from .call import trace
from .forward import has_custom_vjp, linearize

Pieces = Sequence[jax.Array]


class PartitionedFunction(NamedTuple):
    """A function of the pieces of a vector.

    Attributes:
      sizes: the lengths of the pieces.
      point: the pieces of the vector at which it was traced.
      function: from a list of pieces to the function's one result.
      order: the indices of the pieces, in the order in which the function first uses them.
      linearize: `linearize(function, primal, name)` for functions that call this one.
      once: whether derivatives are for one product, which is traced sooner without `linearize`.
    """

    sizes: tuple[int, ...]
    point: Pieces
    function: Callable[[Pieces], Any]
    order: tuple[int, ...]
    linearize: Callable[[Callable[[Any], Any], Any, str], tuple[Any, Any]]
    once: bool

    def derivative(self, function: Callable[[Any], Any], primal: Any, name: str) -> Any:
        """Return the second result of `linearize`."""
        if self.once:
            return lambda tangent: jax.jvp(function, (primal,), (tangent,))[1]
        return self.linearize(function, primal, name)[1]


def partition(
    function: Callable[[Any], Any],
    flat: jax.Array,
    sizes: tuple[int, ...] | None = None,
    point: Pieces | None = None,
) -> PartitionedFunction:
    """Return a function of a vector as one of its pieces, of these sizes or as it splits them.

    Args:
      function: a function that can be traced.
      flat: the vector.
      sizes: the lengths of the pieces.
      point: the pieces of the vector, where it was split before; of `flat` only the shape and the
        dtype are used then.
    """
    whole = trace(function, flat)
    sizes = sizes or _sizes_of_split(whole) or (flat.size,)
    pieces = split(flat, sizes) if point is None else point
    parts = trace(lambda *pieces: _evaluate(whole, pieces), *pieces)
    run = jaxpr_as_fun(parts)
    linearized = linearize if has_custom_vjp(parts) else lambda f, x, _: jax.linearize(f, x)
    once = point is not None and linearized is not linearize
    return PartitionedFunction(
        sizes, pieces, lambda pieces: run(*pieces)[0], _order(parts), linearized, once
    )


def split(flat: jax.Array, sizes: Sequence[int]) -> list[jax.Array]:
    """Return the pieces of a vector."""
    return list(lax.split(flat, list(sizes)))


def join(pieces: Pieces) -> jax.Array:
    """Return the vector of these pieces."""
    return pieces[0] if len(pieces) == 1 else jnp.concatenate(list(pieces))


def replace_pieces(pieces: Pieces, indices: Sequence[int], new: Pieces) -> list[jax.Array]:
    """Return pieces, those at some indices replaced by new ones."""
    replaced = list(pieces)
    for k, piece in zip(indices, new, strict=True):
        replaced[k] = piece
    return replaced


def used_pieces(partitioned: PartitionedFunction) -> list[bool]:
    """Return for each piece whether the function's result can depend on it."""
    whole = trace(lambda *pieces: partitioned.function(pieces), *partitioned.point)
    return _used_inputs(whole)


def depends_on_vector(whole: ClosedJaxpr) -> bool:
    """Return whether the results of a jaxpr can depend on its first argument."""
    return _used_inputs(whole)[0]


def _used_inputs(whole: ClosedJaxpr) -> list[bool]:
    return list(dce_jaxpr(whole.jaxpr, [True] * len(whole.jaxpr.outvars))[1])


def _body(eqn: Any) -> ClosedJaxpr | None:
    """Return the jaxpr of a jitted function where it is called."""
    return eqn.params["jaxpr"] if eqn.primitive.name == "jit" else None


def _sizes_of_split(whole: ClosedJaxpr) -> tuple[int, ...] | None:
    """Return the sizes of the first split of the vector."""
    var = whole.jaxpr.invars[0]
    equations = list(reversed(whole.jaxpr.eqns))
    while equations:
        eqn = equations.pop()
        if not any(x is var for x in eqn.invars):
            continue
        if eqn.primitive.name == "split":
            return tuple(map(int, eqn.params["sizes"]))
        body = _body(eqn)
        if body is not None:
            index = next(i for i, x in enumerate(eqn.invars) if x is var)
            var, equations = body.jaxpr.invars[index], list(reversed(body.jaxpr.eqns))
    return None


class _Vector(NamedTuple):
    """The vector where a jaxpr uses it: still in pieces."""

    pieces: Pieces


def _joined(x: Any) -> Any:
    return join(x.pieces) if isinstance(x, _Vector) else x


def _evaluate(whole: ClosedJaxpr, pieces: Pieces) -> list[Any]:
    """Evaluate the jaxpr of a function of a vector at the vector's pieces.

    Calls of jitted functions that take the vector are inlined.
    """
    sizes = tuple(x.size for x in pieces)
    values: dict[Any, Any] = dict(zip(whole.jaxpr.constvars, whole.consts, strict=True))
    values[whole.jaxpr.invars[0]] = _Vector(pieces)

    def read(x: Any) -> Any:
        return x.val if isinstance(x, Literal) else values[x]

    stack: list[Any] = list(reversed(whole.jaxpr.eqns))  # equations, and the ends of inlined calls
    while stack:
        eqn = stack.pop()
        if callable(eqn):
            eqn()
            continue
        inputs = [read(x) for x in eqn.invars]
        vectors = [x for x in inputs if isinstance(x, _Vector)]
        body = _body(eqn)
        if vectors and body is not None:
            _inline(eqn, body, inputs, values, stack)
        elif vectors and eqn.primitive.name == "split" and tuple(eqn.params["sizes"]) == sizes:
            values.update(zip(eqn.outvars, pieces, strict=True))
        else:
            values.update(
                zip(eqn.outvars, _evaluate_equation(eqn, list(map(_joined, inputs))), strict=True)
            )
    return [_joined(read(x)) for x in whole.jaxpr.outvars]


def _inline(
    eqn: Any, body: ClosedJaxpr, inputs: list[Any], values: dict[Any, Any], stack: list[Any]
) -> None:
    """Put the equations of a jitted function on the stack, and below them its results."""
    values.update(zip(body.jaxpr.constvars, body.consts, strict=True))
    values.update(zip(body.jaxpr.invars, inputs, strict=True))

    def leave() -> None:
        results = [x.val if isinstance(x, Literal) else values[x] for x in body.jaxpr.outvars]
        values.update(zip(eqn.outvars, results, strict=True))

    stack.append(leave)
    stack.extend(reversed(body.jaxpr.eqns))


def _evaluate_equation(eqn: Any, inputs: list[Any]) -> list[Any]:
    """Evaluate one equation, as `jax.core.eval_jaxpr` does."""
    with eqn.ctx.manager:
        results = eqn.primitive.bind(*inputs, **eqn.primitive.get_bind_params(eqn.params))
    return list(results) if eqn.primitive.multiple_results else [results]


_PREPARING = {"reshape", "convert_element_type", "transpose", "broadcast_in_dim", "squeeze"}


def _order(parts: ClosedJaxpr) -> tuple[int, ...]:
    """Return the indices of the pieces, in the order in which something is computed from them."""
    owner = {var: k for k, var in enumerate(parts.jaxpr.invars)}
    first: dict[int, int] = {}
    for i, eqn in enumerate(parts.jaxpr.eqns):
        owned = [owner[x] for x in eqn.invars if not isinstance(x, Literal) and x in owner]
        if len(owned) == 1 and eqn.primitive.name in _PREPARING:
            owner[eqn.outvars[0]] = owned[0]
        else:
            for k in owned:
                first.setdefault(k, i)
    last = len(parts.jaxpr.eqns)
    return tuple(sorted(range(len(parts.jaxpr.invars)), key=lambda k: first.get(k, last)))
