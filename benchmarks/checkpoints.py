"""Checkpoints: jtree against Orbax alone, against the bytes, and beside other formats."""

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
    numbers = np.random.default_rng(0)
    return {
        f"layer_{n}": jnp.asarray(numbers.standard_normal(size, dtype=np.float32))
        for n in range(leaves)
    }


class _Directory:
    """A directory in which every file is written anew."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp())

    def fresh(self, name: str) -> Path:
        place = self.path / name
        if place.is_dir():
            shutil.rmtree(place)
        place.unlink(missing_ok=True)
        return place


def _write(path: Path, state: dict[str, Any]) -> None:
    """Write the bytes, and wait until they are on the disk: what no format can be below."""
    with path.open("wb") as file:
        for x in state.values():
            file.write(np.asarray(x).data)
        file.flush()
        os.fsync(file.fileno())


def save_large() -> Result:
    """Save 524 MB in 200 leaves."""
    state, at = _arrays(200, 655_360), _Directory()
    ways: dict[str, Callable[[], Any]] = {
        "ours": lambda: jtree.save(at.fresh("ours"), state),
        "orbax": lambda: ocp.save(at.fresh("orbax"), state),
        "write and fsync": lambda: _write(at.fresh("plain"), state),
        "flax msgpack": lambda: at.fresh("msgpack").write_bytes(serialization.to_bytes(state)),
    }
    ways |= _others(at, state)
    out = dict(zip(ways, median(*ways.values(), repeat=5), strict=True))
    out["ours memory"] = peak(ways["ours"])
    out["orbax memory"] = peak(ways["orbax"])
    shutil.rmtree(at.path)
    return out


def _others(at: _Directory, state: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    ways: dict[str, Callable[[], Any]] = {}
    if find_spec("safetensors"):
        from safetensors.flax import save_file

        ways["safetensors"] = lambda: save_file(state, at.fresh("safetensors"))
    if find_spec("torch"):
        import torch

        tensors = {name: torch.from_numpy(np.asarray(x).copy()) for name, x in state.items()}
        ways["torch.save"] = lambda: torch.save(tensors, at.fresh("torch"))
    return ways


def load_large() -> Result:
    """Load the same, as NumPy arrays and into a model."""
    state, at = _arrays(200, 655_360), _Directory()
    jtree.save(at.path / "ours", state)
    ocp.save(at.path / "orbax", state)
    host = {name: np.asarray(x) for name, x in state.items()}
    abstract = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in state.items()}
    names = "ours host", "orbax host", "ours model", "orbax model"
    times = median(
        lambda: jtree.load(at.path / "ours"),
        lambda: ocp.load(at.path / "orbax", host),
        lambda: jtree.load(at.path / "ours", abstract),
        lambda: ocp.load(at.path / "orbax", abstract),
        repeat=5,
    )
    shutil.rmtree(at.path)
    return dict(zip(names, times, strict=True))


def packed() -> Result:
    """Save, load and look at 2,000 leaves of 1 KB."""
    state, at = _arrays(2000, 256), _Directory()
    jtree.save(at.path / "ours", state)
    jtree.save(at.path / "packed", state, packed=True)
    ocp.save(at.path / "orbax", state)
    names = (
        *("save", "orbax save", "load", "orbax load"),
        *("open", "open packed", "orbax metadata"),
    )
    times = median(
        lambda: jtree.save(at.fresh("again"), state, packed=True),
        lambda: ocp.save(at.fresh("again"), state),
        lambda: jtree.load(at.path / "packed"),
        lambda: ocp.load(at.path / "orbax"),
        lambda: jtree.open(at.path / "ours"),
        lambda: jtree.open(at.path / "packed"),
        lambda: ocp.metadata(at.path / "orbax"),
        repeat=5,
    )
    shutil.rmtree(at.path)
    return dict(zip(names, times, strict=True))
