"""Small files that ask for much time or memory, or that two programs would read differently."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from cProfile import Profile
from pathlib import Path
from typing import Any

import flax.serialization
import numpy as np
import pytest

import jtree

from ..same import calls
from .test_hostile import (
    bounded,
    entry,
    extension,
    npy,
    patched,
    refused,
    safetensors,
    tensor,
    text,
    write_torch,
    zipped,
)

CALLS = 5  # of functions, per byte of a file; where values are copied or repeated, it is thousands
PUT, GET = b"q\0", b"h\0"
DOUBLED = b")" + b"2\x86" * 27
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
MODULUS = 2**61 - 1  # integers that differ by this have one hash


def quickly(path: Path, words: str) -> None:
    with Profile() as work:
        refused(path, words)
    assert calls(work) < CALLS * path.stat().st_size + 10_000


def shared(x: bytes, call: bytes, count: int) -> bytes:
    """Return a pickle that uses one value, which is memo 0, many times."""
    return x + PUT + b"0](" + call * count + b"e."


def listed(items: bytes) -> bytes:
    return b"](" + items + b"e"


def storage(
    count: int = 4, kind: str = "FloatStorage", key: str = "0", device: str = "cpu"
) -> bytes:
    size = b"J" + struct.pack("<i", count)
    return (
        b"("
        + text("storage")
        + f"ctorch\n{kind}\n".encode()
        + text(key)
        + text(device)
        + size
        + b"tQ"
    )


def spans(count: int) -> bytes:
    """Return tensors of two numbers that are far from each other."""
    rest = (b"K\0K\2\x85J" + struct.pack("<i", 249_000 - n) + b"\x85\x89}tR" for n in range(count))
    many = b"".join(REBUILD + b"(" + GET + x for x in rest)
    return storage(250_000) + PUT + b"0" + listed(many) + b"."


def integer(x: int) -> bytes:
    data = x.to_bytes(16, "little")
    return b"\x8a" + bytes([len(data)]) + data


PICKLES: dict[str, tuple[Callable[[], bytes], str]] = {
    "a list that is copied": (
        lambda: shared(listed(b"K\1" * 100_000), b"ctorch\nSize\n" + GET + b"\x85R", 1000),
        "invalid tensor: offset, shape or strides",
    ),
    "pairs that are gone through": (
        lambda: shared(
            listed(b"".join(b"M" + struct.pack("<H", n) + b"N\x86" for n in range(30_000))),
            b"ccollections\nOrderedDict\n" + GET + b"\x85R0",
            5000,
        ),
        "steps for a small file",
    ),
    "arguments": (
        lambda: shared(
            b"(" + b"}" * 100_000 + b"t", b"ctorch._utils\n_rebuild_parameter\n" + GET + b"R0", 5000
        ),
        "invalid parameter: it lacks a tensor",
    ),
    "arguments through a type": (
        lambda: (
            listed(b"ctorch._tensor\n_rebuild_from_type_v2\n(ccollections\nOrderedDict\nN)}tR")
            + b"."
        ),
        "calls collections.OrderedDict",
    ),
    "a shape": (
        lambda: REBUILD + b"(" + storage() + b"K\0" + DOUBLED + b"\x85K\1\x85\x89}tR.",
        "invalid tensor: offset, shape or strides",
    ),
    "the dtype of a storage": (
        lambda: b"(" + text("storage") + DOUBLED + text("0") + text("cpu") + b"K\4tQ.",
        "unknown storage type",
    ),
    "names": (
        lambda: shared(text("a" * 100_000), GET + GET + b"\x93", 2000),
        "a name is too long",
    ),
    "a long memo": (lambda: b"Np%d\n." % MODULUS, "a memo of"),
    "paths": (
        lambda: b"}" + text("a" * 100_000) + listed(b"N" * 70_000) + b"s.",
        "too many values",
    ),
    "leaves": (lambda: listed(b"N" * 200_000) + b".", "too many values"),
    "branches": (lambda: listed(b"}" * 200_000) + b".", "too many values"),
    "one list": (
        lambda: shared(listed(b"N" * 1000), GET, 1800),
        "too many values",
    ),
    "spans": (lambda: spans(10_000), "read from"),
    "a key twice": (lambda: b"}(" + (text("a") + b"N") * 2 + b"u.", "duplicate key 'a' in a dict"),
    "two storages": (
        lambda: listed(storage() + storage(2, "DoubleStorage")) + b".",
        "two storages '0'",
    ),
    "a shape that is text": (
        lambda: REBUILD + b"(" + storage() + b"K\0C\1\4K\1\x85\x89}tR.",
        "invalid tensor: offset, shape or strides",
    ),
    "more than the storage says": (lambda: tensor((4,), (1,), 0, 3), "larger than its storage"),
}


@pytest.mark.parametrize("which", PICKLES)
def test_pickles_that_ask_for_much(tmp_path: Path, which: str) -> None:
    make, words = PICKLES[which]
    quickly(write_torch(tmp_path / "x", make(), {"x/data/0": bytes(1_000_000)}), words)


@pytest.mark.parametrize("keys", ["integers", "tuples"])
def test_keys_of_one_hash_take_no_more_time(tmp_path: Path, keys: str) -> None:
    numbers = [integer(MODULUS * n) + (b"\x85" if keys == "tuples" else b"") for n in range(20_000)]
    write_torch(tmp_path / "x", b"}(" + b"N".join(numbers) + b"Nu.")
    with bounded(tmp_path / "x"):
        tree = jtree.open(tmp_path / "x").tree
    assert len(tree) == len({hash(key) for key in tree}) == 20_000


def test_bytes_at_many_places_are_held_once(tmp_path: Path) -> None:
    data = b"\x96" + struct.pack("<Q", 500_000) + b"x" * 500_000
    write_torch(tmp_path / "x", shared(data, GET, 1000))
    with bounded(tmp_path / "x"):
        found = jtree.load(tmp_path / "x")
    assert len(found) == 1000
    assert {type(x) for x in found} == {bytes}


def test_a_tensor_with_gaps_takes_no_more_than_its_file_allows(tmp_path: Path) -> None:
    count = 20_000_000
    data = {"x/data/0": bytes(4 * count)}
    refused(write_torch(tmp_path / "x", tensor((2, count), (0, 1), 0, count), data), "are views")
    with bounded(tmp_path / "x"):
        write_torch(tmp_path / "y", tensor((2, count // 2), (1, 2), 0, count), data)
        with bounded(tmp_path / "y"):
            assert jtree.load(tmp_path / "y")["w"].nbytes == 4 * count


def nested_parts(times: int, count: int) -> bytes:
    """Return an array in parts, which is the only part of another, and so on."""
    whole = flax.serialization.msgpack_serialize({"": np.zeros(count, np.int8)})[2:]
    for _ in range(times):
        head = b"\x83\xb9__msgpack_chunked_array__\xc3\xa5shape\x81\xa10\xce"
        whole = head + struct.pack(">I", count) + b"\xa6chunks\x81\xa10" + whole
    return b"\x81\xa1w" + whole


MSGPACK: dict[str, tuple[Callable[[], bytes], str]] = {
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
        lambda: extension(
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
        lambda: extension(b"\x93\xc7\x0b\x01\x93\x90\xa4int8\xc4\1\1\xa4int8\xc4\1\1"),
        "w: invalid array",
    ),
}  # fmt: skip


@pytest.mark.parametrize("which", MSGPACK)
def test_values_of_msgpack_that_ask_for_much(tmp_path: Path, which: str) -> None:
    make, words = MSGPACK[which]
    (tmp_path / "x").write_bytes(make())
    quickly(tmp_path / "x", words)


def test_scalars_of_msgpack_are_read_where_they_are(tmp_path: Path) -> None:
    tree = {"a": {str(n): np.float32(n) for n in range(20_000)}, "b": np.int8(3)}
    (tmp_path / "x").write_bytes(flax.serialization.msgpack_serialize(tree))
    with Profile() as work:
        found = jtree.load(tmp_path / "x")
    assert calls(work) < 200 * 20_000
    assert (found["a"]["19999"], found["b"]) == (19999, 3)
    assert (type(found["a"]["0"]), type(found["b"])) == (np.float32, np.int8)


HEADERS: dict[str, tuple[Callable[[], bytes], str]] = {
    "a key twice": (
        lambda: b"{" + b"".join(b'"%d":0,' % n for n in range(60_000)) + b'"59999":1}',
        "duplicate key '59999' in its JSON",
    ),
    "keys": (
        lambda: b"{" + b",".join(b'"%x":0' % n for n in range(900_000)) + b"}",
        "too many elements",
    ),
    "arrays": (
        lambda: json.dumps({f"{n:x}": entry("U8", (0,), (0, 0)) for n in range(90_000)}).encode(),
        "too many elements",
    ),
}


@pytest.mark.parametrize("which", HEADERS)
def test_headers_of_safetensors_that_ask_for_much(tmp_path: Path, which: str) -> None:
    make, words = HEADERS[which]
    (tmp_path / "x").write_bytes(safetensors(make(), b""))
    quickly(tmp_path / "x", words)


def test_a_name_of_many_steps(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(safetensors({"a/" * 100_000: entry()}))
    quickly(tmp_path / "x", "has more than 200 parts")


def test_as_many_arrays_as_a_header_may_have(tmp_path: Path) -> None:
    header = {f"{n:x}": entry("U8", (0,), (0, 0)) for n in range(50_000)}
    (tmp_path / "x").write_bytes(safetensors(header, b""))
    with bounded(tmp_path / "x"):
        assert len(jtree.open(tmp_path / "x")) == 50_000


def with_local(at: int, form: str, value: int) -> bytes:
    """Return an archive with a number of the first entry's own header replaced."""
    data = zipped({"a.npy": npy()})
    return data[:at] + struct.pack(form, value) + data[at + struct.calcsize(form) :]


