"""Files of PyTorch: a zip archive of a pickle that names storages, and the bytes of each."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np

from ..._tree import paths as _path
from ..._tree.lazy import LazyArray
from .archive import STORED, Archive
from .file import Entries, FileContents, Path
from .limits import MEMORY, Budget, array_nbytes
from .torch_machine import GlobalName, InertObject
from .torch_names import Tensor, TensorStorage, TorchNames
from .torch_pickle import run_pickle

_STEPS = 500_000  # instructions of a pickle that even a small file may have


def open_torch(path: Path, *, verify: bool = True, **_: Any) -> FileContents:
    """Return what `torch.save` has written, if it is made of tensors and basic containers."""
    archive = Archive(path, verify=verify)
    program, *others = [x for x in archive.entries if x.rpartition("/")[2] == "data.pkl"]
    if others:
        raise ValueError(f"expected one pickle, found {program:.80} and {others[0]:.80}")
    root = program.removesuffix("data.pkl")
    if f"{root}constants.pkl" in archive.entries:
        raise ValueError(
            "this is a TorchScript program; load it with torch.jit.load, and save its state_dict()"
        )
    compressed = [x.name for x in archive.entries.values() if x.method != STORED]
    if compressed:
        raise ValueError(
            f"{compressed[0]} is compressed, which PyTorch never does; unzip it, and zip it with -0"
        )
    pickle = archive.read(program, archive.file.size)
    value = run_pickle(pickle, TorchNames(), _STEPS + archive.file.size // 64)
    builder = _TreeBuilder(archive, root)
    tree = builder.visit(value, ())
    return FileContents("PyTorch", tree, {}, builder.source, builder.ties())


class _TreeBuilder:
    """The value of a pickle as a tree of basic containers, with lazy arrays for tensors."""

    def __init__(self, archive: Archive, root: str) -> None:
        self.archive = archive
        self.root = root
        self.budget = Budget(archive.file.size)
        self.source = Entries(archive.file, verified=True)
        self.byte_order = _byte_order(archive, root)
        self.lazy: dict[Tensor, LazyArray] = {}
        self.paths: dict[LazyArray, list[str]] = {}
        self.checkers: dict[str, Any] = {}
        self.total = 0  # bytes of all tensors
        self.widest = 0  # bytes that are read for the largest view that is copied out of them
        self.spans = 0  # bytes that are read for all such views

    def visit(self, x: Any, parts: tuple[str, ...]) -> Any:
        """Return the value at the path of these parts."""
        self.budget.spend(parts)
        if isinstance(x, Tensor):
            return self._tensor(x, _path.join(parts))
        if isinstance(x, InertObject):
            return _visit_object(x, parts)
        if isinstance(x, GlobalName | TensorStorage):
            return ()
        if isinstance(x, dict):
            keys = _keys(x)
            return {
                key: self.visit(y, (*parts, str(key)))
                for key, y in zip(keys, x.values(), strict=True)
            }
        if isinstance(x, list | tuple):
            return type(x)(self.visit(y, (*parts, str(n))) for n, y in enumerate(x))
        return x

    def ties(self) -> tuple[tuple[str, ...], ...]:
        """Return the paths of each tensor that is at several."""
        groups = [sorted(paths) for x, paths in self.paths.items() if x.size]
        return tuple(sorted(tuple(paths) for paths in groups if len(paths) > 1))

    def _tensor(self, x: Tensor, path: str) -> LazyArray:
        if x not in self.lazy:
            self._check(x, path)
            self.lazy[x] = self.source.add_named(path, x.shape, x.dtype, lambda: self._read(x))
        self.paths.setdefault(self.lazy[x], []).append(path)
        return self.lazy[x]

    def _check(self, x: Tensor, path: str) -> None:
        """Refuse a tensor that is not within its storage, and views that take far more memory."""
        entry = self.archive.entries.get(self._entry_name(x))
        if entry is None:
            raise ValueError(f"{path}: its storage {x.storage.key!r:.80} is not in the file")
        stored = x.storage.size * x.storage.dtype.itemsize
        if entry.size < stored:
            raise ValueError(
                f"{path}: truncated: expected {stored:,} bytes in its storage, found {entry.size:,}"
            )
        self.total += array_nbytes(x.shape, x.dtype)
        span = _span(x) * x.dtype.itemsize if math.prod(x.shape) else 0
        if span and x.offset * x.dtype.itemsize + span > stored:
            raise ValueError(f"{path}: this tensor is larger than its storage")
        if not _is_dense(x):
            self.widest = max(self.widest, span)
            self.spans += span
        size = self.archive.file.size
        if self.total + self.widest > 2 * size + MEMORY or self.spans > 64 * size + 2**30:
            raise ValueError(
                f"its tensors are views that would take {self.total:,} bytes, read from "
                f"{self.spans:,}, and the file has {size:,}; save them with .clone() in PyTorch"
            )

    def _entry_name(self, x: Tensor) -> str:
        return f"{self.root}data/{x.storage.key}"

    def _read(self, x: Tensor) -> np.ndarray[Any, Any]:
        """Return the values of a tensor, compared with their checksum."""
        name, count = self._entry_name(x), _span(x)
        itemsize, entry = x.dtype.itemsize, self.archive.entries[name]
        if not math.prod(x.shape):
            return np.zeros(x.shape, x.dtype)
        if x.offset == 0 and count * itemsize == entry.size:
            data = self.archive.array(name)
        else:
            self.checkers.setdefault(name, self.archive.checker(name))()
            start = self.archive.start(name) + x.offset * itemsize
            data = self.archive.file.array(start, (count * itemsize,), np.uint8)
        return _strided(_swap_bytes(data, x.dtype, self.byte_order), x)


def _strided(data: np.ndarray[Any, Any], x: Tensor) -> np.ndarray[Any, Any]:
    """Return values in the shape of a tensor; copied where elements overlap or have gaps."""
    strides = tuple(n * x.dtype.itemsize for n in x.strides)
    view = np.ndarray(x.shape, x.dtype, data.data, strides=strides)
    array = view if _is_dense(x) else view.copy()
    for operation in [np.conjugate] * x.conj + [np.negative] * x.neg:
        operation(array, out=array)  # in memory of its own
    return array


def _is_dense(x: Tensor) -> bool:
    """Return whether every element of the storage's range is one element of the tensor."""
    expected = 1
    for stride, n in sorted(zip(x.strides, x.shape, strict=True)):
        if n > 1 and stride != expected:
            return False
        expected *= n
    return True


