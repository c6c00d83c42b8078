"""Files of JLD2: what they hold, what is written, and what is refused."""

from __future__ import annotations

import bz2
import hashlib
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import jtree
from jtree.checkpoint._formats import jld2_encoding as encoding
from jtree.checkpoint._formats.hdf5_checksum import checksum
from jtree.checkpoint._formats.jld2_lowering import Type

from .bounds import refusal, refused
from .jld2_files import (
    BIAS,
    DENSE,
    EVERYTHING,
    RELU,
    STATE,
    WEIGHT,
    Placed,
    Writer,
    chunked,
    dictionary,
    document,
    filters,
    julia_struct,
    named_fields,
    pairs,
    singleton,
    texts,
    written_as,
)

BYTE = encoding.integer_type(1, signed=False)


@pytest.fixture(name="open_document")
def _open_document(tmp_path: Path) -> Any:
    """Return a function that opens a file of values by their names."""

    def open_document(**values: Any) -> Any:
        (tmp_path / "x.jld2").write_bytes(document(values))
        return jtree.open(tmp_path / "x.jld2")

    return open_document


def read(x: Any) -> Any:
    """Return a tree with its arrays read."""
    if isinstance(x, dict):
        return {key: read(y) for key, y in x.items()}
    if isinstance(x, list | tuple):
        return type(x)(map(read, x))
    return x.read() if hasattr(x, "read") else x


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return list(a) == list(b) and all(map(same, a.values(), b.values()))
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if hasattr(a, "dtype"):
        return bool(a.dtype == b.dtype and np.array_equal(a, b) and a.shape == b.shape)
    return type(a) is type(b) and bool(a == b)


def test_a_state_is_written_in_the_bytes_that_jld2_writes() -> None:
    data = document({"model_state": STATE})
    assert data[:43] == b"HDF5-based Julia Data Format, version 0.1.1"
    # Compared with a Flux.state that JLD2.jl wrote, from the superblock on.
    digest = hashlib.sha256(data[512:]).hexdigest()
    assert digest == "af247fb49e77558a95f66ed09ff7a77a0846fc22d204bcfd99155f92554b2f2f"


def test_a_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    jtree.save(tmp_path / "x.jld2", STATE)
    checkpoint = jtree.open(tmp_path / "x.jld2")
    assert checkpoint.format == "JLD2"
    assert checkpoint.metadata == {"order": "column-major"}
    assert same(read(checkpoint.tree), {"model_state": STATE})
    assert checkpoint["model_state/layers/0/weight"].read().flags.f_contiguous
    assert dict(checkpoint.types) == {}


def test_the_format_flux_state_follows_the_suffix(tmp_path: Path) -> None:
    jtree.save(tmp_path / "x.JLD2", STATE, format="flux-state")
    assert jtree.open(tmp_path / "x.JLD2").format == "JLD2"


DTYPES = [np.float16, np.float32, np.float64, ml_dtypes.bfloat16, np.complex64, np.complex128, bool]
DTYPES += [np.dtype(f"{kind}{n}") for kind in "iu" for n in (1, 2, 4, 8)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 4), (), (0, 3), (70, 80)], ids=str)
def test_arrays_of_every_dtype_and_shape(tmp_path: Path, dtype: Any, shape: Any) -> None:
    x = np.asarray(np.random.default_rng(0).integers(0, 2, shape)).astype(dtype)
    jtree.save(tmp_path / "x.jld2", {"x": x})
    assert same(jtree.open(tmp_path / "x.jld2")["model_state/x"].read(), x)


def test_values_of_every_kind(open_document: Any) -> None:
    values = {
        "numbers": (1, 2.5, True, 1 + 2j, np.float32(3), np.int8(4)),
        "texts": ("", "a", "ü" * 10_000),
        "nothing": {"x": None, "y": (), "z": {}},
        "list": [1, 2.5, None, False, "x", (), {"a": WEIGHT}, [1]],
        "empty": [],
        "tuples": ((1, (2, (3,))), ("a", None, "b")),
        "names": {"a.b": 1, "c/d": 2, "σ": 3},
    }
    assert same(read(open_document(**values).tree), values)


def test_wide_states_are_stored_by_reference(open_document: Any) -> None:
    layers = tuple({"weight": WEIGHT, "bias": BIAS, "σ": ()} for _ in range(300))
    different = tuple((n, *["x"] * (n % 3)) for n in range(500))
    tree = read(open_document(model_state={"layers": layers}, different=different).tree)
    assert same(tree, {"model_state": {"layers": layers}, "different": different})


