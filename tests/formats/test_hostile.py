"""Files that were made to do harm: nothing in them runs, and none takes the memory it asks for."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jtree

ROOM = 100 * 2**20


@contextmanager
def bounded(path: Path) -> Iterator[None]:
    """Fail where more memory is taken than twice the file and 100 MB."""
    tracemalloc.start()
    try:
        yield
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    size = sum(x.stat().st_size for x in path.rglob("*")) if path.is_dir() else path.stat().st_size
    assert peak <= 2 * size + ROOM, f"{peak:,}"


def refused(path: Path, text: str | None = None) -> None:
    """Fail unless a file is refused when it is opened, or when its arrays are read."""
    with bounded(path), pytest.raises(jtree.CheckpointError, match=text):
        jtree.load(path)


def write_torch(path: Path, program: bytes, entries: dict[str, bytes] | None = None) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", program)
        archive.writestr("x/version", "3\n")
        for name, data in (entries or {}).items():
            archive.writestr(name, data)
    return path


class Call:
    """What a pickle calls when it is loaded."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.pair = function, args

    def __reduce__(self) -> Any:
        return self.pair


def name(module: str, function: str, *args: bytes) -> bytes:
    return b"c" + f"{module}\n{function}\n".encode() + b"(" + b"".join(args) + b"tR."


def text(x: str) -> bytes:
    return b"X" + struct.pack("<I", len(x)) + x.encode()


def touch(tmp_path: Path) -> str:
    return f"touch {tmp_path / 'ran'}"


def programs(tmp_path: Path) -> dict[str, bytes]:
    run = touch(tmp_path)
    import functools
    import os
    import subprocess

    return {
        "os.system": name("os", "system", text(run)),
        "posix.system": pickle.dumps(Call(os.system, run), 2),
        "nt.system": name("nt", "system", text(run)),
        "Python 2": name("__builtin__", "eval", text("1")),
        "eval": pickle.dumps(Call(eval, f"__import__('os').system({run!r})"), 4),
        "exec": pickle.dumps(Call(exec, "raise SystemExit"), 5),
        "getattr": pickle.dumps(Call(getattr, {}, "clear"), 3),
        "Popen": pickle.dumps(Call(subprocess.Popen, ["sh", "-c", run]), 2),
        "partial": pickle.dumps(functools.partial(os.system, run), 2),
        "partial chain": pickle.dumps(Call(functools.reduce, Call(map, os.system, [run])), 2),
        "Popen as an object": b"csubprocess\nPopen\n(" + text(run) + b"t\x81.",
        "INST": b"(" + text(run) + b"ios\nsystem\n.",
        "OBJ": b"(cos\nsystem\n" + text(run) + b"o.",
        "STACK_GLOBAL": b"\x80\x04" + text("os") + text("system") + b"\x93" + text(run) + b"\x85R.",
        "copyreg": name("copyreg", "add_extension", text("os"), text("system"), b"K\x01"),
        "EXT1": b"\x82\x01.",
        "numpy": name("numpy.testing._private.utils", "runstring", text(run), b"}"),
        "torch.hub": name("torch.hub", "load", text("x"), text("y")),
        "torch.load": name("torch.serialization", "load", text("/etc/passwd")),
        "a name in a name": name("torch._utils", "os.system", text(run)),
        "through a type": b"ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\ncos\nsystem\n("
        + text(run)
        + b"t}tR.",
        "__setstate__": b"cos\nsystem\n" + b"}b.",
        "a name alone": b"cos\nsystem\n.",
        "a call of a value": text("x") + b")R.",
        "a persistent name": text(run) + b"Q.",
        "runpy": name("runpy", "run_path", text("x")),
        "pip": name("pip", "main", b"]"),
        "webbrowser": name("webbrowser", "open", text("x")),
        "importlib": name("importlib", "import_module", text("antigravity")),
        "ctypes": name("ctypes", "CDLL", text("x")),
        "bytearray": name("builtins", "eval", b"\x8a\x08" + b"\xff" * 7 + b"\x7f"),
    }


PROGRAMS = list(programs(Path()))


@pytest.mark.parametrize("which", PROGRAMS)
def test_nothing_in_a_pickle_runs(tmp_path: Path, which: str) -> None:
    program = programs(tmp_path)[which]
    for nested in (program, b"}" + text("a") + program[:-1] + b"s."):
        refused(write_torch(tmp_path / "x", nested))
        assert not (tmp_path / "ran").exists()


