"""Laws of every layer: transformations, shapes, printing, states, checkpoints, wrong inputs."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import jtree
from jtree.layers import (
    GRU,
    LSTM,
    RNN,
    ConvTranspose,
    Embedding,
    GroupNorm,
    GRUCell,
    LayerNorm,
    LSTMCell,
    MultiHeadAttention,
    RNNCell,
    Scale,
    forward,
)

from ..same import close, same
from .examples import EXAMPLES, KEY, rows

PARAMETERS = [name for name, (make, _) in EXAMPLES.items() if jtree.count(make(None))]
KEYLESS = {"BatchNorm", "GroupNorm", "InstanceNorm", "LayerNorm", "Scale"}  # that need no key


def loss(layer: Any, x: Any) -> Any:
    return sum((y**2).sum() for y in jax.tree.leaves(layer(x)))


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_layer_may_be_jitted_passed_to_jit_and_mapped(name: str) -> None:
    make, x = EXAMPLES[name]
    layer = make(KEY)
    y = layer(x)
    compare = lambda a, b: close(a, b, rtol=1e-4, atol=1e-5)  # noqa: E731
    both = jax.jit(lambda m, x: (m(x), jax.vmap(m)(jnp.stack([x, x]))))
    single, batch = both(layer, x)
    jax.tree.map(compare, single, y)
    jax.tree.map(lambda a, b: compare(a[1], b), batch, y)


@pytest.mark.parametrize("name", PARAMETERS)
def test_flat_and_nested_gradients_agree(name: str) -> None:
    make, x = EXAMPLES[name]
    layer = make(KEY)
    flat, re = jtree.destructure(layer)

    def gradients(layer: Any, v: Any) -> Any:
        nested = jax.grad(loss, allow_int=True)(layer, x)
        return nested, jax.grad(lambda v: loss(re(v), x))(v)

    nested, gradient = jax.jit(gradients)(layer, flat)
    close(gradient, re.ravel_grad(nested), rtol=1e-4, atol=1e-4)
    assert jnp.isfinite(gradient).all()
    assert gradient.any()


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_size_of_the_output_needs_no_key(name: str) -> None:
    make, x = EXAMPLES[name]
    sizes = jtree.outputsize(make(None), x.shape, dtype=x.dtype)
    assert sizes == jax.tree.map(lambda y: y.shape, jax.eval_shape(make(KEY), x))


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_layer_prints_on_one_line_and_is_summarised(name: str) -> None:
    layer = EXAMPLES[name][0](KEY)
    count = jtree.count(layer)
    assert repr(layer).startswith(f"{name}(")
    assert jtree.summary(layer).total.trainable.parameters == count
    if name not in ("Chain", "Parallel", "SkipConnection"):
        assert "\n" not in str(layer)
        assert not count or f"# {count} parameters" in str(layer)
    assert layer is jtree.modules(layer)[0]


@pytest.mark.parametrize("name", EXAMPLES)
def test_states_load_and_checkpoints_come_back(name: str, tmp_path: Path) -> None:
    make, _ = EXAMPLES[name]
    layer, other = make(KEY), make(jax.random.key(1))
    assert same(jtree.loadmodel(other, jtree.state(layer)), layer)
    assert same(jtree.loadmodel(make(None), layer), layer)
    if jtree.count(layer):
        jtree.save(tmp_path / "layer", layer, packed=True)
        assert same(jtree.load(tmp_path / "layer", other), layer)


def test_layers_of_default_functions_are_pickled() -> None:
    model = [RNN(3, 2), LSTM(3, 2), GRU(3, 2), LayerNorm(2), MultiHeadAttention(4, heads=2)]
    assert same(pickle.loads(pickle.dumps(model)), model)


@pytest.mark.parametrize("name", sorted({*PARAMETERS} - KEYLESS))
def test_a_layer_without_a_key_says_so_when_called(name: str) -> None:
    make, x = EXAMPLES[name]
    layer = make(None)
    with pytest.raises(jtree.ModelError, match="is abstract: it has shapes but no values"):
        layer(x)


@pytest.mark.parametrize("name", EXAMPLES)
def test_training_keeps_the_structure_and_the_shapes(name: str) -> None:
    make, x = EXAMPLES[name]
    y, after = jax.eval_shape(lambda m: forward(m, x, key=KEY), make(KEY))
    assert jax.tree.structure(after) == jax.tree.structure(make(KEY))
    assert jax.tree.map(jnp.shape, y) == jtree.outputsize(make(KEY), x.shape, dtype=x.dtype)


REPRS = {
    "Embedding(5 => 4)": lambda: Embedding(5, 4),
    "Scale(3, tanh, bias=False)": lambda: Scale(3, jnp.tanh, bias=False),
    "Scale((3, 3))": lambda: Scale((3, 3)),
    "LayerNorm(4, relu)": lambda: LayerNorm(4, jax.nn.relu),
    "LayerNorm((2, 2), affine=False)": lambda: LayerNorm((2, 2), affine=False),
    "GroupNorm(4, 2, affine=False)": lambda: GroupNorm(4, 2, affine=False),
    "RNN(3 => 2, relu)": lambda: RNN(3, 2, jax.nn.relu),
    "RNNCell(3 => 2, bias=False)": lambda: RNNCell(3, 2, bias=False),
    "LSTM(3 => 2, bias=False)": lambda: LSTM(3, 2, bias=False),
    "LSTMCell(3 => 2)": lambda: LSTMCell(3, 2),
    "GRU(3 => 2, hidden_bias=True)": lambda: GRU(3, 2, hidden_bias=True),
    "GRUCell(3 => 2, bias=False)": lambda: GRUCell(3, 2, bias=False),
    "MultiHeadAttention(8, heads=2)": lambda: MultiHeadAttention(8, heads=2),
    "MultiHeadAttention((6, 5, 5), (4, 8), 3, heads=2, bias=False, causal=True, dropout=0.1)": (
        lambda: MultiHeadAttention(
            (6, 5, 5), (4, 8), 3, heads=2, bias=False, causal=True, dropout=0.1
        )
    ),
    "ConvTranspose((3,), 2 => 4, relu, pad=1, stride=2, outpad=1, groups=2, bias=False)": (
        lambda: ConvTranspose(3, 2, 4, jax.nn.relu, pad=1, stride=2, outpad=1, groups=2, bias=False)
    ),
}


@pytest.mark.parametrize("text", REPRS)
def test_a_repr_shows_what_is_not_the_default(text: str) -> None:
    assert repr(REPRS[text]()) == text


X = rows(2, 3, 4)
WRONG_INPUTS = {
    "Embedding(5 => 4) expects an array of integers, found float32[2, 3, 4]": (
        lambda: Embedding(5, 4, key=KEY)(X)
    ),
    "Embedding(5 => 4) expects an array of integers, found 3": (
        lambda: Embedding(5, 4, key=KEY)(3)
    ),
    "Scale(3) expects a last axis of size 3, found an input of shape (2, 3, 4)": (
        lambda: Scale(3)(X)
    ),
    "LayerNorm((2, 4)) expects 2 last axes of size (2, 4), found an input of shape (2, 3, 4)": (
        lambda: LayerNorm((2, 4))(X)
    ),
    "GroupNorm(6, 2) expects (batch, ..., 6 channels), found an input of shape (2, 3, 4)": (
        lambda: GroupNorm(6, 2)(X)
    ),
    "LSTM(4 => 2) expects an input of shape (..., time, features), found an input of shape (4,)": (
        lambda: LSTM(4, 2, key=KEY)(X[0, 0])
    ),
    "GRUCell(3 => 2) expects 3 input features, found an input of shape (2, 3, 4)": (
        lambda: GRU(3, 2, key=KEY)(X)
    ),
    "GRUCell(4 => 2) expects a state of shape (2, 2), found an input of shape (3, 2)": (
        lambda: GRU(4, 2, key=KEY)(X, jnp.ones((3, 2)))
    ),
    "LSTMCell(4 => 2) expects a state (h, c), found an input of shape (2, 2)": (
        lambda: LSTM(4, 2, key=KEY)(X, jnp.ones((2, 2)))
    ),
    "MultiHeadAttention(4, heads=2) expects one to three inputs, found 4": (
        lambda: MultiHeadAttention(4, heads=2, key=KEY)((X, X, X, X))
    ),
    "MultiHeadAttention(4, heads=2) expects keys of batch (2,), found an input of shape (3, 4)": (
        lambda: MultiHeadAttention(4, heads=2, key=KEY)(X, X[0])
    ),
    "MultiHeadAttention(4, heads=2) expects values for (2, 3) keys, found an input of shape "
    "(2, 2, 4)": lambda: MultiHeadAttention(4, heads=2, key=KEY)(X, X, X[:, :2]),
    "MultiHeadAttention(4, heads=2) expects a mask of booleans that broadcasts to (2, 2, 3, 3), "
    "found bool[2, 3, 3, 3]": (
        lambda: MultiHeadAttention(4, heads=2, key=KEY)(X, mask=jnp.ones((2, 3, 3, 3), bool))
    ),
    "ConvTranspose((3,), 6 => 2) expects 6 input channels, found an input of shape (2, 3, 4)": (
        lambda: ConvTranspose(3, 6, 2, key=KEY)(X)
    ),
}


@pytest.mark.parametrize("text", WRONG_INPUTS)
def test_a_wrong_input_is_named_with_the_layer(text: str) -> None:
    with pytest.raises(jtree.ModelError) as raised:
        WRONG_INPUTS[text]()
    assert str(raised.value) == text


WRONG_OPTIONS = {
    "MultiHeadAttention expects heads to be a positive number that divides the hidden features "
    "6 and 6, found 4": lambda: MultiHeadAttention(6, heads=4),
    "GroupNorm(4, 3) expects numbers of channels that are divisible by groups=3": (
        lambda: GroupNorm(4, 3)
    ),
    "ConvTranspose((3,), 4 => 3) expects numbers of channels that are divisible by groups=2": (
        lambda: ConvTranspose(3, 4, 3, groups=2)
    ),
    "ConvTranspose((3,), 4 => 3) expects outpad to be a number of at least 0, or 1 of them, "
    "found -1": lambda: ConvTranspose(3, 4, 3, outpad=-1),
    "RNNCell expects activation to be a function, found 'relu'": lambda: RNN(3, 2, "relu"),
    "LSTMCell(3 => 2) expects a bias of shape (8,), found (2,)": (
        lambda: LSTM(3, 2, bias=jnp.ones(2))
    ),
    "Dropout expects a probability p between 0 and 1, found 2": (
        lambda: MultiHeadAttention(8, dropout=2)
    ),
}


@pytest.mark.parametrize("text", WRONG_OPTIONS)
def test_a_wrong_option_is_named_with_the_layer(text: str) -> None:
    with pytest.raises(jtree.ArgumentError) as raised:
        WRONG_OPTIONS[text]()
    assert str(raised.value) == text
