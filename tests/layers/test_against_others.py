"""The reference layers against those of Flax, Equinox and PyTorch with the same weights."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jtree
from jtree import migrate
from jtree.layers import (
    GRU,
    LSTM,
    RNN,
    Conv,
    ConvTranspose,
    Embedding,
    GroupNorm,
    LayerNorm,
    MultiHeadAttention,
    Scale,
)

from ..same import close, same
from .examples import KEY, rows


def randomised(model: Any) -> Any:
    flat, re = jtree.destructure(model)
    return re(0.5 * jax.random.normal(jax.random.key(1), flat.shape))


def to_nnx(model: Any, source: Any) -> Any:
    """Return a model of NNX with the values of a layer, after the way back to the layer."""
    model, report = migrate.convert(model, source, layout="jtree")
    back, _ = migrate.convert(jax.eval_shape(lambda: source), model, layout="nnx")
    assert same(back, source)
    assert not report.settings
    return model


def test_an_embedding_is_that_of_nnx() -> None:
    layer, x = Embedding(5, 3, key=KEY), jnp.array([[0, 4], [2, 2]])
    other = to_nnx(nnx.Embed(5, 3, rngs=nnx.Rngs(0)), layer)
    assert same(layer(x), other(x))
    assert same(layer(x.astype(jnp.uint8)), layer(x))
    assert layer(x[0, 0]).shape == (3,)


@pytest.mark.parametrize("dtype", [jnp.int8, jnp.uint8, jnp.int32, jnp.uint32])
def test_an_index_outside_of_an_embedding_gives_nan(dtype: Any) -> None:
    large, small = Embedding(70000, 2, key=KEY), Embedding(5, 2, key=KEY)
    assert jnp.isfinite(large(jnp.array([0, 4], dtype))).all()
    info = jnp.iinfo(dtype)
    outside = jnp.isnan(small(jnp.array([info.min, 4, 5, info.max], dtype))).all(-1)
    assert outside.tolist() == [info.min < 0, False, True, True]


def test_a_scale_multiplies_adds_and_activates() -> None:
    layer, x = randomised(Scale((2, 3), jnp.tanh)), rows(4, 2, 3)
    close(layer(x), jnp.tanh(x * layer.scale + layer.bias))
    without = Scale(3, bias=False, init=lambda _, shape: jnp.full(shape, 2.0))
    assert without(jnp.ones(3)).tolist() == [2, 2, 2]


@pytest.mark.parametrize("size", [4, (3, 4)])
def test_layernorm_is_that_of_nnx_and_equinox(size: Any) -> None:
    layer, x = randomised(LayerNorm(size)), 3 * rows(5, 3, 4) + 1
    axes = (-1,) if size == 4 else (-2, -1)
    options = {"epsilon": 1e-5, "feature_axes": axes, "reduction_axes": axes}
    if size == 4:
        other = to_nnx(nnx.LayerNorm(4, epsilon=1e-5, rngs=nnx.Rngs(0)), layer)
    else:
        variables = {"params": {"scale": layer.diag.scale, "bias": layer.diag.bias}}
        other = lambda x: nn.LayerNorm(**options).apply(variables, x)  # noqa: E731
    close(layer(x), other(x), rtol=1e-4, atol=1e-5)
    theirs, _ = migrate.convert(eqx.nn.LayerNorm(size), layer, layout="jtree")
    batch = jax.vmap(jax.vmap(theirs)) if size == 4 else jax.vmap(theirs)
    close(layer(x), batch(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(4, 6), (2, 5, 6), (2, 5, 4, 6)])
def test_groupnorm_is_that_of_nnx(shape: tuple[int, ...]) -> None:
    layer, x = randomised(GroupNorm(6, 2)), 3 * rows(*shape) + 1
    other = nnx.GroupNorm(6, num_groups=2, epsilon=1e-5, rngs=nnx.Rngs(0))
    close(layer(x), to_nnx(other, layer)(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [lambda: LayerNorm(4), lambda: GroupNorm(4, 1)])
def test_norms_of_half_precision_compute_in_single(make: Any) -> None:
    x = jnp.array([[1.0, 2.0, 3.0, 4.0]]) * 1e4  # whose squares float16 cannot hold
    y = jtree.f16(make())(x.astype(jnp.float16))
    assert y.dtype == jnp.float16
    close(y, make()(x), atol=1e-3)
    plain = LayerNorm(4, affine=False)
    assert (plain.diag, jtree.trainables(plain)) == (None, {})
    close(plain(x), LayerNorm(4)(x))


@pytest.mark.parametrize(
    ("make", "cell"),
    [
        (RNN, nnx.SimpleCell),
        (LSTM, nnx.LSTMCell),
        (LSTM, nnx.OptimizedLSTMCell),
        (GRU, nnx.GRUCell),
    ],
)
def test_recurrent_layers_are_those_of_nnx(make: Any, cell: Any) -> None:
    layer, x = randomised(make(3, 4)), rows(2, 5, 3)
    other = nnx.RNN(cell(3, 4, rngs=nnx.Rngs(0)), return_carry=True, rngs=nnx.Rngs(0))
    carry, expected = to_nnx(other, layer)(x)
    y, state = layer.scan(x)
    close(y, expected, rtol=1e-4, atol=1e-5)
    hc = state if make is not LSTM else state[::-1]  # the carry of Flax is (c, h)
    jax.tree.map(lambda a, b: close(a, b, rtol=1e-4, atol=1e-5), tuple(hc), tuple(carry))


def test_a_gru_with_a_hidden_bias_is_that_of_equinox_and_linen() -> None:
    layer, x = randomised(GRU(3, 4, hidden_bias=True)), rows(5, 3)
    cell, _ = migrate.convert(eqx.nn.GRUCell(3, 4, key=KEY), layer.cell, layout="jtree")
    h, expected = jnp.zeros(4), []
    for step in x:
        h = cell(step, h)
        expected.append(h)
    close(layer(x), jnp.stack(expected), rtol=1e-4, atol=1e-5)
    back, _ = migrate.convert(GRU(3, 4, hidden_bias=True).cell, cell, layout="equinox")
    assert same(back, layer.cell)
    target = migrate.linen(nn.RNN(nn.GRUCell(4)), None, x)
    variables, _ = migrate.convert(target, layer, layout="jtree")
    close(layer(x), nn.RNN(nn.GRUCell(4)).apply(variables, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [RNN, LSTM, GRU])
def test_a_recurrent_layer_is_its_cell_step_by_step(make: Any) -> None:
    layer, x = randomised(make(3, 4)), rows(2, 5, 3)
    state, outputs = None, []
    for t in range(5):
        y, state = layer.cell(x[:, t], state)
        outputs.append(y)
    y, last = layer.scan(x)
    close(y, jnp.stack(outputs, 1))
    jax.tree.map(close, last, state)
    _, middle = layer.scan(x[:, :2])
    close(layer(x[:, 2:], middle), y[:, 2:])
    close(layer(x[0]), y[0])
    single = jax.tree.map(lambda s: s[0], middle)
    close(layer(x[:1, 2:], single), y[:1, 2:])


def test_a_gru_without_a_bias_and_one_with_zeros_agree() -> None:
    layer = GRU(3, 4, key=KEY, bias=False)
    assert layer.cell.bias is False
    close(layer(rows(2, 5, 3)), GRU(3, 4, key=KEY, hidden_bias=True)(rows(2, 5, 3)))
    assert jax.jit(lambda m: m)(layer).cell.bias is False


ATTENTION = {"bias": True}, {"bias": False}, {"causal": True}


@pytest.mark.parametrize("options", ATTENTION, ids=str)
def test_attention_is_that_of_nnx(options: Any) -> None:
    layer = randomised(MultiHeadAttention(6, 8, heads=2, **options))
    other = nnx.MultiHeadAttention(
        2, 6, 8, use_bias=options.get("bias", True), decode=False, rngs=nnx.Rngs(0)
    )
    other, q, k = to_nnx(other, layer), rows(3, 4, 6), rows(3, 4, 6) + 1
    mask = jax.random.bernoulli(KEY, 0.7, (3, 1, 4, 4))
    causal = nn.make_causal_mask(jnp.ones((3, 4)), dtype=bool) if layer.causal else True
    close(layer(q, k, mask=mask), other(q, k, mask=mask & causal), rtol=1e-4, atol=1e-5)
    close(layer(q), other(q, mask=None if causal is True else causal), rtol=1e-4, atol=1e-5)


def test_attention_takes_one_to_three_inputs_and_a_tuple() -> None:
    layer = MultiHeadAttention((3, 4, 5), (4, 6), 7, heads=2, key=KEY)
    q, k, v = rows(2, 3, 3), rows(2, 5, 4), rows(2, 5, 5)
    y = layer(q, k, v)
    assert y.shape == (2, 3, 7)
    assert same(layer((q, k, v)), y)
    assert same(jtree.layers.forward(layer, q, k, v)[0], y)
    assert jtree.outputsize(layer, q.shape, k.shape, v.shape) == y.shape
    close(layer(q[0], k[0], v[0]), y[0])
    same_mask = layer(q, k, v, mask=jnp.ones((3, 5), bool))
    close(same_mask, y)


def test_attention_drops_weights_in_training_only() -> None:
    layer, x = MultiHeadAttention(4, heads=2, key=KEY, dropout=0.5), rows(2, 3, 4)
    y, after = jtree.layers.forward(layer, x, key=KEY)
    assert (y != layer(x)).any()
    assert same(after, layer)
    close(jtree.layers.forward(jtree.layers.testmode(layer), x)[0], layer(x))
    with pytest.raises(jtree.ModelError, match="needs a PRNG key"):
        jtree.layers.forward(layer, x)


TRANSPOSED = [
    {},
    {"stride": 2, "pad": "SAME"},
    {"stride": (3, 4), "pad": "VALID"},
    {"stride": (4, 1), "pad": "SAME", "dilation": 2},
]


@pytest.mark.parametrize("options", TRANSPOSED, ids=str)
def test_a_transposed_convolution_is_that_of_jax(options: Any) -> None:
    layer, x = ConvTranspose((3, 2), 4, 6, key=KEY, **options), rows(2, 5, 6, 4)
    stride, dilation = layer.stride, layer.dilation
    kernel = jnp.flip(layer.weight, (0, 1))
    padding = options.get("pad", "VALID")
    expected = jax.lax.conv_transpose(x, kernel, stride, padding, rhs_dilation=dilation)
    close(layer(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("pad", [0, 1, ((1, 0), (2, 1))])
def test_a_transposed_convolution_is_the_gradient_of_a_convolution(groups: int, pad: Any) -> None:
    options = {"stride": (2, 1), "pad": pad, "dilation": (1, 2), "groups": groups}
    conv, x = Conv((3, 2), 4, 6, key=KEY, bias=False, **options), rows(2, 8, 7, 4)
    y, gradient = jax.vjp(conv, x)
    layer = ConvTranspose((3, 2), 6, 4, bias=False, outpad=(0 if pad == 0 else 1, 0), **options)
    blocks = jnp.stack(jnp.split(conv.weight, groups, -1), -1)  # (*window, in, out, groups)
    weight = jnp.moveaxis(blocks, -1, 2).swapaxes(-1, -2).reshape(3, 2, 6, 4 // groups)
    layer = jtree.loadmodel(layer, {"weight": weight})
    (expected,) = gradient(y)
    found = layer(y)[:, : x.shape[1]]
    close(found, expected[:, : found.shape[1]], rtol=1e-4, atol=1e-5)


def weights_of(module: Any) -> Any:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    for x in module.parameters():
        torch.nn.init.normal_(x, std=0.5)
    return module.eval()


def tensor(x: Any) -> Any:
    return pytest.importorskip("torch").tensor(np.asarray(x))


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("RNN", lambda: RNN(3, 4)),
        ("LSTM", lambda: LSTM(3, 4)),
        ("GRU", lambda: GRU(3, 4, hidden_bias=True)),
    ],
)
def test_recurrent_layers_are_those_of_pytorch(name: str, make: Any) -> None:
    torch = pytest.importorskip("torch")
    theirs = weights_of(getattr(torch.nn, name)(3, 4, batch_first=True))
    for source in (theirs, theirs.state_dict()):
        layer, _ = migrate.convert(make(), source)
        x = rows(2, 5, 3)
        close(layer(x), theirs(tensor(x))[0].detach(), rtol=1e-4, atol=1e-5)


def test_a_hidden_bias_of_pytorch_needs_one_here() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(jtree.LoadError, match="bias_hh"):
        migrate.convert(GRU(3, 4), weights_of(torch.nn.GRU(3, 4)))


@pytest.mark.parametrize("bias", [True, False])
def test_attention_is_that_of_pytorch(bias: bool) -> None:
    torch = pytest.importorskip("torch")
    theirs = weights_of(torch.nn.MultiheadAttention(8, 2, bias=bias, batch_first=True))
    layer, _ = migrate.convert(MultiHeadAttention(8, heads=2, bias=bias), theirs)
    q, k = rows(2, 3, 8), rows(2, 5, 8)
    expected, _ = theirs(tensor(q), tensor(k), tensor(k))
    close(layer(q, k), expected.detach(), rtol=1e-4, atol=1e-5)


def test_norms_and_embeddings_are_those_of_pytorch() -> None:
    torch = pytest.importorskip("torch")
    norm, x = weights_of(torch.nn.LayerNorm((3, 4))), rows(5, 3, 4)
    layer, report = migrate.convert(LayerNorm((3, 4)), norm)
    assert not report.settings
    close(layer(x), norm(tensor(x)).detach(), rtol=1e-4, atol=1e-5)
    group = weights_of(torch.nn.GroupNorm(2, 4))
    layer, report = migrate.convert(GroupNorm(4, 2), group)
    assert not report.settings
    expected = group(tensor(jnp.moveaxis(x, -1, 1))).detach().movedim(1, -1)
    close(layer(x), expected, rtol=1e-4, atol=1e-5)
    table = weights_of(torch.nn.Embedding(5, 3))
    layer, _ = migrate.convert(Embedding(5, 3), table)
    close(layer(jnp.array([4, 0])), table(torch.tensor([4, 0])).detach())


TORCH_TRANSPOSED = [
    {},
    {"stride": 2, "padding": 1, "output_padding": 1},
    {"stride": (2, 3), "padding": (0, 2), "dilation": (2, 1), "groups": 2},
]


@pytest.mark.parametrize("options", TORCH_TRANSPOSED, ids=str)
def test_transposed_convolutions_are_those_of_pytorch(options: Any) -> None:
    torch = pytest.importorskip("torch")
    theirs = weights_of(torch.nn.ConvTranspose2d(4, 6, (3, 4), **options))
    names = {"padding": "pad", "output_padding": "outpad"}
    own = {names.get(name, name): x for name, x in options.items()}
    layer, report = migrate.convert(ConvTranspose((3, 4), 4, 6, **own), theirs)
    assert not report.settings
    x = rows(2, 5, 6, 4)
    expected = theirs(tensor(jnp.moveaxis(x, -1, 1))).detach().movedim(1, -1)
    close(layer(x), expected, rtol=1e-4, atol=1e-5)


def test_a_transposed_convolution_of_nnx_goes_there_and_back() -> None:
    layer, x = ConvTranspose((3, 2), 4, 6, key=KEY, stride=2, pad="SAME"), rows(2, 5, 6, 4)
    other = nnx.ConvTranspose(4, 6, (3, 2), strides=(2, 2), rngs=nnx.Rngs(0))
    close(to_nnx(other, layer)(x), layer(x), rtol=1e-4, atol=1e-5)
