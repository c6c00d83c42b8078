"""Files of Equinox, which have no names."""

from __future__ import annotations

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
