"""The networks, losses and matrices that the tests of curvature share.

Expected values come from NumPy or from `jax.hessian`, and are computed once: most of the time of
these tests is compilation.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jtree
from jtree import curvature as C  # noqa: N812 (as in the other tests)

KEY = jax.random.key(0)
X = np.random.default_rng(7).normal(size=(7, 3))
Y = np.array([0, 2, 1, 1, 0, 2, 2])


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def normal(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(random(*shape, seed=seed))


def close(a: Any, b: Any, tol: float = 1e-9) -> None:
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=tol, atol=tol)


# A perceptron


def network(sizes: tuple[int, ...] = (3, 4, 3)) -> Any:
    return {
        f"layer{i}": {
            "b": jnp.asarray(random(m, seed=i) / 9),
            "w": jnp.asarray(random(n, m, seed=i) / n**0.5),
        }
        for i, (n, m) in enumerate(pairwise(sizes))
    }


def forward(model: Any, x: jax.Array, activation: Any = jnp.tanh) -> jax.Array:
    for i, layer in enumerate(model.values()):
        x = (activation(x) if i else x) @ layer["w"] + layer["b"]
    return x


def cross_entropy(logits: jax.Array, y: jax.Array) -> jax.Array:
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1).mean()


def mse(outputs: jax.Array, y: jax.Array) -> jax.Array:
    return ((outputs - y) ** 2).mean()


def apply(flat: jax.Array, inputs: Any) -> jax.Array:
    re, x = inputs
    return forward(re(flat), x)


def loss(flat: jax.Array, re: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    return cross_entropy(forward(re(flat), x), y)


@cache
def point() -> tuple[jax.Array, Any]:
    """Return the vector of the perceptron, of 31 parameters, and its labels."""
    return jtree.destructure(network())


def network_hessian() -> C.Operator:
    flat, re = point()
    return C.hessian(loss, flat, re, X, Y, re=re)


def network_ggn() -> C.Operator:
    flat, re = point()
    return C.ggn(apply, cross_entropy, flat, (re, X), Y, re=re)


@cache
def true_hessian() -> np.ndarray:
    flat, re = point()
    matrix = jax.jit(jax.hessian(loss))(flat, re, jnp.asarray(X), jnp.asarray(Y))
    return np.asarray(matrix)


@cache
def true_jacobian() -> np.ndarray:
    flat, re = point()
    jacobian = jax.jit(jax.jacobian(apply))(flat, (re, jnp.asarray(X)))
    return np.asarray(jacobian).reshape(-1, flat.size)


@cache
def true_ggn() -> np.ndarray:
    """Return `J.T @ H @ J` with the closed form of the Hessian of cross-entropy."""
    flat, re = point()
    p = softmax(np.asarray(apply(flat, (re, jnp.asarray(X)))))
    jacobians = true_jacobian().reshape(*p.shape, flat.size)
    blocks = np.einsum("nc,cd->ncd", p, np.eye(p.shape[1])) - p[:, :, None] * p[:, None]
    return np.einsum("nci,ncd,ndj->ij", jacobians, blocks, jacobians) / len(p)


def softmax(logits: np.ndarray) -> np.ndarray:
    exponential = np.exp(logits - logits.max(-1, keepdims=True))
    return exponential / exponential.sum(-1, keepdims=True)


# Operators with a given matrix


def matrix_of(*values: float) -> np.ndarray:
    """Return a symmetric matrix with these eigenvalues."""
    basis = np.linalg.qr(random(len(values), len(values)))[0]
    return basis * np.array(values) @ basis.T


def form(v: jax.Array, matrix: jax.Array) -> jax.Array:
    return v @ (matrix @ v) / 2


def operator(matrix: Any) -> C.Operator:
    return C.hessian(form, jnp.zeros(len(matrix)), jnp.asarray(matrix))


def weighted(v: jax.Array, values: jax.Array) -> jax.Array:
    return (values * v * v).sum() / 2


def diagonal_operator(values: Any) -> C.Operator:
    """Return an operator with these eigenvalues, in the order of the vector."""
    return C.hessian(weighted, jnp.ones(len(values)), jnp.asarray(values, jnp.float32))


def square(v: jax.Array) -> jax.Array:
    return (v**2).sum()


def quadratic(v: jax.Array) -> C.Operator:
    return C.hessian(square, v)


def empty() -> C.Operator:
    """Return an operator without rows."""
    return C.hessian(square, jnp.zeros(0))


# Regression in batches


TARGET = np.arange(7.0)


def fit(v: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    return ((jnp.tanh(x @ v) - y) ** 2).mean()


def in_batches(**options: Any) -> tuple[C.Operator, C.Operator]:
    """Return an operator over batches of 3 and 4 examples, and that of all seven."""
    v = normal(3)
    batches = [(X[:3], TARGET[:3]), (X[3:], TARGET[3:])]
    batched = C.batched(batches, lambda batch: C.hessian(fit, v, *batch), **options)
    return batched, C.hessian(fit, v, X, TARGET)