def test_states_that_are_nested_too_deeply_are_refused(tmp_path: Path) -> None:
    tree: Any = 1
    for _ in range(200):
        tree = [tree]
    with pytest.raises(jtree.ModelError, match="nested too deeply"):
        jtree.save(tmp_path / "x.jld2", tree)


def test_names_that_exceed_a_message_are_refused(tmp_path: Path) -> None:
    message = (
        "^JLD2 holds at most 64 KiB of names and types of one value, and one takes [0-9,]+ bytes; "
        "split it, or use format='orbax'$"
    )
    with pytest.raises(jtree.ModelError, match=message):
        jtree.save(tmp_path / "x.jld2", {f"layer_{n}": n for n in range(5000)})
    assert not (tmp_path / "x.jld2").exists()


def test_arrays_of_jax_and_of_files_are_written(tmp_path: Path) -> None:
    jtree.save(tmp_path / "x.jld2", {"w": jnp.arange(6.0).reshape(2, 3)})
    jtree.save(tmp_path / "y.jld2", jtree.open(tmp_path / "x.jld2"))
    assert (tmp_path / "x.jld2").read_bytes() == (tmp_path / "y.jld2").read_bytes()


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"x": jnp.ones(2, jnp.float8_e4m3fn)}, "^model_state/x: Julia cannot hold float8_e4m3fn"),
        (
            {"n": 2**64},
            "^model_state/n: Julia holds integers of 64 bits, found 18446744073709551616; ",
        ),
        ({"a\0b": 1}, "a name with a NUL, which Julia's names cannot have; rename it$"),
    ],
)
def test_what_julia_cannot_hold_is_refused(tmp_path: Path, tree: Any, message: str) -> None:
    with pytest.raises(jtree.ModelError, match=message):
        jtree.save(tmp_path / "x.jld2", tree)


