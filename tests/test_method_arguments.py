"""Arguments of the wrong type: every public method raises an error of jtree."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtree
from jtree import callbacks, init, layers, migrate

from .test_arguments import Call, directory, loss, raw_errors  # noqa: F401 (a fixture)

KEY = jax.random.key(0)
X = jnp.ones((2, 5, 4))
IMAGE = jnp.ones((1, 6, 6, 4))

# Layers by name, each with an input.
LAYERS: dict[str, tuple[Callable[[], Any], Any]] = {
    "AdaptiveMaxPool": (lambda: layers.AdaptiveMaxPool((2, 2)), IMAGE),
    "AdaptiveMeanPool": (lambda: layers.AdaptiveMeanPool((2, 2)), IMAGE),
    "BatchNorm": (lambda: layers.BatchNorm(4), X),
    "Chain": (lambda: layers.Chain(layers.Dense(4, 3, key=KEY), jnp.tanh), X),
    "Conv": (lambda: layers.Conv((3, 3), 4, 2, key=KEY), IMAGE),
    "ConvTranspose": (lambda: layers.ConvTranspose((3, 3), 4, 2, key=KEY), IMAGE),
    "Dense": (lambda: layers.Dense(4, 3, key=KEY), X),
    "Dropout": (lambda: layers.Dropout(0.5), X),
    "Embedding": (lambda: layers.Embedding(5, 4, key=KEY), jnp.arange(3)),
    "GRU": (lambda: layers.GRU(4, 3, key=KEY), X),
    "GRUCell": (lambda: layers.GRUCell(4, 3, key=KEY), X[0]),
    "GRUv3": (lambda: layers.GRUv3(4, 3, key=KEY), X),
    "GRUv3Cell": (lambda: layers.GRUv3Cell(4, 3, key=KEY), X[0]),
    "GroupNorm": (lambda: layers.GroupNorm(4, 2), X),
    "InstanceNorm": (lambda: layers.InstanceNorm(4), IMAGE),
    "LSTM": (lambda: layers.LSTM(4, 3, key=KEY), X),
    "LSTMCell": (lambda: layers.LSTMCell(4, 3, key=KEY), X[0]),
    "LayerNorm": (lambda: layers.LayerNorm(4), X),
    "MaxPool": (lambda: layers.MaxPool((2, 2)), IMAGE),
    "MeanPool": (lambda: layers.MeanPool((2, 2)), IMAGE),
    "MultiHeadAttention": (lambda: layers.MultiHeadAttention(4, heads=2, key=KEY), X),
    "Parallel": (lambda: layers.Parallel(jnp.add, *(layers.Scale(4) for _ in range(2))), X),
    "RNN": (lambda: layers.RNN(4, 3, key=KEY), X),
    "RNNCell": (lambda: layers.RNNCell(4, 3, key=KEY), X[0]),
    "Recur": (lambda: layers.Recur(layers.RNNCell(4, 3, key=KEY)), X),
    "Scale": (lambda: layers.Scale(4), X),
    "SkipConnection": (lambda: layers.SkipConnection(layers.Scale(4), jnp.add), X),
}


@cache
def methods() -> dict[str, tuple[Any, Call]]:
    """Return a call of every public method that takes arguments."""
    model = {"w": jnp.ones(2)}
    flat, re = jtree.destructure(model)
    walked = jtree.walk(model)
    jtree.save("saved", model)
    manager = jtree.Manager("managed")
    manager.save(0, model)
    manager.wait_until_finished()
    migrated = migrate.apply([migrate.rename("w", "v")], model)
    return {
        "Checkpoint.__getitem__": (jtree.open("saved").__getitem__, Call(("w",))),
        "Diff.message": (jtree.diff(model, {}).message, Call((3,))),
        "Manager.metrics": (manager.metrics, Call((0,))),
        "Manager.restore": (manager.restore, Call((), {"into": model, "step": 0})),
        "Manager.save": (_saves(manager), Call((model,))),
        "Restructure.__call__": (re, Call((flat,))),
        "Restructure.__getitem__": (re.__getitem__, Call(("w",))),
        "Restructure.grad": (re.grad, Call((total,))),
        "Restructure.hvp": (re.hvp, Call((total,))),
        "Restructure.value_and_grad": (re.value_and_grad, Call((total,))),
        "Restructure.ravel": (re.ravel, Call((model,))),
        "Restructure.ravel_grad": (re.ravel_grad, Call((model,))),
        "Restructure.refresh": (re.refresh, Call((model,))),
        "Walk.fold": (walked.fold, Call((lambda x: x, lambda *parts: parts[-1]))),
        "Walk.labels": (walked.labels, Call((), {"keep": jtree.isnumeric})),
        "Walk.rebuild": (walked.rebuild, Call(([jnp.ones(2)],))),
        "callbacks.Trigger.__call__": (callbacks.patience(loss, 2), Call((flat,))),
        "init.Init.__call__": (init.randn32, Call((KEY, (2, 2), jnp.float32))),
        "init.Initialiser.__call__": (init.randn32(), Call((KEY, (2, 2), jnp.float32))),
        "layers.Dense.from_arrays": (layers.Dense.from_arrays, Call((np.ones((2, 2)), True))),
        "migrate.Migrated.__getitem__": (migrated.__getitem__, Call(("v",))),
        "migrate.Migrated.select": (migrated.select, Call(("v",))),
    }


def total(model: Any) -> Any:
    return model["w"].sum()


def _saves(manager: Any) -> Any:
    def save(tree: Any, step: Any = None, *, force: Any = False, metadata: Any = None) -> None:
        step = len(manager.all_steps()) + 1 if step is None else step
        manager.save(step, tree, force=force, metadata=metadata)
        manager.wait_until_finished()

    return save


def method_names() -> Iterator[str]:
    """Yield the public methods that take an argument, of the classes that are no rule or layer."""
    parts = {"": jtree, "callbacks.": callbacks, "init.": init, "migrate.": migrate}
    for prefix, module in parts.items():
        for name in module.__all__:
            cls = getattr(module, name)
            if inspect.isclass(cls) and not issubclass(cls, BaseException | migrate.Rule):
                yield from (f"{prefix}{name}.{method}" for method in _with_arguments(cls))


def _with_arguments(cls: type) -> Iterator[str]:
    for name, x in vars(cls).items():
        public = not name.startswith("_") or name in ("__call__", "__getitem__")
        if public and inspect.isfunction(x) and len(inspect.signature(x).parameters) > 1:
            yield name


NAMES = [
    "Checkpoint.__getitem__",
    "Diff.message",
    "Manager.metrics",
    "Manager.restore",
    "Manager.save",
    "Restructure.__call__",
    "Restructure.__getitem__",
    "Restructure.grad",
    "Restructure.hvp",
    "Restructure.ravel",
    "Restructure.ravel_grad",
    "Restructure.refresh",
    "Restructure.value_and_grad",
    "Walk.fold",
    "Walk.labels",
    "Walk.rebuild",
    "callbacks.Trigger.__call__",
    "init.Init.__call__",
    "init.Initialiser.__call__",
    "layers.Dense.from_arrays",
    "migrate.Migrated.__getitem__",
    "migrate.Migrated.select",
]

# The arguments of these go to a function of the user, or come from jtree itself.
PASSED_ON = {"Restructure.apply", "Restructure.assemble", "callbacks.Throttled.__call__"}


@pytest.mark.filterwarnings("ignore")
def test_every_method_with_arguments_is_tried() -> None:
    assert {*NAMES} == methods().keys()
    assert not {*method_names()} - {*NAMES} - PASSED_ON


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_argument_of_a_method_raises_an_error_of_jtree(name: str) -> None:
    assert not raw_errors(*methods()[name])


def test_every_layer_is_tried() -> None:
    classes = {x for x in layers.__all__ if inspect.isclass(getattr(layers, x))}
    assert classes == LAYERS.keys()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", LAYERS)
def test_a_wrong_input_of_a_layer_raises_an_error_of_jtree(name: str) -> None:
    make, x = LAYERS[name]
    assert not raw_errors(make(), Call((x,)))
