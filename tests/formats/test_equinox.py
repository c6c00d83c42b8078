"""Files of Equinox, which have no names."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtree

from ..same import same
from .bounds import refusal


def test_equinox_files_are_read_in_the_order_of_a_model(tmp_path: Path, caplog: Any) -> None:
    key = jax.random.key(0)
    model = eqx.nn.Sequential([eqx.nn.Linear(2, 3, key=key), eqx.nn.Dropout(0.5)])
    model = (jtree.bf16(model), {"n": np.arange(3), "steps": 7})
    eqx.tree_serialise_leaves(tmp_path / "x.eqx", model)
    found = jtree.open(tmp_path / "x.eqx")
    assert (found.format, next(iter(found))) == ("Equinox", "leaf/0")
    other = jax.tree.map(lambda x: x * 0 if eqx.is_array(x) else x, model)
    with caplog.at_level(logging.INFO):
        loaded = jtree.load(tmp_path / "x.eqx", other)
    assert "4 arrays" not in caplog.text
    assert "has no names" in caplog.text
    expected = eqx.tree_deserialise_leaves(tmp_path / "x.eqx", other)
    assert same(jtree.state(loaded), jtree.state(expected))
    with pytest.raises(jtree.CheckpointError, match="expected 1 arrays, one for each leaf"):
        jtree.load(tmp_path / "x.eqx", {"a": jnp.ones(2)})


def test_one_array_of_equinox_is_a_file_of_numpy(tmp_path: Path) -> None:
    model = eqx.nn.Linear(2, 3, use_bias=False, key=jax.random.key(0))
    eqx.tree_serialise_leaves(tmp_path / "x.eqx", model)
    assert same(jtree.state(jtree.load(tmp_path / "x.eqx", model)), jtree.state(model))


HYPERPARAMETERS = {"in_size": 2, "out_size": 3, "activation": "relu", "weight_map": {"a": 1}}


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("hyperparameters", [HYPERPARAMETERS, [2, 3], {"mlp": {"depth": 2}}, {}])
def test_json_before_the_arrays_is_metadata(
    tmp_path: Path, hyperparameters: Any, indent: int | None
) -> None:
    """As in Equinox's tutorial on saving a model with its hyperparameters."""
    path = tmp_path / "x.eqx"
    model = {"linear": eqx.nn.Linear(2, 3, key=jax.random.key(0)), "rate": 0.5, "steps": 7}
    with path.open("wb") as file:
        file.write((json.dumps(hyperparameters, indent=indent) + "\n").encode())
        eqx.tree_serialise_leaves(file, model)
    checkpoint = jtree.open(path)
    assert (checkpoint.format, checkpoint.metadata) == ("Equinox", hyperparameters)
    assert len(checkpoint) == 4
    fresh = {"linear": eqx.nn.Linear(2, 3, key=jax.random.key(1)), "rate": 0.0, "steps": 0}
    assert not jtree.diff(fresh, path)
    assert same(jtree.state(jtree.load(path, fresh)), jtree.state(model))
    assert same(jtree.loadmodel(fresh, path)["linear"], model["linear"])
    assert jtree.loadmodel(fresh, path, scalars=True)["steps"] == 7
    jtree.migrate.convert_file(path, tmp_path / "x.safetensors")
    assert len(jtree.open(tmp_path / "x.safetensors")) == 4


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (b'{"a": 1', "cannot read this Equinox file: invalid JSON: "),
        (b'{"a": 1, "a": 2}', "cannot read this Equinox file: invalid JSON: duplicate key 'a'"),
        (b"[" * 10_000, "cannot read this Equinox file: "),
        (
            b'{"a": ' + b"9" * 5_000 + b"}",
            "cannot read this Equinox file: invalid JSON: an integer",
        ),
        (b"{" + b" " * 2**20 + b"}", "not a checkpoint: a file in an unknown format"),
        (b"{}\nx", "not a checkpoint: a file in an unknown format"),
    ],
)
def test_other_bytes_before_the_arrays_are_refused(
    tmp_path: Path, start: bytes, message: str
) -> None:
    with (tmp_path / "x.eqx").open("wb") as file:
        file.write(start + (b"" if start.endswith(b"x") else b"\n"))
        np.save(file, np.ones(3))
    assert refusal(tmp_path / "x.eqx").startswith(message)


def test_a_file_without_names_is_not_converted(tmp_path: Path) -> None:
    model = eqx.nn.Linear(2, 3, key=jax.random.key(0))
    eqx.tree_serialise_leaves(tmp_path / "x.eqx", model)
    for source in (tmp_path / "x.eqx", jtree.open(tmp_path / "x.eqx")):
        with pytest.raises(jtree.ArgumentError) as error:
            jtree.migrate.convert(model, source)
        assert str(error.value) == (
            f"source: {tmp_path / 'x.eqx'} has no names to match with layers; load it into the "
            "Equinox model that it was saved from, with jtree.load(path, model), and convert that"
        )
