"""Zip archives that are traps."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from .bounds import refusal, refused
from .files import Call, npy_file, patch_entry, zip_archive


def shared() -> bytes:
    """Return an archive whose two entries are at one place."""
    data = zip_archive({"a.npy": npy_file(), "b.npy": npy_file()})
    second = data.rindex(b"PK\x01\x02")
    return data[: second + 42] + struct.pack("<L", 0) + data[second + 46 :]


def bomb(kind: str = "npy") -> bytes:
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({2**27},), }}"
    head = b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode()
    pack = zlib.compressobj(9, zlib.DEFLATED, -15)
    crc, body, total = zlib.crc32(head), pack.compress(head), len(head)
    for _ in range(128):
        chunk = bytes(2**20)
        crc, total = zlib.crc32(chunk, crc), total + len(chunk)
        body += pack.compress(chunk)
    body += pack.flush()
    fields = (20, 0, 8, 0, 0, crc, len(body), total, len(kind) + 2, 0)
    member = f"a.{kind}".encode()
    local = struct.pack("<4s5H3L2H", b"PK\3\4", *fields) + member
    central = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, *fields, 0, 0, 0, 0, 0) + member
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(central), len(local) + len(body), 0)
    return local + body + central + end


ARCHIVES: dict[str, Callable[[], bytes]] = {
    "one place": shared,
    "a bomb": bomb,
    "a declared size": lambda: patch_entry(
        zip_archive({"a.npy": npy_file()}, zipfile.ZIP_DEFLATED), 24, "<L", 2**31
    ),
    "a small size": lambda: patch_entry(
        zip_archive({"a.npy": npy_file()}, zipfile.ZIP_DEFLATED), 24, "<L", 140
    ),
    "an offset": lambda: patch_entry(zip_archive({"a.npy": npy_file()}), 42, "<L", 2**31),
    "a checksum": lambda: patch_entry(zip_archive({"a.npy": npy_file()}), 16, "<L", 1),
    "an unknown method": lambda: patch_entry(zip_archive({"a.npy": npy_file()}), 10, "<H", 99),
    "encrypted": lambda: patch_entry(zip_archive({"a.npy": npy_file()}), 8, "<H", 1),
    "above": lambda: zip_archive({"../a.npy": npy_file()}),
    "absolute": lambda: zip_archive({"/etc/a.npy": npy_file()}),
    "of Windows": lambda: zip_archive({"C:a.npy": npy_file()}),
    "backslashes": lambda: zip_archive({"a.npy": npy_file()}).replace(b"a.npy", b"\\.npy"),
    "twice": lambda: zip_archive({"a.npy": npy_file(), "b.npy": npy_file()}).replace(
        b"b.npy", b"a.npy"
    ),
    "two names": lambda: zip_archive({"a.npy": npy_file()}).replace(b"a.npy", b"b.npy", 1),
    "before": lambda: b"PK" + bytes(98) + zip_archive({"a.npy": npy_file()}),
    "after": lambda: zip_archive({"a.npy": npy_file()}) + b"x",
    "objects": lambda: zip_archive({"a.npy": npy_file(np.array([Call(eval, "1/0")], object))}),
    "another file": lambda: zip_archive({"a.npy": npy_file(), "b.txt": b"x"}),
    "no file": lambda: zip_archive({"a.txt": b"x"}),
    "shorter": lambda: zip_archive({"a.npy": npy_file()[:-8]}),
    "longer": lambda: zip_archive({"a.npy": npy_file() + bytes(8)}),
    "many": lambda: (
        b"PK" + zip_archive({"a.npy": npy_file()})[2:-12] + struct.pack("<2H2LH", 9, 9, 46, 0, 0)
    ),
}


MESSAGES = {
    "one place": "cannot read this file: b.npy overlaps another entry",
    "a bomb": (
        "cannot read this file: its arrays would take 134,217,803 bytes, and the file has "
        "130,650: refused as a decompression bomb; unpack it with the library that wrote it"
    ),
    "a declared size": (
        "cannot read this file: its arrays would take 2,147,483,648 bytes, and the file has "
        "187: refused as a decompression bomb; unpack it with the library that wrote it"
    ),
    "a small size": "cannot read this NumPy file: a.npy: its two headers differ",
    "an offset": "cannot read this file: a.npy overlaps another entry",
    "a checksum": "cannot read this NumPy file: a.npy: its two headers differ",
    "an unknown method": (
        "cannot read this file: a.npy: compression method 99 is not supported; store or deflate it"
    ),
    "encrypted": "cannot read this file: a.npy is encrypted; decrypt the archive first",
    "above": (
        "cannot read this file: '../a.npy' may lead out of the archive, so it cannot name an entry"
    ),
    "absolute": (
        "cannot read this file: '/etc/a.npy' may lead out of the archive, so it cannot name "
        "an entry"
    ),
    "of Windows": (
        "cannot read this file: 'C:a.npy' may lead out of the archive, so it cannot name an entry"
    ),
    "backslashes": (
        "cannot read this file: '\\\\.npy' may lead out of the archive, so it cannot name an entry"
    ),
    "twice": "cannot read this file: two entries are named 'a.npy'",
    "two names": "cannot read this NumPy file: a.npy: its own header has another name",
    "before": (
        "cannot read this file: there are other bytes before or after the directory of the "
        "zip archive"
    ),
    "after": "cannot read this file: the directory of the zip archive is malformed",
    "objects": (
        "cannot read a: it is a pickle of Python objects, which could run code; save it with "
        "a numeric dtype"
    ),
    "another file": (
        "not a checkpoint: a zip archive that neither PyTorch, NumPy nor Keras has written"
    ),
    "no file": (
        "not a checkpoint: a zip archive that neither PyTorch, NumPy nor Keras has written"
    ),
    "shorter": "cannot read this NumPy file: expected 32 bytes for float64[4], found 24",
    "longer": "cannot read this NumPy file: expected 32 bytes for float64[4], found 40",
    "many": "cannot read this file: the directory of the zip archive is malformed",
}


@pytest.mark.parametrize("which", ARCHIVES)
def test_archives_that_are_traps_are_refused(tmp_path: Path, which: str) -> None:
    (tmp_path / "x").write_bytes(ARCHIVES[which]())
    assert refusal(tmp_path / "x") == MESSAGES[which]


def with_local(at: int, form: str, value: int) -> bytes:
    """Return an archive with a number of the first entry's own header replaced."""
    data = zip_archive({"a.npy": npy_file()})
    return data[:at] + struct.pack(form, value) + data[at + struct.calcsize(form) :]


