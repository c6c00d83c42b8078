"""`jtree.diff` of models in memory: values, conversions, what cannot be compared."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtree

from ..zoo import ZOO, abstract


@pytest.mark.parametrize("name", sorted(set(ZOO) - {"gradients"}))
def test_a_model_has_the_values_of_itself_and_of_its_state(name: str) -> None:
    model = ZOO[name]()
    for other in (model, jtree.state(model)):
        assert not jtree.diff(model, other, values=True)


def test_values_that_differ_are_mismatches() -> None:
    a = {"w": jnp.array([1.0, jnp.nan, 2.0]), "n": np.array([3]), "x": np.array([1.0, np.inf])}
    b = {"w": jnp.array([1.0, jnp.nan, 4.0]), "n": np.array([3]), "x": np.array([1.0, 0.0])}
    assert not jtree.diff(a, b)
    diff = jtree.diff(a, b, values=True)
    assert diff
    assert diff.values == {"w": (2.0, 0.5), "x": (np.inf, np.inf)}
    assert diff.message() == (
        "2 mismatches\n"
        "  w: expected equal values, found differences up to 2, relative 0.5\n"
        "  x: expected equal values, found differences up to inf, relative inf"
    )
    assert "differences up to 2" in str(diff)


def test_values_of_other_dtypes_are_compared_as_they_are() -> None:
    a, b = {"w": jnp.array([0.1])}, {"w": jnp.array([0.1], jnp.bfloat16)}
    diff = jtree.diff(a, b, values=True)
    assert set(diff.values) == {"w"}
    assert [x.text for x in jtree.diff(a, b).remarks] == [
        "w: expected float32[1], found bfloat16[1], which is converted"
    ]
    assert not jtree.diff({"w": jnp.ones(1)}, {"w": jnp.ones(1, jnp.bfloat16)}, values=True)


def test_keys_are_compared() -> None:
    key = jax.random.key(0)
    assert not jtree.diff({"key": key}, {"key": key}, values=True)
    assert jtree.diff({"key": key}, {"key": jax.random.key(1)}, values=True).values


def test_values_of_abstract_models_cannot_be_compared() -> None:
    model: dict[str, Any] = {"w": jnp.ones(2)}
    assert not jtree.diff(abstract(model), model)
    for pair in ((abstract(model), model), (model, abstract(model))):
        with pytest.raises(jtree.ModelError) as error:
            jtree.diff(*pair, values=True)
        assert str(error.value) == (
            "w: values=True compares values, and this float32[2] has none yet; use concrete "
            "arrays, or leave out values=True"
        )


def test_paths_are_printed_as_they_are() -> None:
    text = str(jtree.diff({"[/x]": jnp.ones(1), ":smile:": jnp.ones(1), "y": "[/]"}, {"y": "[/"}))
    assert "[/x]" in text
    assert ":smile:" in text
    long = "transformer_encoder_layer_with_a_long_name/" * 4 + "weight"
    lines = str(jtree.diff({long: jnp.ones(1)}, {})).splitlines()
    cells = [line.split("\u2502")[1].strip() for line in lines if line.startswith("\u2502")]
    assert "".join(cells) == long


def test_config_holds_functions_and_tells_types_apart() -> None:
    dst = {"f": jnp.sin, "n": 1, "nan": float("nan")}
    src = {"f": jnp.cos, "n": True, "nan": float("nan")}
    assert jtree.diff(dst, src).config == {"f": (jnp.sin, jnp.cos), "n": (1, True)}


def test_many_renamed_leaves_are_reported_quickly() -> None:
    dst = {f"old{i}": np.ones(1) for i in range(1500)}
    src = {f"new{i}": np.ones(1) for i in range(1500)}
    assert len(jtree.diff(dst, src).mismatches) == 3000


def test_an_array_where_the_destination_has_a_branch() -> None:
    report = jtree.diff({"a": {"b": jnp.ones(2)}}, {"a": np.ones(2)})
    assert (report.missing, report.unexpected) == (("a/b",), ("a",))