def short_extra() -> bytes:
    """Return an archive whose size in 64 bits is in an extra field that is too short for it."""
    data = patched(zipped({"a.npy": npy()}), 24, "<L", 0xFFFFFFFF)
    data = patched(data, 30, "<H", 12)
    at = data.index(b"PK\1\2") + 46 + len("a.npy")
    data = data[:at] + struct.pack("<2HQ", 1, 4, len(npy())) + data[at:]
    size = len(data) - 22 - data.index(b"PK\1\2")
    return data[:-10] + struct.pack("<L", size) + data[-6:]


ARCHIVES = {
    "a size": lambda: with_local(22, "<L", 3),
    "a packed size": lambda: with_local(18, "<L", 3),
    "a checksum": lambda: with_local(14, "<L", 3),
    "a method": lambda: with_local(8, "<H", 8),
}


@pytest.mark.parametrize("which", ARCHIVES)
def test_two_headers_of_an_entry_that_differ(tmp_path: Path, which: str) -> None:
    (tmp_path / "x").write_bytes(ARCHIVES[which]())
    refused(tmp_path / "x", "its two headers differ")


@pytest.mark.parametrize("attributes", [0x10, 0o040755 << 16, 0o120777 << 16])
def test_an_entry_that_is_no_file(tmp_path: Path, attributes: int) -> None:
    (tmp_path / "x").write_bytes(patched(zipped({"a.npy": npy()}), 38, "<L", attributes))
    refused(tmp_path / "x", "a.npy is marked as a directory or a link, and has 160 bytes")


