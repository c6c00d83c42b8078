"""Hints: where they belong, and defaults for what the source lacks."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

import jtree
from jtree import migrate

from ..same import close_to_scale as close
from ..same import normal
from .models import Holder, linear, refusal, stacked


@pytest.mark.parametrize(
    "hint", [migrate.flattened("fc", shape=(2, 3)), migrate.defaults("bias", "**/bias")], ids=repr
)
def test_a_hint_among_rules_is_refused(hint: Any) -> None:
    with pytest.raises(jtree.ArgumentTypeError) as caught:
        migrate.convert(linear(), {}, rules=[hint])
    assert str(caught.value) == (
        f"rules: {hint!r} is a hint about the model's layers, not a rule that rewrites the "
        f"source; pass it as hints=[{hint!r}]"
    )


def test_a_rule_among_hints_is_refused() -> None:
    with pytest.raises(jtree.ArgumentTypeError) as caught:
        migrate.convert(linear(), {}, hints=[migrate.transpose("weight")])  # type: ignore[list-item]
    assert str(caught.value) == (
        "hints: transpose('weight') is a rule that rewrites the source, not a hint about the "
        "model's layers; pass it as rules=[transpose('weight')]"
    )


def test_anything_else_among_hints_is_refused() -> None:
    with pytest.raises(jtree.ArgumentTypeError) as caught:
        migrate.convert(linear(), {}, hints=[7])  # type: ignore[list-item]
    assert str(caught.value) == (
        "hints: expected migrate.flattened, migrate.unflattened, migrate.defaults or "
        "migrate.as_base, found 7"
    )


def test_hints_print_as_their_calls() -> None:
    assert repr(migrate.unflattened("fc", shape=[2, 3])) == "unflattened('fc', shape=(2, 3))"
    assert repr(migrate.as_base("fc", "stem/*")) == "as_base('fc', 'stem/*')"
    assert repr(migrate.defaults("bias", "**/bias")) == "defaults('bias', '**/bias')"


def test_defaults_fill_no_kernel_and_nothing_that_the_source_has() -> None:
    source, hint = {"bias": np.ones(3)}, migrate.defaults("**")
    assert refusal(linear(2, 3), source, hints=[hint]) == (
        "nothing was loaded: 2 mismatches\n"
        "  **: expected a bias, scale or statistic that the source lacks, for migrate.defaults, "
        "found none\n"
        "  kernel: expected float32[2, 3], found no weight in the source"
    )


def test_defaults_need_globs() -> None:
    with pytest.raises(jtree.ArgumentTypeError) as caught:
        migrate.defaults()
    assert str(caught.value) == "defaults: expected one or more globs, found ()"


def test_defaults_of_a_stack() -> None:
    model = Holder(h=jax.tree.map(lambda x: x + 1, stacked(3)))
    source = {f"h.{n}.weight": normal(4, 4) for n in range(3)}
    model, _ = migrate.convert(model, source, hints=[migrate.defaults("h/bias")])
    assert not model.h.bias[...].any()
    np.testing.assert_array_equal(model.h.kernel[...][2], source["h.2.weight"].T)


class Biased(nnx.Module):
    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.first = nnx.Linear(4, 4, rngs=rngs)
        self.norm = nnx.LayerNorm(4, epsilon=1e-5, rngs=rngs)
        self.plain = nnx.LayerNorm(4, epsilon=1e-5, rngs=rngs)
        self.cell = nnx.RNN(nnx.LSTMCell(4, 4, rngs=rngs))

    def __call__(self, x: Any) -> Any:
        return self.cell(self.plain(self.norm(self.first(x))))


@pytest.mark.usefixtures("seeded_torch")
def test_defaults_of_layers_without_biases_and_scales() -> None:
    """Only with a hint: the values of the model itself would be others."""
    torch = pytest.importorskip("torch")
    layers = {
        "first": torch.nn.Linear(4, 4, bias=False),
        "norm": torch.nn.LayerNorm(4, bias=False),
        "plain": torch.nn.LayerNorm(4, elementwise_affine=False),
        "cell": torch.nn.LSTM(4, 4, bias=False, batch_first=True),
    }
    x, model = normal(2, 3, 4), Biased()
    nnx.update(model, jax.tree.map(lambda y: y + 1, nnx.state(model, nnx.Param)))
    expected = layers["norm"](layers["first"](torch.tensor(x)))
    expected = layers["cell"](layers["plain"](expected))[0]
    module = torch.nn.ModuleDict(layers)
    for source in (module, module.state_dict()):
        lines = refusal(model, source).splitlines()
        assert len(lines) == 9
        assert (
            "  first/bias: expected float32[4], found no first.bias in the source; "
            "for zeros, add migrate.defaults('first/bias') to hints"
        ) in lines
        assert (
            "  plain/scale: expected float32[4], found no plain.weight in the source; "
            "for ones, add migrate.defaults('plain/scale') to hints"
        ) in lines
        hint = migrate.defaults("**/bias", "plain/scale")
        converted, report = migrate.convert(model, source, hints=[hint])
        close(converted(x), expected)
    notes = {layer.path: layer.notes for layer in report.layers}
    assert notes["first"] == ("bias: zeros, by migrate.defaults",)
    assert notes["plain"] == (
        "bias: zeros, by migrate.defaults",
        "scale: ones, by migrate.defaults",
    )


@pytest.mark.usefixtures("seeded_torch")
def test_defaults_of_running_statistics() -> None:
    """A batch norm without them normalises by the batch, in evaluation too; so must the model."""
    torch = pytest.importorskip("torch")
    layer, x = torch.nn.BatchNorm1d(4, track_running_stats=False).eval(), normal(5, 4)
    model = nnx.BatchNorm(4, use_running_average=False, momentum=0.9, rngs=nnx.Rngs(0))
    remedy = "if the source and the model normalise by the statistics of each batch, add"
    assert refusal(model, layer) == (
        "nothing was loaded: 2 mismatches\n"
        f"  mean: expected float32[4], found no running_mean in the source; {remedy} "
        "migrate.defaults('mean') to hints\n"
        f"  var: expected float32[4], found no running_var in the source; {remedy} "
        "migrate.defaults('var') to hints"
    )
    converted, _ = migrate.convert(model, layer, hints=[migrate.defaults("mean", "var")])
    close(converted(x), layer(torch.tensor(x)))
