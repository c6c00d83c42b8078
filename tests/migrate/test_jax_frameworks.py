"""Conversion by type between the frameworks of JAX: names, stacks, ties, and what is refused."""

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

from ..same import normal as numbers

KEY = jax.random.key(0)


def randomised(tree: Any) -> Any:
    """Return a model with numbers unlike those that it was made with, variances positive."""
    flat, re = jtree.destructure(tree, which="all")
    return re(jax.random.uniform(jax.random.key(1), flat.shape, flat.dtype, 0.5, 1.5))


def equal(a: Any, b: Any) -> None:
    left, right = jtree.walk(a).slots, jtree.walk(b).slots
    assert [x.path for x in left] == [x.path for x in right]
    for x, y in zip(left, right, strict=True):
        if jtree.isnumeric(x.value):
            np.testing.assert_array_equal(np.asarray(x.value), np.asarray(y.value), x.path)


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
        yes = {f"use_{name}_bias": True for name in ("query", "key", "value", "output")}
        self.attention = eqx.nn.MultiheadAttention(2, 4, key=KEY, **yes)
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
    x = numbers(*IMAGE.shape)
    np.testing.assert_array_equal(Linen().apply(variables, x), model(x))
    source = migrate.linen(Linen(), variables, IMAGE)
    for given in (source, variables):
        again, _ = migrate.convert(Nnx(nnx.Rngs(1)), given, layout="linen")
        equal(again, model)


@pytest.mark.parametrize("mode", ["batch", "ema"])
def test_equinox_and_flax_are_bit_equal_there_and_back(mode: str) -> None:
    model = randomised(Nnx(nnx.Rngs(0)))
    rename = {"rnn/cell": "rnn"}
    pair = eqx.nn.make_with_state(Eqx)(mode)
    found, _ = migrate.convert(pair, model, layout="nnx", rename=rename)
    again, _ = migrate.convert(Nnx(nnx.Rngs(1)), found, layout="equinox")
    equal(again, model)
    variables, _ = migrate.convert(linen_target(), found, layout="equinox")
    back, _ = migrate.convert(
        eqx.nn.make_with_state(Eqx)(mode),
        migrate.linen(Linen(), variables, IMAGE),
        layout="linen",
        rename=rename,
    )
    equal(back, found)


