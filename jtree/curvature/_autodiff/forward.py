"""Derivatives in forward mode, also of functions that have only a reverse one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, jaxprs_in_params

from ..._errors import ArgumentError


def has_custom_vjp(whole: ClosedJaxpr) -> bool:
    """Return whether a jaxpr calls a function with a `custom_vjp`, which has no forward mode."""
    equations = list(whole.jaxpr.eqns)
    while equations:
        eqn = equations.pop()
        if eqn.primitive.name.startswith("custom_vjp_call"):
            return True
        for inner in jaxprs_in_params(eqn.params):
            equations += inner.eqns
    return False


def linearize(function: Callable[[Any], Any], primal: Any, name: str) -> tuple[Any, Any]:
    """Return a function's value and its derivative as a linear function, as `jax.linearize` does.

    A function that calls one with a `custom_vjp` has no derivative in forward mode. Its derivative
    is then that of the reverse one, which is linear in the cotangent: the reverse of the reverse.

    Args:
      function: a function that can be traced.
      primal: its argument.
      name: the name of the user's function in the error.

    Raises:
      ArgumentError: the reverse derivative has no derivative either.
    """
    if not has_custom_vjp(jax.make_jaxpr(function)(primal)):
        return jax.linearize(function, primal)
    out, pull = jax.vjp(function, primal)
    zeros = jax.tree.map(jnp.zeros_like, out)
    try:
        _, transposed = jax.vjp(lambda cotangent: pull(cotangent)[0], zeros)
        tangent = jax.tree.map(jax.typeof, primal)
        jax.eval_shape(transposed, tangent)
    except (TypeError, ValueError, NotImplementedError) as error:
        first = str(error).strip().split("\n")[0].rstrip(".")
        raise ArgumentError(
            f"{name}: a custom_vjp has no forward mode, and its backward pass cannot be "
            f"differentiated ({first}); use a custom_jvp, or for a solver an option with a forward "
            "mode, such as adjoint=diffrax.DirectAdjoint()"
        ) from error
    return out, lambda tangent: transposed(tangent)[0]
