"""Pickles of PyTorch: nothing in them runs, and none takes much time or memory."""

from __future__ import annotations

import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

import jtree

from .bounds import bounded, refusal, refused, refused_quickly
from .files import HUGE, Call, pickled_tensor, pickled_text, torch_archive


def call_name(module: str, function: str, *args: bytes) -> bytes:
    return b"c" + f"{module}\n{function}\n".encode() + b"(" + b"".join(args) + b"tR."


def touch(tmp_path: Path) -> str:
    return f"touch {tmp_path / 'ran'}"


def programs(tmp_path: Path) -> dict[str, bytes]:
    run = touch(tmp_path)
    import functools
    import subprocess

    return {
        "os.system": call_name("os", "system", pickled_text(run)),
        "posix.system": pickle.dumps(Call(os.system, run), 2),
        "nt.system": call_name("nt", "system", pickled_text(run)),
        "Python 2": call_name("__builtin__", "eval", pickled_text("1")),
        "eval": pickle.dumps(Call(eval, f"__import__('os').system({run!r})"), 4),
        "exec": pickle.dumps(Call(exec, "raise SystemExit"), 5),
        "getattr": pickle.dumps(Call(getattr, {}, "clear"), 3),
        "Popen": pickle.dumps(Call(subprocess.Popen, ["sh", "-c", run]), 2),
        "partial": pickle.dumps(functools.partial(os.system, run), 2),
        "partial chain": pickle.dumps(Call(functools.reduce, Call(map, os.system, [run])), 2),
        "Popen as an object": b"csubprocess\nPopen\n(" + pickled_text(run) + b"t\x81.",
        "INST": b"(" + pickled_text(run) + b"ios\nsystem\n.",
        "OBJ": b"(cos\nsystem\n" + pickled_text(run) + b"o.",
        "STACK_GLOBAL": b"\x80\x04"
        + pickled_text("os")
        + pickled_text("system")
        + b"\x93"
        + pickled_text(run)
        + b"\x85R.",
        "copyreg": call_name(
            "copyreg", "add_extension", pickled_text("os"), pickled_text("system"), b"K\x01"
        ),
        "EXT1": b"\x82\x01.",
        "numpy": call_name("numpy.testing._private.utils", "runstring", pickled_text(run), b"}"),
        "torch.hub": call_name("torch.hub", "load", pickled_text("x"), pickled_text("y")),
        "torch.load": call_name("torch.serialization", "load", pickled_text("/etc/passwd")),
        "a name in a name": call_name("torch._utils", "os.system", pickled_text(run)),
        "through a type": b"ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\ncos\nsystem\n("
        + pickled_text(run)
        + b"t}tR.",
        "__setstate__": b"cos\nsystem\n" + b"}b.",
        "a name alone": b"cos\nsystem\n.",
        "a call of a value": pickled_text("x") + b")R.",
        "a persistent name": pickled_text(run) + b"Q.",
        "runpy": call_name("runpy", "run_path", pickled_text("x")),
        "pip": call_name("pip", "main", b"]"),
        "webbrowser": call_name("webbrowser", "open", pickled_text("x")),
        "importlib": call_name("importlib", "import_module", pickled_text("antigravity")),
        "ctypes": call_name("ctypes", "CDLL", pickled_text("x")),
        "bytearray": call_name("builtins", "eval", b"\x8a\x08" + b"\xff" * 7 + b"\x7f"),
    }


PROGRAMS = list(programs(Path()))


@pytest.mark.parametrize("which", PROGRAMS)
def test_nothing_in_a_pickle_runs(tmp_path: Path, which: str) -> None:
    program = programs(tmp_path)[which]
    for nested in (program, b"}" + pickled_text("a") + program[:-1] + b"s."):
        refused(torch_archive(tmp_path / "x", nested))
        assert not (tmp_path / "ran").exists()


def test_a_refusal_names_what_was_called(tmp_path: Path) -> None:
    torch_archive(tmp_path / "x", programs(tmp_path)["os.system"])
    with pytest.raises(jtree.CheckpointError) as error:
        jtree.open(tmp_path / "x")
    assert str(error.value) == (
        f"{tmp_path / 'x'}: cannot read this PyTorch file: its pickle names os.system, which "
        "does not belong in a file of tensors; nothing was run. If you trust the file, load it in "
        "PyTorch and save its state_dict only"
    )


