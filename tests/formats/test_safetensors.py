"""Files of safetensors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

import jtree
from jtree.checkpoint._formats.safetensors import DTYPES

from .bounds import bounded, refusal, refused_quickly
from .files import array_entry, array_layouts, bits, safetensors_file

SAFE = [np.dtype(x) for x in DTYPES.values()]


@pytest.mark.parametrize("dtype", SAFE, ids=str)
def test_safetensors_keep_every_bit(tmp_path: Path, dtype: Any) -> None:
    arrays = array_layouts(dtype)
    jtree.save(tmp_path / "x.safetensors", arrays)
    found = jtree.open(tmp_path / "x.safetensors")
    assert found.format == "safetensors"
    for name, x in arrays.items():
        read = np.asarray(found[name])
        assert (read.shape, read.dtype, bits(read)) == (x.shape, x.dtype, bits(x))
        assert read.flags.owndata or read.base is not None
        read[...] = read  # it may be written to


LIBRARY = [x for x in SAFE if x.kind != "V" and "float8" not in x.name]


@pytest.mark.parametrize("dtype", LIBRARY, ids=str)
def test_the_safetensors_library_agrees(tmp_path: Path, dtype: Any) -> None:
    arrays = array_layouts(dtype)
    jtree.save(tmp_path / "ours", arrays, format="safetensors", metadata={"a": "\u00e9"})
    theirs = safetensors.numpy.load_file(tmp_path / "ours")
    assert {name: bits(x) for name, x in theirs.items()} == {k: bits(x) for k, x in arrays.items()}
    whole = {name: np.ascontiguousarray(x).reshape(x.shape) for name, x in arrays.items()}
    safetensors.numpy.save_file(whole, tmp_path / "theirs", {"a": "\u00e9"})
    found = jtree.open(tmp_path / "theirs")
    assert found.metadata == {"a": "\u00e9"}
    assert {name: bits(x.read()) for name, x in found.items()} == {
        name: bits(x) for name, x in arrays.items()
    }
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


MALFORMED = {
    "long": safetensors_file({}, length=2**39),
    "longer": safetensors_file({"w": array_entry()}, length=200),
    "no JSON": safetensors_file(b"{hello"),
    "a list": safetensors_file(b"[]", b""),
    "twice": safetensors_file(b'{"w":%s,"w":%s}' % ((json.dumps(array_entry()).encode(),) * 2)),
    "overlapping": safetensors_file(
        {"a": array_entry(), "b": array_entry(offsets=(8, 24))}, bytes(24)
    ),
    "the same": safetensors_file({"a": array_entry(), "b": array_entry()}),
    "a hole": safetensors_file({"a": array_entry(offsets=(8, 24))}, bytes(24)),
    "more": safetensors_file({"w": array_entry()}, bytes(20)),
    "less": safetensors_file({"w": array_entry()}, bytes(12)),
    "backwards": safetensors_file({"w": array_entry(shape=(0,), offsets=(16, 0))}),
    "negative": safetensors_file({"w": array_entry(offsets=(-16, 0))}, b""),
    "floats": safetensors_file({"w": array_entry(offsets=(0.0, 16.0))}),
    "bools": safetensors_file({"w": array_entry("U8", (1,), (False, True))}, b"x"),
    "three": safetensors_file({"w": array_entry(offsets=(0, 8, 16))}),
    "a shape": safetensors_file({"w": array_entry(shape=(5,))}),
    "a negative shape": safetensors_file({"w": array_entry(shape=(-2, -2))}),
    "a large shape": safetensors_file({"w": array_entry(shape=(2**62, 4))}),
    "an overflow": safetensors_file(
        {"w": array_entry(shape=(2**32, 2**32, 2**32, 0), offsets=(0, 0))}, b""
    ),
    "a text as shape": safetensors_file({"w": array_entry(shape="4")}),
    "an unknown dtype": safetensors_file({"w": array_entry("F33")}),
    "no text": safetensors_file({"w": array_entry(None)}),
    "a dtype": safetensors_file({"w": array_entry("F64")}),
    "no dtype": safetensors_file({"w": {"shape": [4], "data_offsets": [0, 16]}}),
    "a key more": safetensors_file({"w": array_entry() | {"x": 1}}),
    "no dict": safetensors_file({"w": 3}),
    "metadata": safetensors_file({"__metadata__": {"a": 1}, "w": array_entry()}),
    "metadata as a list": safetensors_file({"__metadata__": [], "w": array_entry()}),
    "deep": safetensors_file(b'{"a":' + b"[" * 100_000, b""),
    "many": safetensors_file(b'{"a":[' + b"{}," * 600_000 + b"{}]}", b""),
    "half a letter": safetensors_file({"\ud800": array_entry()}),
    "no UTF-8": safetensors_file(b'{"\xff":%s}' % json.dumps(array_entry()).encode()),
    "packed": safetensors_file({"w": array_entry("F4", (32,))}),
    "NaN": safetensors_file(b'{"w":{"dtype":"F32","shape":[NaN],"data_offsets":[0,16]}}'),
    "digits": safetensors_file(
        b'{"w":{"dtype":"F32","shape":[%s],"data_offsets":[0,16]}}' % (b"9" * 9999)
    ),
}


MESSAGES = {
    "long": (
        "cannot read this safetensors file: truncated: its header takes 549,755,813,888 "
        "bytes, the file 26"
    ),
    "longer": (
        "cannot read this safetensors file: truncated: its header takes 200 bytes, the file 86"
    ),
    "no JSON": (
        "cannot read this safetensors file: invalid JSON: Expecting property name enclosed "
        "in double quotes: line 1 column 2 (char 1)"
    ),
    "a list": "not a checkpoint: a file in an unknown format",
    "twice": "cannot read this safetensors file: invalid JSON: duplicate key 'w'",
    "overlapping": (
        "cannot read this safetensors file: b: the range from 8 to 24 overlaps another array"
    ),
    "the same": (
        "cannot read this safetensors file: b: the range from 0 to 16 overlaps another array"
    ),
    "a hole": "cannot read this safetensors file: a: the range from 8 to 24 leaves a gap at 0",
    "more": "cannot read this safetensors file: its arrays end at byte 86, the file at 90",
    "less": "cannot read this safetensors file: its arrays end at byte 86, the file at 82",
    "backwards": "cannot read this safetensors file: w: invalid data_offsets [16, 0]",
    "negative": "cannot read this safetensors file: w: invalid data_offsets [-16, 0]",
    "floats": "cannot read this safetensors file: w: invalid data_offsets [0.0, 16.0]",
    "bools": "cannot read this safetensors file: w: invalid data_offsets [False, True]",
    "three": "cannot read this safetensors file: w: invalid data_offsets [0, 8, 16]",
    "a shape": "cannot read this safetensors file: w: expected 20 bytes for F32[5], found 16",
    "a negative shape": "cannot read this safetensors file: invalid array shape (-2, -2)",
    "a large shape": (
        "cannot read this safetensors file: invalid array shape (4611686018427387904, 4)"
    ),
    "an overflow": (
        "cannot read this safetensors file: an array of shape [4294967296, 4294967296, "
        "4294967296, 0] is too large for any memory"
    ),
    "a text as shape": "cannot read this safetensors file: w: invalid shape '4'",
    "an unknown dtype": "cannot read this safetensors file: w: unknown dtype 'F33'",
    "no text": "cannot read this safetensors file: w: unknown dtype None",
    "a dtype": "cannot read this safetensors file: w: expected 32 bytes for F64[4], found 16",
    "no dtype": (
        "cannot read this safetensors file: w: expected exactly dtype, shape and data_offsets"
    ),
    "a key more": (
        "cannot read this safetensors file: w: expected exactly dtype, shape and data_offsets"
    ),
    "no dict": (
        "cannot read this safetensors file: w: expected exactly dtype, shape and data_offsets"
    ),
    "metadata": "cannot read this safetensors file: __metadata__: expected a dict from str to str",
    "metadata as a list": (
        "cannot read this safetensors file: __metadata__: expected a dict from str to str"
    ),
    "deep": "cannot read this safetensors file: nested too deeply",
    "many": "cannot read this safetensors file: its JSON of 1,800,010 bytes has too many elements",
    "half a letter": (
        "cannot use the names in it: 'utf-8' codec can't encode character '\\ud800' in "
        "position 0: surrogates not allowed"
    ),
    "no UTF-8": (
        "cannot read this safetensors file: invalid JSON: 'utf-8' codec can't decode byte "
        "0xff in position 2: invalid start byte"
    ),
    "packed": (
        "cannot read w: values of F4 share bytes, in an order that the specification leaves "
        "open; convert them with the library that wrote them"
    ),
    "NaN": "cannot read this safetensors file: invalid array shape (nan,)",
    "digits": "cannot read this safetensors file: invalid JSON: an integer of 9,999 digits",
}


@pytest.mark.parametrize("which", MALFORMED)
def test_malformed_headers_are_refused(tmp_path: Path, which: str) -> None:
    (tmp_path / "x").write_bytes(MALFORMED[which])
    assert refusal(tmp_path / "x") == MESSAGES[which]


HEADERS: dict[str, tuple[Callable[[], bytes], str]] = {
    "a key twice": (
        lambda: b"{" + b"".join(b'"%d":0,' % n for n in range(60_000)) + b'"59999":1}',
        "invalid JSON: duplicate key '59999'",
    ),
    "keys": (
        lambda: b"{" + b",".join(b'"%x":0' % n for n in range(450_000)) + b"}",
        "too many elements",
    ),
    "arrays": (
        lambda: json.dumps(
            {f"{n:x}": array_entry("U8", (0,), (0, 0)) for n in range(90_000)}
        ).encode(),
        "too many elements",
    ),
}


@pytest.mark.parametrize("which", HEADERS)
def test_headers_that_ask_for_much_are_refused(tmp_path: Path, which: str) -> None:
    make, words = HEADERS[which]
    (tmp_path / "x").write_bytes(safetensors_file(make(), b""))
    refused_quickly(tmp_path / "x", words)


def test_a_path_of_many_parts_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(safetensors_file({"a/" * 100_000: array_entry()}))
    refused_quickly(tmp_path / "x", "has more than 200 parts")


@pytest.mark.slow
def test_as_many_arrays_as_a_header_may_have(tmp_path: Path) -> None:
    header = {f"{n:x}": array_entry("U8", (0,), (0, 0)) for n in range(50_000)}
    (tmp_path / "x").write_bytes(safetensors_file(header, b""))
    with bounded(tmp_path / "x"):
        assert len(jtree.open(tmp_path / "x")) == 50_000
