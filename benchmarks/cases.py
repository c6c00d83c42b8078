"""What is measured. Each function runs in a fresh process and returns seconds, bytes and ratios."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree

import jtree

from . import models
from .timing import median, peak, resident, time_call

Result = dict[str, float]


def ravel_large() -> Result:
    """Ravel 124 million float32 in 146 leaves, eagerly."""
    model = models.gpt2()
    pieces = [np.asarray(x).reshape(-1) for x in jax.tree.leaves(model)]
    jtree.destructure(models.many(2))
    grown, size = peak(lambda: jtree.destructure(model)[0]), sum(x.nbytes for x in pieces)
    ours, floor, baseline = median(
        lambda: jtree.destructure(model)[0],
        lambda: np.concatenate(pieces),
        lambda: ravel_pytree(model)[0],
        repeat=7,
        keep=True,
    )
    return {"ours": ours, "floor": floor, "baseline": baseline, "memory in vectors": grown / size}


def unravel_large() -> Result:
    """Unravel the same."""
    model = models.gpt2()
    flat, re = jtree.destructure(model)
    _, unravel = ravel_pytree(model)
    jax.block_until_ready(re(flat))
    before = resident()
    kept = jax.block_until_ready(re(flat))
    grown = resident() - before
    ours, baseline = median(lambda: re(flat), lambda: unravel(flat), repeat=5)
    return {
        "ours": ours,
        "baseline": baseline,
        "memory in models": grown / flat.nbytes * bool(kept),
    }


def _first(make: Callable[[Any], Any]) -> Result:
    model = jax.block_until_ready(models.many(2000))
    jnp.zeros(1).block_until_ready()
    return {"ours": time_call(lambda: make(model))}


def first_ravel() -> Result:
    """Ravel 2,000 leaves for the first time in a process."""
    destructure = jtree.destructure  # imported here, and measured by `imports`
    return _first(lambda model: destructure(model)[0])


def first_ravel_pytree() -> Result:
    """Ravel 2,000 leaves for the first time in a process, with ravel_pytree."""
    return _first(lambda model: ravel_pytree(model)[0])


def first_unravel() -> Result:
    """Unravel 2,000 leaves for the first time in a process."""
    flat, re = jtree.destructure(models.many(2000))
    return {"ours": time_call(lambda: re(flat))}


def first_unravel_pytree() -> Result:
    """Unravel 2,000 leaves for the first time in a process, with ravel_pytree's unravel."""
    flat, unravel = ravel_pytree(models.many(2000))
    return {"ours": time_call(lambda: unravel(flat))}


def _both_ways(model: Any, repeat: int) -> tuple[list[float], list[float]]:
    flat, re = jtree.destructure(model)
    other, unravel = ravel_pytree(model)
    there = median(
        lambda: jtree.destructure(model)[0], lambda: ravel_pytree(model)[0], repeat=repeat
    )
    back = median(lambda: re(flat), lambda: unravel(other), repeat=repeat)
    return there, back


def repeated() -> Result:
    """Ravel and unravel 2,000 leaves again and again."""
    there, back = _both_ways(models.many(2000), 7)
    return {"ravel": there[0], "ravel_pytree": there[1], "unravel": back[0], "its unravel": back[1]}


def tiny() -> Result:
    """Ravel and unravel a model of 5 parameters."""
    model = {"w": jnp.ones((2, 2)), "b": jnp.ones(1)}
    there, back = _both_ways(model, 500)
    return {"ravel": there[0], "ravel_pytree": there[1], "unravel": back[0], "its unravel": back[1]}


def mixed() -> Result:
    """The same at 600 leaves in two dtypes, a third of them no parameters, with ties."""
    model = models.mixed(400)
    there, back = _both_ways(model, 7)
    ties = [("layer00000/b", f"layer{i:05}/b") for i in range(1, 3)]
    for i in range(3):
        model[f"layer{i:05}"]["b"] = model["layer00000"]["b"]
    tied = median(lambda: jtree.destructure(model, ties=ties)[0], repeat=7)[0]
    return {
        "ravel": there[0],
        "ravel_pytree": there[1],
        "unravel": back[0],
        "its unravel": back[1],
        "ravel with ties": tied,
    }


def jitted() -> Result:
    """Compile and run ravel and unravel of 200 leaves inside jit."""
    model = models.many(200)
    flat, re = jtree.destructure(model)
    _, unravel = ravel_pytree(model)
    places = list(zip(re.slices.values(), re.shapes.values(), strict=True))
    functions = {
        "slices": (
            lambda v: [lax.slice_in_dim(v, p.start, p.stop).reshape(s) for p, s in places],
            flat,
        ),
        "unravel": (lambda v: re(v), flat),
        "its unravel": (lambda v: unravel(v), flat),
        "ravel": (lambda m: re.ravel(m), model),
        "ravel_pytree": (lambda m: ravel_pytree(m)[0], model),
    }
    compiled, times = {}, {}
    for name, (function, argument) in functions.items():
        lowered = jax.jit(function).lower(argument)
        times[f"compile {name}"] = time_call(
            lambda low=lowered, n=name: compiled.update({n: low.compile()})
        )
    calls = [lambda n=n: compiled[n](functions[n][1]) for n in functions]
    return times | {
        f"run {n}": t for n, t in zip(functions, median(*calls, repeat=201), strict=True)
    }


