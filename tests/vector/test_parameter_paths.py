"""Masks over the vector, and a value for each parameter."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jtree

MODEL = {
    "embed": jnp.ones((2, 2)),
    "layers": [{"bias": jnp.zeros(2), "kernel": jnp.ones((2, 2))} for _ in range(2)],
}


def test_a_mask_selects_by_glob_by_several_and_by_function() -> None:
    flat, re = jtree.destructure(MODEL)
    kernels = re.mask("**/kernel")
    assert kernels.dtype == bool
    assert kernels.shape == flat.shape
    assert np.flatnonzero(kernels).tolist() == re["**/kernel"].tolist()
    np.testing.assert_array_equal(re.mask(["**/kernel", "embed"]), ~re.mask("**/bias"))
    np.testing.assert_array_equal(re.mask(lambda _, leaf: leaf.ndim == 1), re.mask("**/bias"))


def test_a_tied_parameter_is_selected_by_any_of_its_paths() -> None:
    w = jnp.ones(2)
    _, re = jtree.destructure({"a": w, "b": w, "c": w}, ties=[("a", "b")])
    assert re.mask("b").tolist() == [True, True, False, False]


def test_the_first_glob_that_matches_gives_the_value() -> None:
    _, re = jtree.destructure(MODEL)
    rates = re.vector({"layers/0/**": 1e-3, "**": 1e-4})
    assert rates.dtype == re.dtype
    np.testing.assert_array_equal(rates, np.where(re.mask("layers/0/**"), 1e-3, 1e-4).astype("f"))
    rows = re.vector({"embed": jnp.array([[1.0], [2.0]]), "**": np.float32(0)})
    assert rows[re["embed"]].tolist() == [1, 1, 2, 2]


def test_values_may_be_traced() -> None:
    _, re = jtree.destructure(MODEL)
    rates = jax.jit(lambda rate: re.vector({"embed": 0.0, "**": rate}))(0.5)
    np.testing.assert_array_equal(rates, re.vector({"embed": 0.0, "**": 0.5}))


def test_weight_decay_and_frozen_parameters_over_the_vector() -> None:
    flat, re = jtree.destructure(MODEL)
    decay, frozen = re.vector({"**/kernel": 0.1, "**": 0.0}), re.mask("embed")
    optimiser = optax.chain(
        optax.add_decayed_weights(decay),
        optax.sgd(1.0),
        optax.stateless_with_tree_map(lambda update, _: jnp.where(frozen, 0, update)),
    )
    updates, _ = optimiser.update(jnp.ones_like(flat), optimiser.init(flat), flat)
    model = re(flat + updates)
    assert model["embed"].tolist() == [[1, 1], [1, 1]]
    np.testing.assert_allclose(model["layers"][0]["kernel"], -0.1 * np.ones((2, 2)), atol=1e-6)
    assert model["layers"][1]["bias"].tolist() == [-1, -1]


MESSAGES: dict[str, Any] = {
    "no match": (lambda re: re.mask("kernel/*"), "'kernel/*' matches no parameter"),
    "none": (
        lambda re: re.mask(None),
        "where: expected a glob such as '**/kernel', several, or a function, found None",
    ),
    "absent": (
        lambda re: re.vector({"layers/**": 1.0}),
        "no value for embed; add one for all others as the last entry, such as '**': 0.0",
    ),
    "shape": (
        lambda re: re.vector({"embed": jnp.ones(3), "**": 0.0}),
        "'embed': expected a number, or an array that broadcasts to (2, 2), found float32[3]",
    ),
    "text": (
        lambda re: re.vector({"**": "fast"}),
        "'**': expected a real number or an array, found 'fast'",
    ),
    "complex": (
        lambda re: re.vector({"**": 1j}),
        "'**': expected a real number or an array, found 1j",
    ),
    "no dict": (
        lambda re: re.vector(0.1),
        "expected a dict from globs to values, such as {'**': 0.1}, found 0.1",
    ),
    "key": (lambda re: re.vector({1: 0.1}), "expected globs as keys, found 1"),
}


@pytest.mark.parametrize("case", MESSAGES)
def test_messages(case: str) -> None:
    _, re = jtree.destructure(MODEL)
    call, message = MESSAGES[case]
    with pytest.raises(jtree.JtreeError) as error:
        call(re)
    assert str(error.value).split("; did")[0].split("; the paths")[0] == message
