"""What is at a path that is no checkpoint, so that an error can say it."""

from __future__ import annotations

from ._files import MARK, Path

# How a file begins: what it is.
_STARTS = {
    b"\x89HDF": "an HDF5 file, as Keras writes",
    b"HDF5-based Julia": "a JLD2 file of Julia",
    b"\x93NUMPY": "a NumPy file; read it with numpy.load",
    b"\x80": "a pickle, as old versions of PyTorch write; it is not opened, since it can run code",
}


def looks_like(path: Path) -> str:
    """Return what a path that is no checkpoint looks like, and what to do."""
    if not path.exists():
        return "there is nothing here"
    return _directory(path) if path.is_dir() else f"this is {_file(path)}, not a checkpoint"


def _directory(path: Path) -> str:
    names = sorted(x.name for x in path.iterdir())
    steps = sorted((x for x in names if (path / x / MARK).exists()), key=_number)
    if ".orbax-checkpoint-tmp" in path.name:
        return "this checkpoint is being written, or its writer was killed; it is not complete"
    if steps:
        shown = ", ".join(steps[:3]) + (", ..." if len(steps) > 3 else "")
        return f"this directory holds checkpoints: {shown}; load one of them, {path / steps[-1]}"
    if (path.parent / MARK).exists():
        return f"this is a part of the checkpoint {path.parent}; load that"
    if any(name.endswith(".safetensors") for name in names):
        return "this directory holds safetensors files, not a checkpoint"
    unfinished = any(".orbax-checkpoint-tmp" in name for name in names)
    if unfinished:
        return "this checkpoint is being written, or its writer was killed; it is not complete"
    if MARK in names:
        return "this looks like a checkpoint, but parts of it are missing or damaged"
    return f"this directory is no checkpoint: it has no {MARK}" + ("" if names else " and is empty")


def _file(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(4096)
    for begin, what in _STARTS.items():
        if start.startswith(begin):
            return what
    if start.startswith(b"PK\x03\x04"):
        return _zip(start)
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 2**40:
        return "a safetensors file"
    if int.from_bytes(start[:4], "little") == path.stat().length and b"tag\0" in start:
        return "a BSON file, as Flux.jl writes"
    return "a file of another kind" if start else "an empty file"


def _zip(start: bytes) -> str:
    if b"data.pkl" in start or b"/version" in start:
        return "a PyTorch file"
    return "a NumPy archive; read it with numpy.load" if b".npy" in start else "a zip archive"


def _number(name: str) -> tuple[int, str]:
    digits = "".join(x for x in name if x.isdigit())
    return int(digits or -1), name
