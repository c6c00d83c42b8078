"""Datasets of a JLD2 file: what their headers say, and their values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..._tree.lazy import LazyArray
from .file import Entries, File, to_native
from .hdf5_chunks import read_chunks
from .hdf5_messages import Dataset, Layout
from .hdf5_objects import Hdf5Objects
from .hdf5_types import UNDEFINED
from .jld2_elements import ElementType
from .julia_basic import join_complex
from .limits import array_nbytes, check_growth


class Datasets:
    """Reads the values of datasets, with their sizes checked against the file."""

    def __init__(self, objects: Hdf5Objects, file: File, source: Entries) -> None:
        self.objects = objects
        self.file = file
        self.source = source
        self._unpacked = 0  # bytes of arrays in memory where the file has fewer

    def lazy(
        self, x: Dataset, item: ElementType, shape: tuple[int, ...], address: int
    ) -> LazyArray:
        """Return an array that is read on demand, in the order of Julia's indices."""
        sizes = (*shape, *item.axes)
        nbytes = array_nbytes(sizes, item.dtype)
        self._check_stored(x, nbytes)
        dtype = item.dtype.newbyteorder("=")
        stored = np.dtype(np.uint8) if dtype.kind == "b" else item.dtype

        def read() -> np.ndarray[Any, Any]:
            if x.layout.iscompact:
                self.objects.check_large(address)
            if x.layout.chunk or not nbytes:
                array = np.frombuffer(bytearray(self.read(x, nbytes)), stored).reshape(sizes)
            else:
                array = self.file.array(self._start(x.layout), sizes, stored)
            native = array != 0 if dtype.kind == "b" else to_native(array)
            return native.T

        start = self.objects.base + address
        lazy = self.source.add_named(f"the array at byte {start:,}", sizes[::-1], dtype, read)
        return join_complex(lazy) if item.ispair else lazy

    def read(self, x: Dataset, nbytes: int) -> bytes:
        """Return the bytes of a dataset, which takes this many."""
        self._check_stored(x, nbytes)
        if not nbytes:
            return b""
        if x.layout.chunk:
            shape = x.shape or ()
            size = nbytes // max(math.prod(shape), 1)
            return read_chunks(self.objects, x.layout, x.filters, shape, size)
        return self.objects.read(self._start(x.layout), nbytes)

    def _check_stored(self, x: Dataset, nbytes: int) -> None:
        """Refuse a dataset that has fewer bytes than its shape needs."""
        if x.layout.chunk:
            self._unpacked += nbytes
            check_growth(self._unpacked, self.file.size)
        elif x.layout.size < nbytes:
            raise ValueError(f"truncated: expected {nbytes:,} bytes, found {x.layout.size:,}")
        elif nbytes and not x.layout.iscompact and x.layout.start == UNDEFINED:
            raise ValueError(f"expected {nbytes:,} bytes of an array, found none")

    def _start(self, x: Layout) -> int:
        return x.start if x.iscompact else self.objects.base + x.start
