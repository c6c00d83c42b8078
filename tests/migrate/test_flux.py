"""Models of Flux in JAX: each agrees with an independent computation in Julia's order of axes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtree
from jtree import layers, migrate

from .flux import (
    FLATTEN,
    IDENTITY,
    PLUS,
    RELU,
    SIGMOID,
    SOFTMAX,
    TANH,
    VCAT,
    Random,
    Struct,
    call,
    chain,
    flux_file,
    nhwc,
    pool,
    reversed_axes,
)

KEY = jax.random.key(0)


def agree(model: Any, flux: Struct, x: Any, *, image: bool, image_out: bool | None = None) -> None:
    """Check that a model computes what a model of Flux computes."""
    expected = call(flux, x)
    image_out = image if image_out is None else image_out
    y = model(jnp.asarray(nhwc(x) if image else reversed_axes(x)))
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
