"""Tied parameters: by reference, by array, by path."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import jtree

from ..same import close, same
from ..zoo import Shared

W, B = jnp.arange(6.0).reshape(3, 2), jnp.ones(3)


def language_model() -> Any:
    return {"emb": {"weight": W}, "head": {"weight": W + 0, "bias": B}}


TIED = [("emb/weight", "head/weight")]


def test_references_are_one_parameter_with_one_gradient() -> None:
    model = Shared(nnx.Rngs(0))
    x = jnp.ones((1, 3))
    flat, re = jtree.destructure(model)
    assert len(re) == 3 * 3 + 3 + 3 * 2 + 2 + 1
    gradient = jax.grad(lambda v: re(v)(x).sum())(flat)
    eps = 1e-2
    step = jnp.zeros_like(flat).at[re["dec/kernel"].start].set(eps)
    difference = (re(flat + step)(x).sum() - re(flat - step)(x).sum()) / (2 * eps)
    close(gradient[re["dec/kernel"].start], difference, rtol=1e-2)


def test_references_can_be_untied() -> None:
    model = Shared(nnx.Rngs(0))
    flat, re = jtree.destructure(model, ties=())
    assert re.ties == ()
    assert len(re) == 2 * (3 * 3 + 3) + 2 * 3 * 2 + 2 + 1
    again = re(flat)
    assert again.enc is not again.dec


def test_ties_by_path_give_one_entry_and_one_object() -> None:
    flat, re = jtree.destructure(language_model(), ties=TIED)
    assert re.paths == ("emb/weight", "head/bias")
    assert re.ties == (("emb/weight", "head/weight"),)
    again = re(flat * 2)
    assert again["emb"]["weight"] is again["head"]["weight"]
    gradient = jax.grad(lambda v: (re(v)["emb"]["weight"] + 3 * re(v)["head"]["weight"]).sum())(
        flat
    )
    assert gradient.tolist() == [4.0] * 6 + [0.0] * 3


def test_ties_by_path_hold_under_tracing() -> None:
    size = jax.jit(lambda m: jtree.destructure(m, ties=TIED)[0])(language_model()).size
    assert size == 9


def test_nested_gradients_of_tied_leaves_are_summed() -> None:
    _, re = jtree.destructure(language_model(), ties=TIED)
    ones = jax.tree.map(jnp.ones_like, language_model())
    assert re.ravel_grad(ones).tolist() == [2.0] * 6 + [1.0] * 3
    ones["emb"]["weight"] = None
    assert re.ravel_grad(ones).tolist() == [1.0] * 9


def test_gradients_of_shared_modules_are_added_and_agree_with_the_flat_one() -> None:
    model, x = Shared(nnx.Rngs(0)), jnp.ones((1, 3))
    flat, re = jtree.destructure(model)
    loss = lambda m: (m(x) ** 2).sum()  # noqa: E731
    nested = jax.grad(loss)(model)
    expected = jax.grad(lambda v: loss(re(v)))(flat)
    assert nested.enc is not nested.dec  # JAX takes a shared module apart
    close(re.ravel_grad(nested), expected)
    close(re.ravel_grad(nnx.grad(loss)(model)), expected)


def test_the_same_array_object_is_one_parameter_only_by_ties_arrays() -> None:
    zeros = jnp.zeros(2)
    model = {"a": zeros, "b": zeros, "c": [zeros + 1]}
    assert len(jtree.destructure(model)[1]) == 6
    flat, re = jtree.destructure(model, ties="arrays")
    assert flat.tolist() == [0, 0, 1, 1]
    again = re(flat + 1)
    assert again["a"] is again["b"]
    assert jtree.count(model, ties="arrays") == 4


def test_eager_gradients_that_are_one_object_stay_two_parameters() -> None:
    grads = jax.grad(lambda m: (m["a"] + m["b"]).sum())({"a": jnp.ones(2), "b": jnp.ones(2)})
    assert jtree.destructure(grads)[0].tolist() == [1, 1, 1, 1]


def test_a_frozen_leaf_with_the_same_array_is_not_tied_by_arrays() -> None:
    class Frozen(nnx.Variable):  # type: ignore[type-arg]
        pass

    array = jnp.ones(2)
    model = {"free": nnx.Param(array), "frozen": Frozen(array)}
    flat, re = jtree.destructure(model, ties="arrays")
    assert re(flat * 2)["frozen"][...].tolist() == [1, 1]


def test_ravel_refuses_tied_leaves_with_different_values() -> None:
    flat, re = jtree.destructure(language_model(), ties=TIED)
    assert same(re.ravel(language_model()), flat)
    changed = language_model()
    changed["head"]["weight"] = W + 1
    with pytest.raises(ValueError, match="are one parameter") as info:
        re.ravel(changed)
    assert str(info.value) == (
        "emb/weight and head/weight are one parameter, but their values differ; make them equal, "
        "or use ties=() in destructure"
    )


BAD = [
    (
        [("emb/weight", "head/weights")],
        KeyError,
        r"^ties: 'head/weights' is not a leaf of the model; did you mean head/weight",
    ),
    (
        [("emb/weight", "head/bias")],
        ValueError,
        r"^ties: emb/weight is float32\[3, 2\], but head/bias",
    ),
    (
        ["emb/weight"],
        ValueError,
        r"^ties: expected tuples of two paths or more, found 'emb/weight'",
    ),
    (
        "arrys",
        ValueError,
        r"^ties: expected 'references', 'arrays' or tuples of paths, found 'arrys'$",
    ),
    (3, TypeError, r"^ties: expected 'references', 'arrays' or tuples of paths, found int$"),
]


@pytest.mark.parametrize(("ties", "cls", "message"), BAD)
def test_bad_ties_are_refused(ties: Any, cls: Any, message: str) -> None:
    with pytest.raises(cls, match=message):
        jtree.destructure(language_model(), ties=ties)


def test_different_values_cannot_be_tied() -> None:
    model = language_model()
    model["head"]["weight"] = W + 1
    with pytest.raises(ValueError, match="different values") as info:
        jtree.destructure(model, ties=TIED)
    assert str(info.value) == (
        "ties: emb/weight and head/weight have different values, and tying them would lose one of "
        "them; make them equal first"
    )


def test_loading_into_tied_leaves() -> None:
    model = Shared(nnx.Rngs(0))
    state = jtree.state(Shared(nnx.Rngs(1)))
    loaded = jtree.loadmodel(model, state)
    assert loaded.enc is loaded.dec
    assert same(jtree.state(loaded)["dec"]["kernel"], state["enc"]["kernel"])
    state["dec"]["kernel"] = state["dec"]["kernel"] + 1
    with pytest.raises(jtree.LoadError) as info:
        jtree.loadmodel(model, state)
    assert str(info.value) == (
        "nothing was loaded: 1 mismatch\n"
        "  dec/kernel: expected one parameter, found different values at dec/kernel and enc/kernel"
    )
    assert list(info.value.diff.ties) == ["dec/kernel"]


def test_a_path_tie_is_loaded_tied() -> None:
    loaded = jtree.loadmodel(language_model(), language_model(), ties=TIED)
    assert loaded["emb"]["weight"] is loaded["head"]["weight"]