TENSORS = {
    "expanded": pickled_tensor((HUGE,), (0,)),
    "expanded twice": pickled_tensor((2**20, 2**20), (0, 0)),
    "too many": pickled_tensor((2**70,), (1,)),
    "an empty giant": pickled_tensor((2**70, 0), (1, 1)),
    "negative": pickled_tensor((-4,), (1,)),
    "negative strides": pickled_tensor((4,), (-1,), 3),
    "beyond": pickled_tensor((5,), (1,)),
    "an offset": pickled_tensor((1,), (1,), HUGE),
    "a negative offset": pickled_tensor((1,), (1,), -1),
    "strides": pickled_tensor((2, 2), (1, 1000)),
    "ranks": pickled_tensor((2, 2), (1,)),
    "rank 100": pickled_tensor((1,) * 100, (1,) * 100),
    "a storage": pickled_tensor((HUGE,), (1,), 0, HUGE),
    "no storage": pickled_tensor((4,), (1,), key="1"),
    "a path": pickled_tensor((4,), (1,), key="../../etc/passwd"),
    "a dtype": pickled_tensor((4,), (1,), kind="QInt8Storage"),
    "wider": pickled_tensor((4,), (1,), kind="DoubleStorage"),
}


TENSOR_MESSAGES = {
    "expanded": (
        "cannot read this PyTorch file: its tensors are views that would take "
        "4,398,046,511,104 bytes, read from 4, and the file has 440; save them with .clone() "
        "in PyTorch"
    ),
    "expanded twice": (
        "cannot read this PyTorch file: its tensors are views that would take "
        "4,398,046,511,104 bytes, read from 4, and the file has 444; save them with .clone() "
        "in PyTorch"
    ),
    "too many": (
        "cannot read this PyTorch file: invalid tensor: offset, shape or strides "
        "(1180591620717411303424,)"
    ),
    "an empty giant": (
        "cannot read this PyTorch file: invalid tensor: offset, shape or strides "
        "(1180591620717411303424, 0)"
    ),
    "negative": "cannot read this PyTorch file: invalid tensor: offset, shape or strides (-4,)",
    "negative strides": (
        "cannot read this PyTorch file: invalid tensor: offset, shape or strides (-1,)"
    ),
    "beyond": "cannot read this PyTorch file: w: this tensor is larger than its storage",
    "an offset": "cannot read this PyTorch file: w: this tensor is larger than its storage",
    "a negative offset": (
        "cannot read this PyTorch file: invalid tensor: offset, shape or strides (-1,)"
    ),
    "strides": "cannot read this PyTorch file: w: this tensor is larger than its storage",
    "ranks": "cannot read this PyTorch file: invalid tensor: shape (2, 2) with strides (1,)",
    "rank 100": (
        "cannot read this PyTorch file: invalid tensor: offset, shape or strides (1, 1, 1, "
        "1, 1, 1, ...)"
    ),
    "a storage": (
        "cannot read this PyTorch file: w: truncated: expected 4,398,046,511,104 bytes in "
        "its storage, found 16"
    ),
    "no storage": "cannot read this PyTorch file: w: its storage '1' is not in the file",
    "a path": "cannot read this PyTorch file: w: its storage '../../etc/passwd' is not in the file",
    "a dtype": "cannot read this PyTorch file: unknown storage type 'torch.QInt8Storage'",
    "wider": (
        "cannot read this PyTorch file: w: truncated: expected 32 bytes in its storage, found 16"
    ),
}


@pytest.mark.parametrize("which", TENSORS)
def test_tensors_that_are_not_in_their_storage_are_refused(tmp_path: Path, which: str) -> None:
    path = torch_archive(tmp_path / "x", TENSORS[which], {"x/data/0": bytes(16)})
    assert refusal(path) == TENSOR_MESSAGES[which]


def views() -> bytes:
    out = b"\x80\x02]("
    for n in range(5000):
        out += (
            b"ctorch._utils\n_rebuild_tensor_v2\n"
            + pickled_tensor((2**20 - n,), (1,), 0, 2**20)[
                3 + len(pickled_text("w")) + len(b"ctorch._utils\n_rebuild_tensor_v2\n") : -2
            ]
        )
    return out + b"e."