def test_a_size_in_an_extra_field_that_is_too_short(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(short_extra())
    refused(tmp_path / "x", "the directory of the zip archive is malformed")


def test_an_archive_with_two_pickles(tmp_path: Path) -> None:
    write_torch(tmp_path / "x", b"}.", {"y/data.pkl": b"}."})
    refused(tmp_path / "x", "expected one pickle, found x/data.pkl and y/data.pkl")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.safetensors")
    for path in (tmp_path, tmp_path / "x.safetensors"):
        with pytest.raises(jtree.CheckpointError, match="found a pipe or a device"):
            jtree.open(path)


def test_names_in_a_message_do_not_control_a_terminal(tmp_path: Path) -> None:
    write_torch(tmp_path / "x", b"ca\n\x1b[2Jx\n)R.")
    with pytest.raises(jtree.CheckpointError) as error:
        jtree.open(tmp_path / "x")
    assert r"calls a.\x1b[2Jx, which" in str(error.value)


def test_an_array_at_many_places_is_shown_at_once(tmp_path: Path) -> None:
    one = tensor((4,), (1,))[len(b"\x80\x02}" + text("w")) : -2]
    write_torch(tmp_path / "x", shared(one, GET, 2000), {"x/data/0": bytes(16)})
    found = str(jtree.open(tmp_path / "x"))
    assert "tied to 1,999 others" in found
    assert len(found) < 500_000


def structure(text: str) -> Any:
    from jtree.checkpoint._orbax import decoding as _decoding

    found = {"format": _decoding.FORMAT, "structure": text, "metadata": {}}
    return found | {"crc32": _decoding.structure_crc32(found)}


DTYPE = '{"tree":{"array":["a"],"dtype":",f8","shape":[2],"crc32":0},"ties":[]}'


@pytest.mark.parametrize("text", ["[" * 100_000, '{"tree":{"scalar":["i4",""]},"ties":[]}', DTYPE])
def test_structures_of_jtree_that_are_none(text: str) -> None:
    from jtree.checkpoint._orbax import decoding as _decoding

    with pytest.raises(jtree.CheckpointError, match="malformed structure of the state"):
        _decoding.decode(structure(text), lambda stored: stored)


RULES = {
    "x = " + "[" * 100_000: "not valid TOML",
    "[[rules]]\nrule = []": "rule 1: expected rule = and the name of a rule, found a list; the",
    "[[rules]]\nrule" + ".a" * 5000 + " = 1": "found a dict; the rules are",
    '[[rules]]\nrule = "cast"\nwhere = "*"\ndtype = ",f2"': "rule 1: expected a dtype such as",
    '[[rules]]\nrule = "drop"\nwhere' + ".a" * 5000 + " = 1": "rule 1: ",
}


@pytest.mark.parametrize("rules", RULES)
def test_rules_that_are_none(tmp_path: Path, rules: str) -> None:
    (tmp_path / "x").write_text(rules)
    with pytest.raises(jtree.ArgumentError, match=RULES[rules]):
        jtree.migrate.rules_from_toml(tmp_path / "x")
