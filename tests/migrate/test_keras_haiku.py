"""Layers of Keras and Haiku, with outputs equal to 1e-5 in Flax."""

from __future__ import annotations

import os
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jtree
from jtree import migrate

from ..same import close_to_scale as close
from ..same import normal
from .models import refusal

os.environ.setdefault("KERAS_BACKEND", "jax")


@pytest.fixture(autouse=True)
def _standard_promotion() -> Any:
    with jax.numpy_dtype_promotion("standard"):
        yield


RNGS = nnx.Rngs(0)
IMAGES, VECTORS = (2, 8, 8, 4), (2, 5, 4)
KERAS: list[tuple[str, dict[str, Any], Any, tuple[int, ...]]] = [
    ("Dense", {"units": 4}, lambda: nnx.Linear(4, 4, rngs=RNGS), VECTORS),
    (
        "Conv2D",
        {"filters": 6, "kernel_size": 3, "groups": 2},
        lambda: nnx.Conv(4, 6, (3, 3), padding="VALID", feature_group_count=2, rngs=RNGS),
        IMAGES,
    ),
    (
        "Conv2DTranspose",
        {"filters": 4, "kernel_size": 3, "strides": 2},
        lambda: nnx.ConvTranspose(4, 4, (3, 3), 2, padding="VALID", rngs=RNGS),
        IMAGES,
    ),
    (
        "BatchNormalization",
        {},
        lambda: nnx.BatchNorm(4, epsilon=1e-3, use_running_average=True, rngs=RNGS),
        IMAGES,
    ),
    ("LayerNormalization", {}, lambda: nnx.LayerNorm(4, epsilon=1e-3, rngs=RNGS), VECTORS),
    (
        "GroupNormalization",
        {"groups": 2},
        lambda: nnx.GroupNorm(4, 2, epsilon=1e-3, rngs=RNGS),
        IMAGES,
    ),
    ("LSTM", {"units": 5, "return_sequences": True}, lambda: rnn(nnx.LSTMCell), VECTORS),
]


def rnn(cell: Any) -> Any:
    return nnx.RNN(cell(4, 5, rngs=RNGS), rngs=RNGS)


@pytest.mark.parametrize(("name", "options", "build", "shape"), KERAS, ids=[x[0] for x in KERAS])
@pytest.mark.filterwarnings("ignore")
def test_layers_of_keras(name: str, options: Any, build: Any, shape: Any) -> None:
    keras = pytest.importorskip("keras")
    layer, x = getattr(keras.layers, name)(**options), normal(*shape)
    model = keras.Sequential([keras.Input(shape[1:]), layer])
    for n, weight in enumerate(model.weights):
        weight.assign(np.abs(normal(*weight.shape, seed=n)) + 0.5)
    converted, report = migrate.convert(
        nnx.Sequential(build()), model, layout="keras", rename={layer.path: "0"}
    )
    close(converted(jnp.asarray(x)), model(x))
    assert not report.copied


@pytest.mark.filterwarnings("ignore")
def test_attention_and_embeddings_of_keras() -> None:
    keras = pytest.importorskip("keras")
    layer, x = keras.layers.MultiHeadAttention(2, 2), normal(*VECTORS)
    expected = layer(x, x)
    source = {weight.path: np.asarray(weight.value) for weight in layer.weights}
    target = nnx.MultiHeadAttention(2, 4, decode=False, rngs=RNGS)
    rename = {layer.path: ""}
    converted, _ = migrate.convert(target, source, layout="keras", rename=rename)
    close(converted(jnp.asarray(x)), expected)
    layer = keras.layers.Embedding(5, 4)
    expected = layer(np.array([[1, 4]]))
    source = {weight.path: np.asarray(weight.value) for weight in layer.weights}
    target = nnx.Embed(5, 4, rngs=RNGS)
    converted, _ = migrate.convert(target, source, layout="keras", rename={layer.path: ""})
    close(converted(jnp.array([[1, 4]])), expected)


@pytest.mark.filterwarnings("ignore")
def test_gru_of_keras_by_names_and_by_indices() -> None:
    keras = pytest.importorskip("keras")
    layer, x = keras.layers.GRU(5, return_sequences=True), normal(*VECTORS)
    layer(x)
    for n, weight in enumerate(layer.weights):
        weight.assign(normal(*weight.shape, seed=n))
    expected = layer(x)
    names = ("kernel", "recurrent_kernel", "bias")
    weights = [np.asarray(weight.value) for weight in layer.weights]
    for source in (
        {f"gru/gru_cell/{name}": x for name, x in zip(names, weights, strict=True)},
        {f"gru/cell/vars/{n}": x for n, x in enumerate(weights)},
    ):
        target = migrate.linen(nn.RNN(nn.GRUCell(5)), None, x)
        rename = {"gru/gru_cell": "cell"} if "gru/gru_cell/bias" in source else {"gru": ""}
        converted, _ = migrate.convert(target, source, layout="keras", rename=rename)
        close(nn.RNN(nn.GRUCell(5)).apply(converted, x), expected)


