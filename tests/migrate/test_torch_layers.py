"""Each kind of layer of PyTorch, with outputs equal to 1e-5 in every framework of JAX."""

from __future__ import annotations

from collections.abc import Callable
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

from ..same import close_to_scale as close
from ..same import normal
from .models import channels_first, channels_last, randomised_torch, refusal

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("seeded_torch")
KEY = jax.random.key(0)


def linen_apply(module: Any, source: Any, *inputs: Any) -> Any:
    """Return the outputs of a linen module with the weights of a source."""
    variables, _ = migrate.convert(migrate.linen(module, None, *inputs), source)
    return module.apply(variables, *map(jnp.asarray, inputs))


def nnx_apply(model: Any, source: Any, *inputs: Any) -> Any:
    """Return the outputs of a model with the weights of a source."""
    return migrate.convert(model, source)[0](*map(jnp.asarray, inputs))


@pytest.mark.parametrize(("n", "m"), [(3, 4), (4, 4)])
def test_linear(n: int, m: int) -> None:
    layer, x = randomised_torch(torch.nn.Linear(n, m)), normal(5, n)
    expected = layer(torch.tensor(x))
    close(nnx_apply(nnx.Linear(n, m, rngs=nnx.Rngs(0)), layer, x), expected)
    close(linen_apply(nn.Dense(m), layer, x), expected)
    close(nnx_apply(jtree.layers.Dense(n, m), layer, x), expected)
    eqx_layer, _ = migrate.convert(eqx.nn.Linear(n, m, key=KEY), layer.state_dict())
    close(jax.vmap(eqx_layer)(x), expected)


def test_a_dense_layer_with_several_axes_of_features() -> None:
    layer, x = randomised_torch(torch.nn.Linear(6, 4)), normal(5, 2, 3)
    model = nnx.LinearGeneral((2, 3), (2, 2), axis=(-2, -1), rngs=nnx.Rngs(0))
    expected = layer(torch.tensor(x).reshape(5, 6)).reshape(5, 2, 2)
    close(nnx_apply(model, layer, x), expected)
    close(linen_apply(nn.DenseGeneral((2, 2), axis=(-2, -1)), layer, x), expected)


CONVOLUTIONS = [
    {"kernel_size": (3,)},
    {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0)},
    {"kernel_size": (3, 3), "groups": 2, "dilation": (2, 1)},
    {"kernel_size": (3, 3), "groups": 4, "padding": (1, 1)},
    {"kernel_size": (4, 4), "padding": (1, 1)},
    {"kernel_size": (2, 3, 2), "padding": (0, 1, 1)},
]


@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
def test_convolutions(options: dict[str, Any]) -> None:
    dims = len(options["kernel_size"])
    layer = randomised_torch(getattr(torch.nn, f"Conv{dims}d")(4, 8, **options))
    x = normal(2, *(9, 8, 7)[:dims], 4)
    expected = channels_last(layer(torch.tensor(channels_first(x))))
    size, pad = options["kernel_size"], options.get("padding", (0,) * dims)
    common = {
        "strides": options.get("stride", (1,) * dims),
        "padding": [(p, p) for p in pad],
        "kernel_dilation": options.get("dilation", (1,) * dims),
        "feature_group_count": options.get("groups", 1),
    }
    model = nnx.Conv(4, 8, size, rngs=nnx.Rngs(0), **common)
    model, report = migrate.convert(model, layer)
    close(model(jnp.asarray(x)), expected)
    assert not report.settings
    close(linen_apply(nn.Conv(8, size, **common), layer, x), expected)
    own = jtree.layers.Conv(
        size,
        4,
        8,
        stride=common["strides"],
        pad=tuple(pad),
        dilation=common["kernel_dilation"],
        groups=common["feature_group_count"],
    )
    close(nnx_apply(own, layer.state_dict(), x), expected)
    eqx_layer, report = migrate.convert(eqx.nn.Conv(dims, 4, 8, key=KEY, **options), layer)
    close(channels_last(jax.vmap(eqx_layer)(channels_first(x))), expected)
    assert not report.settings


TRANSPOSED = [
    {"kernel_size": (3,)},
    {"kernel_size": (3, 2), "stride": (2, 2), "padding": (1, 0)},
    {"kernel_size": (3, 3), "stride": (2, 2), "padding": (1, 1), "output_padding": (1, 1)},
    {"kernel_size": (3, 3), "dilation": (2, 1)},
    {"kernel_size": (4, 4), "stride": (2, 2), "padding": (1, 1)},
]