PICKLES: dict[str, Callable[[], bytes]] = {
    "deep": lambda: b"]" * 5000 + b"a" * 4999 + b".",
    "deeper": lambda: b"]" * 300_000 + b"a" * 299_999 + b".",
    "deep tuples": lambda: b")" + b"\x85" * 100_000 + b".",
    "doubled": lambda: b"]" + b"2\x86" * 60 + b".",
    "itself": lambda: b"]q\x00h\x00a.",
    "a dict in itself": lambda: b"}q\x00" + pickled_text("a") + b"h\x00s.",
    "many": lambda: b"}0" * 300_000 + b"N.",
    "many kept": lambda: b"(" + b"}" * 600_000 + b"l.",
    "memo": lambda: b"Nr\xff\xff\xff\xff",
    "memoized": lambda: b"N" + b"\x94" * 600_000 + b".",
    "a long frame": lambda: b"\x80\x04\x95" + b"\xff" * 8 + b"N.",
    "long bytes": lambda: b"\x80\x05\x96" + struct.pack("<Q", HUGE) + b"x.",
    "long text": lambda: b"\x80\x04\x8d" + struct.pack("<Q", HUGE) + b"x.",
    "a long integer": lambda: b"\x8b" + struct.pack("<i", 2**31 - 1) + b"x.",
    "a negative length": lambda: b"\x8b" + struct.pack("<i", -1) + b"x.",
    "digits": lambda: b"I" + b"9" * 1_000_000 + b"\n.",
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


PICKLE_MESSAGES = {
    "deep": "cannot read this PyTorch file: nested more than 100 levels deep",
    "deeper": (
        "cannot read this PyTorch file: its pickle has more than 574,915 instructions, which "
        "is too many for a file of this size"
    ),
    "deep tuples": "cannot read this PyTorch file: nested more than 100 levels deep",
    "doubled": (
        "cannot read this PyTorch file: too many values for its size: more than 88,192, "
        "where values at very long paths count several times; store long lists as arrays"
    ),
    "itself": "cannot read this PyTorch file: nested more than 100 levels deep",
    "a dict in itself": "cannot read this PyTorch file: nested more than 100 levels deep",
    "many": (
        "cannot read this PyTorch file: its pickle has more than 574,915 instructions, which "
        "is too many for a file of this size"
    ),
    "many kept": (
        "cannot read this PyTorch file: its pickle has more than 574,915 instructions, which "
        "is too many for a file of this size"
    ),
    "memo": "cannot read this PyTorch file: invalid pickle: pickle exhausted before seeing STOP",
    "memoized": (
        "cannot read this PyTorch file: its pickle has more than 574,915 instructions, which "
        "is too many for a file of this size"
    ),
    "a long frame": (
        "cannot read this PyTorch file: invalid pickle: a frame is longer than the pickle"
    ),
    "long bytes": (
        "cannot read this PyTorch file: invalid pickle: expected 1099511627776 bytes in a "
        "bytearray8, but only 2 remain"
    ),
    "long text": (
        "cannot read this PyTorch file: invalid pickle: expected 1099511627776 bytes in a "
        "unicodestring8, but only 2 remain"
    ),
    "a long integer": (
        "cannot read this PyTorch file: invalid pickle: not enough data in stream to read long4"
    ),
    "a negative length": "cannot read this PyTorch file: invalid pickle: long4 byte count < 0: -1",
    "digits": (
        "cannot read this PyTorch file: invalid pickle: Exceeds the limit (4300 digits) for "
        "integer string conversion: value has 1000000 digits"
    ),
    "no end": "cannot read this PyTorch file: invalid pickle: pickle exhausted before seeing STOP",
    "nothing": "cannot read this PyTorch file: invalid pickle: pickle exhausted before seeing STOP",
    "an empty stack": "cannot read this PyTorch file: invalid pickle: the stack is empty",
    "no mark": "cannot read this PyTorch file: invalid pickle: a mark is missing",
    "a mark": "cannot read this PyTorch file: invalid pickle: expected a value, found a mark",
    "two values": "cannot read this PyTorch file: invalid pickle: it builds more than one value",
    "no memo": "cannot read this PyTorch file: invalid pickle: memo 5 is empty",
    "a key": "cannot read this PyTorch file: keys of dicts must be text or numbers, found a list",
    "a tuple as key": (
        "cannot read this PyTorch file: keys of dicts must be text or numbers, found a tuple"
    ),
    "an unknown instruction": (
        "cannot read this PyTorch file: invalid pickle: at position 0, opcode b'\\xff' unknown"
    ),
    "text": "cannot read this PyTorch file: invalid pickle: memo 101 is empty",
    "views": (
        "cannot read this PyTorch file: its tensors are views that would take 79,691,092 "
        "bytes, read from 0, and the file has 4,729,616; save them with .clone() in PyTorch"
    ),
}


@pytest.mark.parametrize("which", PICKLES)
def test_malformed_pickles_are_refused(tmp_path: Path, which: str) -> None:
    path = torch_archive(tmp_path / "x", PICKLES[which](), {"x/data/0": bytes(2**22)})
    assert refusal(path) == PICKLE_MESSAGES[which]


PUT, GET = b"q\0", b"h\0"


DOUBLED = b")" + b"2\x86" * 27


REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


MODULUS = 2**61 - 1  # integers that differ by this have one hash


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
        + pickled_text("storage")
        + f"ctorch\n{kind}\n".encode()
        + pickled_text(key)
        + pickled_text(device)
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


BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
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
        "too many for a file of this size",
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
        lambda: (
            b"("
            + pickled_text("storage")
            + DOUBLED
            + pickled_text("0")
            + pickled_text("cpu")
            + b"K\4tQ."
        ),
        "unknown storage type",
    ),
    "names": (
        lambda: shared(pickled_text("a" * 100_000), GET + GET + b"\x93", 2000),
        "a name is too long",
    ),
    "a long memo": (lambda: b"Np%d\n." % MODULUS, "a memo of"),
    "paths": (
        lambda: b"}" + pickled_text("a" * 100_000) + listed(b"N" * 70_000) + b"s.",
        "too many values",
    ),
    "leaves": (lambda: listed(b"N" * 90_000) + b".", "too many values"),
    "branches": (lambda: listed(b"}" * 90_000) + b".", "too many values"),
    "one list": (
        lambda: shared(listed(b"N" * 1000), GET, 1800),
        "too many values",
    ),
    "spans": (lambda: spans(10_000), "read from"),
    "a key twice": (
        lambda: b"}(" + (pickled_text("a") + b"N") * 2 + b"u.",
        "duplicate key 'a' in a dict",
    ),
    "two storages": (
        lambda: listed(storage() + storage(2, "DoubleStorage")) + b".",
        "two storages '0'",
    ),
    "a shape that is text": (
        lambda: REBUILD + b"(" + storage() + b"K\0C\1\4K\1\x85\x89}tR.",
        "invalid tensor: offset, shape or strides",
    ),
    "more than the storage says": (
        lambda: pickled_tensor((4,), (1,), 0, 3),
        "larger than its storage",
    ),
}