def test_the_hdf5_library_reads_what_is_written(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    jtree.save(tmp_path / "x.jld2", {"model_state": STATE, "x": WEIGHT, "b": np.array([True])})
    with h5py.File(tmp_path / "x.jld2") as file:
        assert np.array_equal(file["x"][()].T, WEIGHT)
        assert file["b"][()] == [1]
        assert file["_types/00000002"].dtype.names == ("weight", "bias")
        first = file[file["model_state"][()]["layers"]["1"]["weight"]]
        assert np.array_equal(first[()].T, WEIGHT)


def test_a_dense_of_2019_has_the_names_of_today(open_document: Any) -> None:
    checkpoint = open_document(model=DENSE)
    expected = {"model": {"weight": WEIGHT, "bias": BIAS, "σ": ()}}
    assert same(read(checkpoint.tree), expected)
    assert dict(checkpoint.types) == {"model": "Flux.Dense", "model/σ": "NNlib.relu"}


def test_a_tracked_array_is_its_value(open_document: Any) -> None:
    tracked = julia_struct(
        "Tracker.Tracker.TrackedArray", {"tracker": None, "data": WEIGHT, "grad": WEIGHT}
    )
    checkpoint = open_document(w=tracked)
    assert same(checkpoint["w"].read(), WEIGHT)
    assert dict(checkpoint.types) == {"w": "Tracker.TrackedArray"}


def test_one_array_at_two_places_is_tied(open_document: Any) -> None:
    shared = Placed(lambda writer: Writer._array(writer, WEIGHT))
    checkpoint = open_document(a=[shared, shared], b=shared)
    assert checkpoint.ties == (("a/0", "a/1", "b"),)


def test_dictionaries(open_document: Any) -> None:
    integer, text = Type("Core.Int64"), Type("Core.String")
    table = {
        "slots": np.array([0, 1, 0x81], np.uint8),
        "keys": ["x", "a", "b"],
        "vals": [0, 1, 2],
    }
    old = written_as(Type("Base.Dict", (integer, text)), Type("Core.Array"), {"kvvec": pairs({})})
    checkpoint = open_document(
        new=dictionary({"a": 1, "b": 2}),
        empty=old,
        table=julia_struct("Base.Dict", table),
        ordered=julia_struct("OrderedCollections.OrderedDict", {"keys": ["b"], "vals": [3]}),
    )
    expected = {
        "new": {"a": 1, "b": 2},
        "empty": {},
        "table": {"a": 1, "b": 2},
        "ordered": {"b": 3},
    }
    assert checkpoint.tree == expected


def test_all_names_of_fields_where_the_file_has_them(open_document: Any) -> None:
    layer = named_fields("Main.Layer", {"w": WEIGHT}, {"f": "NNlib.#relu", "n": "Core.Nothing"})
    checkpoint = open_document(model=layer)
    assert same(read(checkpoint.tree), {"model": {"w": WEIGHT, "f": (), "n": None}})
    assert dict(checkpoint.types) == {"model": "Layer", "model/f": "NNlib.relu"}


def test_values_without_bytes(open_document: Any) -> None:
    flatten = Type("Flux.#flatten")
    chain = singleton("Flux.Chain", (Type("Core.Tuple", (flatten, RELU)),))
    checkpoint = open_document(f=singleton("NNlib.#relu"), chain=chain, m=singleton("Flux.SamePad"))
    assert checkpoint.tree == {"f": (), "chain": {"layers": ((), ())}, "m": ()}
    assert dict(checkpoint.types) == {
        "f": "NNlib.relu",
        "chain": "Flux.Chain",
        "chain/layers/0": "Flux.flatten",
        "chain/layers/1": "NNlib.relu",
        "m": "Flux.SamePad",
    }


def test_texts_symbols_and_undefined_values(open_document: Any) -> None:
    undefined = Placed(lambda w: w.array_of(encoding.REFERENCE, (2,), bytes(8) + w.references(1)))
    symbols = Placed(lambda w: w._symbols(("a", "b")))
    checkpoint = open_document(t=texts("x", ""), u=undefined, s=symbols)
    assert checkpoint.tree == {"t": ["x", ""], "u": [None, 1], "s": ("a", "b")}


def test_arrays_of_tuples_bits_and_structs(open_document: Any) -> None:
    number = encoding.float_type(4)

    def points(writer: Writer) -> int:
        julia = Type("Core.Tuple", (Type("Core.Float32"),) * 3)
        address = writer.commit(julia, encoding.compound_type([(x, number) for x in "123"]))
        return writer.array_of(address, (2,), WEIGHT.tobytes())

    def bits(writer: Writer) -> int:
        address = writer.commit(Type("Core.Char"), encoding.opaque_type(4))
        return writer.array_of(address, (2,), b"\0\0\0a\0\0\0b")

    def structs(writer: Writer) -> int:
        fields = [("x", number), ("y", number)]
        address = writer.commit(Type("Main.Point"), encoding.compound_type(fields))
        return writer.array_of(address, (2, 1), BIAS.tobytes() * 2)

    def days(writer: Writer) -> int:
        inner = encoding.compound_type([("value", encoding.integer_type(8, signed=True))])
        address = writer.commit(Type("Dates.Date"), encoding.compound_type([("instant", inner)]))
        return writer.array_of(address, (2,), struct.pack("<2q", 737_000, 737_001))

    def old_bools(writer: Writer) -> int:
        address = writer.commit(Type("Core.Core.Bool"), encoding.opaque_type(1))
        return writer.array_of(address, (2,), b"\0\1")

    made = {"points": points, "bits": bits, "structs": structs, "days": days, "bools": old_bools}
    checkpoint = open_document(**{name: Placed(place) for name, place in made.items()})
    tree = read(checkpoint.tree)
    assert same(tree["points"], WEIGHT.T)
    assert tree["bits"].tolist() == [[0, 0], [0, 0], [0, 0], [97, 98]]
    point = {"x": np.float32(7), "y": np.float32(8)}
    assert tree["structs"] == [[point, point]]
    assert checkpoint.types["structs/0/1"] == "Point"
    assert same(tree["days"], np.array([737_000, 737_001]))
    assert same(tree["bools"], np.array([False, True]))


BIG = np.arange(600, dtype=np.float32).reshape(20, 30)
SHUFFLED = BIG.T.copy().view(np.uint8).reshape(-1, 4).T.tobytes()


@pytest.mark.parametrize(
    ("pipeline", "data"),
    [
        (filters(1), zlib.compress(BIG.T.tobytes())),
        (filters(2, 1), zlib.compress(SHUFFLED)),
        (filters(307), bz2.compress(BIG.T.tobytes())),
        (filters(3), BIG.T.tobytes() + b"abcd"),
        (filters(), BIG.T.tobytes()),
    ],
    ids=["deflate", "shuffle", "bzip2", "fletcher32", "none"],
)
def test_arrays_behind_filters(open_document: Any, pipeline: bytes, data: bytes) -> None:
    assert same(open_document(x=chunked(BIG, pipeline, data))["x"].read(), BIG)


@pytest.mark.parametrize(
    ("number", "name"),
    [(32015, "Zstandard (filter 32015)"), (32001, "Blosc (filter 32001)"), (999, "filter 999")],
)
def test_a_filter_that_needs_a_plugin_is_named(open_document: Any, number: int, name: str) -> None:
    checkpoint = open_document(x=chunked(BIG, filters(number), b"abc"))
    with pytest.raises(jtree.CheckpointError) as error:
        checkpoint["x"].read()
    assert str(error.value).endswith(
        f"cannot read x: its values are compressed by {name}, which needs a plugin of HDF5 and is "
        "not supported; save it again in Julia without it, by jldsave(path; model_state)"
    )


def with_hdf5(tmp_path: Path, write: Any) -> Path:
    """Return a file that the HDF5 library wrote, with the beginning of JLD2."""
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "x.jld2"
    with h5py.File(path, "w", libver=("v110", "v110"), userblock_size=512) as file:
        write(h5py, file)
    head = encoding.file_head(0, 0)[:512]
    path.write_bytes(head + path.read_bytes()[512:])
    return path


def test_links_within_the_file_are_followed(tmp_path: Path) -> None:
    def write(h5py: Any, file: Any) -> None:
        file["a/b"] = WEIGHT
        file["a/c"] = h5py.SoftLink("b")
        file["d"] = h5py.SoftLink("/a/b")
        file["zip"] = BIG
        file.create_dataset("small", data=BIG, chunks=BIG.shape, compression="gzip", shuffle=True)

    checkpoint = jtree.open(with_hdf5(tmp_path, write))
    assert list(checkpoint) == ["a/b", "a/c", "d", "small", "zip"]
    assert same(checkpoint["small"].read(), BIG.T)
    assert checkpoint.ties == (("a/b", "a/c", "d"),)


HOSTILE: dict[str, tuple[Any, str]] = {
    "another file": (
        lambda h5py, file: file.__setitem__("x", h5py.ExternalLink("/etc/passwd", "y")),
        "x is a link to another file; such links are not followed",
    ),
    "a link to nothing": (
        lambda h5py, file: file.__setitem__("x", h5py.SoftLink("/y")),
        "x is a link to /y, which is missing",
    ),
    "external storage": (
        lambda _, file: file.create_dataset("x", (9,), "u1", external=[("/etc/passwd", 0, 9)]),
        "values in other files, which are not read",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_links_to_other_files_are_refused(tmp_path: Path, name: str) -> None:
    write, message = HOSTILE[name]
    assert refusal(with_hdf5(tmp_path, write)) == f"cannot read this JLD2 file: {message}"


def test_the_checksum_is_the_one_of_its_author() -> None:
    assert checksum(b"Four score and seven years ago") == 0x17770551
    assert checksum(b"") == 0xDEADBEEF


def changed(data: bytes, at: int, new: bytes, start: int, end: int) -> bytes:
    """Return a file with bytes changed, and the checksum of an object with them."""
    made = data[:at] + new + data[at + len(new) :]
    return made[:end] + struct.pack("<I", checksum(made[start:end])) + made[end + 4 :]


def test_a_flipped_bit_in_the_structure_is_found(tmp_path: Path) -> None:
    data = bytearray(document({"model_state": STATE}))
    data[512 + 0x40] ^= 1
    (tmp_path / "x.jld2").write_bytes(data)
    with pytest.raises(jtree.ChecksumError) as error:
        jtree.open(tmp_path / "x.jld2")
    assert str(error.value) == (
        f"{tmp_path / 'x.jld2'}: cannot read this JLD2 file: the object at byte 560 differs from "
        "its checksum; use another copy of this file, or pass verify=False to read it as it is"
    )


def test_a_flipped_bit_in_a_large_header_is_found(tmp_path: Path) -> None:
    data = bytearray(document({"x": np.zeros(1000, np.float32)}))
    data[2000] ^= 1
    (tmp_path / "x.jld2").write_bytes(data)
    with pytest.raises(jtree.ChecksumError, match="cannot read x: the object at byte 560 differs"):
        jtree.load(tmp_path / "x.jld2")


def test_truncated_files_are_refused(tmp_path: Path) -> None:
    data = document(EVERYTHING)
    path = tmp_path / "x.jld2"
    for size in range(40, len(data), 97):
        path.write_bytes(data[:size])
        refused(path)
    path.write_bytes(data[:-1])
    expected = f"truncated: expected {len(data):,} bytes, found {len(data) - 1:,}"
    assert refusal(path) == f"cannot read this JLD2 file: {expected}"


def test_old_superblocks_are_named(tmp_path: Path) -> None:
    data = bytearray(document({"x": 1}))
    data[520] = 0
    (tmp_path / "x.jld2").write_bytes(data)
    assert refusal(tmp_path / "x.jld2") == (
        "cannot read this JLD2 file: its superblock has version 0, which JLD.jl and the HDF5 "
        "library write and JLD2.jl does not; load it in Julia, and save it by JLD2.jldsave"
    )


def cyclic() -> Placed:
    """Return a struct that refers to itself."""

    def place(writer: Writer) -> int:
        stored = encoding.compound_type([("x", encoding.REFERENCE)])
        address = writer.commit(Type("Main.Node"), stored)
        head = encoding.dataset_head(encoding.SCALAR, address)
        at = writer.end
        return writer.place(head, 8, lambda: at.to_bytes(8, "little"))

    return Placed(place)


def deep(writer: Writer) -> int:
    """Return vectors in vectors."""
    address = writer.dataset(1)
    for _ in range(150):
        address = writer.array_of(encoding.REFERENCE, (1,), address.to_bytes(8, "little"))
    return address


def shared(levels: int) -> Any:
    """Return lists in lists, each of which is in the next one ten times."""
    value: Any = Placed(lambda writer: Writer.dataset(writer, 1))
    for _ in range(levels):
        children = [value] * 10
        value = Placed(lambda writer, children=children: Writer.dataset(writer, children))
    return value


def huge(writer: Writer) -> int:
    return writer.array_of(BYTE, (2**40,), b"abc")


def endless(writer: Writer) -> int:
    """Return an array of many values that take no bytes."""
    address = writer._commit_empty(Type("Core.Nothing")).address
    integer = encoding.integer_type(8, signed=True)
    sizes = encoding.attribute(
        "dimensions", integer, encoding.simple([1]), struct.pack("<Q", 2**40)
    )
    head = encoding.dataset_head(encoding.NOTHING, address, sizes)
    return writer.place_object(head + encoding.compact(b""))


def bomb() -> Placed:
    zeros = np.zeros((30_000, 30_000), np.uint8)
    return chunked(zeros, filters(1), zlib.compress(b"abc"))


REFUSED: dict[str, tuple[Any, str]] = {
    "cycle": (cyclic(), r"the value at byte [0-9,]+ contains itself; save a Flux.state of the"),
    "depth": (Placed(deep), "nested more than 100 levels deep"),
    "shared": (shared(8), "too many values for its size"),
    "huge": (Placed(huge), "truncated: expected 1,099,511,627,776 bytes, found 3"),
    "endless": (Placed(endless), "too many values without bytes: 1,099,511,627,776"),
    "bomb": (bomb(), "refused as a decompression bomb"),
    "an inflated chunk": (
        chunked(BIG, filters(1), zlib.compress(bytes(10**7))),
        "expected 2,400 bytes in a chunk, found 2,404",
    ),
}


@pytest.mark.parametrize(
    "name", [pytest.param(x, marks=[pytest.mark.slow] * (x == "shared")) for x in REFUSED]
)
def test_hostile_files_are_refused(tmp_path: Path, name: str) -> None:
    value, message = REFUSED[name]
    (tmp_path / "x.jld2").write_bytes(document({"x": value}))
    refused(tmp_path / "x.jld2", message)


def test_only_the_beginning_decides(tmp_path: Path) -> None:
    (tmp_path / "x.bson").write_bytes(document({"model_state": STATE}))
    assert jtree.open(tmp_path / "x.bson").format == "JLD2"
    (tmp_path / "y.jld2").write_bytes(b"HDF5-based Julia Data Format, version 0.1.1")
    expected = "cannot read this JLD2 file: the superblock of HDF5 is missing"
    assert refusal(tmp_path / "y.jld2") == expected


def test_the_writer_needs_no_seeking() -> None:
    class Pipe(io.BytesIO):
        def seek(self, *_: Any) -> int:
            raise OSError("a pipe")

    file = Pipe()
    Writer().write(file, {"x": np.zeros(10_000)})
    assert len(file.getvalue()) > 80_000


def test_pairs_with_a_value_that_takes_no_bytes(open_document: Any) -> None:
    def place(writer: Writer) -> int:
        stored = encoding.compound_type([("first", encoding.TEXT)])
        julia = Type("Base.Pair", (Type("Core.String"), Type("Core.Nothing")))
        return writer.array_of(writer.commit(julia, stored), (1,), writer.encode_text("a"))

    julia = Type("Base.Dict", (Type("Core.String"), Type("Core.Nothing")))
    table = written_as(julia, Type("JLD2.SerializedDict"), {"kvvec": Placed(place)})
    assert open_document(x=table).tree == {"x": {"a": None}}
