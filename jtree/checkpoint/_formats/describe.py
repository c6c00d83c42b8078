"""Descriptions of files and directories that are not checkpoints, for error messages."""

from __future__ import annotations

import re

from .._storage.paths import MARK, UNFINISHED, Path
from .bson_document import is_damaged_bson, text_damage

# How a file begins, and what it then is.
_STARTS = {
    b"7JL": "Julia's own serialization, which only Julia reads; load it there with "
    "Serialization.deserialize, and save the model with JLD2.jldsave or BSON.bson",
    b"\x1f\x8b": "a gzip archive; unpack it with gunzip",
    b"version https://git-lfs": "a Git LFS pointer; get the file itself by git lfs pull",
    b"\x80": "a pickle, as PyTorch before 1.6 writes; pickles can run code and are never opened. "
    "If you trust it, write it again in PyTorch: torch.save(torch.load(path), path)",
}
_FLAX = re.compile(r"checkpoint_\d+(\.\d+)?")  # a file of flax.training.checkpoints
_EARLY_ORBAX = {"_METADATA", "checkpoint"}  # files of a tree
_UNFINISHED = "unfinished checkpoint: it is still being written, or its writer was killed"


def describe_path(path: Path) -> str:
    """Return a description of a path that is not a checkpoint, and the remedy."""
    if not path.exists():
        return "no such file or directory"
    return _describe_directory(path) if path.is_dir() else f"not a checkpoint: {_describe(path)}"


def _describe_directory(path: Path) -> str:
    names = sorted(x.name for x in path.iterdir())
    steps = sorted((x for x in names if _is_step(path / x)), key=_step_number)
    if UNFINISHED in path.name:
        return _UNFINISHED
    if steps:
        shown = ", ".join(steps[:3]) + (", ..." if len(steps) > 3 else "")
        return f"a directory of checkpoints: {shown}; load one of them, {path / steps[-1]}"
    if (path.parent / MARK).exists():
        return f"a part of the checkpoint {path.parent}; load that"
    if any(UNFINISHED in name for name in names):
        return _UNFINISHED
    if MARK in names:
        return "damaged checkpoint: parts of it are missing or unreadable"
    if _EARLY_ORBAX & {*names}:
        return (
            f"an Orbax checkpoint without {MARK}, as early versions wrote: restore it with "
            f"orbax.checkpoint.PyTreeCheckpointer().restore({str(path)!r}), and save the result "
            "with jtree.save"
        )
    return f"not a checkpoint: {'it lacks ' + MARK if names else 'an empty directory'}"


def _is_step(path: Path) -> bool:
    """Return whether a checkpoint of Orbax, or a file of Flax, is at a path."""
    return (path / MARK).exists() or bool(_FLAX.fullmatch(path.name) and path.is_file())


def _describe(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(4096)
    for begin, description in _STARTS.items():
        if start.startswith(begin):
            return description
    if start.startswith(b"PK"):
        return "a zip archive that neither PyTorch, NumPy nor Keras has written"
    if start[257:262] == b"ustar":
        return (
            "a tar archive, as the first versions of PyTorch wrote; if you trust it, write it "
            "again in PyTorch: torch.save(torch.load(path), path)"
        )
    if is_damaged_bson(start):
        damage = text_damage(start)
        how = f"by a transfer as text, which {damage}" if damage else "at its beginning"
        return f"a BSON file of Julia, damaged {how}; get it again, as binary"
    if start.lstrip()[:1] == b"{" and b'"class_name"' in start and b'"config"' in start:
        return (
            "the configuration of a Keras model in JSON, without its weights; save them in Keras: "
            "model.save_weights"
        )
    if start.lstrip()[:9].lower() in (b"<!doctype", b"<html"):
        return "an HTML page; download the file itself, from the link that says raw or download"
    return "a file in an unknown format" if start else "an empty file"


def _step_number(name: str) -> tuple[int, str]:
    digits = "".join(x for x in name if x.isdigit())
    return int(digits or -1), name