def test_statistics_of_equinox_that_are_not_yet_full_are_scaled_as_it_does() -> None:
    model, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(4, "batch", mode="batch")
    call = jax.vmap(model, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
    _, state = call(jnp.asarray(numbers(9, 4)), state)
    found, _ = migrate.convert(
        nnx.BatchNorm(4, use_running_average=True, rngs=nnx.Rngs(0)),
        (model, state),
        layout="equinox",
    )
    still = eqx.nn.inference_mode(model)
    call = jax.vmap(still, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
    x = jnp.asarray(numbers(5, 4, seed=1))
    np.testing.assert_allclose(found(x), call(x, state)[0], rtol=1e-5, atol=1e-6)


def test_equinox_state_is_not_changed() -> None:
    pair = eqx.nn.make_with_state(Eqx)("batch")
    before = [np.asarray(x) for x in jax.tree.leaves(pair) if eqx.is_array(x)]
    migrate.convert(pair, Nnx(nnx.Rngs(0)), layout="nnx", rename={"rnn/cell": "rnn"})
    after = [np.asarray(x) for x in jax.tree.leaves(pair) if eqx.is_array(x)]
    for x, y in zip(before, after, strict=True):
        np.testing.assert_array_equal(x, y)


class Block(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.norm = nnx.LayerNorm(4, rngs=rngs)
        self.fc = nnx.Linear(4, 4, rngs=rngs)
        self.gain = nnx.Param(jnp.ones(4))

    def __call__(self, x: Any) -> Any:
        return x + self.gain * jnp.tanh(self.fc(self.norm(x)))


class Unrolled(nnx.Module):
    def __init__(self, rngs: nnx.Rngs, number: int = 12) -> None:
        self.layers = nnx.List([Block(rngs) for _ in range(number)])

    def __call__(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return x


class Stacked(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        @nnx.split_rngs(splits=12)
        @nnx.vmap(in_axes=(0,), out_axes=0)
        def build(rngs: nnx.Rngs) -> Block:
            return Block(rngs)

        self.layers = build(rngs)

    def __call__(self, x: Any) -> Any:
        @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
        def forward(block: Block, x: Any) -> Any:
            return block(x)

        return forward(self.layers, x)


class Scanned(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        block = nn.scan(LinenBlock, {"params": 0}, split_rngs={"params": True}, length=12)
        return block(name="layers")(x, None)[0]


class LinenBlock(nn.Module):
    @nn.compact
    def __call__(self, x: Any, _: Any) -> Any:
        gain = self.param("gain", nn.initializers.ones, (4,))
        return x + gain * jnp.tanh(nn.Dense(4, name="fc")(nn.LayerNorm(name="norm")(x))), None


def test_twelve_blocks_become_one_stack_and_back() -> None:
    x = jnp.asarray(numbers(3, 4))
    model = randomised(Unrolled(nnx.Rngs(0)))
    expected = model(x)
    stacked, report = migrate.convert(Stacked(nnx.Rngs(1)), model, layout="nnx")
    np.testing.assert_allclose(stacked(x), expected, rtol=1e-5)
    assert report.layers[0].notes == ("12 layers stacked",)
    target = migrate.linen(Scanned(), None, x)
    variables, _ = migrate.convert(target, model, layout="nnx")
    np.testing.assert_allclose(Scanned().apply(variables, x), expected, rtol=1e-5)
    again, _ = migrate.convert(target, stacked, layout="nnx")
    equal(again, variables)
    for source, layout in ((stacked, "nnx"), (variables, "linen")):
        back, _ = migrate.convert(Unrolled(nnx.Rngs(2)), source, layout=layout)
        equal(back, model)


def test_numbered_names_are_in_the_order_of_numbers() -> None:
    names = [f"h_{n}" for n in range(12)]
    source = {f"{name}/fc/kernel": np.full((4, 4), n) for n, name in enumerate(names)}
    source |= {f"{name}/fc/bias": np.full(4, n) for n, name in enumerate(names)}

    class Model(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            @nnx.split_rngs(splits=12)
            @nnx.vmap(in_axes=(0,), out_axes=0)
            def build(rngs: nnx.Rngs) -> nnx.Linear:
                return nnx.Linear(4, 4, rngs=rngs)

            self.fc = build(rngs)

    source = {name: x.astype(np.float32) for name, x in source.items()}
    model, _ = migrate.convert(
        Model(nnx.Rngs(0)),
        source,
        layout="linen",
        rename=lambda name: name.replace("/fc", "").replace("h_", "fc_"),
    )
    assert model.fc.bias[:, 0].tolist() == list(range(12))


def test_a_stack_that_is_longer_or_shorter_than_the_model_is_refused() -> None:
    stacked = Stacked(nnx.Rngs(0))
    with pytest.raises(jtree.LoadError, match="expected a stack of 3 layers, found float32"):
        migrate.convert(Unrolled(nnx.Rngs(0), 3), stacked, layout="nnx")
    with pytest.raises(jtree.LoadError, match="layers/12/fc/bias: expected float32"):
        migrate.convert(Unrolled(nnx.Rngs(0), 13), stacked, layout="nnx")
    with pytest.raises(jtree.LoadError, match="layers/11/fc/kernel"):
        migrate.convert(stacked, Unrolled(nnx.Rngs(0), 11), layout="nnx")
    with pytest.raises(jtree.LoadError, match="layers/12/fc/kernel: expected nothing"):
        migrate.convert(stacked, Unrolled(nnx.Rngs(0), 13), layout="nnx")


class Tied(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.wte = nnx.Embed(5, 4, rngs=rngs)
        self.norm = nnx.LayerNorm(4, rngs=rngs)


def tied_source() -> dict[str, Any]:
    table = numbers(5, 4)
    return {
        "wte.weight": table,
        "norm.weight": np.ones(4, np.float32),
        "norm.bias": np.zeros(4, np.float32),
    }


def test_a_tied_head_may_be_absent_or_equal_to_the_embedding() -> None:
    source = tied_source()
    _, report = migrate.convert(Tied(nnx.Rngs(0)), source)
    assert report.ignored == {}
    head = {"lm_head.weight": source["wte.weight"].copy()}
    _, report = migrate.convert(Tied(nnx.Rngs(0)), source | head)
    assert report.ignored == {"lm_head.weight": "equal to wte.weight"}
    head["lm_head.weight"][0, 0] += 1
    with pytest.raises(jtree.LoadError) as caught:
        migrate.convert(Tied(nnx.Rngs(0)), source | head)
    assert str(caught.value) == (
        "nothing was loaded: 1 mismatch\n"
        "  lm_head.weight: expected nothing, found float32[5, 4], which no layer of the model "
        "takes; rename it, or add migrate.drop('lm_head.weight') to rules"
    )


def test_a_head_of_its_own_takes_the_embedding_with_a_rule() -> None:
    class Model(Tied):
        def __init__(self, rngs: nnx.Rngs) -> None:
            super().__init__(rngs)
            self.lm_head = nnx.Linear(4, 5, use_bias=False, rngs=rngs)

    source = tied_source()
    with pytest.raises(jtree.LoadError, match="lm_head/kernel: expected float32"):
        migrate.convert(Model(nnx.Rngs(0)), source)
    rule = migrate.tie("wte.weight", "lm_head.weight")
    model, _ = migrate.convert(Model(nnx.Rngs(0)), source, rules=[rule])
    np.testing.assert_array_equal(model.lm_head.kernel[...], source["wte.weight"].T)


def test_modules_that_are_shared_need_one_source() -> None:
    class Model(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.a = nnx.Linear(3, 3, rngs=rngs)
            self.b = self.a

    weight, bias = numbers(3, 3), numbers(3)
    source = {"a.weight": weight, "a.bias": bias}
    model, _ = migrate.convert(Model(nnx.Rngs(0)), source)
    assert model.a is model.b
    np.testing.assert_array_equal(model.a.kernel[...], weight.T)
    more = source | {"b.weight": weight + 1, "b.bias": bias}
    with pytest.raises(jtree.LoadError, match="different values at a/kernel and b/kernel"):
        migrate.convert(Model(nnx.Rngs(0)), more)


class Two(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.layers = nnx.List([nnx.Linear(3, 3, rngs=rngs) for _ in range(2)])
        self.scale = nnx.Param(jnp.ones(3))
        self.drop = nnx.Dropout(0.5, rngs=rngs)


def two_source() -> dict[str, Any]:
    names = [f"layers.{n}.{name}" for n in range(2) for name in ("weight", "bias")]
    return {name: numbers(*(3, 3)[: 2 - n % 2], seed=n) for n, name in enumerate(names)} | {
        "scale": numbers(3)
    }


def test_what_is_missing_and_left_over_is_all_in_one_error() -> None:
    source = two_source()
    source["layer.1.weight"] = source.pop("layers.1.weight")
    del source["scale"]
    model = Two(nnx.Rngs(0))
    before = jtree.state(model)
    with pytest.raises(jtree.LoadError) as caught:
        migrate.convert(model, source)
    assert str(caught.value) == (
        "nothing was loaded: 3 mismatches\n"
        "  layer.1.weight: expected nothing, found float32[3, 3], which no layer of the model "
        "takes; rename it, or add migrate.drop('layer.1.weight') to rules\n"
        "  layers/1/kernel: expected float32[3, 3], found no layers.1.weight in the source; did "
        "you mean layer.1.weight?\n"
        "  scale: expected float32[3], found no scale in the source"
    )
    assert caught.value.diff.missing == ("layers/1/kernel", "scale")
    assert caught.value.diff.unexpected == ("layer.1.weight",)
    equal(jtree.state(model), before)


def test_a_wrong_shape_is_refused_and_a_square_one_is_transposed_by_its_type() -> None:
    source = two_source()
    model, report = migrate.convert(Two(nnx.Rngs(0)), source)
    np.testing.assert_array_equal(model.layers[0].kernel[...], source["layers.0.weight"].T)
    assert report.copied == {"scale": "scale"}
    assert report.kept == ("drop/rngs/count", "drop/rngs/key")
    source["layers.0.weight"] = numbers(3, 4)
    with pytest.raises(jtree.LoadError, match=r"layers/0/kernel: expected float32\[3, 3\], found"):
        migrate.convert(Two(nnx.Rngs(0)), source)


@pytest.mark.parametrize(
    "rename",
    [
        {"net.l": "layers", "gain": "scale"},
        {"net/l/*": "layers/*", "gain": "scale"},
        {"net.l.0": "layers.0", "net.l.1": "layers.1", "gain": "scale"},
        lambda name: name.replace("net.l.", "layers.").replace("gain", "scale"),
    ],
)
def test_layers_are_renamed(rename: Any) -> None:
    source = two_source()
    old = {x.replace("layers", "net.l").replace("scale", "gain"): y for x, y in source.items()}
    equal(
        migrate.convert(Two(nnx.Rngs(0)), old, rename=rename)[0],
        migrate.convert(Two(nnx.Rngs(0)), source)[0],
    )


def test_renaming_that_does_not_fit_is_refused() -> None:
    model, source = Two(nnx.Rngs(0)), two_source()
    with pytest.raises(jtree.PathError) as caught:
        migrate.convert(model, source, rename={"layer": "layers"})
    assert str(caught.value) == (
        "rename: 'layer' matches nothing in the source; did you mean layers.1 or layers.0?"
    )
    with pytest.raises(jtree.LoadError) as error:
        migrate.convert(model, source, rename={"layers.1": "layers.0"})
    assert str(error.value) == (
        "nothing was loaded: layers/0/bias: expected one array, found two in the source: "
        "layers.0.bias and layers.1.bias; rename or drop one of them"
    )
    with pytest.raises(jtree.ArgumentError, match="has 1 wildcard, but 'layers' has 0"):
        migrate.convert(model, source, rename={"layers": "layers/*"})
    with pytest.raises(jtree.ArgumentTypeError, match="expected the function to return a str"):
        migrate.convert(model, source, rename=lambda _: None)  # type: ignore[arg-type, return-value]
    with pytest.raises(jtree.ArgumentTypeError, match="rename: expected a dict"):
        migrate.convert(model, source, rename=7)  # type: ignore[arg-type]


def test_a_bias_that_the_model_has_not_must_be_zero() -> None:
    model = nnx.Linear(3, 3, use_bias=False, rngs=nnx.Rngs(0))
    weight = numbers(3, 3)
    migrate.convert(model, {"weight": weight, "bias": np.zeros(3)})
    with pytest.raises(jtree.LoadError) as caught:
        migrate.convert(model, {"weight": weight, "bias": np.ones(3)})
    assert str(caught.value) == (
        "nothing was loaded: 1 mismatch\n"
        "  (root): expected no bias in Linear, found float64[3] in bias, which is not all zero; "
        "add this parameter to the layer, or drop it with a rule"
    )


def test_layouts_and_models_are_what_they_say() -> None:
    model = nnx.Linear(3, 3, rngs=nnx.Rngs(0))
    with pytest.raises(jtree.ArgumentError) as caught:
        migrate.convert(model, {}, layout="pytorch")
    assert str(caught.value) == (
        "layout: expected one of torch, linen, nnx, equinox, jtree, haiku, keras, found 'pytorch'; "
        "did you mean torch?"
    )
    with pytest.raises(jtree.ArgumentError) as caught:
        migrate.convert(model, model)
    assert str(caught.value) == (
        "layout: expected 'nnx', since the source is a model with a Linear layer, found 'torch'"
    )
    with pytest.raises(jtree.ArgumentTypeError) as error:
        migrate.convert({"params": {"kernel": jnp.ones((3, 3))}}, {})
    assert str(error.value) == (
        "model: expected a module of NNX, Equinox or jtree.layers, found dict; for linen pass "
        "migrate.linen(module, variables, *inputs), for Equinox with running statistics pass "
        "(model, state)"
    )
    with pytest.raises(jtree.ArgumentTypeError, match=r"expected a module of flax\.linen"):
        migrate.linen(model, None)


def test_a_layer_of_another_kind_is_refused() -> None:
    source = nnx.Embed(3, 3, rngs=nnx.Rngs(0))
    with pytest.raises(
        jtree.LoadError,
        match=r"\(root\): expected dense weights for Linear, found Embed in the source",
    ):
        migrate.convert(nnx.Linear(3, 3, rngs=nnx.Rngs(0)), source, layout="nnx")


def test_abstract_models_and_narrow_dtypes() -> None:
    model = nnx.eval_shape(lambda: nnx.Linear(3, 3, rngs=nnx.Rngs(0)))
    weight = numbers(3, 3).astype(ml_dtypes.float8_e4m3fn)
    model, _ = migrate.convert(model, {"weight": weight, "bias": weight[0]})
    np.testing.assert_array_equal(model.kernel[...], weight.T.astype(np.float32))
    half = nnx.Linear(3, 3, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    half, _ = migrate.convert(half, {"weight": numbers(3, 3), "bias": numbers(3)})
    assert half.kernel.dtype == jnp.bfloat16


def test_checkpoints_are_sources(tmp_path: Any) -> None:
    model = randomised(Nnx(nnx.Rngs(0)))
    jtree.save(tmp_path / "model", model)
    for source in (tmp_path / "model", jtree.open(tmp_path / "model"), jtree.state(model)):
        again, _ = migrate.convert(Nnx(nnx.Rngs(1)), source, layout="nnx", rules=_without_keys())
        equal(again, model)


def _without_keys() -> list[Any]:
    return [migrate.drop("**/rngs/**")]


def test_the_report_prints_as_a_table() -> None:
    _, report = migrate.convert(Two(nnx.Rngs(0)), two_source())
    assert repr(report) == "Report(2 layers from torch, 1 array copied)"
    text = str(report)
    for words in ("layers/1", "layers.1.weight, layers.1.bias", "copied", "the model's own"):
        assert words in text