def short_extra() -> bytes:
    """Return an archive whose size in 64 bits is in an extra field that is too short for it."""
    data = patch_entry(zip_archive({"a.npy": npy_file()}), 24, "<L", 0xFFFFFFFF)
    data = patch_entry(data, 30, "<H", 12)
    at = data.index(b"PK\1\2") + 46 + len("a.npy")
    data = data[:at] + struct.pack("<2HQ", 1, 4, len(npy_file())) + data[at:]
    size = len(data) - 22 - data.index(b"PK\1\2")
    return data[:-10] + struct.pack("<L", size) + data[-6:]


DIFFERENT_HEADERS = {
    "a size": lambda: with_local(22, "<L", 3),
    "a packed size": lambda: with_local(18, "<L", 3),
    "a checksum": lambda: with_local(14, "<L", 3),
    "a method": lambda: with_local(8, "<H", 8),
}


@pytest.mark.parametrize("which", DIFFERENT_HEADERS)
def test_two_headers_of_an_entry_that_differ_are_refused(tmp_path: Path, which: str) -> None:
    (tmp_path / "x").write_bytes(DIFFERENT_HEADERS[which]())
    refused(tmp_path / "x", "its two headers differ")


@pytest.mark.parametrize("attributes", [0x10, 0o040755 << 16, 0o120777 << 16])
def test_an_entry_marked_as_a_directory_or_a_link_is_refused(
    tmp_path: Path, attributes: int
) -> None:
    (tmp_path / "x").write_bytes(
        patch_entry(zip_archive({"a.npy": npy_file()}), 38, "<L", attributes)
    )
    refused(tmp_path / "x", "a.npy is marked as a directory or a link, and has 160 bytes")


def test_a_size_in_an_extra_field_that_is_too_short(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(short_extra())
    refused(tmp_path / "x", "the directory of the zip archive is malformed")
