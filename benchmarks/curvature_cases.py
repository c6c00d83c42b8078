"""Benchmarks of curvature. Each function runs in a fresh process."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jtree import curvature
from jtree.curvature._autodiff import dense as _dense

from .curvature_models import BATCH, LAYERS, Problem, apply, cross_entropy, loss, problem
from .timing import median, peak, time_call

Result = dict[str, float]


def _hessian(at: Problem) -> Any:
    return curvature.hessian(loss, at.flat, at.re, at.x, at.y, re=at.re)


def _torch_hessian(at: Problem) -> Any:
    """Return a function that computes the same with torch, or None without it."""
    try:
        import torch
    except ImportError:
        return None
    x, y = torch.from_numpy(np.array(at.x)), torch.from_numpy(np.array(at.y)).long()
    flat = torch.from_numpy(np.array(at.flat))

    slices = list(at.re.slices.values())

    def value(v: Any) -> Any:
        h = x
        for i, (b, w) in enumerate(zip(slices[::2], slices[1::2], strict=True)):
            h = (torch.tanh(h) if i else h) @ v[w].reshape(h.shape[1], -1) + v[b]
        return torch.nn.functional.cross_entropy(h, y)

    return lambda: (torch.func.hessian(value)(flat), 0)[1]


def _dense_hessian(size: int) -> Result:
    at = problem(LAYERS[size])
    op, seconds = _hessian(at), dict[str, float]()
    lowered = jax.jit(jax.hessian(loss)).lower(at.flat, at.re, at.x, at.y)
    compiled: list[Any] = []
    seconds["compile jax"] = time_call(lambda: compiled.append(lowered.compile()))
    hessian = compiled[0]
    lowered = _dense.compute_matrix.lower(op, "auto", None, False)
    seconds["compile"] = time_call(lambda: compiled.append(lowered.compile()))
    jax.block_until_ready(op.dense())
    reference = lambda: hessian(at.flat, at.re, at.x, at.y)  # noqa: E731
    seconds |= dict(zip(("ours", "jax"), median(op.dense, reference, repeat=9), strict=True))
    torch = _torch_hessian(at)
    if torch:
        seconds["torch"] = median(torch, repeat=2)[0]
    return seconds


dense_2 = partial(_dense_hessian, 2)
dense_5 = partial(_dense_hessian, 5)
dense_10 = partial(_dense_hessian, 10)


def dense_memory() -> Result:
    """Peak memory of a dense Hessian of 10,000 parameters, in sizes of the matrix."""
    at = problem(LAYERS[10])
    op = _hessian(at)
    size = 4 * op.size**2
    return {"first": peak(op.dense) / size, "again": peak(op.dense) / size}


def dense_memory_jax() -> Result:
    """The same with jax.hessian."""
    at = problem(LAYERS[10])
    function = jax.jit(jax.hessian(loss))
    return {"jax": peak(lambda: function(at.flat, at.re, at.x, at.y)) / (4 * at.flat.size**2)}


def products() -> Result:
    """One product, one gradient, and one product with 32 columns."""
    return _products((64, 512, 512, 10))


def products_small() -> Result:
    """The same with 10,000 parameters."""
    return _products(LAYERS[10])


def products_quick() -> Result:
    """The same with 10,000 parameters and 32 examples, where calls take as long as products."""
    return _products(LAYERS[10], 32)


def _products(layers: tuple[int, ...], batch: int = BATCH) -> Result:
    at = problem(layers, batch)
    args = (at.re, at.x, at.y)
    op, gradient = _hessian(at), jax.jit(jax.grad(loss))

    @jax.jit
    def reference(flat: jax.Array, v: jax.Array, *args: Any) -> jax.Array:
        product: jax.Array = jax.jvp(lambda flat: jax.grad(loss)(flat, *args), (flat,), (v,))[1]
        return product

    v, column = jnp.ones((op.size, 32)), jnp.ones(op.size)
    calls = [
        lambda: op @ column,
        lambda: gradient(at.flat, *args),
        lambda: reference(at.flat, column, *args),
    ]
    # Separately: after 32 columns the allocator fetches all memory anew for the next function.
    seconds = dict(zip(("one", "gradient", "theirs"), median(*calls, repeat=101), strict=True))
    return seconds | {"many": median(lambda: op @ v, repeat=11)[0]}


def products_alone() -> Result:
    """The same in one thread; the process is started with one thread because of the name."""
    return products()


def eigenpairs() -> Result:
    """Six eigenpairs of a Hessian of 5,000 parameters, and SciPy's to the same tolerance."""
    from scipy.sparse.linalg import LinearOperator, eigsh

    at = problem(LAYERS[5])
    op, args = _hessian(at), (at.re, at.x, at.y)

    @jax.jit
    def reference(v: jax.Array) -> jax.Array:
        product: jax.Array = jax.jvp(lambda flat: jax.grad(loss)(flat, *args), (at.flat,), (v,))[1]
        return product

    def multiply(v: Any) -> Any:
        return np.asarray(reference(v.ravel()))

    theirs = LinearOperator(op.shape, matvec=multiply, dtype=np.float32)
    tol = float(np.finfo(np.float32).eps) ** 0.5
    seconds: Result = {}
    for which in ("LM", "SA"):
        calls = [
            lambda which=which: curvature.eigsh(op, 6, which, tol=tol).values,
            lambda which=which: eigsh(theirs, 6, which=which, tol=tol)[0],
        ]
        times = median(*calls, repeat=15)
        seconds |= dict(zip((which, f"{which} scipy"), times, strict=True))
    return seconds


def gauss_newton() -> Result:
    """Dense Gauss-Newton and Fisher matrices of 10,000 parameters against chunked products."""
    at = problem(LAYERS[10])
    x = (at.re, at.x)
    ggn = curvature.ggn(apply, cross_entropy, at.flat, x, at.y, re=at.re)
    options: Any = {"kind": "empirical", "re": at.re}
    fisher = curvature.fisher(apply, at.flat, x, at.y, **options)

    @jax.jit
    def chunked(op: Any) -> jax.Array:
        linear = op.linear()
        unit = lambda i: (jnp.arange(op.size) == i).astype(op.dtype)  # noqa: E731
        return jax.lax.map(lambda i: linear(unit(i)), jnp.arange(op.size), batch_size=32)

    calls = [ggn.dense, lambda: chunked(ggn), fisher.dense]
    return dict(zip(("ggn", "products", "fisher"), median(*calls, repeat=7), strict=True))


def ggn_diagonal() -> Result:
    """The exact diagonal of 100,000 parameters and 10 classes, and 10 gradients per example."""
    at = problem((64, 384, 192, 10))
    x = (at.re, at.x)
    op = curvature.ggn(apply, cross_entropy, at.flat, x, at.y, re=at.re)

    @jax.jit
    def gradients(flat: jax.Array, re: Any, xs: jax.Array) -> jax.Array:
        def one(x: jax.Array) -> jax.Array:
            _, pull = jax.vjp(lambda v: apply(v, (re, x[None]))[0], flat)
            return (jax.vmap(pull)(jnp.eye(10))[0] ** 2).sum(0)

        parts = xs.reshape(-1, 8, xs.shape[1])
        body = lambda total, part: (total + jax.vmap(one)(part).sum(0), None)  # noqa: E731
        return jax.lax.scan(body, jnp.zeros_like(flat), parts)[0]

    calls = [lambda: curvature.diagonal(op), lambda: gradients(at.flat, at.re, at.x)]
    return dict(zip(("ours", "gradients"), median(*calls, repeat=7), strict=True))