def test_a_refusal_names_what_was_called(tmp_path: Path) -> None:
    write_torch(tmp_path / "x", programs(tmp_path)["os.system"])
    with pytest.raises(jtree.CheckpointError) as error:
        jtree.open(tmp_path / "x")
    assert str(error.value) == (
        f"{tmp_path / 'x'}: cannot read this PyTorch file: its pickle names os.system, which "
        "does not belong in a file of tensors; nothing was run. If you trust the file, load it in "
        "PyTorch and save its state_dict only"
    )


def tensor(
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    offset: int = 0,
    count: int = 4,
    kind: str = "FloatStorage",
    key: str = "0",
) -> bytes:
    """Return a pickle of one tensor."""

    def put(x: Any) -> bytes:
        return pickle.dumps(x, 2)[2:-1]

    storage = b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu")
    storage += put(count) + b"tQ"
    args = storage + put(offset) + put(shape) + put(strides) + b"\x89}"
    return b"\x80\x02}" + text("w") + b"ctorch._utils\n_rebuild_tensor_v2\n(" + args + b"tRs."


HUGE = 2**40
TENSORS = {
    "expanded": tensor((HUGE,), (0,)),
    "expanded twice": tensor((2**20, 2**20), (0, 0)),
    "too many": tensor((2**70,), (1,)),
    "an empty giant": tensor((2**70, 0), (1, 1)),
    "negative": tensor((-4,), (1,)),
    "negative strides": tensor((4,), (-1,), 3),
    "beyond": tensor((5,), (1,)),
    "an offset": tensor((1,), (1,), HUGE),
    "a negative offset": tensor((1,), (1,), -1),
    "strides": tensor((2, 2), (1, 1000)),
    "ranks": tensor((2, 2), (1,)),
    "rank 100": tensor((1,) * 100, (1,) * 100),
    "a storage": tensor((HUGE,), (1,), 0, HUGE),
    "no storage": tensor((4,), (1,), key="1"),
    "a path": tensor((4,), (1,), key="../../etc/passwd"),
    "a dtype": tensor((4,), (1,), kind="QInt8Storage"),
    "wider": tensor((4,), (1,), kind="DoubleStorage"),
}


@pytest.mark.parametrize("which", TENSORS)
def test_tensors_that_are_not_in_their_storage(tmp_path: Path, which: str) -> None:
    refused(write_torch(tmp_path / "x", TENSORS[which], {"x/data/0": bytes(16)}))


def views() -> bytes:
    out = b"\x80\x02]("
    for n in range(5000):
        out += (
            b"ctorch._utils\n_rebuild_tensor_v2\n"
            + tensor((2**20 - n,), (1,), 0, 2**20)[
                3 + len(text("w")) + len(b"ctorch._utils\n_rebuild_tensor_v2\n") : -2
            ]
        )
    return out + b"e."


PICKLES: dict[str, Callable[[], bytes]] = {
    "deep": lambda: b"]" * 5000 + b"a" * 4999 + b".",
    "deeper": lambda: b"]" * 900_000 + b"a" * 899_999 + b".",
    "deep tuples": lambda: b")" + b"\x85" * 100_000 + b".",
    "doubled": lambda: b"]" + b"2\x86" * 60 + b".",
    "itself": lambda: b"]q\x00h\x00a.",
    "a dict in itself": lambda: b"}q\x00" + text("a") + b"h\x00s.",
    "many": lambda: b"}0" * 3_000_000 + b"N.",
    "many kept": lambda: b"(" + b"}" * 3_000_000 + b"l.",
    "memo": lambda: b"Nr\xff\xff\xff\xff",
    "memoized": lambda: b"N" + b"\x94" * 3_000_000 + b".",
    "a long frame": lambda: b"\x80\x04\x95" + b"\xff" * 8 + b"N.",
    "long bytes": lambda: b"\x80\x05\x96" + struct.pack("<Q", HUGE) + b"x.",
    "long text": lambda: b"\x80\x04\x8d" + struct.pack("<Q", HUGE) + b"x.",
    "a long integer": lambda: b"\x8b" + struct.pack("<i", 2**31 - 1) + b"x.",
    "a negative length": lambda: b"\x8b" + struct.pack("<i", -1) + b"x.",
    "digits": lambda: b"I" + b"9" * 10_000_000 + b"\n.",
    "no end": lambda: b"\x80\x02}",
    "nothing": lambda: b"",
    "an empty stack": lambda: b"0.",
    "no mark": lambda: b"t.",
    "a mark": lambda: b"(.",
    "two values": lambda: b"NN.",
    "no memo": lambda: b"h\x05.",
    "a key": lambda: b"}]Ns.",
    "a tuple as key": lambda: b"}" + b"]" + b"2\x86" * 40 + b"Ns.",
    "an unknown instruction": lambda: b"\xff.",
    "text": lambda: b"hello",
    "views": views,
}


