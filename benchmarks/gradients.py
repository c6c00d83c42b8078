"""Gradients and training steps over the vector, against the nested model. No first call is warm."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jtree

from . import models
from .timing import median, peak, time_call

Result = dict[str, float]

TASKS: dict[str, Callable[[], models.Task]] = {
    "wide": partial(models.mlp, 10, 512),
    "deep": partial(models.mlp, 100, 128),
    "transformer": partial(models.transformer, 24),  # 144 leaves
    "leaves": partial(models.mlp, 1000, 16, 32),  # 2,000 leaves
    "gpt2": partial(models.transformer, 12, 256),
}
ADAM = optax.adam(1e-3)


def _gradients(task: models.Task) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return calls of the nested gradient, and of the one over the vector."""
    flat, re = jtree.destructure(task.params)
    nested, over = jax.jit(jax.value_and_grad(task.loss)), re.value_and_grad(task.loss)
    return lambda: nested(task.params, task.batch), lambda: over(flat, task.batch)


def _products(task: models.Task) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return calls of the nested Hessian-vector product, and of the one over the vector."""
    flat, re = jtree.destructure(task.params)

    @jax.jit
    def nested(params: Any, tangent: Any) -> Any:
        return jax.jvp(lambda p: jax.grad(task.loss)(p, task.batch), (params,), (tangent,))[1]

    over = re.hvp(task.loss)
    return lambda: nested(task.params, task.params), lambda: over(flat, flat, task.batch)


def _operators(task: models.Task) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return calls of the nested Hessian-vector product, and of the one by an operator."""
    flat, _ = jtree.destructure(task.params)
    nested, _ = _products(task)
    return nested, lambda: jtree.curvature.hessian(task.loss, task.params, task.batch) @ flat


def _steps(task: models.Task) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return calls of a step of Adam on the nested model, and on the vector."""
    copy = jax.tree.map(jnp.array, task.params)
    flat, re = jtree.destructure(task.params)
    over = re.value_and_grad(task.loss)

    @partial(jax.jit, donate_argnums=0)
    def nested(carry: Any) -> Any:
        params, state = carry
        value, gradient = jax.value_and_grad(task.loss)(params, task.batch)
        updates, state = ADAM.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), value

    @partial(jax.jit, donate_argnums=0)
    def update(carry: Any, gradient: Any) -> Any:
        flat, state = carry
        updates, state = ADAM.update(gradient, state, flat)
        return optax.apply_updates(flat, updates), state

    carries = {"nested": (copy, ADAM.init(copy)), "over": (flat, ADAM.init(flat))}

    def step_nested() -> Any:
        carries["nested"], value = nested(carries["nested"])
        return carries["nested"], value

    def step_over() -> Any:
        value, gradient = over(carries["over"][0], task.batch)
        carries["over"] = update(carries["over"], gradient)
        return carries["over"], value

    return step_nested, step_over


KINDS = {
    "gradient": _gradients,
    "product": _products,
    "operator": _operators,
    "step": _steps,
}


def _first(kind: str, task: str, which: int) -> Result:
    """Time the first call in a process."""
    return {"seconds": time_call(KINDS[kind](TASKS[task]())[which])}


first = SimpleNamespace(
    **{
        f"{kind}_{task}_{name}": partial(_first, kind, task, which)
        for kind in KINDS
        for task in TASKS
        for which, name in enumerate(("nested", "flat"))
    }
)


def again() -> Result:
    """Time calls again: the nested gradient and a copy of its bytes, and that over the vector."""
    result = {}
    for name in ("wide", "deep", "transformer", "leaves"):
        task = TASKS[name]()
        nested, over = _gradients(task)
        bytes_of_gradient = np.ones(jtree.count(task.params), np.float32)
        times = median(nested, over, lambda x=bytes_of_gradient: (x.copy(), 0)[1], repeat=25)
        result |= dict(zip((f"{name} nested", name, f"{name} copy"), times, strict=True))
    return result


def steps_again() -> Result:
    """Time steps of Adam of a GPT-2 of 12 layers of width 256, again."""
    nested, over = median(*_steps(TASKS["gpt2"]()), repeat=15)
    return {"nested": nested, "flat": over}


def _memory(which: int) -> Result:
    """Return the memory of a step of Adam that was compiled before, in vectors of parameters."""
    task = models.mlp(10, 2048, 32)
    call = _steps(task)[which]
    for _ in range(3):  # the first vector has memory of NumPy, which is copied and not donated
        jax.block_until_ready(call())
    gc.collect()
    getattr(ctypes.CDLL(None), "malloc_trim", bool)(0)  # of glibc: gives back what was freed
    return {"vectors": peak(call) / (4 * jtree.count(task.params))}


memory_nested = partial(_memory, 0)
memory_flat = partial(_memory, 1)
