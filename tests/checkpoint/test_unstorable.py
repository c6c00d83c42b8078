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
    (decimal.Decimal(1), "a decimal.Decimal"),
    (datetime.datetime(2020, 1, 1), "a datetime.datetime"),
    (datetime.timedelta(1), "a datetime.timedelta"),
    (fractions.Fraction(1, 2), "a fractions.Fraction"),
    (pathlib.PurePosixPath("x"), "a pathlib.PurePosixPath"),
    (Color.RED, "a tests.Color"),
    (Level.LOW, "a tests.Level"),
    (Mode.TRAIN, "a tests.Mode"),
    (Rate(0.1), "a tests.Rate"),
    ({1}, "a set"),
    (frozenset({1}), "a frozenset"),
    (bytearray(b"x"), "a bytearray"),
    (range(3), "a range"),
    (slice(1), "a slice"),
    (np.random.default_rng(0), "a numpy.Generator"),
    (np.str_("x"), "a numpy.str_"),
    (np.datetime64("2020-01-01"), "a numpy.datetime64"),
]


@pytest.mark.parametrize(("leaf", "name"), LEAVES)
def test_a_leaf_that_cannot_be_stored_is_an_error(leaf: Any, name: str, tmp_path: Any) -> None:
    message = f"a/b: cannot save {name}; convert it to an array or a basic value"
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
        "cannot save 4 leaves; convert them to arrays or basic values, such as float, str or list\n"
        "  a: a set\n"
        "  b/0: a masked float64[2]\n"
        "  b/1: a numpy.Float32DType\n"
        "  c: object[2]"
    )


def test_functions_and_types_are_configuration(tmp_path: Any) -> None:
    tree = {"f": jnp.tanh, "r": jax.nn.relu, "t": jnp.float32, "c": Rate, "w": np.ones(2)}
    jtree.save(tmp_path / "model", tree)
    loaded = jtree.load(tmp_path / "model")
    assert (loaded["f"], loaded["r"], loaded["t"], loaded["c"]) == ((), (), (), ())
    assert jtree.load(tmp_path / "model", tree)["f"] is jnp.tanh


def test_a_key_of_a_dict_keeps_its_type_or_is_an_error(tmp_path: Any) -> None:
    with pytest.raises(jtree.ModelError, match=r"^\(root\): the key <Mode.TRAIN: 'train'>: cannot"):
        jtree.save(tmp_path / "model", {Mode.TRAIN: np.ones(2)})
