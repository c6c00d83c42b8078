"""Files of flax.serialization."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.serialization
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import jtree
from jtree.checkpoint._formats.file import File

from ..same import same
from .bounds import refusal, refused_quickly
from .files import array_layouts, bits, msgpack_extension

NUMPY = [np.dtype(code) for code in "?bhiqBHIQefdFD"]


EVERY = [*NUMPY, *(np.dtype(getattr(ml_dtypes, x)) for x in ("bfloat16", "float8_e4m3fn"))]


@pytest.mark.parametrize("dtype", EVERY, ids=str)
def test_flax_agrees(tmp_path: Path, dtype: Any) -> None:
    arrays = array_layouts(dtype)
    state = {"layers": [arrays, {"w": jnp.ones(2)}], "n": {"i": -(2**40), "s": "text", "e": None}}
    more = {"f": 0.1, "c": 1 - 2j, "b": b"\0\1", "t": True, "g": arrays["scalar"][()], "u": 2**63}
    state["more"] = more | {str(n): n for n in (0, 127, 128, -1, -33, 70_000)}
    (tmp_path / "theirs").write_bytes(flax.serialization.to_bytes(state))
    jtree.save(tmp_path / "ours", state, format="msgpack")
    template = jax.tree.map(lambda x: x, state)
    theirs = flax.serialization.from_bytes(template, (tmp_path / "ours").read_bytes())
    expected = flax.serialization.to_state_dict(state)
    found = jtree.load(tmp_path / "theirs")
    assert jtree.open(tmp_path / "ours").format == "msgpack"
    for tree in (found, jtree.load(tmp_path / "ours"), flax.serialization.to_state_dict(theirs)):
        assert jax.tree.structure(tree) == jax.tree.structure(expected)
        for x, y in zip(jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True):
            assert bits(x) == bits(y) if hasattr(y, "dtype") else x == y


def test_flax_writes_large_arrays_in_parts(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(flax.serialization, "MAX_CHUNK_SIZE", 64)
    monkeypatch.setattr("jtree.checkpoint._formats.msgpack.CHUNK_BYTES", 64)
    tree = {"w": np.arange(100.0).reshape(4, 25), "small": np.ones(2)}
    (tmp_path / "theirs").write_bytes(flax.serialization.msgpack_serialize(tree))
    jtree.save(tmp_path / "ours", tree, format="msgpack")
    assert same(jtree.load(tmp_path / "theirs"), tree)
    assert same(jtree.load(tmp_path / "ours"), tree)
    restored = flax.serialization.msgpack_restore((tmp_path / "ours").read_bytes())
    assert same(restored, tree)


MALFORMED = {
    "a long map": b"\xdf" + b"\xff" * 4,
    "a long list": b"\x81\xa1a\xdd" + b"\xff" * 4,
    "a long text": b"\x81\xa1a\xdb" + b"\xff" * 4,
    "long bytes": b"\x81\xa1a\xc6" + b"\xff" * 4,
    "a long extension": b"\x81\xa1a\xc9" + b"\xff" * 4 + b"\1",
    "deep": b"\x81\xa1a" * 100_000 + b"\xc0",
    "deep lists": b"\x81\xa1a" + b"\x91" * 100_000 + b"\xc0",
    "many": b"\x81\xa1a\xdd" + struct.pack(">I", 90_000) + b"\x80" * 90_000,
    "a list as key": b"\x81\x90\xc0",
    "twice": b"\x82\xa1a\1\xa1a\2",
    "nothing": b"\x81",
    "more": b"\x80\x80",
    "no code": b"\x81\xa1a\xc1",
    "an extension": msgpack_extension(b"", 99),
    "no array": msgpack_extension(b"\xc0"),
    "a shape": msgpack_extension(b"\x93\x91\x04\xa7float32\xc4\x08" + bytes(8)),
    "a negative shape": msgpack_extension(b"\x93\x92\xff\xff\xa7float32\xc4\x04" + bytes(4)),
    "a large shape": msgpack_extension(b"\x93\x92\xcf" + b"\x7f" * 8 + b"\0\xa7float32\xc4\0"),
    "objects": msgpack_extension(b"\x93\x91\x01\xa6object\xc4\x08" + bytes(8)),
    "no dtype": msgpack_extension(b"\x93\x91\x01\xa3abc\xc4\x08" + bytes(8)),
    "fields": msgpack_extension(b"\x93\x91\x01\xa5f4,f4\xc4\x08" + bytes(8)),
    "longer": msgpack_extension(b"\x93\x91\x01\xa5int64\xc4\x08" + bytes(9)),
    "complex": msgpack_extension(b"\x92\xa1a\xa1b", 2),
    "parts": b"\x81\xa1w\x83\xd9\x19__msgpack_chunked_array__\xc3\xa5shape\x80\xa6chunks\x80",
    "no UTF-8": b"\x81\xa1\xff\xc0",
    "a scalar": msgpack_extension(b"\x93\x91\xce\x7f\xff\xff\xff\xa5int64\xc4\x08" + bytes(8), 3),
}


MESSAGES = {
    "a long map": (
        "cannot read this msgpack file: truncated: expected 8,589,934,590 bytes or more at "
        "offset 5, found 0"
    ),
    "a long list": (
        "cannot read this msgpack file: truncated: expected 4,294,967,295 bytes or more at "
        "offset 8, found 0"
    ),
    "a long text": (
        "cannot read this msgpack file: truncated: expected 4,294,967,295 bytes or more at "
        "offset 8, found 0"
    ),
    "long bytes": (
        "cannot read this msgpack file: truncated: expected 4,294,967,295 bytes or more at "
        "offset 8, found 0"
    ),
    "a long extension": (
        "cannot read this msgpack file: truncated: expected 4,294,967,295 bytes or more at "
        "offset 9, found 0"
    ),
    "deep": "cannot read this msgpack file: nested more than 100 levels deep",
    "deep lists": "cannot read this msgpack file: nested more than 100 levels deep",
    "many": (
        "cannot read this msgpack file: too many values for its size: more than 80,175, "
        "where values at very long paths count several times; store long lists as arrays"
    ),
    "a list as key": (
        "cannot read this msgpack file: (root): expected str or int keys, found another"
    ),
    "twice": "cannot read this msgpack file: (root): duplicate key 'a'",
    "nothing": (
        "cannot read this msgpack file: truncated: expected 2 bytes or more at offset 1, found 0"
    ),
    "more": "cannot read this msgpack file: expected its end at byte 1, found more",
    "no code": "cannot read this msgpack file: invalid msgpack: byte 0xc1 at offset 3",
    "an extension": "cannot read this msgpack file: w: extension 99 is not one of Flax",
    "no array": "cannot read this msgpack file: w: invalid array",
    "a shape": "cannot read this msgpack file: w: expected 16 bytes for float32[4], found 8",
    "a negative shape": "cannot read this msgpack file: invalid array shape (-1, -1)",
    "a large shape": "cannot read this msgpack file: invalid array shape (9187201950435737471, 0)",
    "objects": "cannot read this msgpack file: w: arrays of object are not supported",
    "no dtype": "cannot read this msgpack file: w: arrays of abc are not supported",
    "fields": "cannot read this msgpack file: w: arrays of f4,f4 are not supported",
    "longer": "cannot read this msgpack file: w: an extension does not have the length it declares",
    "complex": "cannot read this msgpack file: w: invalid complex number",
    "parts": "cannot read this msgpack file: w: the chunks of an array do not fit together",
    "no UTF-8": (
        "cannot read this msgpack file: 'utf-8' codec can't decode byte 0xff in position 0: "
        "invalid start byte"
    ),
    "a scalar": (
        "cannot read this msgpack file: w: expected 17,179,869,176 bytes for "
        "int64[2147483647], found 8"
    ),
}


@pytest.mark.parametrize("which", MALFORMED)
def test_malformed_msgpack_is_refused(tmp_path: Path, which: str) -> None:
    (tmp_path / "x").write_bytes(MALFORMED[which])
    assert refusal(tmp_path / "x") == MESSAGES[which]


def nested_parts(times: int, count: int) -> bytes:
    """Return an array in parts, which is the only part of another, and so on."""
    whole = flax.serialization.msgpack_serialize({"": np.zeros(count, np.int8)})[2:]
    for _ in range(times):
        head = b"\x83\xb9__msgpack_chunked_array__\xc3\xa5shape\x81\xa10\xce"
        whole = head + struct.pack(">I", count) + b"\xa6chunks\x81\xa10" + whole
    return b"\x81\xa1w" + whole


BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "paths": (
        lambda: b"\x81\xdb" + struct.pack(">I", 100_000) + b"a" * 100_000
        + b"\xdd" + struct.pack(">I", 70_000) + b"\xc0" * 70_000,
        "too many values",
    ),
    "leaves": (
        lambda: b"\x81\xa1a\xdd" + struct.pack(">I", 200_000) + b"\xc0" * 200_000,
        "too many values",
    ),
    "a dtype": (
        lambda: msgpack_extension(
            b"\x93\x91\1\xdb" + struct.pack(">I", 900_000) + b"f4," * 300_000 + b"\xc4\0"
        ),
        "are not supported",
    ),
    "parts of parts": (lambda: nested_parts(20, 10_000_000), "do not fit together"),
    "one more in the parts": (
        lambda: nested_parts(1, 4).replace(b"\x83\xb9", b"\x84\xa1x\xc0\xb9"),
        "invalid array in chunks",
    ),
    "a shape that is an array": (
        lambda: msgpack_extension(b"\x93\xc7\x0b\x01\x93\x90\xa4int8\xc4\1\1\xa4int8\xc4\1\1"),
        "w: invalid array",
    ),
}  # fmt: skip


@pytest.mark.parametrize("which", BOMBS)
def test_msgpack_that_asks_for_much_is_refused(tmp_path: Path, which: str) -> None:
    make, words = BOMBS[which]
    (tmp_path / "x").write_bytes(make())
    refused_quickly(tmp_path / "x", words)


def test_scalars_are_read_in_passing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = {"a": {str(n): np.float32(n) for n in range(20_000)}, "b": np.int8(3)}
    (tmp_path / "x").write_bytes(flax.serialization.msgpack_serialize(tree))
    sizes = []
    read = File.read
    monkeypatch.setattr(
        File, "read", lambda self, start, size: sizes.append(size) or read(self, start, size)
    )
    found = jtree.load(tmp_path / "x")
    assert sum(sizes) < 2 * (tmp_path / "x").stat().st_size  # each byte about once
    assert len(sizes) < 50
    assert (found["a"]["19999"], found["b"]) == (19999, 3)
    assert (type(found["a"]["0"]), type(found["b"])) == (np.float32, np.int8)
