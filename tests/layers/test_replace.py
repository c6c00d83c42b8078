"""`dataclasses.replace` and `copy.replace` on layers: a copy with other fields, validated."""

from __future__ import annotations

import copy
import dataclasses
import sys
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import jtree
from jtree.layers import BatchNorm, Chain, Conv, Dense, Dropout, MaxPool, Parallel, SkipConnection

from ..same import same
from .examples import EXAMPLES, KEY

LAYERS = [x for x in map(vars(jtree.layers).get, jtree.layers.__all__) if isinstance(x, type)]


def test_there_is_an_example_of_every_layer() -> None:
    assert sorted(EXAMPLES) == sorted(x.__name__ for x in LAYERS)


@pytest.mark.parametrize("name", EXAMPLES)
def test_replacing_nothing_is_a_copy(name: str) -> None:
    layer = EXAMPLES[name][0](KEY)
    before = dict(vars(layer))
    for copied in (dataclasses.replace(layer), layer.__replace__(), replaced(layer)):
        assert type(copied) is type(layer)
        assert copied is not layer
        assert same(copied, layer)
        assert jax.tree.structure(copied) == jax.tree.structure(layer)
    assert vars(layer) == before


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_field_is_replaced_by_that_of_another_layer(name: str) -> None:
    layer, other = map(EXAMPLES[name][0], jax.random.split(KEY))
    for field in dataclasses.fields(layer):
        value = getattr(other, field.name)
        changed = dataclasses.replace(layer, **{field.name: value})
        again = dataclasses.replace(changed, **{field.name: getattr(layer, field.name)})
        assert same(getattr(changed, field.name), value)
        assert same(again, layer)


@pytest.mark.parametrize("name", EXAMPLES)
def test_layers_are_replaced_in_stacks_abstract_and_under_jit(name: str) -> None:
    make, _ = EXAMPLES[name]
    stacked = jax.vmap(make)(jax.random.split(KEY, 3))
    abstract = make(None)
    for layer in (stacked, abstract):
        assert same(dataclasses.replace(layer), layer)
    assert same(jax.jit(dataclasses.replace)(make(KEY)), make(KEY))


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_unknown_field_is_an_error_that_names_the_fields(name: str) -> None:
    layer = EXAMPLES[name][0](KEY)
    with pytest.raises(TypeError, match="unknown_field"):
        dataclasses.replace(layer, unknown_field=3)


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_field_is_validated_where_any_value_would_break_the_layer(name: str) -> None:
    layer = EXAMPLES[name][0](KEY)
    checked = {"weight", "bias", "activation", "combine", "layer", "layers", "stride", "pad", "p"}
    checked |= {
        "scale",
        "cell",
        "diag",
        "q_proj",
        "dropout",
        "heads",
        "outpad",
        "weight_hh",
        "bias_n",
    }
    for field in {x.name for x in dataclasses.fields(layer)} & checked:
        with pytest.raises(jtree.ArgumentError):
            dataclasses.replace(layer, **{field: "neither an array nor a function"})


def replaced(layer: Any) -> Any:
    """Return a copy by `copy.replace`, which Python has since 3.13."""
    return copy.replace(layer) if sys.version_info >= (3, 13) else layer.__replace__()


def test_replaced_fields_are_normalised_as_in_a_call_of_the_class() -> None:
    conv = dataclasses.replace(Conv((3, 3), 1, 2, key=KEY), stride=2, pad="same", bias=False)
    assert (conv.stride, conv.pad, conv.bias) == ((2, 2), "SAME", False)
    assert dataclasses.replace(conv, bias=True).bias.tolist() == [0, 0]
    assert dataclasses.replace(MaxPool((2,)), window=3, stride=None).stride == (3,)
    assert dataclasses.replace(Dropout(0.5), dims=1).dims == (1,)
    chain = dataclasses.replace(Chain(jnp.sin), layers=[jnp.cos, Dense(2, 2, key=KEY)])
    assert isinstance(chain.layers, tuple)
    assert chain[0] is jnp.cos
    named = dataclasses.replace(chain, layers={"z": jnp.sin, "a": jnp.cos})
    assert (type(named.layers), named.keys()) == (OrderedDict, ["z", "a"])


def test_a_layer_may_still_be_called_layers() -> None:
    chain = Chain(layers=Dense(2, 2, key=KEY))
    assert chain.keys() == ["layers"]
    assert same(dataclasses.replace(chain), chain)


WRONG: dict[str, Callable[[], Any]] = {
    "Dense(2 => 3) expects a bias of shape (3,), found (2,)": (
        lambda: dataclasses.replace(Dense(2, 3, key=KEY), bias=jnp.ones(2))
    ),
    "Dense expects weight to be an array of 2 dimensions, found shape (2,)": (
        lambda: dataclasses.replace(Dense(2, 3, key=KEY), weight=jnp.ones(2))
    ),
    "Dense(2 => 3) expects activation to be a function, found 3": (
        lambda: dataclasses.replace(Dense(2, 3, key=KEY), activation=3)
    ),
    "Dense has the fields weight, bias, activation; found 'wieght'; did you mean weight?": (
        lambda: dataclasses.replace(Dense(2, 3, key=KEY), wieght=3)
    ),
    "Conv((3,), 2 => 4) expects stride to be a positive number, or 1 of them, found 0": (
        lambda: dataclasses.replace(Conv((3,), 2, 4, key=KEY), stride=0)
    ),
    "Conv((3,), 6 => 4) expects numbers of channels that are divisible by groups=3": (
        lambda: dataclasses.replace(Conv((3,), 2, 4, key=KEY), groups=3)
    ),
    "Conv expects groups to be a positive number, found 0": (
        lambda: dataclasses.replace(Conv((3,), 2, 4, key=KEY), groups=0)
    ),
    "BatchNorm(3) expects gamma to be an array of shape (3,), found shape (2,)": (
        lambda: dataclasses.replace(BatchNorm(3), gamma=jnp.ones(2))
    ),
    "BatchNorm(3) expects beta to be None, found shape (3,)": (
        lambda: dataclasses.replace(BatchNorm(3), affine=False)
    ),
    "Dropout expects a probability p between 0 and 1, found 2": (
        lambda: dataclasses.replace(Dropout(0.5), p=2)
    ),
    "Parallel expects at least one layer after the function, found none": (
        lambda: dataclasses.replace(Parallel(jnp.add, jnp.sin), layers=())
    ),
    "SkipConnection expects layers and functions, found int: 3; pass the layers as separate "
    "arguments": lambda: dataclasses.replace(SkipConnection(jnp.sin, jnp.add), layer=3),
}


@pytest.mark.parametrize("text", WRONG)
def test_fields_that_do_not_fit_are_refused(text: str) -> None:
    with pytest.raises(jtree.ArgumentError) as raised:
        WRONG[text]()
    assert str(raised.value) == text


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        (
            "k_proj",
            (4, 6),
            "q_proj and k_proj to have equally many output features, found 4 and 6",
        ),
        (
            "v_proj",
            (4, 6),
            "out_proj to take the 6 output features of v_proj, found 4 input features",
        ),
    ],
)
def test_projections_that_do_not_fit_each_other_are_refused(
    name: str, shape: tuple[int, int], message: str
) -> None:
    layer = jtree.layers.MultiHeadAttention(4, heads=2, key=jax.random.key(0))
    with pytest.raises(jtree.ArgumentError) as error:
        dataclasses.replace(layer, **{name: Dense(*shape, key=jax.random.key(0))})
    assert str(error.value).endswith(f" expects {message}")