def _span(x: Tensor) -> int:
    """Return the number of elements of the storage from a tensor's first to its last."""
    return sum((n - 1) * stride for n, stride in zip(x.shape, x.strides, strict=True)) + 1


def _byte_order(archive: Archive, root: str) -> str:
    """Return the byte order; files that do not state it are of little-endian machines."""
    name = f"{root}byteorder"
    order = archive.read(name, 20).decode() if name in archive.entries else "little"
    if order not in ("little", "big"):
        raise ValueError(f"byteorder: expected 'little' or 'big', found {order!r}")
    return order


def _swap_bytes(data: np.ndarray[Any, Any], dtype: Any, order: str) -> np.ndarray[Any, Any]:
    """Return bytes in the order of this machine."""
    unit = dtype.itemsize // (2 if dtype.kind == "c" else 1)
    if order != sys.byteorder and unit > 1:
        data = data.view(f"u{unit}").byteswap().view(np.uint8)
    return data


def _keys(x: dict[Any, Any]) -> list[Any]:
    """Return the keys of a dict, as text where they are not all text or all integers."""
    if len({type(key) for key in x}) == 1 and type(next(iter(x))) in (str, int):
        return list(x)
    keys = [str(key) for key in x]
    if len(set(keys)) != len(keys):
        raise ValueError("two keys of a dict print alike; rename one of them in PyTorch")
    return keys


def _visit_object(x: InertObject, parts: tuple[str, ...]) -> tuple[()]:
    """Return what stands for an object of an unknown class: nothing, unless it is the model."""
    state = x.state if isinstance(x.state, dict) else {}
    if not parts or {"_parameters", "_modules"} <= state.keys():
        raise ValueError(
            f"{_path.show(_path.join(parts))} is a whole {x.name:.80}, which only its own code can "
            "build; in PyTorch, save its values: torch.save(model.state_dict(), path)"
        )
    return ()
