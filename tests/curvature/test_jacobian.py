"""Jacobians, and the neural tangent kernel."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtree import curvature as C  # noqa: N812

from .problems import X, apply, close, normal, point, random, true_jacobian

pytestmark = pytest.mark.usefixtures("double")


def test_jacobians_and_the_neural_tangent_kernel() -> None:
    flat, re = point()
    op, true = C.jacobian(apply, flat, (re, X)), true_jacobian()
    v, u = random(31, 2), random(21, 3)
    assert (op.shape, op.T.shape) == ((21, 31), (31, 21))
    close(op @ v, true @ v)
    close(op @ v[:, 0], true @ v[:, 0])
    close(op.T @ u, true.T @ u)
    close(op.dense(), true)
    close(op.T.dense(), true.T)
    close((op @ op.T).dense(), true @ true.T)
    close((op.T @ op).dense(), true.T @ true)


def test_a_square_jacobian() -> None:
    f = lambda v, x: v**2 * x[0] + v[::-1]  # noqa: E731
    v = normal(3)
    close(C.jacobian(f, v, X).dense(), jax.jacobian(lambda v: f(v, jnp.asarray(X)))(v))


def test_a_jacobian_is_multiplied_from_the_left_and_called() -> None:
    flat, v = normal(3), np.linspace(0, 1, 3)
    op, u = C.jacobian(lambda v, x: jnp.tanh(x @ v), flat, X), np.linspace(0, 1, 7)
    close(u @ op, op.T @ u)
    np.testing.assert_array_equal(op(v), op @ v)