@pytest.mark.parametrize("which", BOMBS)
def test_pickles_that_ask_for_much_are_refused(tmp_path: Path, which: str) -> None:
    make, words = BOMBS[which]
    path = torch_archive(tmp_path / "x", make(), {"x/data/0": bytes(1_000_000)})
    refused_quickly(path, words)


@pytest.mark.parametrize("keys", ["integers", "tuples"])
def test_keys_of_one_hash_become_keys_of_many(tmp_path: Path, keys: str) -> None:
    numbers = [integer(MODULUS * n) + (b"\x85" if keys == "tuples" else b"") for n in range(2_000)]
    torch_archive(tmp_path / "x", b"}(" + b"N".join(numbers) + b"Nu.")
    with bounded(tmp_path / "x"):
        tree = jtree.open(tmp_path / "x").tree
    assert len({hash(key) for key in tree}) == len(tree) == 2_000


def test_bytes_at_many_paths_are_kept_once(tmp_path: Path) -> None:
    data = b"\x96" + struct.pack("<Q", 500_000) + b"x" * 500_000
    torch_archive(tmp_path / "x", shared(data, GET, 1000))
    with bounded(tmp_path / "x"):
        found = jtree.load(tmp_path / "x")
    assert len(found) == 1000
    assert {type(x) for x in found} == {bytes}


def test_a_tensor_with_gaps_takes_no_more_than_its_file_allows(tmp_path: Path) -> None:
    count = 20_000_000
    data = {"x/data/0": bytes(4 * count)}
    refused(
        torch_archive(tmp_path / "x", pickled_tensor((2, count), (0, 1), 0, count), data),
        "are views",
    )
    with bounded(tmp_path / "x"):
        torch_archive(tmp_path / "y", pickled_tensor((2, count // 2), (1, 2), 0, count), data)
        with bounded(tmp_path / "y"):
            assert jtree.load(tmp_path / "y")["w"].nbytes == 4 * count


def test_an_archive_with_two_pickles(tmp_path: Path) -> None:
    torch_archive(tmp_path / "x", b"}.", {"y/data.pkl": b"}."})
    refused(tmp_path / "x", "expected one pickle, found x/data.pkl and y/data.pkl")


def test_names_in_a_message_do_not_control_a_terminal(tmp_path: Path) -> None:
    torch_archive(tmp_path / "x", b"ca\n\x1b[2Jx\n)R.")
    with pytest.raises(jtree.CheckpointError) as error:
        jtree.open(tmp_path / "x")
    assert r"calls a.\x1b[2Jx, which" in str(error.value)


def test_an_array_at_many_paths_is_shown_briefly(tmp_path: Path) -> None:
    one = pickled_tensor((4,), (1,))[len(b"\x80\x02}" + pickled_text("w")) : -2]
    torch_archive(tmp_path / "x", shared(one, GET, 2000), {"x/data/0": bytes(16)})
    found = str(jtree.open(tmp_path / "x"))
    assert "tied to 1,999 others" in found
    assert len(found) < 500_000
