"""Settings of layers that weights do not tell, and what the report says about them."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jtree import migrate

from ..same import close_to_scale as close
from ..same import normal
from .models import Holder, channels_first, channels_last, linear, randomised_torch

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("seeded_torch")


def settings(model: Any, module: Any) -> list[str]:
    """Return the settings to check, as text."""
    return [x.text for x in migrate.convert(model, module)[1].settings]


def test_settings_of_modules() -> None:
    """A module tells how it pads, strides and activates, which weights do not."""
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
            expected = channels_last(module(torch.tensor(channels_first(x))))
            outputs = np.asarray(model(x))
            equal = outputs.shape == expected.shape and np.allclose(outputs, expected, atol=1e-5)
            assert equal == (not report.settings), (pad, extra, report.settings)


def test_settings_that_are_not_in_weights_are_notes() -> None:
    rngs = nnx.Rngs(0)
    group, source = nnx.GroupNorm(6, 2, epsilon=1e-5, rngs=rngs), torch.nn.GroupNorm(3, 6)
    _, report = migrate.convert(group, source.state_dict())
    assert report.layers[0].notes == ("not in the weights: groups=2; check",)
    assert not report.settings
    assert "not in the weights: groups=2; check" in str(report)
    _, report = migrate.convert(group, source)
    assert report.layers[0].notes == ()
    assert [x.text for x in report.settings] == ["(root): groups=2 in the model, 3 in the source"]
    attention = nnx.MultiHeadAttention(2, 4, decode=False, rngs=rngs)
    state = torch.nn.MultiheadAttention(4, 4).state_dict()
    _, report = migrate.convert(attention, state)
    assert report.layers[0].notes == ("not in the weights: heads=2; check",)
    conv = nnx.Conv(2, 2, (3, 3), strides=2, padding="VALID", rngs=rngs)
    _, report = migrate.convert(conv, torch.nn.Conv2d(2, 2, 3).state_dict())
    assert report.layers[0].notes == ("not in the weights: strides=(2, 2); check",)
    _, report = migrate.convert(nnx.RMSNorm(4, rngs=rngs), {"weight": np.ones(4)})
    assert report.layers[0].notes == ("not in the weights: epsilon=1e-06; check",)


class Conv1D(torch.nn.Module):
    """A dense layer of GPT-2, whose kernel is not transposed."""

    def __init__(self, n: int, m: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(n, m))
        self.bias = torch.nn.Parameter(torch.randn(m))

    def forward(self, x: Any) -> Any:
        return x @ self.weight + self.bias


def test_a_type_that_no_layout_lists_is_a_setting_to_check() -> None:
    """The square kernel of a user's own layer fits both ways."""
    layers, x = {"c_fc": Conv1D(4, 4), "head": torch.nn.Linear(4, 2)}, normal(3, 4)
    model, module = Holder(fc=linear(), head=linear(4, 2)), torch.nn.ModuleDict(layers)
    rules = [migrate.transpose("c_fc.weight")]
    model, report = migrate.convert(model, module, rename={"c_fc": "fc"}, rules=rules)
    close(model.head(model.fc(x)), module["head"](module["c_fc"](torch.tensor(x))))
    assert [x.text for x in report.settings] == [
        "fc: type=Linear in the model, Conv1D in the source"
    ]


def test_the_type_of_a_parent_is_not_that_of_renamed_layers() -> None:
    module = torch.nn.Sequential(torch.nn.Sequential(torch.nn.Linear(2, 2)))
    module.register_parameter("token", torch.nn.Parameter(torch.randn(2)))
    model = Holder(fc=linear(2, 2), token=nnx.Param(jnp.zeros(2)))
    model, report = migrate.convert(model, module, rename={"0.0": "fc"})
    np.testing.assert_array_equal(model.token[...], module.token)
    assert not report.settings


def test_norms_of_embeddings_and_windows_of_one() -> None:
    """A module may shorten the rows that it looks up; a window of one is not padded."""
    table = nnx.Embed(5, 4, rngs=nnx.Rngs(0))
    assert settings(table, torch.nn.Embedding(5, 4, max_norm=0.5)) == [
        "(root): max_norm=False in the model, 0.5 in the source"
    ]
    assert not settings(table, torch.nn.Embedding(5, 4))
    conv = nnx.Conv(2, 2, (1, 1), strides=2, padding="SAME", rngs=nnx.Rngs(0))
    assert not settings(conv, torch.nn.Conv2d(2, 2, 1, stride=2))


def test_an_epsilon_other_than_the_default() -> None:
    state = torch.nn.LayerNorm(4).state_dict()
    assert settings(nnx.LayerNorm(4, rngs=nnx.Rngs(0)), state) == [
        "(root): epsilon=1e-06 in the model, 1e-05 by default in the source's framework"
    ]


def test_padding_that_depends_on_the_input() -> None:
    layer = torch.nn.Conv2d(3, 4, 3, stride=2, padding=1)
    model = nnx.Conv(3, 4, (3, 3), strides=2, padding="SAME", rngs=nnx.Rngs(0))
    assert settings(model, layer.state_dict()) == [
        "(root): padding=SAME in the model, unknown in the source"
    ]
    assert settings(model, layer) == [
        "(root): padding=SAME in the model, ((1, 1), (1, 1)) in the source"
    ]


class Normed(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        axes = (1, 2, 3)
        norm = nn.LayerNorm(epsilon=1e-5, reduction_axes=axes, feature_axes=axes, name="norm")
        return norm(x)


def test_norm_over_an_image() -> None:
    """Its axes are those of the image, which a square shape does not tell: there is a warning."""
    x = normal(2, 4, 4, 4)
    module = torch.nn.Module()
    module.norm = torch.nn.LayerNorm((4, 4, 4))
    randomised_torch(module)
    expected = channels_last(module.norm(torch.tensor(channels_first(x))))
    target = migrate.linen(Normed(), None, x)
    _, report = migrate.convert(target, module)
    assert report.warnings == (
        "norm: its scale of shape (4, 4, 4) keeps the source's order of axes; if they are those of "
        "an image, whose channels come first in one framework and last in the other, add "
        "migrate.transpose for its scale and its bias to rules",
    )
    rules = [migrate.transpose("norm.*", (1, 2, 0))]
    variables, _ = migrate.convert(target, module, rules=rules)
    close(Normed().apply(variables, x), expected)
