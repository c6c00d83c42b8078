"""What runs in a process of its own: saves that are killed or fail, and reads of damaged files."""

from __future__ import annotations

import collections
import os
import random
import resource
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np

import jtree

from ..forks import count_changes, watch_changes
from ..same import same
from .versions import version

STATE = {"a": np.arange(2000.0), "b": [np.ones((3, 5), np.float32), 0.5], "c": np.arange(7)}


def save_until(path: str, number: int, overwrite: bool, packed: bool, last: int) -> int:
    """Save a version, and kill this process before a change of a file; return how many there were.

    The changes are counted from 0, so that -1 lets the save end.
    """
    changes = count_changes(str(Path(path).parent), last)
    jtree.save(path, version(number), overwrite=overwrite, packed=packed)
    return changes()


def save_for(path: str, number: int, overwrite: bool, packed: bool, seconds: float) -> float:
    """Save a large version, and kill this process after some seconds; return how many it took."""
    state, parent = version(number, 200_000), os.getpid()
    killer = os.fork()
    if not killer:
        time.sleep(seconds)
        os.kill(parent, signal.SIGKILL)
        os._exit(0)
    start = time.perf_counter()
    jtree.save(path, state, overwrite=overwrite, packed=packed)
    taken = time.perf_counter() - start
    os.kill(killer, signal.SIGKILL)
    os.waitpid(killer, 0)
    return taken


def watch_overwrite(path: str) -> list[bool]:
    """Overwrite a checkpoint, and return whether it was there before each change of a file."""
    there: list[bool] = []
    mark = Path(path, "_CHECKPOINT_METADATA")
    watch_changes(str(Path(path).parent), lambda _: there.append(mark.exists()))
    jtree.save(path, version(1), overwrite=True)
    return there


def save_without_room(path: str) -> str:
    """Save more than a file may hold, and return the error."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
    return _failure(path, np.random.default_rng(0).standard_normal(1_000_000))


def save_without_permission(path: str) -> str:
    """Save into a directory that cannot be written to, and return the error."""
    os.chmod(Path(path).parent, 0o555)
    for folder in list(Path(path).parents)[:-2]:
        os.chmod(folder, os.stat(folder).st_mode | 0o555)
    if os.getuid() == 0:
        os.seteuid(65534)
    return _failure(path, {"a": 2})


def save_together(path: str, overwrite: bool) -> int:
    """Save from six processes to one path, and return how many of them succeeded."""
    children = []
    for number in range(6):
        children.append(os.fork())
        if not children[-1]:
            error = _failure(path, version(number), overwrite)
            assert not error or "already exists" in error, error
            os._exit(not error)
    return sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)


def _failure(path: str, state: Any, overwrite: bool = True) -> str:
    """Return the error with which a save ends, if any."""
    try:
        jtree.save(path, state, overwrite=overwrite)
    except jtree.CheckpointError as error:
        return str(error)
    return ""


def train(directory: str, steps: int) -> None:
    """Resume a run from its latest step, and kill this process while it saves one step more."""
    import jax.numpy as jnp
    import orbax.checkpoint as ocp

    run = {"w": jnp.zeros(3), "count": np.zeros((), np.int64)}
    options = ocp.CheckpointManagerOptions(max_to_keep=3)
    with ocp.CheckpointManager(directory, options=options) as manager:
        if manager.latest_step() is not None:
            run = jtree.load(f"{directory}/{manager.latest_step()}", run)
        for step in range(steps + 1):
            count = np.asarray(run["count"] + 1)
            run = {"w": run["w"] + run["count"].astype(np.float32), "count": count}
            manager.save(int(run["count"]), args=ocp.args.PyTreeSave(jtree.state(run)))
            if step == steps:
                os.kill(os.getpid(), signal.SIGKILL)
            manager.wait_until_finished()


def read_damaged(directory: str, trials: int) -> dict[str, int]:
    """Load checkpoints, each with one file damaged; count how often that was noticed, by kind.

    What Orbax leaves running after a failed read may complain long after that.
    """
    randomly, counts = random.Random(0), collections.Counter[str]()
    whole, copy = Path(directory, "whole"), Path(directory, "copy")
    for packed in (False, True):
        jtree.save(whole, STATE, packed=packed, overwrite=True)
        for file in sorted(x.relative_to(whole) for x in whole.rglob("*") if x.is_file()):
            size = (whole / file).stat().st_size
            for kind in ["missing"] + ["truncated", "flipped"] * (trials if size else 0):
                shutil.copytree(whole, copy)
                damage_file(copy / file, kind, randomly)
                counts[kind] += _is_noticed(copy, kind)
                shutil.rmtree(copy)
    return counts


def damage_file(file: Path, kind: str, randomly: random.Random) -> None:
    """Remove a file, cut it off, or flip one of its bits."""
    data = bytearray(file.read_bytes())
    if kind == "missing":
        file.unlink()
        return
    at = randomly.randrange(len(data))
    if kind == "flipped":
        data[at] ^= 1 << randomly.randrange(8)
    file.write_bytes(data if kind == "flipped" else data[:at])


def _is_noticed(path: Path, kind: str) -> bool:
    try:
        assert same(jtree.load(path), STATE)
        return False
    except jtree.CheckpointError as error:
        message = str(error)
    assert str(path) in message, message
    assert len(message) < 1500, message
    assert kind != "flipped" or jtree.verify(path)
    return True