@pytest.mark.parametrize("which", PICKLES)
def test_pickles_that_are_no_pickles(tmp_path: Path, which: str) -> None:
    refused(write_torch(tmp_path / "x", PICKLES[which](), {"x/data/0": bytes(2**22)}))


def zipped(names: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for member, data in names.items():
            archive.writestr(member, data)
    return out.getvalue()


def npy(x: Any = None, header: str | None = None, version: int = 1) -> bytes:
    out = io.BytesIO()
    if header is None:
        np.save(out, np.arange(4.0) if x is None else x, allow_pickle=True)
        return out.getvalue()
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header.encode() + bytes(32)


def patched(data: bytes, at: int, form: str, value: int) -> bytes:
    """Return bytes with a number of the first central entry replaced."""
    start = data.index(b"PK\x01\x02") + at
    return data[:start] + struct.pack(form, value) + data[start + struct.calcsize(form) :]


def shared() -> bytes:
    """Return an archive whose two entries are at one place."""
    data = zipped({"a.npy": npy(), "b.npy": npy()})
    second = data.rindex(b"PK\x01\x02")
    return data[: second + 42] + struct.pack("<L", 0) + data[second + 46 :]


def bomb(kind: str = "npy") -> bytes:
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({2**30},), }}"
    head = b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode()
    pack = zlib.compressobj(9, zlib.DEFLATED, -15)
    crc, body, total = zlib.crc32(head), pack.compress(head), len(head)
    for _ in range(1024):
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
    "a declared size": lambda: patched(
        zipped({"a.npy": npy()}, zipfile.ZIP_DEFLATED), 24, "<L", 2**31
    ),
    "a small size": lambda: patched(zipped({"a.npy": npy()}, zipfile.ZIP_DEFLATED), 24, "<L", 140),
    "an offset": lambda: patched(zipped({"a.npy": npy()}), 42, "<L", 2**31),
    "a checksum": lambda: patched(zipped({"a.npy": npy()}), 16, "<L", 1),
    "an unknown method": lambda: patched(zipped({"a.npy": npy()}), 10, "<H", 99),
    "encrypted": lambda: patched(zipped({"a.npy": npy()}), 8, "<H", 1),
    "above": lambda: zipped({"../a.npy": npy()}),
    "absolute": lambda: zipped({"/etc/a.npy": npy()}),
    "of Windows": lambda: zipped({"C:a.npy": npy()}),
    "backslashes": lambda: zipped({"a.npy": npy()}).replace(b"a.npy", b"\\.npy"),
    "twice": lambda: zipped({"a.npy": npy(), "b.npy": npy()}).replace(b"b.npy", b"a.npy"),
    "two names": lambda: zipped({"a.npy": npy()}).replace(b"a.npy", b"b.npy", 1),
    "before": lambda: b"PK" + bytes(98) + zipped({"a.npy": npy()}),
    "after": lambda: zipped({"a.npy": npy()}) + b"x",
    "objects": lambda: zipped({"a.npy": npy(np.array([Call(eval, "1/0")], object))}),
    "another file": lambda: zipped({"a.npy": npy(), "b.txt": b"x"}),
    "no file": lambda: zipped({"a.txt": b"x"}),
    "shorter": lambda: zipped({"a.npy": npy()[:-8]}),
    "longer": lambda: zipped({"a.npy": npy() + bytes(8)}),
    "many": lambda: b"PK" + zipped({"a.npy": npy()})[2:-12] + struct.pack("<2H2LH", 9, 9, 46, 0, 0),
}


