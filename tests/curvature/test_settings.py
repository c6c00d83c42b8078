"""Every function of curvature under the settings of JAX that find mistakes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jtree
from jtree import curvature as C  # noqa: N812

from .problems import form

SETTINGS: dict[str, Any] = {
    "rank promotion": lambda: jax.numpy_rank_promotion("raise"),
    "debug nans": lambda: jax.debug_nans(True),
    "x64": lambda: jax.enable_x64(True),
    "check tracer leaks": lambda: jax.check_tracer_leaks(True),
    "threefry": lambda: jax.threefry_partitionable(not jax.config.jax_threefry_partitionable),
    "disable jit": lambda: jax.disable_jit(),
}
TOGETHER = {
    "all but disable jit": [*SETTINGS][:-1],
    "rank promotion and disable jit": ["rank promotion", "disable jit"],
}
QUICK = {  # the other functions are built from the same parts, and are slow tests
    *("all but disable jit-" + name for name in ("destructure", "hessian", "ggn", "solve cg")),
    *("all but disable jit-" + name for name in ("diagonal xdiag", "spectrum density", "newton")),
    "rank promotion and disable jit-destructure",
    "rank promotion and disable jit-diagonal xdiag",
}
SAMPLED = (
    "hutchinson",
    "xdiag",
    "xtrace",
    "spectrum trace",
    "spectrum density",
    "fisher mc",
    "nystrom",
)

KEY = np.array([0, 1], np.uint32)
X, Y = np.array([[1.0], [-2.0], [0.5]], "f4"), np.array([0, 1, 1], "i4")
B = np.array([1.0, 2.0, 3.0], "f4")
MATRIX = np.array([[4.0, 1.0, 0.0], [1.0, 3.0, 0.5], [0.0, 0.5, 2.0]], "f4")


def apply(v: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.tanh(x @ v[:2].reshape(1, 2)) + v[2]


def cross_entropy(out: jax.Array, y: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(out, y).mean()


def loss(v: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    return cross_entropy(apply(v, x), y) + (v**2).sum() / 20


def point() -> tuple[jax.Array, jtree.Restructure]:
    return jtree.destructure({"b": jnp.array([0.1, 0.5], "f4"), "w": jnp.array([-0.4], "f4")})


def quadratic() -> C.Operator:
    flat, re = point()
    return C.hessian(form, flat, MATRIX, re=re)


def hessian(x: Any = X, y: Any = Y) -> C.Operator:
    flat, re = point()
    return C.hessian(loss, flat, x, y, re=re)


def ggn() -> C.Operator:
    flat, re = point()
    return C.ggn(apply, cross_entropy, flat, X, Y, re=re)


def fisher(kind: Any) -> C.Operator:
    y = Y if kind == "empirical" else None
    return C.fisher(apply, point()[0], X, y, kind=kind, key=KEY if kind == "mc" else None)


def jacobian() -> C.Jacobian:
    return C.jacobian(apply, point()[0], X)


def newton_step() -> Any:
    flat, opt = point()[0], C.newton(loss)
    return opt.update(jax.grad(loss)(flat, X, Y), opt.init(flat), flat, X, Y)


def batched() -> C.Operator:
    return C.batched([(X[:2], Y[:2]), (X[2:], Y[2:])], lambda batch: hessian(*batch))


def value_and_grad() -> Any:
    flat, re = point()
    return jax.value_and_grad(lambda v: (re(v)["w"] ** 2).sum())(flat), re(flat + 1)


def estimate(function: Any, method: str) -> Any:
    return tuple(jax.tree.leaves(function(quadratic(), method, key=KEY, samples=3)))


def preconditioned() -> Any:
    blocks = C.block_diagonal(quadratic())
    return C.solve(quadratic(), B, method="cg", preconditioner=blocks), blocks.dense()


FUNCTIONS: dict[str, Callable[[], Any]] = {
    "destructure": value_and_grad,
    "hvp": lambda: C.hvp(loss, point()[0], B, X, Y),
    "hessian": lambda: (hessian() @ B, hessian() @ np.eye(3, dtype="f4"), hessian().dense()),
    "block": lambda: (quadratic().block("w", "b"), quadratic().restrict("w").dense()),
    "combination": lambda: (2 * quadratic() + ggn()).damped(0.1) @ B,
    "ggn": lambda: (ggn() @ B, ggn().dense(), C.diagonal(ggn())),
    "fisher": lambda: (fisher("exact").dense(), fisher("empirical").dense()),
    "fisher mc": lambda: fisher("mc") @ B,
    "jacobian": lambda: (jacobian() @ B, jacobian().T @ np.ones(6, "f4"), jacobian().dense()),
    "batched": lambda: (batched() @ B, batched().dense()),
    "diagonal": lambda: C.diagonal(quadratic()),
    "diagonal hutchinson": lambda: estimate(C.diagonal, "hutchinson"),
    "diagonal xdiag": lambda: estimate(C.diagonal, "xdiag"),
    "trace": lambda: C.trace(quadratic()).value,
    "trace hutchinson": lambda: estimate(C.trace, "hutchinson"),
    "trace xtrace": lambda: estimate(C.trace, "xtrace"),
    "eigsh": lambda: C.eigsh(quadratic(), 2).values,
    "spectrum density": lambda: C.spectrum(quadratic(), key=KEY).density(np.ones((2, 3), "f4")),
    "spectrum cdf": lambda: C.spectrum(quadratic(), method="exact").cdf([1.0, 3.0]),
    "spectrum trace": lambda: C.spectrum(quadratic(), key=KEY).trace(jnp.log),
    "inertia": lambda: C.inertia(quadratic()),
    "norm": lambda: C.norm(quadratic()),
    "cond": lambda: C.cond(quadratic()),
    "solve": lambda: C.solve(quadratic(), B),
    "solve cholesky": lambda: C.solve(quadratic(), B, method="cholesky"),
    "solve cg": lambda: C.solve(quadratic(), B, method="cg"),
    "solve minres": lambda: C.solve(quadratic(), B, method="minres"),
    "solve columns": lambda: C.solve(quadratic(), np.eye(3, dtype="f4"), method="cg"),
    "newton": newton_step,
    "inverse": lambda: C.inverse(quadratic(), 0.1) @ B,
    "layerwise": lambda: (lambda x: (x.traces, x.largest))(C.layerwise(quadratic())),
    "block_diagonal": preconditioned,
    "nystrom": lambda: C.nystrom(quadratic(), rank=2, key=KEY) @ B,
}


def check(name: str, settings: Sequence[str]) -> None:
    expected = jax.tree.leaves(FUNCTIONS[name]())
    with ExitStack() as stack:
        for setting in settings:
            stack.enter_context(SETTINGS[setting]())
        results = jax.tree.leaves(FUNCTIONS[name]())
    if not name.endswith(SAMPLED):
        for a, b in zip(results, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def parameters(names: Iterable[str]) -> list[Any]:
    """Return every combination of settings and functions; few of them are quick tests."""
    return [
        pytest.param(
            name, function, marks=() if f"{name}-{function}" in QUICK else pytest.mark.slow
        )
        for name in names
        for function in FUNCTIONS
    ]


@pytest.mark.parametrize(("settings", "name"), parameters(TOGETHER))
def test_functions_under_strict_settings(settings: str, name: str) -> None:
    check(name, TOGETHER[settings])


@pytest.mark.parametrize(("setting", "name"), parameters(SETTINGS))
def test_functions_under_each_setting(setting: str, name: str) -> None:
    check(name, [setting])
