"""Casts that make finite values infinite, NaN or zero."""

from __future__ import annotations

import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtree

OVERFLOWS = [
    ("float16", "float32", 1e6),
    ("bfloat16", "float64", 1e300),
    ("float32", "float64", -1e300),
    ("float8_e4m3fn", "float32", 1e4),
    ("float8_e5m2", "float32", 1e6),
    ("float8_e8m0fnu", "float16", -1.0),
    ("float8_e8m0fnu", "bfloat16", 0.0),
    ("complex64", "complex128", 1e300j),
    ("complex64", "float64", 1e300),
]


@pytest.mark.parametrize(("to", "of", "value"), OVERFLOWS)
def test_a_finite_value_that_does_not_fit_is_a_mismatch(
    to: str, of: str, value: Any, tmp_path: Any
) -> None:
    source = {"x": np.array([value, 1, np.inf, np.nan]).astype(of), "y": np.ones(1)}
    dst = {"x": jnp.zeros(4, to), "y": jnp.zeros(1)}
    jtree.save(tmp_path / "model", source)
    text = f"x: expected {to}[4], found {of}[4]; 1 of 4 values would become infinite or NaN in {to}"
    for report in (jtree.diff(dst, source), jtree.diff(dst, tmp_path / "model")):
        assert list(report.dtype) == ["x"]
        assert text in report.message()
    for load in (jtree.loadmodel, lambda dst, _: jtree.load(tmp_path / "model", dst)):
        with pytest.raises(jtree.LoadError) as info:
            load(dst, source)
        assert str(info.value).startswith(f"nothing was loaded: 1 mismatch\n  {text}; load into a ")
        assert list(info.value.diff.dtype) == ["x"]
    loaded = jtree.load(tmp_path / "model", dst, strict=False)
    assert loaded["x"] is dst["x"]
    assert loaded["y"].tolist() == [1]


def test_values_that_fit_load_with_infinities_as_they_are(tmp_path: Any) -> None:
    source = {"x": np.array([65504, np.inf, -np.inf, np.nan, 1.0], np.float32)}
    jtree.save(tmp_path / "model", source)
    loaded = jtree.load(tmp_path / "model", {"x": jnp.zeros(5, jnp.float16)})["x"]
    assert np.asarray(loaded).tolist()[:3] == [65504, np.inf, -np.inf]


def test_many_values_that_become_zero_are_logged(
    caplog: pytest.LogCaptureFixture, tmp_path: Any
) -> None:
    dst, at = {"x": jnp.zeros(1000, jnp.float16)}, tmp_path / "model"
    for small, messages in ((1, 0), (2, 2)):
        x = np.ones(1000, np.float32)
        x[:small] = 1e-12
        jtree.save(at, {"x": x}, overwrite=True)
        caplog.clear()
        with caplog.at_level(logging.WARNING, "jtree"):
            jtree.loadmodel(dst, {"x": x})
            jtree.load(at, dst)
        expected = ["x: 2 of 1,000 values are too small for float16 and become zero"]
        assert caplog.messages == expected * messages


def test_a_number_that_does_not_fit_a_0d_array_is_a_mismatch() -> None:
    with pytest.raises(jtree.LoadError, match="1 of 1 value would become infinite or NaN in"):
        jtree.loadmodel({"x": jnp.float32(0)}, {"x": 1e300}, scalars=True)


def test_tracers_are_cast_as_jax_casts_them() -> None:
    load = jax.jit(lambda x: jtree.loadmodel({"x": jnp.zeros(1, jnp.float16)}, {"x": x})["x"])
    assert np.isinf(np.asarray(load(jnp.array([1e6])))).all()


@pytest.mark.parametrize(
    ("leaf", "found"),
    [
        (np.float32(0), np.float64(1e300)),
        (np.float16(0), 1e6),
        (np.complex64(0), 1e300j),
        (np.float16(0), np.array(1e6)),
        (np.float16(0), jnp.array(1e6)),
    ],
)
def test_a_number_that_overflows_the_dtype_of_a_numpy_leaf_is_a_mismatch(
    leaf: Any, found: Any, tmp_path: Any
) -> None:
    jtree.save(tmp_path / "x", {"a": found})
    message = (
        rf"^nothing was loaded: 1 mismatch\n  a: .*; 1 of 1 value would become .* {leaf.dtype}"
    )
    with pytest.raises(jtree.LoadError, match=message):
        jtree.load(tmp_path / "x", {"a": leaf})
    with pytest.raises(jtree.LoadError, match=message):
        jtree.loadmodel({"a": leaf}, {"a": found}, scalars=True)


def test_the_remedy_is_a_dtype_that_holds_the_values() -> None:
    diff = jtree.diff({"a": jnp.zeros(1, jnp.bfloat16)}, {"a": np.float32([3.4e38])})
    assert diff.mismatches[0].text.endswith("with a larger range, such as float32")


def test_a_key_of_the_other_sort_has_its_remedy() -> None:
    old, new = {"k": jax.random.PRNGKey(0)}, {"k": jax.random.key(0)}
    assert jtree.diff(new, old).mismatches[0].text == (
        "k: expected key<fry>[], found uint32[2]; make it a key with jax.random.wrap_key_data"
    )
    assert jtree.diff(old, new).mismatches[0].text == (
        "k: expected uint32[2], found key<fry>[]; take the data of the key with jax.random.key_data"
    )
