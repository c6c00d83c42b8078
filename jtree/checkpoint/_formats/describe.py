"""What is at a path that is no checkpoint, so that an error can say it."""

from __future__ import annotations

from .._storage.atomic import MARK, Path

# How a file begins: what it is.
_STARTS = {
    b"HDF5-based Julia": "a JLD2 file of Julia",
    b"\x80": "a pickle, as old versions of PyTorch write; it is not opened, since it can run code; "
    "if you trust it, write it again in PyTorch: torch.save(torch.load(path), path)",
}


def looks_like(path: Path) -> str:
    """Return what a path that is no checkpoint looks like, and what to do."""
    if not path.exists():
        return "there is nothing here"
    return _directory(path) if path.is_dir() else f"this is no checkpoint but {_file(path)}"


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
    if start.startswith(b"PK"):
        return "a zip archive that is neither of PyTorch, nor of NumPy, nor of Keras"
    if start[257:262] == b"ustar":
        return (
            "a tar archive, as the first versions of PyTorch wrote; if you trust it, write it "
            "again in PyTorch: torch.save(torch.load(path), path)"
        )
    if int.from_bytes(start[:4], "little") == path.stat().length and b"tag\0" in start:
        return "a BSON file, as Flux.jl writes"
    return "a file of another kind" if start else "an empty file"


def _number(name: str) -> tuple[int, str]:
    digits = "".join(x for x in name if x.isdigit())
    return int(digits or -1), name
