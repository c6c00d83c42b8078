"""What cannot be stored is an error that names every path; functions and types are left out."""

from __future__ import annotations

import datetime
import decimal
import enum
import fractions
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtree


class Color(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    LOW = 1


class Mode(enum.StrEnum):
    TRAIN = "train"


class Rate(float):
    pass


LEAVES = [
    (decimal.Decimal(1), "a decimal.Decimal", "with float(x) or str(x)"),
    (datetime.datetime(2020, 1, 1), "a datetime.datetime", "with x.isoformat()"),
    (datetime.timedelta(1), "a datetime.timedelta", "with x.total_seconds()"),
    (fractions.Fraction(1, 2), "a fractions.Fraction", "with float(x) or str(x)"),
    (pathlib.PurePosixPath("x"), "a pathlib.PurePosixPath", "with str(x)"),
    (Color.RED, "a tests.Color", "with x.value"),
    (Level.LOW, "a tests.Level", "with x.value"),
    (Mode.TRAIN, "a tests.Mode", "with x.value"),
    (Rate(0.1), "a tests.Rate", "with float(x)"),
    ({1}, "a set", "with list(x)"),
    (frozenset({1}), "a frozenset", "with list(x)"),
    (bytearray(b"x"), "a bytearray", "with bytes(x)"),
    (range(3), "a range", "with list(x)"),
    (slice(1), "a slice", "to an array or a basic value"),
    (np.random.default_rng(0), "a numpy.Generator", "with x.bit_generator.state"),
    (np.str_("x"), "a numpy.str_", "with str(x)"),
    (np.datetime64("2020-01-01"), "a numpy.datetime64", "with str(x)"),
]


@pytest.mark.parametrize(("leaf", "name", "remedy"), LEAVES)
def test_a_leaf_that_cannot_be_stored_is_an_error(
    leaf: Any, name: str, remedy: str, tmp_path: Any
) -> None:
    message = f"a/b: cannot save {name}; convert it {remedy}"
    for save in (jtree.save, jtree.save_async):
        for suffix in ("", ".safetensors", ".msgpack"):
            with pytest.raises(jtree.ModelError) as info:
                save(tmp_path / f"model{suffix}", {"a": {"b": leaf}, "w": jnp.ones(2)})
            assert str(info.value) == message
    assert not list(tmp_path.iterdir())


def test_all_paths_are_named_at_once(tmp_path: Any) -> None:
    masked = np.ma.masked_array([1.0, 2.0], [False, True])
    tree = {
        "a": {1},
        "b": [masked, np.dtype("float32")],
        "c": np.array(["x", {}], object),
        "f": jnp.tanh,
    }
    with pytest.raises(jtree.ModelError) as info:
        jtree.save(tmp_path / "model", tree)
    assert str(info.value) == (
        "cannot save 4 leaves\n"
        "  a: a set; convert it with list(x)\n"
        "  b/0: a masked float64[2]; save an array of a numeric dtype, without a mask\n"
        "  b/1: a numpy.Float32DType; convert it with x.name\n"
        "  c: object[2]; save an array of a numeric dtype, without a mask"
    )


def test_the_first_ten_of_many_leaves_are_named(tmp_path: Any) -> None:
    with pytest.raises(jtree.ModelError) as info:
        jtree.save(tmp_path / "model", [Color.RED] * 2000)
    first, *lines, last = str(info.value).splitlines()
    assert (first, len(lines), last) == ("cannot save 2,000 leaves", 10, "  ... and 1,990 more")
    assert lines[0] == "  0: a tests.Color; convert it with x.value"


def test_functions_and_types_are_configuration(tmp_path: Any) -> None:
    tree = {"f": jnp.tanh, "r": jax.nn.relu, "t": jnp.float32, "c": Rate, "w": np.ones(2)}
    jtree.save(tmp_path / "model", tree)
    loaded = jtree.load(tmp_path / "model")
    assert (loaded["f"], loaded["r"], loaded["t"], loaded["c"]) == ((), (), (), ())
    assert jtree.load(tmp_path / "model", tree)["f"] is jnp.tanh


def test_a_key_of_a_dict_keeps_its_type_or_is_an_error(tmp_path: Any) -> None:
    with pytest.raises(jtree.ModelError, match=r"^\(root\): cannot save the key <Mode.T"):
        jtree.save(tmp_path / "model", {Mode.TRAIN: np.ones(2)})
