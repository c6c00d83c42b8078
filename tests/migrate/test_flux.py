"""Models of Flux in JAX: each agrees with an independent computation in Julia's order of axes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jtree
from jtree import layers, migrate

from .flux import (
    FLATTEN,
    GELU,
    IDENTITY,
    PLUS,
    RELU,
    SIGMOID,
    SOFTMAX,
    TANH,
    VCAT,
    FluxFile,
    Random,
    Struct,
    attend,
    call,
    chain,
    flux_file,
    nhwc,
    pool,
    reversed_axes,
    state_of,
    step,
    write_bson,
)

KEY = jax.random.key(0)


def agree(model: Any, flux: Struct, x: Any, *, image: bool, image_out: bool | None = None) -> None:
    """Check that a model computes what a model of Flux computes."""
    expected = call(flux, x)
    image_out = image if image_out is None else image_out
    y = jax.jit(lambda x: model(x))(jnp.asarray(nhwc(x) if image else reversed_axes(x)))
    expected = nhwc(expected) if image_out else reversed_axes(expected)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


def mobile_net(r: Random) -> Struct:
    """Return a small network of inverted residuals, whose depthwise kernels are not square."""
    depthwise = {"groups": 6, "bias": False}
    block = chain(
        r.conv((1, 1), 4, 6, bias=False),
        r.norm(6, Struct("NNlib.relu6")),
        r.conv((3, 3), 6, 6, pad=1, **depthwise),
        r.norm(6, Struct("NNlib.relu6")),
        r.conv((1, 1), 6, 4, bias=False),
        r.norm(4),
    )
    return chain(
        r.conv((3, 2), 3, 4, RELU, stride=2, pad=(0, 1, 2, 0)),
        Struct("Flux.SkipConnection", layers=block, connection=PLUS),
        r.conv((3, 3), 4, 8, Struct("NNlib.swish"), groups=4, pad=(1, 0, 0, 2)),
        pool("MaxPool", (2, 2), stride=(1, 2), pad=(1, 0, 0, 1)),
        Struct("Flux.AdaptiveMeanPool", out=(2, 1)),
        FLATTEN,
        r.dense(16, 5),
        SOFTMAX,
    )


def test_a_mobile_net_with_depthwise_convolutions_and_asymmetric_pads() -> None:
    r = Random()
    flux = mobile_net(r)
    model = jtree.from_flux(flux_file(model=flux))
    agree(model, flux, r(9, 7, 3, 2), image=True, image_out=False)
    assert repr(model[0]) == "Conv((2, 3), 3 => 4, relu, pad=((2, 0), (0, 1)), stride=2)"
    assert model[5] is layers.flatten_channels_first


LAYERS: dict[str, tuple[Struct, tuple[int, ...]]] = {
    "conv of one axis": (Random().conv((3,), 4, 6, stride=2, pad=(2, 1), groups=2), (8, 4, 2)),
    "conv of three axes": (Random().conv((2, 1, 3), 2, 3, pad=(1, 0, 0, 0, 2, 1)), (4, 3, 5, 2, 2)),
    "dilation": (Random().conv((3, 2), 2, 3, TANH, dilation=2, pad=(1, 2, 3, 0)), (7, 6, 2, 2)),
    "cross-correlation": (Random().conv((3, 2), 2, 3, type="CrossCor"), (6, 5, 2, 2)),
    "transposed": (
        Random().conv(
            (3, 2), 4, 2, SIGMOID, type="ConvTranspose", stride=2, pad=(1, 0, 0, 1), outpad=(1, 0)
        ),
        (3, 2, 4, 2),
    ),
    "transposed in groups": (
        Random().conv(
            (2, 3), 4, 2, type="ConvTranspose", stride=3, dilation=2, outpad=(0, 2), groups=2
        ),
        (2, 2, 4, 2),
    ),
    "depthwise of an old Flux": (
        Struct(
            "Flux.DepthwiseConv",
            σ=RELU,
            weight=Random()(3, 2, 2, 3),
            bias=Random()(6),
            stride=(1, 2),
            pad=(1, 0),
            dilation=(1, 1),
        ),
        (5, 6, 3, 2),
    ),
    "batch norm": (Random().norm(3, RELU), (4, 5, 3, 2)),
    "batch norm without scale": (
        Random().norm(3, β=None, γ=None, affine=False),
        (4, 5, 3, 2),
    ),
    "instance norm": (Random().norm(3, TANH, "InstanceNorm"), (4, 5, 3, 2)),
    "instance norm without scale": (
        Random().norm(3, type="InstanceNorm", β=None, γ=None, affine=False),
        (4, 5, 3, 2),
    ),
    "instance norm with statistics": (
        Random().norm(3, type="InstanceNorm", **{"μ": Random(1)(3), "σ²": Random().positive(3)}),
        (4, 5, 3, 2),
    ),
    "group norm": (Random().norm(6, RELU, "GroupNorm", G=2), (4, 5, 6, 2)),
    "mean pool": (pool("MeanPool", (2, 3), pad=(1, 0, 1, 1), stride=(2, 1)), (5, 6, 3, 2)),
    "adaptive max pool": (Struct("Flux.AdaptiveMaxPool", out=(3, 2)), (8, 5, 2, 2)),
    "global max pool": (chain(Struct("Flux.GlobalMaxPool")), (4, 5, 2, 2)),
    "global mean pool": (chain(Struct("Flux.GlobalMeanPool")), (4, 5, 2, 2)),
    "layer norm of images": (
        chain(pool("MaxPool", (1, 1)), Random().layer_norm(3, 4, 2)),
        (3, 4, 2, 2),
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_of_images(name: str) -> None:
    flux, shape = LAYERS[name]
    agree(jtree.from_flux(flux_file(model=flux)), flux, Random(7)(*shape), image=True)


def parallel(connection: Struct) -> Struct:
    r = Random()
    both = (r.dense(3, 4, TANH), chain(r.dense(3, 2), r.dense(2, 4, bias=False)))
    return Struct("Flux.Parallel", connection=connection, layers=both)


FEATURES: dict[str, Struct] = {
    "dense": Random().dense(3, 4, Struct("NNlib.leakyrelu")),
    "dense of Flux 0.10": Struct("Flux.Dense", W=Random()(4, 3), b=Random()(4), σ=RELU),
    "chain by name": chain(first=Random().dense(3, 4, TANH), second=SOFTMAX),
    "parallel": parallel(VCAT),
    "sum": parallel(PLUS),
    "product": Struct(
        "Flux.SkipConnection",
        layers=Random().dense(3, 3, SIGMOID),
        connection=Struct("Base.Broadcast.BroadcastFunction", f=Struct("Base.*")),
    ),
    "maxout": Struct("Flux.Maxout", layers=(Random(1).dense(3, 4), Random(2).dense(3, 4))),
    "skip connection": Struct("Flux.SkipConnection", layers=Random().dense(3, 3), connection=VCAT),
    "layer norm": chain(Random().layer_norm(3, activation=RELU), Random().dense(3, 2)),
    "dropout": chain(Struct("Flux.Dropout", p=0.5, dims=(), active=None, rng=()), IDENTITY),
    **{name: Random().recurrent(name, 3, 4) for name in ("RNN", "LSTM", "GRU", "GRUv3")},
    **{
        f"{name} without bias": Random().recurrent(name, 3, 4, bias=False)
        for name in ("RNN", "LSTM", "GRU", "GRUv3")
    },
    **{
        f"{name} of Flux 0.14": Random().recurrent(name, 3, 4, old=True)
        for name in ("RNN", "LSTM", "GRU", "GRUv3")
    },
}


@pytest.mark.parametrize("name", FEATURES)
def test_layers_of_features_and_sequences(name: str) -> None:
    flux = FEATURES[name]
    model = jtree.from_flux(flux_file(model=flux))
    agree(model, flux, Random(7)(3, 5, 2), image=False)


@pytest.mark.parametrize("name", sorted({*FEATURES, *LAYERS} - {"cross-correlation"}))
def test_vectors_and_states_come_back(name: str) -> None:
    flux = FEATURES[name] if name in FEATURES else LAYERS[name][0]
    model = jtree.from_flux(flux_file(model=flux))
    expected = flux_vector(flux)
    if not jax.tree.leaves(jtree.trainables(model)):
        return
    vector = migrate.to_flux_vector(model)
    np.testing.assert_array_equal(vector, expected)
    back = migrate.from_flux_vector(model, jnp.asarray(expected) * 2)
    np.testing.assert_array_equal(migrate.to_flux_vector(back), jnp.asarray(expected) * 2)


def flux_vector(flux: Any) -> Any:
    """Return what `Flux.destructure` returns: the trained arrays in the order of fields."""
    arrays = [x.reshape(-1, order="F") for x in _trained(flux)]
    return np.concatenate(arrays) if arrays else np.zeros(0, np.float32)


def _trained(x: Any) -> Any:
    if isinstance(x, Struct) and x.type == "Flux.GRUv3Cell" and "state0" not in x.fields:
        size = x.fields["Wh_h̃"].shape[0]
        x.fields["Wh"][2 * size :] = 0  # which Flux does not use
    if isinstance(x, Struct):
        skipped = {"Recur": ("state",)}.get(x.type.rpartition(".")[2], ("μ", "σ²"))
        values = [y for name, y in x.fields.items() if name not in skipped]
    else:
        values = list(x.values()) if isinstance(x, dict) else x if isinstance(x, tuple) else []
    if isinstance(x, np.ndarray):
        yield x
    for value in values:
        yield from _trained(value)


def test_states_load_into_the_model_that_they_are_from() -> None:
    """`Flux.loadmodel!` needs the same fields in the same order at every level."""
    r = Random()
    flux = chain(
        r.conv((3, 2), 3, 4, RELU, stride=2, pad=(0, 1, 2, 0)),
        r.conv((2, 2), 4, 2, type="ConvTranspose", stride=2, outpad=(1, 0)),
        r.norm(2, RELU),
        r.norm(2, type="InstanceNorm"),
        r.norm(2, type="GroupNorm", G=2, momentum=0.1),
        pool("MaxPool", (2, 1), pad=(1, 0, 0, 0)),
        Struct("Flux.SkipConnection", layers=chain(r.dense(3, 3)), connection=PLUS),
        Struct("Flux.Parallel", connection=VCAT, layers=(r.dense(3, 3), r.dense(3, 3))),
        Struct("Flux.Dropout", p=0.5, dims=(), active=None, rng=()),
        FLATTEN,
        r.dense(8, 3, RELU, bias=False),
        r.layer_norm(3),
        Struct("Flux.Embedding", weight=r(4, 5)),
        r.recurrent("RNN", 3, 4),
        r.recurrent("GRU", 4, 4),
        r.recurrent("LSTM", 4, 4, old=True),
    )
    state, report = migrate.convert(jtree.from_flux(flux_file(model=flux)), to="flux")
    expected = state_of(flux)
    assert paths_of(state) == paths_of(expected)
    assert report.layout == "jtree"
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), state, expected)
    assert [x.notes for x in report.layers if x.kind == "embedding"] == [
        ("ids count from 1 in Julia and from 0 in JAX",)
    ]


def paths_of(x: Any, path: str = "") -> list[str]:
    """Return the paths of all fields in their order, which JAX would sort."""
    items = x.items() if isinstance(x, dict) else enumerate(x) if isinstance(x, tuple) else ()
    return [path, *(y for key, z in items for y in paths_of(z, f"{path}/{key}"))]


class Vae(nnx.Module):
    """A variational autoencoder, of which the mean is decoded."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.encoder = nnx.Sequential(
            nnx.Conv(1, 4, (3, 3), strides=2, padding=1, rngs=rngs), nnx.relu, self.flat
        )
        self.mean = nnx.Linear(36, 3, rngs=rngs)
        self.log_var = nnx.Linear(36, 3, rngs=rngs)
        self.decoder = nnx.Sequential(
            nnx.Linear(3, 36, rngs=rngs),
            nnx.relu,
            lambda x: x.reshape(-1, 3, 3, 4),
            nnx.ConvTranspose(4, 1, (3, 3), strides=(2, 2), padding=((1, 2), (1, 2)), rngs=rngs),
        )

    @staticmethod
    def flat(x: Any) -> Any:
        return x.reshape(x.shape[0], -1)

    def __call__(self, x: Any) -> Any:
        h = self.encoder(x)
        return self.decoder(self.mean(h)), self.log_var(h)


