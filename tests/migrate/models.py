"""Models, sources and comparisons that several tests of conversion share."""

from __future__ import annotations

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jtree
from jtree import migrate

from ..same import normal


class Holder(nnx.Module):
    """A model with these attributes."""

    def __init__(self, **attributes: Any) -> None:
        for name, x in attributes.items():
            setattr(self, name, x)


def linear(n: int = 4, m: int = 4) -> nnx.Linear:
    return nnx.Linear(n, m, rngs=nnx.Rngs(0))


def stacked(number: int) -> nnx.Linear:
    """Return a stack of layers."""

    @nnx.split_rngs(splits=number)
    @nnx.vmap
    def create(rngs: nnx.Rngs) -> nnx.Linear:
        return nnx.Linear(4, 4, rngs=rngs)

    return create(nnx.Rngs(0))


class TwoLayers(nnx.Module):
    """Two numbered layers, an array outside of them, and a PRNG key."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.layers = nnx.List([nnx.Linear(3, 3, rngs=rngs) for _ in range(2)])
        self.scale = nnx.Param(jnp.ones(3))
        self.drop = nnx.Dropout(0.5, rngs=rngs)


def two_layers_source() -> dict[str, Any]:
    """Return a state dict of PyTorch for `TwoLayers`."""
    weights = {f"layers.{n}.weight": normal(3, 3) for n in range(2)}
    return weights | {f"layers.{n}.bias": normal(3) for n in range(2)} | {"scale": normal(3)}


def randomised(tree: Any) -> Any:
    """Return a model with other values, all of them positive."""
    flat, re = jtree.destructure(tree, which="all")
    return re(jax.random.uniform(jax.random.key(1), flat.shape, flat.dtype, 0.5, 1.5))


def assert_equal(a: Any, b: Any) -> None:
    """Assert that two models have the same paths, and the same values in all numeric arrays."""
    left, right = jtree.walk(a).slots, jtree.walk(b).slots
    assert [x.path for x in left] == [x.path for x in right]
    for x, y in zip(left, right, strict=True):
        if jtree.isnumeric(x.value):
            np.testing.assert_array_equal(np.asarray(x.value), np.asarray(y.value), x.path)


def refusal(model: Any, source: Any, **options: Any) -> str:
    """Return the message with which a conversion is refused."""
    with pytest.raises(jtree.LoadError) as caught:
        migrate.convert(model, source, **options)
    return str(caught.value)


def randomised_torch(module: Any) -> Any:
    """Return a module of PyTorch with other values, in evaluation."""
    init = sys.modules["torch"].nn.init
    for x in module.parameters():
        init.normal_(x, std=0.5)
    for x in module.buffers():
        if x.is_floating_point():
            init.uniform_(x, 0.5, 2.0)
    return module.eval()


def channels_first(x: Any) -> Any:
    """Return a batch with its channels moved to the front."""
    return np.moveaxis(x, -1, 1)


def channels_last(x: Any) -> Any:
    """Return a batch with its channels moved to the back."""
    return np.moveaxis(np.asarray(x), 1, -1)
