"""The diff of checkpoints: everything that differs, with values on request."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jtree
from jtree.checkpoint._orbax.arrays import OrbaxArrays

from ..zoo import Shared


def test_the_diff_of_two_checkpoints_has_everything_that_differs(tmp_path: Path) -> None:
    a = {"w": np.array([1.0, np.nan]), "n": np.array([2**62]), "x": np.ones(2), "r": 0.1, "k": 1}
    b = {"w": np.array([1.0, np.nan]), "n": np.array([2**62 + 1]), "x": np.ones(3), "r": 0.2}
    jtree.save(tmp_path / "a", a | {"only": np.ones(1), "f": np.ones(2)})
    jtree.save(tmp_path / "b", b | {"k": np.ones(1), "f": np.ones(2, np.float32)})
    diff = jtree.diff(tmp_path / "a", tmp_path / "b")
    assert {x.path: x.kind for x in diff.mismatches} == {
        "only": "missing",
        "x": "shape",
        "k": "kind",
    }
    assert {x.path: x.kind for x in diff.differences} == {
        "only": "missing",
        "x": "shape",
        "k": "kind",
        "r": "config",
        "f": "conversion",
    }
    assert jtree.diff(tmp_path / "a", tmp_path / "b", values=True).values == {
        "n": (1.0, pytest.approx(2**-62))
    }
    same = jtree.diff(tmp_path / "a", tmp_path / "a", values=True)
    assert (bool(same), same.differences) == (False, ())


def test_ties_that_only_one_checkpoint_has_are_a_remark(tmp_path: Path) -> None:
    jtree.save(tmp_path / "tied", Shared(nnx.Rngs(0)))
    state = jtree.load(tmp_path / "tied")
    copies = jax.tree.map(lambda x: x.copy() if isinstance(x, np.ndarray) else x, state)
    jtree.save(tmp_path / "untied", copies)
    diff = jtree.diff(tmp_path / "tied", tmp_path / "untied", values=True)
    assert not diff
    assert {x.kind for x in diff.remarks} == {"ties"}
    assert "dec/kernel: expected tied to enc/kernel, found not tied" in {
        x.text for x in diff.remarks
    }


def test_values_are_compared_in_one_read_of_each_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = {str(n): np.full(3, n, np.float32) for n in range(5)}
    jtree.save(tmp_path / "a", state)
    jtree.save(tmp_path / "b", state | {"4": np.zeros(3, np.float32)}, packed=True)
    reads = []
    read = OrbaxArrays.read
    monkeypatch.setattr(
        OrbaxArrays, "read", lambda self, names: reads.append(len(names)) or read(self, names)
    )
    assert list(jtree.diff(tmp_path / "a", tmp_path / "b", values=True).values) == ["4"]
    assert reads == [5, 5]
    reads.clear()
    assert jtree.diff(jax.tree.map(jnp.asarray, state), tmp_path / "b", values=True).values == {
        "4": (4.0, 1.0)
    }
    assert reads == [5]
    assert not jtree.diff(tmp_path / "a", tmp_path / "b")
    assert reads == [5]
