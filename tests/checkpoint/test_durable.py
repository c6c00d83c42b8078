"""Power failures and full disks: what is synced, in which order, and what is left behind."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jtree
from jtree.checkpoint._orbax import api
from jtree.checkpoint._storage import atomic


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The syncs and renames of this process, in order, with the path of each."""
    record: list[tuple[str, str]] = []
    fsync = os.fsync

    def sync(descriptor: int) -> None:
        record.append(("sync", os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    for name in ("rename", "replace", "link"):
        system_call = getattr(os, name)

        def rename(a: Any, b: Any, original: Any = system_call, **options: Any) -> None:
            record.append(("rename", os.fspath(b)))
            original(a, b, **options)

        monkeypatch.setattr(os, name, rename)
    exchange = atomic._exchange

    def exchange_recorded(a: Any, b: Any) -> bool:
        record.append(("rename", os.fspath(b)))
        return exchange(a, b)

    monkeypatch.setattr(atomic, "_exchange", exchange_recorded)
    return record


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs the names of open files")
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_checkpoint_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, calls: list[tuple[str, str]], overwrite: bool
) -> None:
    target = tmp_path / "a" / "b" / "x"
    for _ in range(1 + overwrite):
        calls.clear()
        jtree.save(target, {"w": np.arange(3), "v": np.ones(2)}, overwrite=overwrite)
    installed = calls.index(("rename", str(target)))
    before = [os.path.relpath(path, tmp_path / "a/b") for kind, path in calls[:installed]]
    synced = {path.partition("/new")[2] for path in before if "/new" in path}
    written = {str(x)[len(str(target)) :] for x in [target, *target.rglob("*")]}
    assert written <= synced
    assert {"/_CHECKPOINT_METADATA", "/state/_METADATA", "/state", ""} <= synced
    assert ("sync", str(target.parent)) in calls[installed:]
    if not overwrite:
        assert [("sync", str(tmp_path / "a")), ("sync", str(tmp_path))] == calls[:2]


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs the names of open files")
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("suffix", ["safetensors", "npz", "npy", "msgpack"])
def test_a_file_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, calls: list[tuple[str, str]], suffix: str, overwrite: bool
) -> None:
    target = tmp_path / f"x.{suffix}"
    tree = np.ones(2) if suffix == "npy" else {"w": np.ones(2)}
    for _ in range(1 + overwrite):
        calls.clear()
        jtree.save(target, tree, overwrite=overwrite)
    (data, _), renamed, parent = [x for x in calls if not x[1].endswith(".jtree")]
    assert data == "sync"
    assert renamed == ("rename", str(target))
    assert parent == ("sync", str(tmp_path))


def test_the_structure_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jtree.save(tmp_path / "x", {"w": np.ones(2)})
    name_handlers = api.name_handlers

    def damage(path: Any, metrics: Any) -> None:
        name_handlers(path, metrics)
        mark = path / "_CHECKPOINT_METADATA"
        mark.write_text(mark.read_text().replace('\\"float64\\"', '\\"float32\\"'))

    monkeypatch.setattr(api, "name_handlers", damage)
    message = (
        f"{tmp_path / 'x'} cannot be written: its metadata differs from what was written; check "
        "the disk, or use another path"
    )
    with pytest.raises(jtree.CheckpointError, match=f"^{re.escape(message)}$"):
        jtree.save(tmp_path / "x", {"w": np.zeros(2)}, overwrite=True)
    assert jtree.load(tmp_path / "x")["w"].tolist() == [1, 1]
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("name", ["x", "x.safetensors", "x.npz"])
def test_a_full_disk_is_one_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    fill_disk(monkeypatch)
    message = (
        re.escape(f"{tmp_path / name} cannot be written: no space left on the device; the arrays ")
        + r"take 800 bytes, and [\d,]+ bytes are free; free some space, or use another path"
    )
    with pytest.raises(jtree.CheckpointError, match=f"^{message}$"):
        jtree.save(tmp_path / name, {"w": np.ones(100)})
    assert os.listdir(tmp_path) == []
    assert capfd.readouterr().err == ""
    monkeypatch.undo()
    jtree.save(tmp_path / name, {"w": np.ones(100)})


def fill_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)


def test_a_conversion_on_a_full_disk_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jtree.save(tmp_path / "x", {"w": np.ones(100)})
    fill_disk(monkeypatch)
    for target in ("y", "y.safetensors"):
        message = re.escape(f"{tmp_path / target} cannot be written: no space left on the device; ")
        with pytest.raises(jtree.CheckpointError, match=f"^{message}the arrays take 800 bytes"):
            jtree.migrate.convert_file(tmp_path / "x", tmp_path / target)
        assert os.listdir(tmp_path) == ["x"]
    monkeypatch.undo()
    assert not jtree.migrate.convert_file(tmp_path / "x", tmp_path / "y").problems