@pytest.mark.parametrize("which", ARCHIVES)
def test_archives_that_are_traps(tmp_path: Path, which: str) -> None:
    (tmp_path / "x").write_bytes(ARCHIVES[which]())
    refused(tmp_path / "x")


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


@pytest.mark.parametrize("which", HEADERS)
@pytest.mark.parametrize("version", [1, 2, 3])
def test_headers_of_numpy(tmp_path: Path, which: str, version: int) -> None:
    (tmp_path / "x").write_bytes(npy(header=HEADERS[which], version=version))
    refused(tmp_path / "x")


def safetensors(header: Any, data: bytes = bytes(16), length: int | None = None) -> bytes:
    body = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(body) if length is None else length
    return struct.pack("<Q", size) + body + data


def entry(dtype: Any = "F32", shape: Any = (4,), offsets: Any = (0, 16)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


SAFETENSORS = {
    "long": safetensors({}, length=2**39),
    "longer": safetensors({"w": entry()}, length=200),
    "no JSON": safetensors(b"{hello"),
    "a list": safetensors(b"[]", b""),
    "twice": safetensors(b'{"w":%s,"w":%s}' % ((json.dumps(entry()).encode(),) * 2)),
    "overlapping": safetensors({"a": entry(), "b": entry(offsets=(8, 24))}, bytes(24)),
    "the same": safetensors({"a": entry(), "b": entry()}),
    "a hole": safetensors({"a": entry(offsets=(8, 24))}, bytes(24)),
    "more": safetensors({"w": entry()}, bytes(20)),
    "less": safetensors({"w": entry()}, bytes(12)),
    "backwards": safetensors({"w": entry(shape=(0,), offsets=(16, 0))}),
    "negative": safetensors({"w": entry(offsets=(-16, 0))}, b""),
    "floats": safetensors({"w": entry(offsets=(0.0, 16.0))}),
    "bools": safetensors({"w": entry("U8", (1,), (False, True))}, b"x"),
    "three": safetensors({"w": entry(offsets=(0, 8, 16))}),
    "a shape": safetensors({"w": entry(shape=(5,))}),
    "a negative shape": safetensors({"w": entry(shape=(-2, -2))}),
    "a large shape": safetensors({"w": entry(shape=(2**62, 4))}),
    "an overflow": safetensors({"w": entry(shape=(2**32, 2**32, 2**32, 0), offsets=(0, 0))}, b""),
    "a text as shape": safetensors({"w": entry(shape="4")}),
    "an unknown dtype": safetensors({"w": entry("F33")}),
    "no text": safetensors({"w": entry(None)}),
    "a dtype": safetensors({"w": entry("F64")}),
    "no dtype": safetensors({"w": {"shape": [4], "data_offsets": [0, 16]}}),
    "a key more": safetensors({"w": entry() | {"x": 1}}),
    "no dict": safetensors({"w": 3}),
    "metadata": safetensors({"__metadata__": {"a": 1}, "w": entry()}),
    "metadata as a list": safetensors({"__metadata__": [], "w": entry()}),
    "deep": safetensors(b'{"a":' + b"[" * 100_000, b""),
    "many": safetensors(b'{"a":[' + b"{}," * 8_000_000 + b"{}]}", b""),
    "half a letter": safetensors({"\ud800": entry()}),
    "no UTF-8": safetensors(b'{"\xff":%s}' % json.dumps(entry()).encode()),
    "packed": safetensors({"w": entry("F4", (32,))}),
    "NaN": safetensors(b'{"w":{"dtype":"F32","shape":[NaN],"data_offsets":[0,16]}}'),
    "digits": safetensors(
        b'{"w":{"dtype":"F32","shape":[%s],"data_offsets":[0,16]}}' % (b"9" * 9999)
    ),
}


@pytest.mark.parametrize("which", SAFETENSORS)
def test_headers_of_safetensors(tmp_path: Path, which: str) -> None:
    (tmp_path / "x").write_bytes(SAFETENSORS[which])
    refused(tmp_path / "x")


def extension(payload: bytes, code: int = 1) -> bytes:
    return b"\x81\xa1w\xc9" + struct.pack(">IB", len(payload), code) + payload


MSGPACK = {
    "a long map": b"\xdf" + b"\xff" * 4,
    "a long list": b"\x81\xa1a\xdd" + b"\xff" * 4,
    "a long text": b"\x81\xa1a\xdb" + b"\xff" * 4,
    "long bytes": b"\x81\xa1a\xc6" + b"\xff" * 4,
    "a long extension": b"\x81\xa1a\xc9" + b"\xff" * 4 + b"\1",
    "deep": b"\x81\xa1a" * 100_000 + b"\xc0",
    "deep lists": b"\x81\xa1a" + b"\x91" * 100_000 + b"\xc0",
    "many": b"\x81\xa1a\xdd" + struct.pack(">I", 3_000_000) + b"\x80" * 3_000_000,
    "a list as key": b"\x81\x90\xc0",
    "twice": b"\x82\xa1a\1\xa1a\2",
    "nothing": b"\x81",
    "more": b"\x80\x80",
    "no code": b"\x81\xa1a\xc1",
    "an extension": extension(b"", 99),
    "no array": extension(b"\xc0"),
    "a shape": extension(b"\x93\x91\x04\xa7float32\xc4\x08" + bytes(8)),
    "a negative shape": extension(b"\x93\x92\xff\xff\xa7float32\xc4\x04" + bytes(4)),
    "a large shape": extension(b"\x93\x92\xcf" + b"\x7f" * 8 + b"\0\xa7float32\xc4\0"),
    "objects": extension(b"\x93\x91\x01\xa6object\xc4\x08" + bytes(8)),
    "no dtype": extension(b"\x93\x91\x01\xa3abc\xc4\x08" + bytes(8)),
    "fields": extension(b"\x93\x91\x01\xa5f4,f4\xc4\x08" + bytes(8)),
    "longer": extension(b"\x93\x91\x01\xa5int64\xc4\x08" + bytes(9)),
    "complex": extension(b"\x92\xa1a\xa1b", 2),
    "parts": b"\x81\xa1w\x83\xd9\x19__msgpack_chunked_array__\xc3\xa5shape\x80\xa6chunks\x80",
    "no UTF-8": b"\x81\xa1\xff\xc0",
    "a scalar": extension(b"\x93\x91\xce\x7f\xff\xff\xff\xa5int64\xc4\x08" + bytes(8), 3),
}


@pytest.mark.parametrize("which", MSGPACK)
def test_values_of_msgpack(tmp_path: Path, which: str) -> None:
    (tmp_path / "x").write_bytes(MSGPACK[which])
    refused(tmp_path / "x")


def hdf5(path: Path, which: str) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        if which == "external link":
            file["a"] = h5py.ExternalLink("/etc/passwd", "/")
        if which == "soft link":
            file["a"] = h5py.SoftLink("/b")
        if which == "external storage":
            file.create_dataset("a", (4,), "f4", external=[("/etc/passwd", 0, 16)])
        if which == "virtual":
            layout = h5py.VirtualLayout((4,), "f4")
            layout[:] = h5py.VirtualSource("/etc/passwd", "x", (4,))
            file.create_virtual_dataset("a", layout)
        if which == "unwritten":
            file.create_dataset("a", (2**40,), "f4", chunks=(2**10,))
        if which == "packed":
            file.create_dataset("a", (2**27,), "f4", compression=9, fillvalue=0)
            file["a"][: 2**20] = 0
        if which == "cycle":
            file["a/b"] = file.create_group("a") and file["/"]


@pytest.mark.parametrize(
    "which",
    ["external link", "soft link", "external storage", "virtual", "unwritten", "packed", "cycle"],
)
def test_links_and_sizes_of_hdf5(tmp_path: Path, which: str) -> None:
    hdf5(tmp_path / "x", which)
    refused(tmp_path / "x")


def test_what_is_no_file_of_arrays(tmp_path: Path) -> None:
    tests = {
        b"": "not a checkpoint: an empty file",
        b"hello": "not a checkpoint: a file in an unknown format",
        pickle.dumps({"a": 1}): "not a checkpoint: a pickle",
        bytes(257) + b"ustar" + bytes(300): "not a checkpoint: a tar archive",
        b'{"weight_map": 3}': 'the index lacks a "weight_map"',
        b"{}": "not a checkpoint: a file in an unknown format",
        b"PK": "the directory of the zip archive is missing",
    }
    for data, words in tests.items():
        (tmp_path / "x").write_bytes(data)
        refused(tmp_path / "x", words)
    with pytest.raises(jtree.CheckpointError, match="no such file or directory"):
        jtree.open(tmp_path / "nothing")