def steps() -> Result:
    """One jitted training step over the vector, and over the nested model."""
    result: Result = {}
    for name, make in models.TASKS.items():
        task = make()
        flat, re = jtree.destructure(task.params)
        other, unravel = ravel_pytree(task.params)

        def nested(p: Any, task: Any = task) -> Any:
            grads = jax.grad(task.loss)(p, task.batch)
            return jax.tree.map(lambda a, g: a - 0.01 * g, p, grads)

        def over(v: Any, back: Any, task: Any = task) -> Any:
            return v - 0.01 * jax.grad(lambda v: task.loss(back(v), task.batch))(v)

        calls, times = [], []
        for step, argument in (
            (nested, task.params),
            (lambda v, re=re, over=over: over(v, re), flat),
            (lambda v, unravel=unravel, over=over: over(v, unravel), other),
        ):
            lowered = jax.jit(step).lower(argument)
            kept: list[Any] = []
            times.append(time_call(lambda kept=kept, low=lowered: kept.append(low.compile())))
            calls.append(lambda kept=kept, argument=argument: kept[0](argument))
        for what, seconds in {"run": median(*calls, repeat=25), "compile": times}.items():
            names = (f"{name}, {what}, nested", f"{name}, {what}", f"{name}, {what}, ravel_pytree")
            result |= dict(zip(names, seconds, strict=True))
    return result


def imports() -> Result:
    """Import jtree after jax, and all that its first name brings, in processes of their own."""
    code = (
        "import time; t = time.perf_counter(); import jax, jax.numpy, numpy; "
        "u = time.perf_counter(); import jtree; jtree.destructure; "
        "print(u - t, time.perf_counter() - u)"
    )
    # The first run compiles to bytecode, as installers do, and does not count.
    with tempfile.TemporaryDirectory() as folder:
        env = os.environ | {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": folder}
        command = [sys.executable, "-c", code]
        runs = [subprocess.check_output(command, text=True, env=env) for _ in range(12)][1:]
    pairs = [tuple(map(float, run.split())) for run in runs]
    baseline, ours = (sorted(times)[len(pairs) // 2] for times in zip(*pairs, strict=True))
    return {"ours": ours, "baseline": baseline}


def queries() -> Result:
    """Walk 2,000 leaves, against jax.tree.flatten_with_path."""
    model = models.many(2000)
    names = ("flatten_with_path", "trainables", "state", "modules", "count")
    calls: list[Callable[[], Any]] = [lambda: (jax.tree.flatten_with_path(model), 0)[1]]
    for name in names[1:]:
        function = getattr(jtree, name)
        calls.append(lambda function=function: (function(model), 0)[1])
    return dict(zip(names, median(*calls, repeat=41), strict=True))


def scaling() -> dict[str, list[list[float]]]:
    """Times against the number of leaves, and against the number of parameters."""
    curves: dict[str, list[list[float]]] = {}
    for leaves in (2, 8, 32, 128, 512):
        _add_points(curves, "leaves", leaves, models.many(leaves))
    for size in (6 * 10**2, 6 * 10**3, 6 * 10**4, 6 * 10**5, 6 * 10**6):
        _add_points(curves, "parameters", 7 * size / 6 * 10, models.many(20, size))
    return curves


def _add_points(curves: dict[str, list[list[float]]], axis: str, x: float, model: Any) -> None:
    there, back = _both_ways(model, 7)
    values = dict(
        zip(
            ("ravel", "ravel_pytree", "unravel", "unravel of ravel_pytree"),
            [*there, *back],
            strict=True,
        )
    )
    values |= _torch(model)
    for name, y in values.items():
        curves.setdefault(f"{axis}: {name}", []).append([x, y])


def _torch(model: Any) -> Result:
    """The same with torch, where it is installed."""
    try:
        import torch
        from torch.nn.utils import parameters_to_vector, vector_to_parameters
    except ImportError:
        return {}
    parameters = [torch.from_numpy(np.array(x)) for x in jax.tree.leaves(model)]
    vector = parameters_to_vector(parameters)
    there, back = median(
        lambda: (parameters_to_vector(parameters), 0)[1],
        lambda: (vector_to_parameters(vector, parameters), 0)[1],
    )
    return {"torch parameters_to_vector": there, "torch vector_to_parameters": back}
