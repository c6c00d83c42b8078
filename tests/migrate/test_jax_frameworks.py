"""Conversion between the frameworks of JAX, there and back, and from checkpoints."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx

import jtree
from jtree import migrate

from ..same import normal
from .models import assert_equal, randomised

KEY = jax.random.key(0)


class Linen(nn.Module):
    def setup(self) -> None:
        self.conv = nn.Conv(4, (3, 3), strides=2)
        self.bn = nn.BatchNorm(use_running_average=True)
        self.up = nn.ConvTranspose(4, (2, 2))
        self.ln = nn.LayerNorm()
        self.attention = nn.MultiHeadDotProductAttention(2)
        self.rnn = nn.RNN(nn.LSTMCell(4))
        self.head = nn.Sequential([nn.Dense(4), nn.relu, nn.Dense(3)])

    def __call__(self, x: Any) -> Any:
        x = self.up(self.bn(self.conv(x)))
        x = self.ln(x.reshape(x.shape[0], -1, 4))
        return self.head(self.rnn(self.attention(x)))


class Nnx(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(3, 4, (3, 3), strides=2, rngs=rngs)
        self.bn = nnx.BatchNorm(4, use_running_average=True, rngs=rngs)
        self.up = nnx.ConvTranspose(4, 4, (2, 2), rngs=rngs)
        self.ln = nnx.LayerNorm(4, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, 4, decode=False, rngs=rngs)
        self.rnn = nnx.RNN(nnx.LSTMCell(4, 4, rngs=rngs), rngs=rngs)
        self.head = nnx.Sequential(
            nnx.Linear(4, 4, rngs=rngs), nnx.relu, nnx.Linear(4, 3, rngs=rngs)
        )

    def __call__(self, x: Any) -> Any:
        x = self.up(self.bn(self.conv(x)))
        x = self.ln(x.reshape(x.shape[0], -1, 4))
        return self.head(self.rnn(self.attention(x)))


class Eqx(eqx.Module):
    conv: eqx.nn.Conv2d
    bn: eqx.nn.BatchNorm
    up: eqx.nn.ConvTranspose2d
    ln: eqx.nn.LayerNorm
    attention: eqx.nn.MultiheadAttention
    rnn: eqx.nn.LSTMCell
    head: eqx.nn.Sequential

    def __init__(self, mode: Any) -> None:
        self.conv = eqx.nn.Conv2d(3, 4, 3, 2, key=KEY)
        self.bn = eqx.nn.BatchNorm(4, "batch", mode=mode)
        self.up = eqx.nn.ConvTranspose2d(4, 4, 2, key=KEY)
        self.ln = eqx.nn.LayerNorm(4, eps=1e-6)
        biases = {f"use_{name}_bias": True for name in ("query", "key", "value", "output")}
        self.attention = eqx.nn.MultiheadAttention(2, 4, key=KEY, **biases)
        self.rnn = eqx.nn.LSTMCell(4, 4, key=KEY)
        layers = [eqx.nn.Linear(4, 4, key=KEY), eqx.nn.Lambda(jax.nn.relu)]
        self.head = eqx.nn.Sequential([*layers, eqx.nn.Linear(4, 3, key=KEY)])


IMAGE = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)


def linen_target() -> Any:
    return migrate.linen(Linen(), None, IMAGE)


def test_linen_and_nnx_are_bit_equal_there_and_back() -> None:
    model = randomised(Nnx(nnx.Rngs(0)))
    variables, report = migrate.convert(linen_target(), model, layout="nnx")
    assert not report.copied
    x = normal(*IMAGE.shape)
    np.testing.assert_array_equal(Linen().apply(variables, x), model(x))
    source = migrate.linen(Linen(), variables, IMAGE)
    for linen in (source, variables):
        again, _ = migrate.convert(Nnx(nnx.Rngs(1)), linen, layout="linen")
        assert_equal(again, model)


@pytest.mark.parametrize("mode", ["batch", "ema"])
def test_equinox_and_flax_are_bit_equal_there_and_back(mode: str) -> None:
    model = randomised(Nnx(nnx.Rngs(0)))
    rename = {"rnn/cell": "rnn"}
    pair = eqx.nn.make_with_state(Eqx)(mode)
    converted, _ = migrate.convert(pair, model, layout="nnx", rename=rename)
    again, _ = migrate.convert(Nnx(nnx.Rngs(1)), converted, layout="equinox")
    assert_equal(again, model)
    variables, _ = migrate.convert(linen_target(), converted, layout="equinox")
    back, _ = migrate.convert(
        eqx.nn.make_with_state(Eqx)(mode),
        migrate.linen(Linen(), variables, IMAGE),
        layout="linen",
        rename=rename,
    )
    assert_equal(back, converted)


def test_statistics_of_equinox_are_bias_corrected() -> None:
    model, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(4, "batch", mode="batch")
    call = jax.vmap(model, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
    _, state = call(jnp.asarray(normal(9, 4)), state)
    converted, _ = migrate.convert(
        nnx.BatchNorm(4, use_running_average=True, rngs=nnx.Rngs(0)),
        (model, state),
        layout="equinox",
    )
    inference = eqx.nn.inference_mode(model)
    call = jax.vmap(inference, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
    x = jnp.asarray(normal(5, 4, seed=1))
    np.testing.assert_allclose(converted(x), call(x, state)[0], rtol=1e-5, atol=1e-6)


def test_a_conversion_does_not_change_the_state_of_equinox() -> None:
    pair = eqx.nn.make_with_state(Eqx)("batch")
    before = [np.asarray(x) for x in jax.tree.leaves(pair) if eqx.is_array(x)]
    migrate.convert(pair, Nnx(nnx.Rngs(0)), layout="nnx", rename={"rnn/cell": "rnn"})
    after = [np.asarray(x) for x in jax.tree.leaves(pair) if eqx.is_array(x)]
    for x, y in zip(before, after, strict=True):
        np.testing.assert_array_equal(x, y)


def test_abstract_models_and_narrow_dtypes() -> None:
    model = nnx.eval_shape(lambda: nnx.Linear(3, 3, rngs=nnx.Rngs(0)))
    weight = normal(3, 3).astype(ml_dtypes.float8_e4m3fn)
    model, _ = migrate.convert(model, {"weight": weight, "bias": weight[0]})
    np.testing.assert_array_equal(model.kernel[...], weight.T.astype(np.float32))
    half = nnx.Linear(3, 3, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    half, _ = migrate.convert(half, {"weight": normal(3, 3), "bias": normal(3)})
    assert half.kernel.dtype == jnp.bfloat16


def test_checkpoints_are_sources(tmp_path: Any) -> None:
    model = randomised(Nnx(nnx.Rngs(0)))
    jtree.save(tmp_path / "model", model)
    for source in (tmp_path / "model", jtree.open(tmp_path / "model"), jtree.state(model)):
        rules = [migrate.drop("**/rngs/**")]
        again, _ = migrate.convert(Nnx(nnx.Rngs(1)), source, layout="nnx", rules=rules)
        assert_equal(again, model)
