"""Networks as users have them: names, settings and errors beside those of single layers."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest
from flax import nnx

from jtree import LoadError, migrate

from ..same import close_to_scale as close
from ..same import normal

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("seeded_torch")


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        return nn.Dense(4, name="last")(nn.relu(nn.Dense(4, name="first")(x)))


class Stacked(nnx.Module):
    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        first, last = nnx.Linear(4, 4, rngs=rngs), nnx.Linear(4, 4, rngs=rngs)
        self.net = nnx.Sequential(first, nnx.relu, last)

    def __call__(self, x: Any) -> Any:
        return self.net(x)


def test_renames_with_dots_in_every_layout() -> None:
    """`net.0`, `net/0` and `net_0` are one name, whatever the source's framework writes."""
    x = normal(2, 4)
    module = Linen()
    variables = module.init(jax.random.key(0), x)
    expected = module.apply(variables, x)
    for zero, two in (("net.0", "net.2"), ("net/0", "net/2"), ("net.0", "net_2")):
        model, _ = migrate.convert(
            Stacked(), variables, layout="linen", rename={"first": zero, "last": two}
        )
        close(model(x), expected)
        target = migrate.linen(module, None, x)
        names = {zero.replace("net", "net.layers", 1): "first"}
        names |= {two.replace("net", "net.layers", 1): "last"}
        back, _ = migrate.convert(target, Stacked(), layout="nnx", rename=names)
        assert set(back["params"]) == {"first", "last"}


def settings(model: Any, module: Any, **options: Any) -> list[str]:
    return [x.text for x in migrate.convert(model, module, **options)[1].settings]


def test_settings_that_change_numbers() -> None:
    """A module says how it pads, strides and activates; none of that is in the weights."""
    rngs, size = nnx.Rngs(0), (3, 3)
    conv = torch.nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect")
    assert "reflect" in settings(nnx.Conv(2, 2, size, padding=1, rngs=rngs), conv)[0]
    conv = torch.nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular")
    assert "CIRCULAR" in settings(nnx.Conv(2, 2, size, padding=1, rngs=rngs), conv)[0]
    assert not settings(nnx.Conv(2, 2, size, padding="CIRCULAR", rngs=rngs), conv)
    cell = torch.nn.RNN(2, 2, nonlinearity="relu")
    assert "relu" in settings(nnx.SimpleCell(2, 2, rngs=rngs), cell)[0]
    assert not settings(nnx.SimpleCell(2, 2, rngs=rngs), torch.nn.RNN(2, 2))
    assert not settings(nnx.SimpleCell(2, 2, rngs=rngs), torch.nn.RNN(2, 2).state_dict())
    attention = nnx.MultiHeadAttention(2, 4, decode=False, rngs=rngs)
    assert not settings(attention, torch.nn.MultiheadAttention(4, 2))
    zero = torch.nn.MultiheadAttention(4, 2, add_zero_attn=True)
    assert "zero_attention=False" in settings(attention, zero)[0]


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("padding", ["SAME", "VALID", 1])
def test_settings_of_transposed_convolutions(size: int, stride: int, padding: Any) -> None:
    """The report names a padding or a stride exactly when the outputs differ."""
    x = normal(1, 7, 2)
    for pad in range(size):
        for extra in range(stride):
            module = torch.nn.ConvTranspose1d(
                2, 2, size, stride=stride, padding=pad, output_padding=extra
            )
            model = nnx.ConvTranspose(
                2, 2, (size,), strides=stride, padding=padding, rngs=nnx.Rngs(0)
            )
            model, report = migrate.convert(model, module)
            expected = np.moveaxis(np.asarray(module(torch.tensor(np.moveaxis(x, 1, 2)))), 1, 2)
            found = np.asarray(model(x))
            same = found.shape == expected.shape and np.allclose(found, expected, atol=1e-5)
            assert same == (not report.settings), (pad, extra, report.settings)


class Normed(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        axes = (1, 2, 3)
        norm = nn.LayerNorm(epsilon=1e-5, reduction_axes=axes, feature_axes=axes, name="norm")
        return norm(x)


def test_norm_over_an_image() -> None:
    """Its axes are the image's, which cannot be told from a square shape: a warning says so."""
    x = normal(2, 4, 4, 4)
    module = torch.nn.Module()
    module.norm = torch.nn.LayerNorm((4, 4, 4))
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    expected = np.moveaxis(np.asarray(module.norm(torch.tensor(np.moveaxis(x, -1, 1)))), 1, -1)
    target = migrate.linen(Normed(), None, x)
    _, report = migrate.convert(target, module)
    assert "migrate.transpose" in report.warnings[0]
    rules = [migrate.transpose("norm.*", (1, 2, 0))]
    variables, _ = migrate.convert(target, module, rules=rules)
    close(Normed().apply(variables, x), expected)


@pytest.mark.parametrize(
    "norm",
    [torch.nn.utils.parametrizations.weight_norm, torch.nn.utils.parametrizations.spectral_norm],
)
def test_parametrised_weights_are_refused_with_advice(norm: Any) -> None:
    module = torch.nn.Sequential(norm(torch.nn.Linear(4, 4)))
    with pytest.raises(LoadError, match="remove_parametrizations"):
        migrate.convert(nnx.Sequential(nnx.Linear(4, 4, rngs=nnx.Rngs(0))), module.state_dict())


def test_old_weight_norm_is_refused_with_advice() -> None:
    module = {"0.weight_g": normal(4, 1), "0.weight_v": normal(4, 4), "0.bias": normal(4)}
    with pytest.raises(LoadError, match="remove_weight_norm"):
        migrate.convert(nnx.Sequential(nnx.Linear(4, 4, rngs=nnx.Rngs(0))), module)


@pytest.mark.parametrize("prefix", ["module", "model/module"])
def test_a_prefix_is_named(prefix: str) -> None:
    """DataParallel and nested checkpoints put something before every name."""
    source = {
        f"{prefix}.net.{n}.{name}": normal(*shape)
        for n in (0, 2)
        for name, shape in (("weight", (4, 4)), ("bias", (4,)))
    }
    with pytest.raises(LoadError, match=f"exists, so add '{prefix}': '' to rename"):
        migrate.convert(Stacked(), source)
    migrate.convert(Stacked(), source, rename={prefix: ""})
