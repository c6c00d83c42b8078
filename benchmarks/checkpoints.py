"""Checkpoints: jtree against Orbax alone, against the bytes, and against other formats."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import serialization
from orbax.checkpoint import v1 as ocp

import jtree

from .timing import median, peak

Result = dict[str, float]


def _arrays(leaves: int, size: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        f"layer_{n}": jnp.asarray(rng.standard_normal(size, dtype=np.float32))
        for n in range(leaves)
    }


class _Directory:
    """A directory for files that are written again and again."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp())

    def fresh(self, name: str) -> Path:
        """Return a path where nothing is."""
        path = self.path / name
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        return path


def _write(path: Path, state: dict[str, Any]) -> None:
    """Write the bytes, and wait until they are on the disk: the least that any format takes."""
    with path.open("wb") as file:
        for x in state.values():
            file.write(np.asarray(x).data)
        file.flush()
        os.fsync(file.fileno())


def save_large() -> Result:
    """Save 524 MB in 200 leaves."""
    state, directory = _arrays(200, 655_360), _Directory()
    savers: dict[str, Callable[[], Any]] = {
        "ours": lambda: jtree.save(directory.fresh("ours"), state),
        "orbax": lambda: ocp.save(directory.fresh("orbax"), state),
        "write and fsync": lambda: _write(directory.fresh("plain"), state),
        "flax msgpack": lambda: directory.fresh("msgpack").write_bytes(
            serialization.to_bytes(state)
        ),
    }
    savers |= _other_formats(directory, state)
    result = dict(zip(savers, median(*savers.values(), repeat=5), strict=True))
    result["ours memory"] = peak(savers["ours"])
    result["orbax memory"] = peak(savers["orbax"])
    shutil.rmtree(directory.path)
    return result


def _other_formats(directory: _Directory, state: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    savers: dict[str, Callable[[], Any]] = {}
    if find_spec("safetensors"):
        from safetensors.flax import save_file

        savers["safetensors"] = lambda: save_file(state, directory.fresh("safetensors"))
    if find_spec("torch"):
        import torch

        tensors = {name: torch.from_numpy(np.asarray(x).copy()) for name, x in state.items()}
        savers["torch.save"] = lambda: torch.save(tensors, directory.fresh("torch"))
    return savers


def load_large() -> Result:
    """Load the same, as NumPy arrays and into a model."""
    state, directory = _arrays(200, 655_360), _Directory()
    jtree.save(directory.path / "ours", state)
    ocp.save(directory.path / "orbax", state)
    host = {name: np.asarray(x) for name, x in state.items()}
    abstract = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in state.items()}
    names = "ours host", "orbax host", "ours model", "orbax model"
    times = median(
        lambda: jtree.load(directory.path / "ours"),
        lambda: ocp.load(directory.path / "orbax", host),
        lambda: jtree.load(directory.path / "ours", abstract),
        lambda: ocp.load(directory.path / "orbax", abstract),
        repeat=5,
    )
    shutil.rmtree(directory.path)
    return dict(zip(names, times, strict=True))


def packed() -> Result:
    """Save, load and open 2,000 leaves of 1 KB."""
    state, directory = _arrays(2000, 256), _Directory()
    jtree.save(directory.path / "ours", state)
    jtree.save(directory.path / "packed", state, packed=True)
    ocp.save(directory.path / "orbax", state)
    names = (
        *("save", "orbax save", "load", "orbax load"),
        *("open", "open packed", "orbax metadata"),
    )
    times = median(
        lambda: jtree.save(directory.fresh("again"), state, packed=True),
        lambda: ocp.save(directory.fresh("again"), state),
        lambda: jtree.load(directory.path / "packed"),
        lambda: ocp.load(directory.path / "orbax"),
        lambda: jtree.open(directory.path / "ours"),
        lambda: jtree.open(directory.path / "packed"),
        lambda: ocp.metadata(directory.path / "orbax"),
        repeat=5,
    )
    shutil.rmtree(directory.path)
    return dict(zip(names, times, strict=True))
