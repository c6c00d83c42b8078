"""Conversions that are refused: every problem in one error, each with its remedy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flax import nnx

import jtree
from jtree import migrate

from ..same import normal
from .models import Holder, TwoLayers, assert_equal, linear, refusal, two_layers_source


def test_missing_and_unexpected_arrays_are_in_one_error() -> None:
    source = two_layers_source()
    source["layer.1.weight"] = source.pop("layers.1.weight")
    del source["scale"]
    model = TwoLayers(nnx.Rngs(0))
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
    assert_equal(jtree.state(model), before)


def test_a_wrong_shape_is_refused_and_a_square_kernel_is_transposed_by_its_type() -> None:
    source = two_layers_source()
    model, report = migrate.convert(TwoLayers(nnx.Rngs(0)), source)
    np.testing.assert_array_equal(model.layers[0].kernel[...], source["layers.0.weight"].T)
    assert report.copied == {"scale": "scale"}
    assert report.kept == ("drop/rngs/count", "drop/rngs/key")
    source["layers.0.weight"] = normal(3, 4)
    assert refusal(TwoLayers(nnx.Rngs(0)), source) == (
        "nothing was loaded: 1 mismatch\n"
        "  layers/0/kernel: expected float32[3, 3], found float32[4, 3]"
    )


def test_a_bias_that_the_model_lacks_must_be_zero() -> None:
    model = nnx.Linear(3, 3, use_bias=False, rngs=nnx.Rngs(0))
    weight = normal(3, 3)
    migrate.convert(model, {"weight": weight, "bias": np.zeros(3)})
    assert refusal(model, {"weight": weight, "bias": np.ones(3)}) == (
        "nothing was loaded: 1 mismatch\n"
        "  (root): expected no bias in Linear, found float64[3] in bias, which is not all zero; "
        "add this parameter to the layer, or drop it with a rule"
    )


def test_an_unknown_layout_and_one_that_is_not_the_source_s_are_refused() -> None:
    model = linear()
    with pytest.raises(jtree.ArgumentError) as caught:
        migrate.convert(model, {}, layout="pytorch")
    assert str(caught.value) == (
        "layout: expected one of torch, linen, nnx, equinox, jtree, haiku, keras, flux, "
        "found 'pytorch'; did you mean torch?"
    )
    with pytest.raises(jtree.ArgumentError) as caught:
        migrate.convert(model, model)
    assert str(caught.value) == (
        "layout: expected 'nnx', since the source is a model with a Linear layer, found 'torch'"
    )


@pytest.mark.parametrize("model", [{"params": {"kernel": np.ones((3, 3))}}, np.ones(3), 7])
def test_a_model_without_types_is_refused(model: Any) -> None:
    with pytest.raises(jtree.ArgumentTypeError) as caught:
        migrate.convert(model, {})
    assert str(caught.value) == (
        f"model: expected a module of NNX, Equinox or jtree.layers, found {type(model).__name__}; "
        "for linen pass migrate.linen(module, variables, *inputs), for Equinox with running "
        "statistics pass (model, state)"
    )


def test_linen_takes_modules_of_linen_only() -> None:
    with pytest.raises(jtree.ArgumentTypeError) as caught:
        migrate.linen(linear(), None)
    assert str(caught.value) == "linen: expected a module of flax.linen, found Linear"


def test_a_layer_of_another_kind_is_refused() -> None:
    assert refusal(linear(3, 3), nnx.Embed(3, 3, rngs=nnx.Rngs(0)), layout="nnx") == (
        "nothing was loaded: 1 mismatch\n"
        "  (root): expected dense weights for Linear, found Embed in the source; give the model a "
        "matching layer, or pass arrays without types, such as a state_dict(), with rules where "
        "shapes differ"
    )


class Tied(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.wte = nnx.Embed(5, 4, rngs=rngs)
        self.norm = nnx.LayerNorm(4, rngs=rngs)


def tied_source() -> dict[str, Any]:
    norm = {"norm.weight": np.ones(4, np.float32), "norm.bias": np.zeros(4, np.float32)}
    return {"wte.weight": normal(5, 4)} | norm


def test_a_tied_head_may_be_absent_or_equal_to_the_embedding() -> None:
    source = tied_source()
    _, report = migrate.convert(Tied(nnx.Rngs(0)), source)
    assert report.ignored == {}
    head = {"lm_head.weight": source["wte.weight"].copy()}
    _, report = migrate.convert(Tied(nnx.Rngs(0)), source | head)
    assert report.ignored == {"lm_head.weight": "equal to wte.weight"}
    head["lm_head.weight"][0, 0] += 1
    assert refusal(Tied(nnx.Rngs(0)), source | head) == (
        "nothing was loaded: 1 mismatch\n"
        "  lm_head.weight: expected nothing, found float32[5, 4], which no layer of the model "
        "takes; rename it, or add migrate.drop('lm_head.weight') to rules"
    )


def test_a_separate_head_takes_the_embedding_by_a_rule() -> None:
    model, source = Tied(nnx.Rngs(0)), tied_source()
    model.lm_head = nnx.Linear(4, 5, use_bias=False, rngs=nnx.Rngs(0))
    assert refusal(model, source) == (
        "nothing was loaded: 1 mismatch\n"
        "  lm_head/kernel: expected float32[4, 5], found no lm_head.weight in the source"
    )
    rule = migrate.tie("wte.weight", "lm_head.weight")
    model, _ = migrate.convert(model, source, rules=[rule])
    np.testing.assert_array_equal(model.lm_head.kernel[...], source["wte.weight"].T)


def test_shared_modules_need_equal_sources() -> None:
    shared = linear(3, 3)
    source = {"a.weight": normal(3, 3), "a.bias": normal(3)}
    model, _ = migrate.convert(Holder(a=shared, b=shared), source)
    assert model.a is model.b
    np.testing.assert_array_equal(model.a.kernel[...], source["a.weight"].T)
    more = source | {"b.weight": source["a.weight"] + 1, "b.bias": source["a.bias"]}
    assert "different values at a/kernel and b/kernel" in refusal(model, more)


@pytest.mark.parametrize(
    "names", [("weight_g", "weight_v"), ("parametrizations.weight.original0",), ("weight_orig",)]
)
def test_weights_that_torch_computes_from_others_are_refused(names: tuple[str, ...]) -> None:
    source = {f"0.{name}": normal(4, 4) for name in names} | {"0.bias": normal(4)}
    lines = refusal(nnx.Sequential(linear()), source).splitlines()
    assert len(lines) == 2 + len(names)
    assert (
        f"  0.{names[0]}: expected nothing, found float32[4, 4], which no layer of the model "
        "takes; PyTorch computes a weight from it (weight norm, spectral norm, parametrizations): "
        "call torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight'), "
        "remove_weight_norm or remove_spectral_norm before taking the state dict"
    ) in lines
