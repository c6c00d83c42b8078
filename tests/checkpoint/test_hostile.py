"""Checkpoints that somebody else has written, or changed: refused with one clear error."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from cProfile import Profile
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import jtree
from jtree._text import render
from jtree.checkpoint._formats.shards import _check_complete
from jtree.checkpoint._orbax.decoding import structure_crc32
from jtree.checkpoint._show import as_tree

from ..formats.bounds import refused
from ..same import calls

Change = Callable[[dict[str, Any], dict[str, Any]], Any]

CHANGES: dict[str, Change] = {
    "negative": lambda w, _: w.update(shape=[-1, 3]),
    "larger than memory": lambda w, _: w.update(shape=[2**31, 2**31]),
    "of objects": lambda w, _: w.update(dtype="object"),
    "a class for a dtype": lambda w, _: w.update(dtype="finfo"),
    "outside": lambda w, _: w.update(array=["..", "x"]),
    "a path": lambda w, _: w.update(array=["/etc/passwd"]),
    "offset": lambda w, _: w.update(at=64),
    "checksum": lambda w, _: w.update(crc32="none"),
    "checksums": lambda w, _: w.update(crc32=[[[0, 0], [2, 3], 1], [[0, 0], [2, 3], 1]]),
    "bytes": lambda w, _: w.update(bytes=1),
    "two descriptions": lambda w, c: c["tree"]["dict"].append(["x", w | {"shape": [3, 2]}]),
    "a key twice": lambda _, c: c["tree"]["dict"].append(["w", 1]),
    "ties of numbers": lambda _, c: c["ties"].append([3]),
    "digits": lambda _, c: c["tree"]["dict"].append(["n", {"int": "9" * 10**5}]),
    "hexadecimal digits": lambda _, c: c["tree"]["dict"].append(["n", {"int": "0x" + "f" * 10**6}]),
    "two scalars": lambda _, c: c["tree"]["dict"].append(["n", {"scalar": ["int8", "AAA="]}]),
    "no ties": lambda _, c: c.pop("ties"),
    "no array": lambda w, _: w.pop("array"),
    "a gap": lambda w, _: w.update(array=["%packed"], bytes=True, at=64),
    "a huge offset": lambda w, _: w.update(array=["%packed"], bytes=True, at=2**63),
    "shared": lambda w, c: c["tree"]["dict"].append(["x", w]),
    "ties to nothing": lambda _, c: c["ties"].append(["w", "x"]),
}


def rewrite(path: Path, change: Change) -> None:
    """Change the structure of a checkpoint, with a checksum that matches."""
    mark = path / "_CHECKPOINT_METADATA"
    metadata = json.loads(mark.read_text())
    structure = metadata["custom_metadata"]["jtree"]
    content = json.loads(structure["structure"])
    change(dict(content["tree"]["dict"])["w"], content)
    structure["structure"] = json.dumps(content)
    structure["crc32"] = structure_crc32(structure)
    mark.write_text(json.dumps(metadata))


def save_small(path: Path) -> Path:
    """Save one array."""
    jtree.save(path, {"w": np.ones((2, 3), np.float32)})
    return path


def test_a_structure_that_cannot_be_is_refused_when_it_is_opened(tmp_path: Path) -> None:
    path = save_small(tmp_path / "model")
    mark = path / "_CHECKPOINT_METADATA"
    text = mark.read_text()
    for change in CHANGES.values():
        mark.write_text(text)
        rewrite(path, change)
        with pytest.raises(jtree.CheckpointError, match="malformed structure of the state"):
            jtree.open(path)


@pytest.mark.parametrize("shape", [[3, 2], [6], [1, 6]])
@pytest.mark.parametrize("dtype", ["float32", "float8_e4m3fn", "int4"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_checksum_covers_shape_and_dtype(
    tmp_path: Path, packed: bool, dtype: str, shape: list[int]
) -> None:
    path = tmp_path / "model"
    jtree.save(path, {"w": np.ones((2, 3), dtype)}, packed=packed)
    rewrite(path, lambda w, _: w.update(shape=shape))
    with pytest.raises(jtree.CheckpointError):
        jtree.load(path)
    assert list(jtree.verify(path)) == ["w"]


def test_another_dtype_of_the_same_bytes_is_found(tmp_path: Path) -> None:
    jtree.save(tmp_path / "model", {"w": np.ones((2, 3), np.float32)}, packed=True)
    rewrite(tmp_path / "model", lambda w, _: w.update(dtype="int32"))
    with pytest.raises(jtree.ChecksumError, match="checksum mismatch in w; use another copy"):
        jtree.load(tmp_path / "model")


def without_array(path: Path) -> None:
    """Leave an array out of the metadata of Orbax."""
    file = path / "state" / "_METADATA"
    content = json.loads(file.read_text())
    content["tree_metadata"] = {}
    file.write_text(json.dumps(content))


def change_mark(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    mark = path / "_CHECKPOINT_METADATA"
    content = json.loads(mark.read_text())
    change(content)
    mark.write_text(json.dumps(content))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "no metadata": lambda path: (path / "_CHECKPOINT_METADATA").unlink(),
    "empty metadata": lambda path: (path / "_CHECKPOINT_METADATA").write_text(""),
    "a list of metadata": lambda path: (path / "_CHECKPOINT_METADATA").write_text("[]"),
    "nested metadata": lambda path: (path / "_CHECKPOINT_METADATA").write_text("[" * 10**6),
    "a text": lambda path: change_mark(
        path, lambda x: x["custom_metadata"].update(jtree="x" * 999)
    ),
    "no structure": lambda path: change_mark(path, lambda x: x["custom_metadata"]["jtree"].clear()),
    "no tree": lambda path: shutil.rmtree(path / "state"),
    "no metadata of the tree": lambda path: (path / "state" / "_METADATA").unlink(),
    "empty metadata of the tree": lambda path: (path / "state" / "_METADATA").write_text(""),
    "an array that is not in the metadata": without_array,
    "an array that does not exist": lambda path: rewrite(path, lambda w, _: w.update(array=["no"])),
    "no arrays": lambda path: shutil.rmtree(path / "state" / "d"),
    "no manifest": lambda path: (path / "state" / "manifest.ocdbt").unlink(),
    "a terabyte": lambda path: rewrite(path, lambda w, _: w.update(shape=[2**38])),
    "a terabyte in the pack": lambda path: rewrite(
        path, lambda w, _: w.update(array=["%packed"], bytes=True, shape=[2**38])
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("packed", [False, True])
def test_a_damaged_checkpoint_is_one_error(
    tmp_path: Path, packed: bool, damage: Callable[[Path], object]
) -> None:
    path = tmp_path / "model"
    jtree.save(path, {"w": np.ones((2, 3), np.float32)}, packed=packed)
    damage(path)
    refused(path)


def test_one_array_of_many_leaves_takes_linear_time(tmp_path: Path) -> None:
    count, path = 2_000, save_small(tmp_path / "model")

    def share(w: dict[str, Any], content: dict[str, Any]) -> None:
        names = [f"x{n}" for n in range(count)]
        content.update(tree={"dict": [[name, w] for name in names]}, ties=[names])

    rewrite(path, share)
    with Profile() as work:
        state = jtree.load(path)
        text = str(jtree.open(path))
    assert len(state) == count
    assert "tied to 1,999 others" in text
    assert calls(work) < 300 * count


@pytest.mark.parametrize("shape", [[3, 2], [6], [1]])
def test_another_shape_than_the_array_has_is_refused_when_it_is_read(
    tmp_path: Path, shape: list[int]
) -> None:
    path = save_small(tmp_path / "model")
    rewrite(path, lambda w, _: w.update(shape=shape))
    with pytest.raises(jtree.CheckpointError):
        jtree.load(path, verify=False)


def test_metadata_of_hundreds_of_megabytes_is_not_read(tmp_path: Path) -> None:
    path = save_small(tmp_path / "model")
    os.truncate(path / "_CHECKPOINT_METADATA", 3 * 10**8)
    with pytest.raises(jtree.CheckpointError, match="300,000,000 bytes; expected at most"):
        jtree.open(path)


def test_links_and_pipes_in_a_checkpoint_are_refused(tmp_path: Path) -> None:
    path = save_small(tmp_path / "model")
    (path / "link").symlink_to("/etc")
    with pytest.raises(jtree.CheckpointError, match=r"link is a link, and .*: cp -rL"):
        jtree.open(path)
    (path / "link").unlink()
    for pipe in (path / "state" / "pipe", tmp_path / "pipe"):
        os.mkfifo(pipe)
    for target in (path, tmp_path / "pipe"):
        with pytest.raises(jtree.CheckpointError, match="a pipe"):
            jtree.open(target)
    mark = path / "_CHECKPOINT_METADATA"
    mark.unlink()
    os.mkfifo(mark)
    with pytest.raises(jtree.CheckpointError, match="a pipe"):
        jtree.open(path)


@pytest.mark.parametrize("key", ["/etc/passwd", "../../x"])
def test_names_of_orbax_that_lead_out_of_the_checkpoint_are_refused(
    tmp_path: Path, key: str
) -> None:
    path = save_small(tmp_path / "model")
    (path / "state" / "_METADATA").write_text(
        json.dumps({"tree_metadata": {"x": {"key_metadata": [{"key": key, "key_type": 2}]}}})
    )
    with pytest.raises(jtree.CheckpointError, match="leads out of the checkpoint"):
        jtree.open(path)


def test_numbered_shards_are_checked_in_linear_time() -> None:
    names = {f"model-{n:05}-of-03000.safetensors" for n in range(1, 3001)}
    with Profile() as work:
        _check_complete(names)
    assert calls(work) < 20 * len(names)


@pytest.mark.parametrize("chunk", [1, 1024, 2**28])
def test_a_dataset_that_declares_far_more_than_its_file_has_is_refused(
    tmp_path: Path, chunk: int
) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset(
            "x", shape=(2**24 if chunk == 1 else 2**32,), dtype="f4", chunks=(chunk,)
        )
    with pytest.raises(jtree.CheckpointError, match=r"decompression bomb|16,777,216 chunks"):
        jtree.open(tmp_path / "x.h5")


def test_a_long_tree_is_cut_to_a_height_or_printed_whole(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **{f"a{n:04}": np.zeros(2) for n in range(600)})
    checkpoint = jtree.open(tmp_path / "x.npz")
    cut = render(as_tree(checkpoint, height=10))
    assert "a0008" in cut
    assert "a0009" not in cut
    assert "... 591 more lines; show all with --lines 0" in cut
    with Profile() as work:
        text = render(as_tree(checkpoint), width=40)
    assert calls(work) < 200 * 600
    assert all(f"a{n:04}  float64[2]     16" in text for n in range(600))


def test_long_integers_are_described_and_those_that_could_not_be_opened_refused(
    tmp_path: Path,
) -> None:
    jtree.save(tmp_path / "x", {"n": 1 << 100_000, "w": np.ones(1)})
    diff = jtree.diff({"n": "text", "w": np.ones(1)}, tmp_path / "x")
    assert diff.kind == {"n": ("'text'", "an int of 100,001 bits")}
    with pytest.raises(jtree.ModelError) as error:
        jtree.save(tmp_path / "y", {"n": 1 << 400_000})
    assert str(error.value) == (
        "n: cannot save an int of 400,001 bits: expected at most 100,000 hexadecimal digits; save "
        "it as bytes"
    )


def test_a_state_that_could_not_be_opened_again_is_not_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jtree.checkpoint._formats.limits.JSON_BYTES", 1000)
    with pytest.raises(jtree.ModelError, match=r"^cannot save a state of 400 leaves: its JSON of "):
        jtree.save(tmp_path / "x", [0.5] * 400)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("onto_device", [False, True])
@pytest.mark.parametrize("verify", [False, True])
def test_an_array_that_the_tree_lacks_is_not_read_as_zeros(
    tmp_path: Path, verify: bool, onto_device: bool
) -> None:
    path = tmp_path / "model"
    jtree.save(path, {"v": np.ones(2, np.float32), "w": np.ones((2, 3), np.float32)})
    rewrite(path, lambda w, _: w.update(array=["missing"]))
    sharding = jax.devices()[0] if onto_device else None
    with pytest.raises(jtree.CheckpointError) as error:
        jtree.load(path, verify=verify, sharding=sharding)
    assert str(error.value) == (
        f"{path}: cannot read w: it lacks the array missing; use another copy of this checkpoint, "
        "or where= to read the rest"
    )
    assert jtree.load(path, where="v")["v"].tolist() == [1, 1]
