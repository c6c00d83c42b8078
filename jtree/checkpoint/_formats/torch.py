"""Files of PyTorch: a zip archive of a pickle that names storages, and the bytes of each."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np

from ..._tree import paths as _path
from ..._tree.lazy import LazyArray
from .._storage.atomic import Path
from .archive import STORED, Archive
from .file import ROOM, Budget, Entries, Opened, nbytes
from .torch_names import Names, Storage, Tensor
from .torch_pickle import Global, Inert, Machine

FORMAT = "PyTorch"
_STEPS = 500_000  # instructions of a pickle that even a small file may have


def open_torch(path: Path, *, verify: bool = True, **_: Any) -> Opened:
    """Return what `torch.save` has written, if it is made of tensors and basic containers."""
    archive = Archive(path, verify=verify)
    program, *others = [x for x in archive.entries if x.rpartition("/")[2] == "data.pkl"]
    if others:
        raise ValueError(f"it has two pickles, {program:.80} and {others[0]:.80}; expected one")
    root = program.removesuffix("data.pkl")
    if f"{root}constants.pkl" in archive.entries:
        raise ValueError(
            "this is a TorchScript program; load it with torch.jit.load, and save its state_dict()"
        )
    packed = [x.name for x in archive.entries.values() if x.method != STORED]
    if packed:
        raise ValueError(f"{packed[0]} is packed, which PyTorch never does; unpack and zip it -0")
    most = _STEPS + archive.file.size // 64
    machine = Machine(Names(), most)
    held = machine.run(archive.read(program, archive.file.size))
    tree = _Tree(archive, root)
    found = tree.visit(held, ())
    return Opened(FORMAT, found, {}, tree.source, tree.ties())


class _Tree:
    """What a pickle holds as a tree of basic containers, with lazy arrays for tensors."""

    def __init__(self, archive: Archive, root: str) -> None:
        self.archive = archive
        self.root = root
        self.budget = Budget(archive.file.size)
        self.source = Entries(archive.file, FORMAT, verified=True)
        self.order = _order(archive, root)
        self.lazy: dict[Tensor, LazyArray] = {}
        self.paths: dict[LazyArray, list[str]] = {}
        self.checks: dict[str, Any] = {}
        self.total = 0  # bytes of all tensors
        self.widest = 0  # bytes that are read for one that has to be copied out of them
        self.spans = 0  # bytes that are read for all of these

    def visit(self, x: Any, parts: tuple[str, ...]) -> Any:
        """Return what is at a place of the tree."""
        self.budget.spend(parts)
        if isinstance(x, Tensor):
            return self._tensor(x, _path.join(parts))
        if isinstance(x, Inert):
            return _inert(x, parts)
        if isinstance(x, Global | Storage):
            return ()
        if isinstance(x, dict):
            names = _names(x)
            return {
                name: self.visit(y, (*parts, str(name)))
                for name, y in zip(names, x.values(), strict=True)
            }
        if isinstance(x, list | tuple):
            return type(x)(self.visit(y, (*parts, str(n))) for n, y in enumerate(x))
        return x

    def ties(self) -> tuple[tuple[str, ...], ...]:
        """Return the paths of places that hold one tensor."""
        groups = [sorted(paths) for x, paths in self.paths.items() if x.size]
        return tuple(sorted(tuple(paths) for paths in groups if len(paths) > 1))

    def _tensor(self, x: Tensor, path: str) -> LazyArray:
        if x not in self.lazy:
            self._check(x, path)
            self.lazy[x] = self.source.add_named(path, x.shape, x.dtype, lambda: self._read(x))
        self.paths.setdefault(self.lazy[x], []).append(path)
        return self.lazy[x]

    def _check(self, x: Tensor, path: str) -> None:
        """Refuse a tensor that is not within its storage, and views that grow to a bomb."""
        entry = self.archive.entries.get(self._entry(x))
        if entry is None:
            raise ValueError(f"{path}: its storage {x.storage.key!r:.80} is not in the file")
        held = x.storage.numbers * x.storage.dtype.itemsize
        if entry.size < held:
            raise ValueError(f"{path}: its storage ends too early")
        self.total += nbytes(x.shape, x.dtype)
        span = _span(x) * x.dtype.itemsize if math.prod(x.shape) else 0
        if span and x.offset * x.dtype.itemsize + span > held:
            raise ValueError(f"{path}: this tensor is larger than its storage")
        if not _isdense(x):
            self.widest = max(self.widest, span)
            self.spans += span
        size = self.archive.file.size
        if self.total + self.widest > 2 * size + ROOM or self.spans > 64 * size + 2**30:
            raise ValueError(
                f"its tensors are views that would take {self.total:,} bytes, read from "
                f"{self.spans:,}, and the file has {size:,}; save them with .clone() in PyTorch"
            )

    def _entry(self, x: Tensor) -> str:
        return f"{self.root}data/{x.storage.key}"

    def _read(self, x: Tensor) -> np.ndarray[Any, Any]:
        """Return a tensor's numbers, checked."""
        name, count = self._entry(x), _span(x)
        size, entry = x.dtype.itemsize, self.archive.entries[name]
        if not math.prod(x.shape):
            return np.zeros(x.shape, x.dtype)
        if x.offset == 0 and count * size == entry.size:
            data = self.archive.array(name)
        else:
            self.checks.setdefault(name, self.archive.checked(name))()
            start = self.archive.start(name) + x.offset * size
            data = self.archive.file.array(start, (count * size,), np.uint8)
        return _as_stored(_ordered(data, x.dtype, self.order), x)