@pytest.mark.parametrize("channels", [(4, 6), (4, 4)])
@pytest.mark.parametrize("options", TRANSPOSED, ids=str)
def test_transposed_convolutions(options: dict[str, Any], channels: tuple[int, int]) -> None:
    dims = len(options["kernel_size"])
    layer = randomised_torch(getattr(torch.nn, f"ConvTranspose{dims}d")(*channels, **options))
    x = normal(2, *(5, 6)[:dims], 4)
    expected = channels_last(layer(torch.tensor(channels_first(x))))
    pads = migrate.transposed_padding(
        options["kernel_size"],
        padding=options.get("padding", 0),
        output_padding=options.get("output_padding", 0),
        dilation=options.get("dilation", 1),
    )
    common = {
        "strides": options.get("stride", (1,) * dims),
        "padding": pads,
        "kernel_dilation": options.get("dilation"),
    }
    for flip in (False, True):
        model = nnx.ConvTranspose(
            *channels,
            options["kernel_size"],
            transpose_kernel=flip,
            rngs=nnx.Rngs(0),
            **common,
        )
        close(nnx_apply(model, layer, x), expected)
        module = nn.ConvTranspose(
            channels[1], options["kernel_size"], transpose_kernel=flip, **common
        )
        close(linen_apply(module, layer.state_dict(), x), expected)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("options", TRANSPOSED, ids=str)
def test_transposed_convolutions_in_groups(options: dict[str, Any], groups: int) -> None:
    dims = len(options["kernel_size"])
    build = getattr(torch.nn, f"ConvTranspose{dims}d")
    layer = randomised_torch(build(4, 6, groups=groups, **options))
    x = normal(2, *(5, 6)[:dims], 4)
    expected = layer(torch.tensor(channels_first(x)))
    model = eqx.nn.ConvTranspose(dims, 4, 6, groups=groups, key=KEY, **options)
    model, _ = migrate.convert(model, layer)
    close(jax.vmap(model)(channels_first(x)), expected)


def test_batch_norm_with_its_statistics() -> None:
    layer, x = randomised_torch(torch.nn.BatchNorm2d(4, momentum=0.3)), normal(2, 3, 5, 4)
    expected = channels_last(layer(torch.tensor(channels_first(x))))
    model = nnx.BatchNorm(4, use_running_average=True, rngs=nnx.Rngs(0))
    model, report = migrate.convert(model, layer)
    close(model(jnp.asarray(x)), expected)
    assert [setting.text for setting in report.settings] == [
        "(root): momentum=0.99 in the model, 0.7 in the source"
    ]
    assert report.ignored == {"num_batches_tracked": "a counter of batches"}
    close(linen_apply(nn.BatchNorm(use_running_average=True), layer, x), expected)
    close(nnx_apply(jtree.layers.BatchNorm(4), layer.state_dict(), x), expected)


