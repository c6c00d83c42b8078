"""Paths of checkpoints, and names in their trees."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jtree

NAMES = st.text(st.sampled_from("\\/.%~:*[]{}|\"' \n\x01a_\ud800é"), min_size=1, max_size=6)


@settings(max_examples=2, deadline=None)
@given(st.lists(NAMES, min_size=8, max_size=12, unique=True))
def test_odd_names_come_back(names: list[str]) -> None:
    tree = {name: {name: np.full(2, n)} for n, name in enumerate(names)}
    with tempfile.TemporaryDirectory() as directory:
        jtree.save(f"{directory}/x", tree)
        loaded = jtree.load(f"{directory}/x")
    assert loaded.keys() == tree.keys()
    assert [loaded[x][x].tolist() for x in names] == [[n, n] for n in range(len(names))]


@pytest.mark.parametrize("name", ["x", "x.npz"])
def test_a_tilde_and_a_url_are_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    jtree.save(f"~/{name}", {"w": np.ones(2)})
    assert os.listdir(tmp_path) == [name]
    for path in (f"~/{name}", f"file://{tmp_path}/{name}", f"file://localhost{tmp_path}/{name}"):
        assert jtree.load(path)["w"].tolist() == [1, 1]
    jtree.save(f"file://{tmp_path}/a%20b", f"~/{name}")
    assert jtree.load(tmp_path / "a b")["w"].tolist() == [1, 1]
    jtree.migrate.convert_file(f"~/{name}", "~/c")
    assert sorted(os.listdir(tmp_path)) == sorted([name, "a b", "c"])


def test_a_url_of_another_machine_is_refused() -> None:
    message = "file://host/x: a file:// URL names a path of this machine; write file:///path"
    with pytest.raises(jtree.ArgumentError, match=f"^{re.escape(message)}$"):
        jtree.load("file://host/x")


@pytest.mark.skipif(os.sep != "/", reason="a backslash is a separator")
def test_a_backslash_in_a_path_is_refused(tmp_path: Path) -> None:
    target: Any = tmp_path / "a\\b"
    message = (
        f"{target}: Orbax takes a backslash in a path for a slash; use another name, or a format "
        "of one file"
    )
    with pytest.raises(jtree.ArgumentError, match=f"^{re.escape(message)}$"):
        jtree.save(target, {"w": np.ones(2)})
    np.savez(tmp_path / "s.npz", w=np.ones(2))
    with pytest.raises(jtree.ArgumentError, match=f"^{re.escape(message)}$"):
        jtree.migrate.convert_file(tmp_path / "s.npz", target)
    assert os.listdir(tmp_path) == ["s.npz"]
    jtree.save(f"{target}.npz", {"w": np.ones(2)})
    assert jtree.load(f"{target}.npz")["w"].tolist() == [1, 1]