def test_a_variational_autoencoder_into_nnx() -> None:
    r = Random()
    conv = r.conv((3, 3), 1, 4, RELU, stride=2, pad=1)
    encoder, decoder = chain(conv, IDENTITY, FLATTEN), r.dense(3, 36, RELU)
    deconv = r.conv((3, 3), 4, 1, type="ConvTranspose", stride=2, pad=1, outpad=(1, 1))
    mean, log_var = r.dense(36, 3), r.dense(36, 3)
    reshape = Struct("#7#8")
    vae = Struct(
        "VAE",
        **dict(enumerate_fields(encoder, mean, log_var, chain(decoder, IDENTITY, reshape, deconv))),
    )
    source = flux_file(vae=vae, epoch=3, loss=np.ones(4))
    source.tree["vae"] = tuple(source.tree["vae"].values())
    model, report = migrate.convert(
        Vae(),
        source,
        layout="flux",
        fields={"VAE": ("encoder", "mean", "log_var", "decoder")},
        hints=[
            migrate.flattened("mean", shape=(4, 3, 3)),
            migrate.flattened("log_var", shape=(4, 3, 3)),
            migrate.unflattened("decoder/0", shape=(4, 3, 3)),
        ],
    )
    x = r(6, 6, 1, 2)
    h = call(encoder, x)
    hidden = call(decoder, call(mean, h)).reshape(3, 3, 4, 2, order="F")
    y, variance = jax.jit(lambda x: model(x))(jnp.asarray(nhwc(x)))
    np.testing.assert_allclose(y, nhwc(call(deconv, hidden)), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(variance, call(log_var, h).T, rtol=1e-5, atol=1e-5)
    assert report.ignored == {"loss": "not in the model"}
    assert not report.settings
    notes = {layer.path: layer.notes for layer in report.layers}
    assert notes["encoder/layers/0"] == ("NNlib.relu follows in Flux",)
    assert notes["mean"] == ("rows permuted",)


def enumerate_fields(*values: Any) -> Any:
    return ((str(n), x) for n, x in enumerate(values))


def gpt(embedding: Any, blocks: Any, norm: Any, head: Any) -> Any:
    return {"tok": embedding, "blocks": blocks, "norm": norm, "head": head}


def test_a_gpt_with_biases_off() -> None:
    r = Random()

    def attention() -> Struct:
        projections = {f"{name}_proj": r.dense(8, 8, bias=False) for name in ("q", "k", "v", "out")}
        return Struct("Flux.MultiHeadAttention", nheads=2, **projections, attn_drop=IDENTITY)

    def block() -> Struct:
        mlp = chain(r.dense(8, 16, GELU, bias=False), r.dense(16, 8, bias=False))
        return Struct("Block", ln1=r.layer_norm(8), attn=attention(), ln2=r.layer_norm(8), mlp=mlp)

    embedding, blocks = Struct("Flux.Embedding", weight=r(8, 11)), (block(), block())
    norm, head = r.layer_norm(8), r.dense(8, 11, bias=False)
    flux = Struct("GPT", tok=embedding, blocks=blocks, norm=norm, head=head)

    def layer(key: int) -> Any:
        keys = jax.random.split(jax.random.key(key), 3)
        return {
            "ln1": layers.LayerNorm(8, eps=1e-10),
            "attn": layers.MultiHeadAttention(8, heads=2, bias=False, causal=True, key=keys[0]),
            "ln2": layers.LayerNorm(8, eps=1e-10),
            "mlp": layers.Chain(
                layers.Dense(8, 16, jax.nn.gelu, bias=False, key=keys[1]),
                layers.Dense(16, 8, bias=False, key=keys[2]),
            ),
        }

    model = gpt(
        layers.Embedding(11, 8, key=KEY),
        [layer(0), layer(1)],
        layers.LayerNorm(8, eps=1e-10),
        layers.Dense(8, 11, bias=False, key=KEY),
    )
    ids = np.array([[1, 4], [11, 2], [7, 7]])  # (time, batch), from 1 on
    y = call(embedding, ids)
    for one in blocks:
        f = one.fields
        y = y + attend(f["attn"].fields, call(f["ln1"], y), causal=True)
        y = y + call(f["mlp"], call(f["ln2"], y))
    y = call(head, call(norm, y))

    @jax.jit
    def run(model: Any, ids: Any) -> Any:
        x = model["tok"](ids)
        for one in model["blocks"]:
            x = x + one["attn"](one["ln1"](x))
            x = x + one["mlp"](one["ln2"](x))
        return model["head"](model["norm"](x))

    for source in (flux_file(model=flux), FluxFile({"model_state": state_of(flux)})):
        loaded, report = migrate.convert(model, source, layout="flux")
        outputs = run(loaded, jnp.asarray(ids.T - 1))
        np.testing.assert_allclose(outputs, y.T, rtol=1e-5, atol=1e-5)
        notes = {layer.path: layer.notes for layer in report.layers}
        assert notes["tok"] == ("ids count from 1 in Julia and from 0 in JAX",)
        assert not report.settings


@pytest.mark.slow
def test_recurrent_layers_into_nnx_and_equinox() -> None:
    r = Random()
    flux = chain(r.recurrent("LSTM", 3, 4, bias=False), r.recurrent("GRU", 4, 5), r.dense(5, 2))
    rngs = nnx.Rngs(0)
    model = nnx.Sequential(
        nnx.RNN(nnx.OptimizedLSTMCell(3, 4, rngs=rngs)),
        nnx.RNN(nnx.GRUCell(4, 5, rngs=rngs)),
        nnx.Linear(5, 2, rngs=rngs),
    )
    model, _ = migrate.convert(model, flux_file(model=flux), layout="flux")
    x = r(3, 6, 2)
    y = model(jnp.asarray(reversed_axes(x)))
    np.testing.assert_allclose(y, reversed_axes(call(flux, x)), rtol=1e-5, atol=1e-5)
    cell, _ = migrate.convert(
        eqx.nn.GRUCell(4, 5, key=KEY),
        flux_file(cell=flux.fields["layers"][1].fields["cell"]),
        layout="flux",
    )
    h, x = r(5, 1), r(4, 1)
    expected, _ = step(flux.fields["layers"][1].fields["cell"], h, x)
    np.testing.assert_allclose(cell(x[:, 0], h[:, 0]), expected[:, 0], rtol=1e-5, atol=1e-6)


class Network(nn.Module):
    """A small network of linen."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.Conv(4, (3, 2), strides=2, padding=((2, 0), (0, 1)))(x)
        x = nn.relu(nn.BatchNorm(use_running_average=True, momentum=0.75)(x))
        return nn.Dense(2)(x.mean((1, 2)))


def test_a_network_of_linen_and_back() -> None:
    r = Random()
    flux = chain(
        r.conv((2, 3), 3, 4, stride=2, pad=(0, 1, 2, 0)),
        r.norm(4, RELU),
        Struct("Flux.GlobalMeanPool"),
        FLATTEN,
        r.dense(4, 2),
    )
    x = r(7, 6, 3, 2)
    names = {"layers.0": "Conv_0", "layers.1": "BatchNorm_0", "layers.4": "Dense_0"}
    target = migrate.linen(Network(), None, jnp.asarray(nhwc(x)))
    variables, report = migrate.convert(target, flux_file(model=flux), layout="flux", rename=names)
    y = Network().apply(variables, jnp.asarray(nhwc(x)))
    np.testing.assert_allclose(y, call(flux, x).T, rtol=1e-5, atol=1e-5)
    assert not report.settings
    state, _ = migrate.convert(migrate.linen(Network(), variables, jnp.asarray(nhwc(x))), to="flux")
    np.testing.assert_array_equal(
        state["Conv_0"]["weight"],
        flux.fields["layers"][0].fields["weight"],
    )
    vector = migrate.to_flux_vector(migrate.linen(Network(), variables, jnp.asarray(nhwc(x))))
    np.testing.assert_array_equal(vector, flux_vector(flux))  # in the order of the calls


def test_a_network_of_equinox() -> None:
    r = Random()
    flux = chain(r.conv((2, 3), 1, 4, RELU, pad=(0, 1, 1, 1)), FLATTEN, r.dense(48, 5))
    model = eqx.nn.Sequential(
        [
            eqx.nn.Conv2d(1, 4, (3, 2), padding=((1, 1), (0, 1)), key=KEY),
            eqx.nn.Lambda(jax.nn.relu),
            eqx.nn.Lambda(jnp.ravel),
            eqx.nn.Linear(48, 5, key=KEY),
        ]
    )
    names = {"layers.2": "layers.3"}
    model, report = migrate.convert(model, flux_file(model=flux), layout="flux", rename=names)
    x = r(4, 3, 1, 2)
    y = jax.vmap(model)(jnp.asarray(x.transpose()))  # channels first, as in memory
    np.testing.assert_allclose(y, call(flux, x).T, rtol=1e-5, atol=1e-5)
    assert not report.settings
    assert not report.warnings


def test_settings_that_differ_are_reported() -> None:
    r = Random()
    flux = chain(r.conv((2, 3), 3, 4, stride=2, pad=(0, 1, 2, 0)), r.norm(4))
    model = layers.Chain(layers.Conv((3, 2), 3, 4, key=KEY), layers.BatchNorm(4, eps=1e-3))
    for source in (flux_file(model=flux), FluxFile({"model_state": state_of(flux)})):
        _, report = migrate.convert(model, source, layout="flux")
        assert [x.text for x in report.settings] == [
            "layers/0: strides=(1, 1) in the model, (2, 2) in the source",
            "layers/0: padding=((0, 0), (0, 0)) in the model, ((2, 0), (0, 1)) in the source",
            "layers/1: epsilon=0.001 in the model, 1e-05 in the source",
            "layers/1: momentum=0.9 in the model, 0.75 in the source",
        ]


def test_initial_states_are_refused_unless_they_are_zero() -> None:
    flux = chain(Random().recurrent("LSTM", 3, 4, old=True))
    model = layers.Chain(layers.LSTM(3, 4, key=KEY))
    with pytest.raises(jtree.LoadError, match="layers/0/state0/0: expected nothing"):
        migrate.convert(model, flux_file(model=flux), layout="flux")
    same, _ = migrate.convert(
        layers.Chain(layers.Recur(layers.LSTMCell(3, 4, key=KEY))),
        flux_file(model=flux),
        layout="flux",
    )
    agree(same, flux, Random()(3, 5, 2), image=False)
    for state in flux.fields["layers"][0].fields["cell"].fields["state0"]:
        state[:] = 0
    model, report = migrate.convert(model, flux_file(model=flux), layout="flux")
    agree(model, flux, Random()(3, 5, 2), image=False)
    assert set(report.ignored.values()) == {"zeros, from which the model's layer starts"}


def test_a_scale_of_any_flux_into_jtree_and_back() -> None:
    r = Random()
    old = Struct("Flux.Diagonal", α=r(3), β=r(3))
    scale, bias = old.fields.values()
    model = layers.Chain(layers.Scale(3))
    for flux in (old, Struct("Flux.Scale", scale=scale, bias=bias, σ=IDENTITY)):
        loaded, _ = migrate.convert(model, flux_file(model=chain(flux)), layout="flux")
        np.testing.assert_array_equal(loaded[0].bias, bias)
        built = jtree.from_flux(flux_file(model=flux))
        np.testing.assert_allclose(built(jnp.ones((2, 3))), [scale + bias] * 2, rtol=1e-6)
    state, _ = migrate.convert(layers.Chain(layers.Dense(3, 3, key=KEY), loaded[0]), to="flux")
    assert list(state["layers"][1]) == ["scale", "bias", "σ"]


def test_values_keep_their_dtype() -> None:
    flux = Random().dense(3, 2)
    flux.fields["weight"] = flux.fields["weight"].astype(np.float64) / 3
    model = jtree.from_flux(flux_file(model=flux))
    assert model.weight.dtype == np.float64
    assert (model.weight == flux.fields["weight"].T).all()
    assert migrate.to_flux_vector(model).dtype == np.float64


def test_standard_deviations_of_the_oldest_batch_norms() -> None:
    r = Random()
    statistics = {"μ": r(3), "σ²": r.positive(3), "ϵ": 1e-8}
    flux = Struct("Flux.BatchNorm", λ=RELU, **{"β": r(3), "γ": r(3), **statistics}, momentum=0.1)
    x = r(5, 3)
    scale = flux.fields["γ"][None] / statistics["σ²"]
    expected = np.maximum(scale * (x - statistics["μ"]) + flux.fields["β"], 0)
    model = jtree.from_flux(flux_file(model=chain(flux)))
    np.testing.assert_allclose(model(jnp.asarray(x)), expected, rtol=1e-5, atol=1e-6)
    target = layers.Chain(layers.BatchNorm(3, jax.nn.relu))
    model, _ = migrate.convert(target, flux_file(model=chain(flux)), layout="flux")
    np.testing.assert_allclose(model(jnp.asarray(x)), expected, rtol=1e-4, atol=1e-4)
    flux.fields["σ"] = flux.fields.pop("σ²")  # as JLD2 names it
    model = jtree.from_flux(flux_file(model=chain(flux)))
    np.testing.assert_allclose(model(jnp.asarray(x)), expected, rtol=1e-4, atol=1e-4)


def test_the_weights_that_attention_returns_in_julia_are_left_out() -> None:
    r = Random()
    projections = {f"{name}_proj": r.dense(4, 4) for name in ("q", "k", "v", "out")}
    attention = Struct("Flux.MultiHeadAttention", nheads=2, **projections, attn_drop=IDENTITY)
    flux, x = chain(attention, Struct("Base.first"), r.dense(4, 2)), r(4, 5, 2)
    y = jtree.from_flux(flux_file(model=flux))(jnp.asarray(x.T))
    expected = call(flux.fields["layers"][2], attend(attention.fields, x))
    np.testing.assert_allclose(y, expected.T, rtol=1e-5, atol=1e-6)


def test_functions_that_a_file_does_not_tell_are_given() -> None:
    r = Random()
    flux = chain(r.conv((2, 2), 1, 2), Struct("#3#4"), r.dense(8, 3, Struct("mish2")))
    source = flux_file(model=flux)
    given = {"model/layers/1": layers.flatten_channels_first, "mish2": jnp.sin}
    model = jtree.from_flux(source, functions=given)
    assert model[1] is layers.flatten_channels_first
    assert model[2].activation is jnp.sin
    with pytest.raises(jtree.ModelError) as caught:
        jtree.from_flux(source)
    assert str(caught.value) == (
        "model/layers/1: what #3#4 computes is unknown; pass functions={'model/layers/1': a "
        "function or a layer}, or build the model and pass it to jtree.migrate.convert(model, "
        'path, layout="flux")'
    )


def two_towers() -> Struct:
    r = Random()
    return Struct("TwoTower", query=chain(r.dense(3, 2, TANH)), key=chain(r.dense(3, 2)))


REFUSED: dict[str, tuple[FluxFile, dict[str, Any]]] = {
    "the file holds 2 models: a, b; choose one with model='a'": (
        flux_file(a=Random().dense(2, 1), b=Random().dense(2, 1)),
        {},
    ),
    "model: TwoTower is not a layer of Flux, so what it computes is unknown; build the model and "
    'pass it to jtree.migrate.convert(model, path, layout="flux"), or choose a part of it with '
    "model='model/query'": (flux_file(model=two_towers()), {}),
    "the file holds the state of a model, without its types and activations; build the model and "
    'pass it to jtree.migrate.convert(model, path, layout="flux")': (
        FluxFile({"model_state": state_of(two_towers())}),
        {},
    ),
    "the file holds no model; build the model and pass it to "
    'jtree.migrate.convert(model, path, layout="flux")': (flux_file(losses=np.ones(3)), {}),
    "model: the file has nothing at 'modle'; did you mean model?": (
        flux_file(model=two_towers()),
        {"model": "modle"},
    ),
    "layer: a GroupNorm with running statistics, which Flux 0.13 removed; pass functions={'layer': "
    "a layer} that normalises by them": (
        flux_file(
            layer=Random().norm(4, type="GroupNorm", G=2, **{"μ": np.ones(2), "σ²": np.ones(2)})
        ),
        {},
    ),
    "layer: a Dropout along axes of Julia, dims=1; pass functions={'layer': "
    "jtree.layers.Dropout(0.5, dims=...)}": (
        flux_file(layer=Struct("Flux.Dropout", p=0.5, dims=1)),
        {},
    ),
    "model/layers/0: the fields of this MaxPool are not those of Flux: TypeError(\"'int' object is "
    'not reversible")': (flux_file(model=chain(Struct("Flux.MaxPool", k=3, pad=0))), {}),
    "model/layers/1: what Flux.Bilinear computes is unknown; pass functions={'model/layers/1': a "
    "function or a layer}, or build the model and pass it to jtree.migrate.convert(model, path, "
    'layout="flux")': (
        flux_file(model=chain(IDENTITY, Struct("Flux.Bilinear", weight=np.ones((2, 2, 2))))),
        {},
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_not_a_whole_model_of_known_layers_is_refused(message: str) -> None:
    source, options = REFUSED[message]
    with pytest.raises(jtree.JtreeError) as caught:
        jtree.from_flux(source, **options)
    assert str(caught.value) == message


def test_a_part_of_a_model_is_built_by_its_path_or_by_the_names_of_its_fields() -> None:
    source = flux_file(model=two_towers())
    model = jtree.from_flux(source, model="model/query")
    agree(model, two_towers().fields["query"], Random()(3, 4), image=False)
    source.tree["model"] = tuple(source.tree["model"].values())
    source.types = {
        path.replace("query", "0").replace("key", "1"): x for path, x in source.types.items()
    }
    again = jtree.from_flux(source, {"TwoTower": ("query", "key")}, model="model/query")
    np.testing.assert_array_equal(again[0].weight, model[0].weight)


def test_vectors_of_other_lengths_are_refused() -> None:
    model = layers.Dense(2, 3, key=KEY)
    with pytest.raises(jtree.VectorError, match="vector: expected 9 elements in one axis, found"):
        migrate.from_flux_vector(model, jnp.ones(8))


def test_vectors_of_models_of_other_frameworks_and_of_tied_parameters() -> None:
    model = nnx.Sequential(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.relu)
    model.layers.append(model.layers[0])
    vector = migrate.to_flux_vector(model)
    kernel = model.layers[0].kernel[...]
    np.testing.assert_array_equal(vector, np.concatenate([kernel.ravel(), np.zeros(3)]))
    back = migrate.from_flux_vector(model, vector + 1)
    np.testing.assert_array_equal(back.layers[0].kernel[...], kernel + 1)


def test_no_hint_is_asked_for_where_channels_come_first(caplog: pytest.LogCaptureFixture) -> None:
    r = Random()
    flux = chain(r.conv((2, 2), 1, 3), FLATTEN, r.dense(12, 2))
    model = jtree.from_flux(flux_file(model=flux))
    state, report = migrate.convert(model, to="flux")
    assert not report.warnings
    back, report = migrate.convert(model, state, layout="flux")
    assert not report.warnings
    assert not caplog.records
    np.testing.assert_array_equal(back[2].weight, model[2].weight)


def test_hints_permute_vectors_and_states() -> None:
    model = layers.Chain(
        layers.Conv((2, 2), 1, 3, key=KEY), layers.flatten, layers.Dense(12, 2, key=KEY)
    )
    hints = [migrate.flattened("layers/2", shape=(3, 2, 2))]
    state, _ = migrate.convert(model, to="flux", hints=hints)
    expected = model[2].weight.reshape(2, 2, 3, 2).transpose(3, 2, 0, 1).reshape(2, 12)
    np.testing.assert_array_equal(state["layers"][2]["weight"], expected)
    vector = migrate.to_flux_vector(model, hints=hints)
    again = migrate.from_flux_vector(model, vector, hints=hints)
    np.testing.assert_array_equal(again[2].weight, model[2].weight)
    with pytest.raises(jtree.ArgumentError, match="concerns no layer of the model"):
        migrate.to_flux_vector(model, hints=[migrate.flattened("layers/7", shape=(3, 2, 2))])


def test_what_flux_lacks_is_refused() -> None:
    with pytest.raises(jtree.ModelError) as caught:
        migrate.convert(nnx.RMSNorm(3, rngs=nnx.Rngs(0)), to="flux")
    assert str(caught.value) == "(root): a RMSNorm has no counterpart in Flux"
    with pytest.raises(jtree.ArgumentError, match="to: expected 'flux' or None, found 'torch'"):
        migrate.convert(layers.Dense(1, 1, key=KEY), to="torch")
    with pytest.raises(jtree.ArgumentError, match="so a source cannot be given"):
        migrate.convert(layers.Dense(1, 1, key=KEY), {}, to="flux")


def test_files_of_bson_hold_whole_models_and_states(tmp_path: Path) -> None:
    r = Random()
    flux = mobile_net(r)
    write_bson(tmp_path / "model.bson", model=flux, epoch=3)
    model = jtree.from_flux(tmp_path / "model.bson")
    agree(model, flux, r(9, 7, 3, 2), image=True, image_out=False)
    state, _ = migrate.convert(model, to="flux")
    zeros = migrate.from_flux_vector(model, jnp.zeros(migrate.to_flux_vector(model).size))
    for name in ("state.bson", "state.jld2"):
        jtree.save(tmp_path / name, state)
        back, report = migrate.convert(zeros, tmp_path / name, layout="flux")
        agree(back, flux, r(9, 7, 3, 2), image=True, image_out=False)
        assert not report.settings
    again, _ = migrate.convert(zeros, tmp_path / "model.bson", layout="flux")
    agree(again, flux, r(9, 7, 3, 2), image=True, image_out=False)


def test_parameters_in_a_list_load_in_the_order_of_flux() -> None:
    flux = chain(Random().dense(3, 4), Random().norm(4), Random().dense(4, 2))
    model = jtree.from_flux(flux_file(model=flux))
    arrays = list(_trained(flux))
    zeros = jax.tree.map(jnp.zeros_like, model)
    np.testing.assert_array_equal(
        migrate.from_flux_vector(zeros, arrays)[2].weight, model[2].weight
    )
    with pytest.raises(jtree.VectorError) as caught:
        migrate.from_flux_vector(zeros, [*arrays[:2], *arrays[4:]])
    assert str(caught.value) == (
        "vector: expected an array of shape (4,) for layers/1/β at index 2, found (2, 4)"
    )
    with pytest.raises(jtree.VectorError, match="vector: expected 6 arrays, found 5"):
        migrate.from_flux_vector(zeros, arrays[:5])


def test_the_state_of_an_optimiser_beside_a_model_is_ignored() -> None:
    r = Random()
    flux = chain(r.dense(3, 4), r.norm(4), r.recurrent("GRU", 4, 2))
    state = state_of(flux)
    leaf = lambda x: Struct("Optimisers.Leaf", rule=(), state=(x, x), frozen=False)  # noqa: E731
    optimiser = jax.tree.map(lambda x: leaf(x) if isinstance(x, np.ndarray) else x, state)
    source = flux_file(model_state=state, opt_state=optimiser, losses=[np.ones(3)])
    model = jtree.from_flux(flux_file(model=flux))
    zeros = jax.tree.map(jnp.zeros_like, model)
    loaded, report = migrate.convert(zeros, source, layout="flux")
    np.testing.assert_array_equal(migrate.to_flux_vector(loaded), migrate.to_flux_vector(model))
    assert set(report.ignored.values()) == {"not in the model"}
