"""Functions without a derivative in forward mode."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

import jtree
from jtree import curvature as C  # noqa: N812

from .problems import X, Y, close, cross_entropy, normal

pytestmark = pytest.mark.usefixtures("double")


@jax.custom_vjp
def tanh(x: jax.Array) -> jax.Array:
    return jnp.tanh(x)


tanh.defvjp(lambda x: (jnp.tanh(x), jnp.tanh(x)), lambda y, u: (u * (1 - y**2),))


@jax.custom_vjp
def looped(x: jax.Array) -> jax.Array:
    """Return tanh, whose backward pass has a loop of unknown length, as solvers have."""
    return jnp.tanh(x)


def _backward(y: jax.Array, u: jax.Array) -> tuple[jax.Array]:
    end = jax.lax.while_loop(lambda s: s[0] < 1, lambda s: (s[0] + 1, s[1] * (1 - y**2)), (0, u))
    return (end[1],)


looped.defvjp(lambda x: (jnp.tanh(x), jnp.tanh(x)), _backward)


def model(activation: Any) -> Any:
    def apply(v: jax.Array, x: jax.Array) -> jax.Array:
        return activation(x @ v[:9].reshape(3, 3)) @ v[9:].reshape(3, 3)

    return apply


def test_products_of_a_model_with_a_custom_vjp() -> None:
    v, u = normal(18), normal(18, seed=1)
    arguments = cross_entropy, v, X, Y
    ours, true = C.ggn(model(tanh), *arguments), C.ggn(model(jnp.tanh), *arguments)
    close(ours @ u, true @ u)
    close(ours.dense(), true.dense())
    close(C.diagonal(ours), C.diagonal(true))
    close(C.jacobian(model(tanh), v, X) @ u, C.jacobian(model(jnp.tanh), v, X) @ u)
    loss = lambda activation: lambda v: cross_entropy(model(activation)(v, X), Y)  # noqa: E731
    close(C.hessian(loss(tanh), v) @ u, C.hessian(loss(jnp.tanh), v) @ u)


def test_a_model_without_any_forward_mode() -> None:
    v = normal(18)
    message = (
        r"^apply: a custom_vjp has no forward mode, and its backward pass cannot be differentiated "
        r"\(Reverse-mode differentiation does not work .*\); use a custom_jvp, or for a solver an "
        r"option with a forward mode, such as adjoint=diffrax.DirectAdjoint\(\)"
    )
    for op in (C.ggn(model(looped), cross_entropy, v, X, Y), C.jacobian(model(looped), v, X)):
        with pytest.raises(jtree.ArgumentError, match=message):
            op @ v