def _as_stored(data: np.ndarray[Any, Any], x: Tensor) -> np.ndarray[Any, Any]:
    """Return numbers in the shape of a tensor; copied where places overlap or have gaps."""
    strides = tuple(n * x.dtype.itemsize for n in x.strides)
    view = np.ndarray(x.shape, x.dtype, data.data, strides=strides)
    found = view if _isdense(x) else view.copy()
    for operation in [np.conjugate] * x.conj + [np.negative] * x.neg:
        operation(found, out=found)  # in memory of its own
    return found


def _isdense(x: Tensor) -> bool:
    """Tell whether every number of the storage's part is at one place of the tensor."""
    expected = 1
    for stride, n in sorted(zip(x.strides, x.shape, strict=True)):
        if n > 1 and stride != expected:
            return False
        expected *= n
    return True


def _span(x: Tensor) -> int:
    """Return over how many numbers of the storage a tensor that is not empty extends."""
    return sum((n - 1) * stride for n, stride in zip(x.shape, x.strides, strict=True)) + 1


def _order(archive: Archive, root: str) -> str:
    """Return the order of bytes; files without it are of little-endian machines."""
    name = f"{root}byteorder"
    found = archive.read(name, 20).decode() if name in archive.entries else "little"
    if found not in ("little", "big"):
        raise ValueError(f"{found!r} is no order of bytes")
    return found


def _ordered(data: np.ndarray[Any, Any], dtype: Any, order: str) -> np.ndarray[Any, Any]:
    """Return bytes in this machine's order."""
    unit = dtype.itemsize // (2 if dtype.kind == "c" else 1)
    if order != sys.byteorder and unit > 1:
        data = data.view(f"u{unit}").byteswap().view(np.uint8)
    return data


def _names(x: dict[Any, Any]) -> list[Any]:
    """Return the keys of a dict, as text where they are not all text or all integers."""
    if len({type(key) for key in x}) == 1 and type(next(iter(x))) in (str, int):
        return list(x)
    names = [str(key) for key in x]
    if len(set(names)) != len(names):
        raise ValueError("two keys of a dict print alike")
    return names


def _inert(x: Inert, parts: tuple[str, ...]) -> tuple[()]:
    """Return what stands for an object that is not known: nothing, unless it holds the model."""
    state = x.state if isinstance(x.state, dict) else {}
    if not parts or {"_parameters", "_modules"} <= state.keys():
        raise ValueError(
            f"{_path.show(_path.join(parts))} is a whole {x.name:.80}, which only its own code can "
            "build; in PyTorch, save its numbers: torch.save(model.state_dict(), path)"
        )
    return ()
