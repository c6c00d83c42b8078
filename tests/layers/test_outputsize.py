"""The shape of an output, without computing it."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jtree
from jtree import outputsize
from jtree.layers import (
    BatchNorm,
    Chain,
    Conv,
    Dense,
    Dropout,
    MaxPool,
    MeanPool,
    Parallel,
    SkipConnection,
    flatten,
    trainmode,
)

KEY = jax.random.key(0)
IMAGE = (1, 10, 10, 3)
stack = lambda y, x: jnp.concatenate([y, x], -1)  # noqa: E731

SINGLE = [
    (lambda: Chain(Conv((3, 3), 3, 16), Conv((3, 3), 16, 32)), IMAGE, (1, 6, 6, 32)),
    (lambda: Chain(Dense(10, 8, jax.nn.sigmoid), Dense(8, 5), Dense(5, 2)), (30, 10), (30, 2)),
    (lambda: flatten, (10, 5, 5, 3), (10, 75)),
    (
        lambda: Chain(Conv((3, 3), 3, 16), BatchNorm(16), flatten, Dense(1024, 10)),
        (2, 10, 10, 3),
        (2, 10),
    ),
    (lambda: SkipConnection(Conv((3, 3), 3, 16, pad=1), stack), IMAGE, (1, 10, 10, 19)),
    (lambda: Parallel(stack, Conv((3, 3), 3, 16, pad=1), lambda x: x), IMAGE, (1, 10, 10, 19)),
    (lambda: Conv((3, 3), 3, 16, stride=2), (1, 5, 5, 3), (1, 2, 2, 16)),
    (lambda: Conv((3, 3), 3, 16, stride=2, pad=3), (1, 5, 5, 3), (1, 5, 5, 16)),
    (lambda: Conv((3, 3), 3, 16, stride=2, pad=3, dilation=2), (7, 5, 5, 3), (7, 4, 4, 16)),
    (lambda: MaxPool((2, 2), stride=1), (1, 5, 5, 4), (1, 4, 4, 4)),
    (lambda: MeanPool((2, 2), stride=2, pad=3), (1, 5, 5, 2), (1, 5, 5, 2)),
    (lambda: Dropout(0.1), (10, 10), (10, 10)),
    (lambda: trainmode(Dropout(0.1)), (10, 10), (10, 10)),
    (lambda: BatchNorm(3), (16, 32, 32, 3), (16, 32, 32, 3)),
    (lambda: [Dense(10, 4), Dense(4, 2)], (1, 10), (1, 2)),
    (lambda: (Dense(10, 4), jnp.tanh), (1, 10), (1, 4)),
    (lambda: Dense(10, 4, key=KEY, bias=False), [np.int64(3), 10], (3, 4)),
    (lambda: eqx.nn.Linear(10, 4, key=KEY), (10,), (4,)),
    (lambda: nnx.Linear(10, 4, rngs=nnx.Rngs(0)), (2, 10), (2, 4)),
    (lambda: jnp.sum, (2, 10), ()),
    (lambda: jnp.sin, (), ()),
]


@pytest.mark.parametrize(("make", "given", "expected"), SINGLE)
def test_one_input(make: Any, given: Any, expected: Any) -> None:
    assert outputsize(make(), given) == expected


@pytest.mark.parametrize(("make", "given", "expected"), SINGLE[:14])
def test_a_batch_is_put_in_front(make: Any, given: Any, expected: Any) -> None:
    assert outputsize(make(), given[1:], padbatch=True) == (1, *expected[1:])


def test_several_inputs_go_in_as_one_tuple() -> None:
    both = Parallel(stack, Dense(2, 4), Dense(3, 6))
    for model, n in [(both, 10), (Chain(both, Dense(10, 13, jnp.tanh), jax.nn.softmax), 13)]:
        assert outputsize(model, (2,), (3,)) == outputsize(model, ((2,), (3,))) == (n,)
        assert outputsize(model, (2,), (3,), padbatch=True) == (1, n)
        assert outputsize(model, (7, 2), (7, 3)) == (7, n)


def test_a_tree_of_outputs_gives_a_tree_of_shapes() -> None:
    assert outputsize(lambda x: {"a": x, "b": [x.sum()]}, (2, 3)) == {"a": (2, 3), "b": [()]}
    assert outputsize(lambda xs: (xs[0], xs[1]), (2,), (3,)) == ((2,), (3,))


def test_shapes_are_those_of_computed_outputs() -> None:
    layers = [Conv((3, 3), 3, 4, key=KEY, stride=2), BatchNorm(4), MaxPool((2, 2)), flatten]
    model = Chain(*layers, Dropout(0.5))
    assert outputsize(model, (5, 11, 11, 3)) == model(jnp.ones((5, 11, 11, 3))).shape


def test_nothing_is_computed_or_changed() -> None:
    assert outputsize(lambda x: x @ x.T, (10**7, 10**3)) == (10**7, 10**7)
    norm = nnx.BatchNorm(3, rngs=nnx.Rngs(0))
    assert outputsize(norm, (4, 3)) == (4, 3)
    assert norm.mean[...].tolist() == [0, 0, 0]


def test_inputs_have_a_dtype() -> None:
    seen: list[Any] = []
    outputsize(lambda x: (seen.append(x.dtype), x)[1], (2,), dtype=jnp.int32)
    assert seen == [jnp.int32]
    assert outputsize(lambda i: jnp.ones((7, 5))[i], (2,), dtype=jnp.int32) == (2, 5)


def test_a_wrong_size_says_which_layer() -> None:
    model = Chain(Dense(10, 8), Dense(8, 4), Dense(5, 2))
    with pytest.raises(jtree.ModelError) as raised:
        outputsize(model, (10,), padbatch=True)
    expected = "Dense(5 => 2) expects 5 input features, found an input of shape (1, 4)"
    assert str(raised.value) == expected


@pytest.mark.parametrize("shapes", [(), (3,), ("ab",), ((-1, 2),), ((1.5,),), (((2,), "x"),)])
def test_invalid_shapes_are_refused(shapes: Any) -> None:
    with pytest.raises(jtree.ArgumentError, match="outputsize expects shapes"):
        outputsize(flatten, *shapes)