def group_norm() -> Any:
    return nnx.GroupNorm(4, 2, epsilon=1e-5, rngs=RNGS)


HAIKU: list[tuple[str, Any, Any, tuple[int, ...]]] = [
    ("linear", lambda hk: hk.Linear(4), lambda: nnx.Linear(4, 4, rngs=RNGS), VECTORS),
    (
        "conv",
        lambda hk: hk.Conv2D(4, 3, padding="VALID"),
        lambda: nnx.Conv(4, 4, (3, 3), padding="VALID", rngs=RNGS),
        IMAGES,
    ),
    (
        "conv_transpose",
        lambda hk: hk.Conv2DTranspose(4, 3, stride=2, padding="VALID"),
        lambda: nnx.ConvTranspose(4, 4, (3, 3), 2, padding="VALID", rngs=RNGS),
        IMAGES,
    ),
    (
        "batch_norm",
        lambda hk: lambda x: hk.BatchNorm(True, True, 0.9)(x, is_training=hk.running_init()),
        lambda: nnx.BatchNorm(4, use_running_average=True, rngs=RNGS),
        IMAGES,
    ),
    (
        "layer_norm",
        lambda hk: hk.LayerNorm(-1, True, True),
        lambda: nnx.LayerNorm(4, epsilon=1e-5, rngs=RNGS),
        VECTORS,
    ),
    ("group_norm", lambda hk: hk.GroupNorm(2), group_norm, IMAGES),
    (
        "rms_norm",
        lambda hk: hk.RMSNorm(-1),
        lambda: nnx.RMSNorm(4, epsilon=1e-5, rngs=RNGS),
        VECTORS,
    ),
    (
        "attention",
        lambda hk: (
            lambda x: hk.MultiHeadAttention(2, 2, w_init=hk.initializers.RandomNormal())(x, x, x)
        ),
        lambda: nnx.MultiHeadAttention(2, 4, decode=False, rngs=RNGS),
        VECTORS,
    ),
]


@pytest.mark.parametrize(
    ("call", "build", "shape"), [x[1:] for x in HAIKU], ids=[x[0] for x in HAIKU]
)
@pytest.mark.filterwarnings("ignore")
def test_layers_of_haiku(call: Any, build: Any, shape: Any) -> None:
    hk = pytest.importorskip("haiku")
    module = hk.transform_with_state(lambda x: call(hk)(x))
    x = jnp.asarray(normal(*shape))
    params, state = jax.tree.map(
        lambda x: jnp.asarray(np.abs(normal(*x.shape, seed=x.size)) + 0.5, x.dtype),
        module.init(jax.random.key(0), x),
    )
    expected, _ = module.apply(params, state, None, x)
    root = next(iter(params)).split("/")[0]
    converted, _ = migrate.convert(build(), params | state, layout="haiku", rename={root: ""})
    close(converted(x), expected)


@pytest.mark.filterwarnings("ignore")
def test_lstm_of_haiku() -> None:
    hk = pytest.importorskip("haiku")

    def call(x: Any) -> Any:
        core = hk.LSTM(5)
        return hk.dynamic_unroll(core, x, core.initial_state(2), time_major=False)[0]

    module, x = hk.without_apply_rng(hk.transform(call)), jnp.asarray(normal(*VECTORS))
    params = module.init(jax.random.key(0), x)
    converted, _ = migrate.convert(rnn(nnx.LSTMCell), params, layout="haiku", rename={"lstm": ""})
    close(converted(x), module.apply(params, x))
    message = refusal(rnn(nnx.GRUCell), params, layout="haiku", rename={"lstm": ""})
    assert "linear/w: expected nothing, found float32[9, 20]" in message


def test_layers_of_one_name_in_two_towers_are_refused() -> None:
    """Keras names the weights of both alike, and the last would replace the first."""
    keras = pytest.importorskip("keras")
    inputs = [keras.Input((4,)) for _ in range(3)]
    towers = [keras.Model(x, keras.layers.Dense(4, name="dense")(x)) for x in inputs[:2]]
    model = keras.Model(inputs[2], towers[0](inputs[2]) + towers[1](inputs[2]))
    with pytest.raises(jtree.ArgumentError) as caught:
        migrate.convert(nnx.Linear(4, 4, rngs=RNGS), model, layout="keras")
    assert str(caught.value) == (
        "source: expected weights of distinct paths, found 2 paths of several weights, "
        "'dense/bias' the first; give the layers of each part of the Keras model distinct names, "
        "as by keras.layers.Dense(..., name='tower_a_dense')"
    )
