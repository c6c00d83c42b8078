"""Files of NumPy: npy and npz."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jtree

from ..same import same
from .bounds import refusal
from .files import HUGE, array_layouts, bits, npy_file

NUMPY = [np.dtype(code) for code in "?bhiqBHIQefdFD"]


@pytest.mark.parametrize("dtype", NUMPY, ids=str)
def test_numpy_agrees(tmp_path: Path, dtype: Any) -> None:
    arrays = array_layouts(dtype)
    jtree.save(tmp_path / "x.npz", arrays)
    with np.load(tmp_path / "x.npz") as theirs:
        assert same({name: theirs[name] for name in theirs}, arrays)
    for write in (np.savez, np.savez_compressed):
        write(tmp_path / "y.npz", **arrays)  # type: ignore[operator]
        found = jtree.open(tmp_path / "y.npz")
        assert found.checksums
        assert same(jtree.load(tmp_path / "y.npz"), arrays)
    for name, x in arrays.items():
        jtree.save(tmp_path / f"{name}.npy", x)
        assert same(np.load(tmp_path / f"{name}.npy"), x)
        np.save(tmp_path / f"{name}.npy", x)
        assert same(jtree.load(tmp_path / f"{name}.npy"), x)
        swapped = x.astype(x.dtype.newbyteorder(">"))
        np.save(tmp_path / "swapped.npy", swapped)
        assert jtree.open(tmp_path / "swapped.npy")[""].dtype.isnative
        assert bits(jtree.load(tmp_path / "swapped.npy")) == bits(x)


def descr(dtype: str = "'<f8'", order: str = "False", shape: str = "(4,)") -> str:
    return f"{{'descr': {dtype}, 'fortran_order': {order}, 'shape': {shape}, }}"


HEADERS = {
    "code": "__import__('os').system('true')",
    "a call": descr(shape="(print(1),)"),
    "large": descr(shape=f"({HUGE},)"),
    "larger": descr(shape=f"({2**70},)"),
    "overflowing": descr(shape=f"({2**32}, {2**32}, 0)"),
    "negative": descr(shape="(-4,)"),
    "a float": descr(shape="(4.0,)"),
    "a bool": descr(shape="(True, 4)"),
    "a list": descr(shape="[4]"),
    "a number": descr(shape="4"),
    "an object": descr("'|O'"),
    "fields": descr("[('a', '<f8')]"),
    "a subarray": descr("('<f8', (2,))"),
    "no dtype": descr("'nonsense'"),
    "a wide text": descr(f"'<U{2**30}'"),
    "an order": descr(order="0"),
    "no key": "{'descr': '<f8', 'shape': (4,)}",
    "a key more": descr()[:-1] + "'x': 1}",
    "deep": "(" * 9000,
    "unary": "-" * 9000 + "1",
    "nothing": "",
}


MESSAGES = {
    "code": "cannot read this NumPy file: invalid array header",
    "a call": "cannot read this NumPy file: invalid array header",
    "large": (
        "cannot read this NumPy file: truncated: expected 8,796,093,022,208 bytes for "
        "float64[1099511627776], found 32"
    ),
    "larger": "cannot read this NumPy file: invalid array shape (1180591620717411303424,)",
    "overflowing": (
        "cannot read this NumPy file: an array of shape [4294967296, 4294967296, 0] is too "
        "large for any memory"
    ),
    "negative": "cannot read this NumPy file: invalid array shape (-4,)",
    "a float": "cannot read this NumPy file: invalid array shape (4.0,)",
    "a bool": "cannot read this NumPy file: invalid array shape (True, 4)",
    "a list": "cannot read this NumPy file: invalid array header",
    "a number": "cannot read this NumPy file: invalid array header",
    "an object": (
        "cannot read (root): it is a pickle of Python objects, which could run code; save it "
        "with a numeric dtype"
    ),
    "fields": "cannot read this NumPy file: arrays of [('a', '<f8')] are not supported",
    "a subarray": "cannot read this NumPy file: arrays of ('<f8', (2,)) are not supported",
    "no dtype": "cannot read this NumPy file: unknown dtype 'nonsense'",
    "a wide text": "cannot read this NumPy file: unknown dtype '<U1073741824'",
    "an order": "cannot read this NumPy file: invalid array header",
    "no key": "cannot read this NumPy file: invalid array header",
    "a key more": "cannot read this NumPy file: invalid array header",
    "deep": "cannot read this NumPy file: invalid array header",
    "unary": "cannot read this NumPy file: invalid array header",
    "nothing": "cannot read this NumPy file: invalid array header",
}


@pytest.mark.parametrize("which", HEADERS)
@pytest.mark.parametrize("version", [1, 2, 3])
def test_malformed_headers_are_refused(tmp_path: Path, which: str, version: int) -> None:
    (tmp_path / "x").write_bytes(npy_file(header=HEADERS[which], version=version))
    assert refusal(tmp_path / "x") == MESSAGES[which]


def test_warnings_of_parsers_are_not_raised(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\x93NUMPY\1\0\x20\0" + b"{'descr': '\\d', 1is 1}".ljust(32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(jtree.CheckpointError):
            jtree.open(tmp_path / "x")