@pytest.mark.parametrize("mode", ["batch", "ema"])
def test_batch_norm_of_equinox(mode: Any) -> None:
    layer, x = randomised_torch(torch.nn.BatchNorm1d(4)), normal(7, 4)
    expected = layer(torch.tensor(x))
    pair = eqx.nn.make_with_state(eqx.nn.BatchNorm)(4, axis_name="batch", mode=mode)
    (model, state), _ = migrate.convert(pair, layer)
    model = eqx.nn.inference_mode(model)
    call = jax.vmap(model, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
    close(call(jnp.asarray(x), state)[0], expected)
    own = eqx.nn.BatchNorm(4, axis_name="batch", mode=mode)
    whole, _ = migrate.convert(own, layer)
    call = jax.vmap(
        eqx.nn.inference_mode(whole), axis_name="batch", in_axes=(0, None), out_axes=(0, None)
    )
    close(call(jnp.asarray(x), eqx.nn.State(whole))[0], expected)
    assert refusal(pair[0], layer) == (
        "nothing was loaded: 2 mismatches\n"
        "  (root): expected no mean in BatchNorm, found float32[4] in running_mean, which is not "
        "all zero; give the model its running statistics: for Equinox, pass (model, state)\n"
        "  (root): expected no var in BatchNorm, found float32[4] in running_var, which is not "
        "all one; give the model its running statistics: for Equinox, pass (model, state)"
    )


def test_a_converted_batch_norm_of_equinox_continues_to_train() -> None:
    layer = randomised_torch(torch.nn.BatchNorm1d(4, momentum=0.1))
    pair = eqx.nn.make_with_state(eqx.nn.BatchNorm)(
        4, axis_name="batch", mode="batch", momentum=0.9
    )
    (model, state), report = migrate.convert(pair, layer)
    assert not report.settings
    x = normal(7, 4)
    call = jax.vmap(model, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
    _, state = call(jnp.asarray(x), state)
    mean, _ = state.get(model.batch_state_index)
    layer.train()(torch.tensor(x))
    close(mean, layer.running_mean)


NORMS: list[tuple[Any, Any, Any, Any]] = [
    (
        lambda: torch.nn.LayerNorm(16),
        lambda: nnx.LayerNorm(16, epsilon=1e-5, rngs=nnx.Rngs(0)),
        lambda: nn.LayerNorm(epsilon=1e-5),
        lambda: eqx.nn.LayerNorm(16),
    ),
    (
        lambda: torch.nn.GroupNorm(2, 16),
        lambda: nnx.GroupNorm(16, 2, epsilon=1e-5, rngs=nnx.Rngs(0)),
        lambda: nn.GroupNorm(2, epsilon=1e-5),
        lambda: eqx.nn.GroupNorm(2, 16),
    ),
    (
        lambda: torch.nn.RMSNorm(16, eps=1e-5),
        lambda: nnx.RMSNorm(16, epsilon=1e-5, rngs=nnx.Rngs(0)),
        lambda: nn.RMSNorm(epsilon=1e-5),
        lambda: eqx.nn.RMSNorm(16, use_bias=False),
    ),
]


@pytest.mark.parametrize("build", NORMS, ids=["layer", "group", "rms"])
def test_norms(build: tuple[Callable[[], Any], ...]) -> None:
    layer, x = randomised_torch(build[0]()), normal(7, 16)
    expected = layer(torch.tensor(x))
    model, report = migrate.convert(build[1](), layer)
    close(model(jnp.asarray(x)), expected)
    assert not report.settings
    close(linen_apply(build[2](), layer, x), expected)
    model, report = migrate.convert(build[3](), layer)
    close(jax.vmap(model)(x), expected)
    assert not report.settings


def test_embeddings_and_parametric_relu() -> None:
    layer, tokens = randomised_torch(torch.nn.Embedding(5, 4)), np.array([[0, 4, 2]])
    expected = layer(torch.tensor(tokens))
    close(nnx_apply(nnx.Embed(5, 4, rngs=nnx.Rngs(0)), layer, tokens), expected)
    close(linen_apply(nn.Embed(5, 4), layer, tokens), expected)
    table, _ = migrate.convert(eqx.nn.Embedding(5, 4, key=KEY), layer)
    close(jax.vmap(jax.vmap(table))(tokens), expected)
    slope, x = randomised_torch(torch.nn.PReLU()), normal(3, 4)
    close(nnx_apply(nnx.PReLU(), slope, x), slope(torch.tensor(x)))
    close(nnx_apply(eqx.nn.PReLU(), slope, x), slope(torch.tensor(x)))


def scan(cell: Any, carry: Any, xs: Any) -> Any:
    def step(carry: Any, x: Any) -> Any:
        carry = cell(x, carry)
        return carry, carry[0] if isinstance(carry, tuple) else carry

    return jax.lax.scan(step, carry, xs)[1]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("cell", [nnx.LSTMCell, nnx.OptimizedLSTMCell])
def test_lstm(cell: Any, bias: bool) -> None:
    layer = randomised_torch(torch.nn.LSTM(3, 5, bias=bias, batch_first=True))
    x = normal(2, 6, 3)
    expected = layer(torch.tensor(x))[0]
    rngs = nnx.Rngs(0)
    if bias:
        close(nnx_apply(nnx.RNN(cell(3, 5, rngs=rngs), rngs=rngs), layer, x), expected)
        close(linen_apply(nn.RNN(nn.LSTMCell(5)), layer, x), expected)
        close(linen_apply(nn.RNN(nn.OptimizedLSTMCell(5)), layer, x), expected)
    model, _ = migrate.convert(eqx.nn.LSTMCell(3, 5, use_bias=bias, key=KEY), layer)
    zeros = (jnp.zeros(5), jnp.zeros(5))
    close(jax.vmap(lambda xs: scan(model, zeros, xs))(x), expected)


def test_lstm_of_two_layers_in_two_directions() -> None:
    class Both(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            def cell(n: int) -> Any:
                return nnx.RNN(nnx.LSTMCell(n, 5, rngs=rngs), rngs=rngs)

            self.lstm = nnx.List([nnx.Bidirectional(cell(n), cell(n), rngs=rngs) for n in (3, 10)])

        def __call__(self, x: Any) -> Any:
            for layer in self.lstm:
                x = layer(x)
            return x

    class Torch(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = torch.nn.LSTM(3, 5, 2, batch_first=True, bidirectional=True)

        def forward(self, x: Any) -> Any:
            return self.lstm(x)[0]

    layer, x = randomised_torch(Torch()), normal(2, 6, 3)
    close(nnx_apply(Both(nnx.Rngs(0)), layer, x), layer(torch.tensor(x)))
    rngs = nnx.Rngs(0)
    single = nnx.RNN(nnx.LSTMCell(3, 5, rngs=rngs), rngs=rngs)
    assert "  bias_ih_l1: expected nothing, found float32[20]" in refusal(single, layer.lstm)


def test_gru() -> None:
    layer, x = randomised_torch(torch.nn.GRU(3, 5, batch_first=True)), normal(2, 6, 3)
    expected = layer(torch.tensor(x))[0]
    close(linen_apply(nn.RNN(nn.GRUCell(5)), layer, x), expected)
    converted, _ = migrate.convert(eqx.nn.GRUCell(3, 5, key=KEY), layer)
    close(jax.vmap(lambda xs: scan(converted, jnp.zeros(5), xs))(x), expected)
    rngs = nnx.Rngs(0)
    model = nnx.RNN(nnx.GRUCell(3, 5, rngs=rngs), rngs=rngs)
    assert refusal(model, layer) == (
        "nothing was loaded: 1 mismatch\n"
        "  cell: expected no hidden bias n in GRUCell, found float32[5] in bias_hh_l0, which is "
        "not all zero; use a GRU that has this bias, such as flax.linen.GRUCell or eqx.nn.GRUCell"
    )
    layer.bias_hh_l0[10:] = 0
    close(nnx_apply(model, layer, x), layer(torch.tensor(x))[0])


def test_single_cells() -> None:
    x, h = normal(2, 3), normal(2, 5)
    for build, cell in ((torch.nn.LSTMCell, nnx.LSTMCell), (torch.nn.RNNCell, nnx.SimpleCell)):
        layer = randomised_torch(build(3, 5))
        model, _ = migrate.convert(cell(3, 5, rngs=nnx.Rngs(0)), layer.state_dict())
        if build is torch.nn.RNNCell:
            close(model(h, x)[1], layer(torch.tensor(x), torch.tensor(h)))
        else:
            expected = layer(torch.tensor(x), (torch.tensor(h), torch.tensor(2 * h)))[0]
            close(model((2 * h, h), x)[1], expected)


@pytest.mark.parametrize("bias", [True, False])
def test_attention(bias: bool) -> None:
    layer = randomised_torch(torch.nn.MultiheadAttention(6, 2, bias=bias, batch_first=True))
    x = normal(2, 5, 6)
    t = torch.tensor(x)
    expected = layer(t, t, t)[0]
    model = nnx.MultiHeadAttention(
        2, 6, decode=False, use_bias=bias, deterministic=True, rngs=nnx.Rngs(0)
    )
    close(nnx_apply(model, layer, x), expected)
    close(linen_apply(nn.MultiHeadDotProductAttention(2, use_bias=bias), layer, x), expected)
    biases = {f"use_{name}_bias": bias for name in ("query", "key", "value", "output")}
    converted, _ = migrate.convert(eqx.nn.MultiheadAttention(2, 6, key=KEY, **biases), layer)
    close(jax.vmap(lambda y: converted(y, y, y))(x), expected)


def test_attention_with_keys_of_another_size() -> None:
    layer = randomised_torch(torch.nn.MultiheadAttention(6, 2, kdim=4, vdim=4, batch_first=True))
    x, y = normal(2, 5, 6), normal(2, 3, 4)
    expected = layer(*map(torch.tensor, (x, y, y)))[0]
    model = nnx.MultiHeadAttention(
        2, 6, in_kv_features=4, decode=False, deterministic=True, rngs=nnx.Rngs(0)
    )
    close(nnx_apply(model, layer, x, y, y), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.float16])
def test_narrow_sources_and_narrow_models(dtype: Any) -> None:
    layer = randomised_torch(torch.nn.Linear(4, 4))
    narrow = {name: x.to(dtype) for name, x in layer.state_dict().items()}
    model, _ = migrate.convert(nnx.Linear(4, 4, rngs=nnx.Rngs(0)), narrow)
    assert model.kernel.dtype == jnp.float32
    np.testing.assert_array_equal(model.kernel[...], narrow["weight"].float().T)
    half = nnx.Linear(4, 4, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    model, _ = migrate.convert(half, layer)
    expected = layer.weight.T.numpy().astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(np.asarray(model.kernel[...]), expected)


def test_a_token_that_is_attended_to_is_not_lost() -> None:
    """Even if it is all zero."""
    attention = torch.nn.MultiheadAttention(4, 2, add_bias_kv=True)
    torch.nn.init.zeros_(attention.bias_k)
    model = nnx.MultiHeadAttention(2, 4, decode=False, rngs=nnx.Rngs(0))
    assert refusal(model, attention) == (
        "nothing was loaded: 2 mismatches\n"
        "  (root): expected no bias k in MultiHeadAttention, found float32[1, 1, 4] in bias_k; add "
        "this parameter to the layer, or drop it with a rule\n"
        "  (root): expected no bias v in MultiHeadAttention, found float32[1, 1, 4] in bias_v; add "
        "this parameter to the layer, or drop it with a rule"
    )


def test_instance_norm_as_itself_and_as_group_norm() -> None:
    layer, x = torch.nn.InstanceNorm2d(4, affine=True, eps=1e-3), normal(2, 4, 5, 6)
    torch.nn.init.normal_(layer.weight)
    expected = layer(torch.tensor(x))
    model, report = migrate.convert(eqx.nn.GroupNorm(4, 4, eps=1e-3), layer)
    close(jax.vmap(model)(x), expected)
    assert not report.settings
    model, report = migrate.convert(nnx.InstanceNorm(4, epsilon=1e-5, rngs=nnx.Rngs(0)), layer)
    assert [x.name for x in report.settings] == ["epsilon"]
    expected = "expected layer norm weights for LayerNorm, found InstanceNorm2d in the source"
    assert expected in refusal(nnx.LayerNorm(4, rngs=nnx.Rngs(0)), layer)


@pytest.mark.parametrize(
    ("text", "shape"), [("bi,ihn->bhn", (6, 4, 2)), ("...i,nhi->...hn", (2, 4, 6))]
)
def test_einsums_are_dense_layers(text: str, shape: tuple[int, ...]) -> None:
    """The text tells the order of the axes of the kernel and of the features."""
    layer, x = torch.nn.Linear(6, 8), normal(3, 6)
    expected = layer(torch.tensor(x)).reshape(3, 4, 2)
    model, _ = migrate.convert(nnx.Einsum(text, shape, (4, 2), rngs=nnx.Rngs(0)), layer)
    close(model(jnp.asarray(x)), expected)
    module = nn.Einsum(shape, text)
    variables, _ = migrate.convert(migrate.linen(module, None, x), model, layout="nnx")
    close(module.apply(variables, x), expected)
    batched = nnx.Einsum("ebi,ein->ebn", (3, 6, 8), None, rngs=nnx.Rngs(0))
    assert "kernel: expected float32[3, 6, 8], found no kernel" in refusal(batched, layer)


@pytest.mark.parametrize(
    "norm",
    [torch.nn.utils.parametrizations.weight_norm, torch.nn.utils.parametrizations.spectral_norm],
)
def test_parametrized_weights_are_refused(norm: Any) -> None:
    module = torch.nn.Sequential(norm(torch.nn.Linear(4, 4)))
    model = nnx.Sequential(nnx.Linear(4, 4, rngs=nnx.Rngs(0)))
    assert "remove_parametrizations" in refusal(model, module.state_dict())
