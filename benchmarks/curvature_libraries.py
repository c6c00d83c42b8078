"""The same operators in other libraries, if they are installed: laplax and curvlinops.

Both run in their fastest configuration: the products of laplax are compiled, and torch has as many
threads as XLA. Their results are compared first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jtree import curvature

from .curvature_models import LAYERS, Problem, apply, cross_entropy, forward, loss, problem
from .timing import median

Result = dict[str, float]
Calls = dict[str, Callable[[], Any]]
COLUMNS = 32


def _ours(at: Problem, v: jax.Array, columns: jax.Array) -> Calls:
    x = (at.re, at.x)
    hessian = curvature.hessian(loss, at.flat, at.re, at.x, at.y, re=at.re)
    ggn = curvature.ggn(apply, cross_entropy, at.flat, x, at.y, re=at.re)
    fisher = curvature.fisher(apply, at.flat, x, at.y, kind="empirical", re=at.re)
    return {
        "Hessian-vector product": lambda: hessian @ v,
        "GGN-vector product": lambda: ggn @ v,
        f"{COLUMNS} GGN-vector products": lambda: ggn @ columns,
        f"{COLUMNS} empirical Fisher products": lambda: fisher @ columns,
        "dense GGN": ggn.dense,
        "exact GGN diagonal": lambda: curvature.diagonal(ggn),
    }


def _laplax(at: Problem, v: jax.Array, columns: jax.Array) -> Calls:
    try:
        from laplax.curv.ggn import create_ggn_mv
        from laplax.curv.hessian import create_hessian_mv
        from laplax.util.mv import diagonal, to_dense
    except ImportError:
        return {}
    model, data = at.re(at.flat), {"input": at.x, "target": at.y}

    def one(input: Any, params: Any) -> Any:
        return forward(params.values(), input)

    def flattened(product: Any) -> Any:
        return lambda u: at.re.ravel(product(at.re(u)))

    whole_batch = {"loss_fn": cross_entropy, "vmap_over_data": False}
    hessian = flattened(create_hessian_mv(one, model, data, **whole_batch))
    summed = flattened(create_ggn_mv(one, model, data, "cross_entropy"))
    ggn = lambda u: summed(u) / len(at.x)  # noqa: E731
    single = {name: jax.jit(f) for name, f in (("hessian", hessian), ("ggn", ggn))}
    many = jax.jit(jax.vmap(ggn, 1, 1))
    whole = jax.jit(lambda: to_dense(ggn, at.flat.size, to_dense_batch_size=COLUMNS))
    return {
        "Hessian-vector product": lambda: single["hessian"](v),
        "GGN-vector product": lambda: single["ggn"](v),
        f"{COLUMNS} GGN-vector products": lambda: many(columns),
        "dense GGN": whole,
        "exact GGN diagonal": lambda: diagonal(ggn, at.flat.size, diagonal_batch_size=COLUMNS),
    }


def _curvlinops(at: Problem, v: jax.Array, columns: jax.Array) -> Calls:
    try:
        import curvlinops
        import torch
    except ImportError:
        return {}
    layers: list[Any] = []
    for layer in at.re(at.flat).values():
        n, m = layer["w"].shape
        linear = torch.nn.Linear(n, m)
        linear.weight.data = torch.from_numpy(np.array(layer["w"].T))
        linear.bias.data = torch.from_numpy(np.array(layer["b"]))
        layers += [linear, torch.nn.Tanh()]
    net = torch.nn.Sequential(*layers[:-1])
    params = [x for linear in layers[::2] for x in (linear.bias, linear.weight)]
    data = [(torch.from_numpy(np.array(at.x)), torch.from_numpy(np.array(at.y)).long())]

    def make(name: str) -> Any:
        kind = getattr(curvlinops, f"{name}LinearOperator")
        return kind(net, torch.nn.CrossEntropyLoss(), params, data, check_deterministic=False)

    def ordered(u: jax.Array) -> Any:
        """Return rows in the order of torch, which has transposed kernels."""
        tail, slices = u.shape[1:], list(at.re.slices.values())
        pieces = []
        for linear, (b, w) in zip(
            layers[::2], zip(slices[::2], slices[1::2], strict=True), strict=True
        ):
            m, n = linear.weight.shape
            pieces += [u[b], jnp.swapaxes(u[w].reshape(n, m, *tail), 0, 1).reshape(n * m, *tail)]
        return torch.from_numpy(np.array(jnp.concatenate(pieces)))

    hessian, ggn, fisher = make("Hessian"), make("GGN"), make("EF")
    vector, matrix = ordered(v), ordered(columns)
    return {
        "Hessian-vector product": lambda: hessian @ vector,
        "GGN-vector product": lambda: ggn @ vector,
        f"{COLUMNS} GGN-vector products": lambda: ggn @ matrix,
        f"{COLUMNS} empirical Fisher products": lambda: fisher @ matrix,
    }  # its dense matrix takes the time of n products


def _norm(x: Any) -> float:
    return float(np.linalg.norm(np.asarray(x)))


def libraries() -> Result:
    """Return the seconds of each library for each task, by `task / library`."""
    at = problem(LAYERS[10])
    v = jax.random.normal(jax.random.key(0), (at.flat.size,))
    columns = jax.random.normal(jax.random.key(1), (at.flat.size, COLUMNS))
    ours, seconds = _ours(at, v, columns), Result()
    others = {"laplax": _laplax(at, v, columns), "curvlinops": _curvlinops(at, v, columns)}
    for work, call in ours.items():
        calls = {"jtree": call} | {name: x[work] for name, x in others.items() if work in x}
        norms = {name: _norm(f()) for name, f in calls.items()}
        if not np.allclose(list(norms.values()), norms["jtree"], rtol=1e-3):
            raise AssertionError(f"{work}: {norms}")
        slow = work.startswith(("dense", "exact"))
        times = median(*calls.values(), repeat=3 if slow else 21)
        seconds |= {f"{work} / {name}": t for name, t in zip(calls, times, strict=True)}
    return seconds
