"""Files of BSON.jl, which Flux models were saved in."""

from __future__ import annotations

import io
import re
import struct
from cProfile import Profile
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import jtree
from jtree.checkpoint._formats.bson_document import Document
from jtree.checkpoint._formats.bson_values import BsonValues
from jtree.checkpoint._formats.file import Entries, File

from ..same import calls
from . import bson_files as bson
from .bounds import refusal, refused, refused_quickly
from .bson_files import a_struct, a_tuple, array, backref, datatype, floats, symbol


def read(tmp_path: Path, **values: Any) -> Any:
    (tmp_path / "x").write_bytes(bson.document(values))
    return jtree.load(tmp_path / "x")


def value(tmp_path: Path, x: Any) -> Any:
    return read(tmp_path, x=x)["x"]


def test_a_whole_model_is_a_nested_state(tmp_path: Path) -> None:
    (tmp_path / "model.bson").write_bytes(bson.document(bson.MODEL))
    checkpoint = jtree.open(tmp_path / "model.bson")
    assert (checkpoint.format, checkpoint.metadata) == ("BSON", {"order": "column-major"})
    layer, softmax = checkpoint.tree["model"]["layers"]
    assert list(layer) == ["weight", "bias", "σ"]
    assert layer["σ"] == softmax == ()
    assert (layer["weight"].read() == bson.WEIGHT).all()
    assert (layer["bias"].read() == bson.BIAS).all()
    assert checkpoint.types == {
        "model": "Flux.Chain",
        "model/layers/0": "Flux.Dense",
        "model/layers/0/σ": "NNlib.relu",
        "model/layers/1": "NNlib.softmax",
    }


@pytest.mark.parametrize("module", ["Core", "Main.Core"])
def test_the_paths_of_modules_differ_by_version(tmp_path: Path, module: str) -> None:
    x = array(np.array([1.5, 2]), f"{module}.Float64")
    assert value(tmp_path, x).tolist() == [1.5, 2]


def test_a_file_of_a_32_bit_machine_has_shorter_sizes(tmp_path: Path) -> None:
    element = datatype("Core.Array", datatype("Core.Float32"), np.int32(1))
    x = array(bson.WEIGHT, "Core.Float32", size=[np.int32(2), np.int32(3)])
    found = read(tmp_path, x=x, y=backref(np.int32(1)), _backrefs=[element])
    assert (found["x"] == bson.WEIGHT).all()
    assert found["y"] == ()


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *(
            (f"Core.{sign}Int{8 * n}", f"{sign.lower() or 'i'}{n}")
            for sign in ("", "U")
            for n in (1, 2, 4, 8)
        ),
        *((f"Core.Float{8 * n}", f"f{n}") for n in (2, 4, 8)),
        ("Core.Bool", bool),
        ("BFloat16s.BFloat16", ml_dtypes.bfloat16),
    ],
)
def test_arrays_have_julias_shape_and_indices(tmp_path: Path, name: str, dtype: Any) -> None:
    x = np.arange(24).reshape(2, 3, 4).astype(dtype)
    found = value(tmp_path, array(x, name))
    assert found.dtype == x.dtype
    assert (found == x).all()
    assert value(tmp_path, array(x[:, :0], name)).shape == (2, 0, 4)
    assert value(tmp_path, array(x[0, 0, 0], name)).shape == ()


@pytest.mark.parametrize(
    ("part", "dtype", "expected"),
    [
        ("Float32", "f4", "c8"),
        ("Float64", "f8", "c16"),
        ("Float16", "f2", "c8"),
        ("Int64", "i8", "c16"),
    ],
)
def test_complex_arrays_are_complex(tmp_path: Path, part: str, dtype: str, expected: str) -> None:
    parts = np.array([[1, 3], [2, 4]], dtype)
    element = datatype("Base.Complex", datatype(f"Core.{part}"))
    found = value(tmp_path, array(parts, "", type=element, size=[2]))
    assert found.dtype == expected
    assert found.tolist() == [1 + 2j, 3 + 4j]


def test_elements_of_other_types_are_their_parts_or_bytes(tmp_path: Path) -> None:
    pairs = np.array([[1, 3, 5], [2, 4, 6]], np.int32)
    element = datatype("Core.Tuple", datatype("Core.Int32"), datatype("Core.Int32"))
    assert (value(tmp_path, array(pairs, "", type=element, size=[3])) == pairs).all()
    found = value(tmp_path, array(pairs, "Main.Pair", size=[3]))
    assert (found.dtype, found.shape) == (np.uint8, (8, 3))
    assert value(tmp_path, array(pairs[:0], "Core.Nothing", size=[3])).shape == (0, 3)


def test_arrays_of_values_that_are_not_bits_are_lists(tmp_path: Path) -> None:
    assert value(tmp_path, ["a", 1, None, [2.5]]) == ["a", 1, None, [2.5]]
    matrix = array(np.zeros((2, 2)), "Core.Any", data=[1, "b", 3, None])
    assert value(tmp_path, matrix) == [[1, 3], ["b", None]]


def test_plain_values(tmp_path: Path) -> None:
    expected = {"a": 1, "b": 2.5, "c": "π", "d": True, "e": None, "f": 3}
    assert read(tmp_path, **{**expected, "f": np.int32(3)}) == expected
    assert value(tmp_path, symbol("relu")) == "relu"
    assert value(tmp_path, a_tuple(1, a_tuple())) == (1, ())
    assert value(tmp_path, {"tag": "svec", "data": [1]}) == (1,)
    assert value(tmp_path, b"\1\2").tolist() == [1, 2]
    assert value(tmp_path, "\udc80".encode("utf8", "surrogateescape").decode("latin1")) == "\x80"


def primitive(name: str, data: bytes) -> dict[str, Any]:
    return {"tag": "struct", "type": datatype(name), "data": data}


def test_numbers_that_are_stored_as_bytes(tmp_path: Path) -> None:
    number = value(tmp_path, primitive("Core.Float32", struct.pack("<f", 0.5)))
    assert (number, number.dtype) == (0.5, np.float32)
    assert value(tmp_path, primitive("Core.Char", b"\0\0" + "π".encode()[::-1])) == "π"
    assert value(tmp_path, primitive("Core.Int128", b"\xff" * 16)) == -1
    assert value(tmp_path, primitive("Main.Color", b"ab")) == b"ab"
    assert value(tmp_path, a_struct("Base.Complex", 1.0, 2.0)) == 1 + 2j


def dictionary(name: str, keys: Any, values: Any) -> dict[str, Any]:
    return {"tag": "struct", "type": datatype(name), "data": [keys, values]}


def test_dictionaries(tmp_path: Path) -> None:
    assert value(tmp_path, dictionary("Main.Base.Dict", ["name"], b"\2")) == {"name": 2}
    numbers = array(np.array([1, 2]), "Core.Int64")
    assert value(tmp_path, dictionary("Base.Dict", numbers, ["a", "b"])) == {"1": "a", "2": "b"}
    ordered = a_struct("OrderedCollections.OrderedDict", [], ["b", "a"], [1, 2], 0, False)
    value(tmp_path, ordered)
    assert list(jtree.open(tmp_path / "x").tree["x"]) == ["b", "a"]
    wrong = dictionary("Base.Dict", ["a"], [])
    (tmp_path / "x").write_bytes(bson.document({"x": wrong}))
    refused(tmp_path / "x", "a dictionary of 1 keys and 0 values")


def test_named_tuples_have_the_names_in_their_type(tmp_path: Path) -> None:
    found = value(tmp_path, bson.named_tuple(weight=floats(bson.WEIGHT), bias=False, σ=a_tuple()))
    assert list(jtree.open(tmp_path / "x").tree["x"]) == ["weight", "bias", "σ"]
    assert found["bias"] is False
    assert found["σ"] == ()


def test_references_are_ties(tmp_path: Path) -> None:
    layer = backref(2)
    values = {"a": backref(1), "b": [backref(1)], "c": layer, "d": layer}
    references = [floats(bson.BIAS), bson.dense(floats(bson.WEIGHT), backref(1))]
    (tmp_path / "x").write_bytes(bson.document(values | {"_backrefs": references}))
    assert jtree.open(tmp_path / "x").ties == (
        ("a", "b/0", "c/bias", "d/bias"),
        ("c/weight", "d/weight"),
    )


def test_types_may_be_references_and_unions(tmp_path: Path) -> None:
    element = {"tag": "unionall", "var": None, "body": backref(1)}
    x = array(np.ones(2), "", type=element)
    found = read(tmp_path, x=x, y=element, _backrefs=[datatype("Core.Float64")])
    assert found["x"].dtype == np.float64
    assert found["y"] == ()
    assert jtree.open(tmp_path / "x").types == {"y": "Float64"}


def test_functions_types_and_code_are_inert(tmp_path: Path) -> None:
    name = {
        "tag": "struct",
        "type": datatype("Core.TypeName"),
        "data": ["1.1.0", symbol("##3#4"), backref(1)],
    }
    anonymous = {"tag": "jl_anonymous", "params": [], "typename": backref(1)}
    values = {
        "function": {"tag": "struct", "type": anonymous, "data": []},
        "closure": {"tag": "struct", "type": anonymous, "data": [floats(bson.BIAS)]},
        "type": anonymous,
        "bottom": {"tag": "jl_bottom_type"},
        "module": {"tag": "ref", "path": ["Main", "Flux"]},
        "missing": a_struct("Main.Base.Missing"),
    }
    found = read(tmp_path, **values, _backrefs=[name])
    assert found.pop("closure")[0].tolist() == bson.BIAS.tolist()
    assert set(found.values()) == {()}
    assert jtree.open(tmp_path / "x").types == {
        "function": "##3#4",
        "closure": "##3#4",
        "type": "##3#4",
        "bottom": "Union{}",
        "module": "Main.Flux",
        "missing": "Base.Missing",
    }


def test_tracked_arrays_are_their_values(tmp_path: Path) -> None:
    call = a_struct("Tracker.Call", None, backref(2))
    tracker = a_struct(
        "Tracker.Tracked", primitive("Core.UInt32", bytes(4)), call, True, backref(1)
    )
    tracked = a_struct("Tracker.TrackedArray", tracker, floats(bson.BIAS), backref(1))
    cyclic = [backref(2)]
    found = read(tmp_path, w=tracked, _backrefs=[floats(np.zeros(2)), cyclic])
    assert found["w"].tolist() == bson.BIAS.tolist()


def test_parameters_of_a_type_that_are_values_are_kept(tmp_path: Path) -> None:
    upsample = a_struct("Flux.Upsample", a_tuple(2, 2), None, parameters=(symbol("nearest"), 3))
    (tmp_path / "x").write_bytes(bson.document({"x": upsample}))
    file = File(tmp_path / "x")
    value = BsonValues(Document(file), Entries(file)).root()["x"]
    assert value.parameters == ("nearest", 3)


def test_a_recurrent_layer_keeps_its_state(tmp_path: Path) -> None:
    cell = a_struct(
        "Flux.LSTMCell", floats(1), floats(2), floats(3), a_tuple(backref(1), backref(1))
    )
    recur = a_struct("Flux.Recur", cell, a_tuple(backref(1), backref(1)))
    found = read(tmp_path, m=recur, _backrefs=[floats(np.zeros((2, 1)))])["m"]
    assert {*found["cell"]} == {"Wi", "Wh", "b", "state0"}
    assert found["state"][1].shape == (2, 1)
    assert jtree.open(tmp_path / "x").types == {"m": "Flux.Recur", "m/cell": "Flux.LSTMCell"}


def test_documents_without_tags_are_dicts(tmp_path: Path) -> None:
    plain = {"_id": 7, "name": {"first": "Ada", "tag": "array"}, "scores": [1, 2.5]}
    assert read(tmp_path, **plain) == plain
    assert read(tmp_path) == {}


MALFORMED = {
    "a dangling reference": (
        {"x": backref(2), "_backrefs": [1]},
        "a reference to 2 at byte 33, and the file has 1",
    ),
    "a reference to text": (
        {"x": backref("a"), "_backrefs": [1]},
        "a reference to a at byte 33, and the file has 1",
    ),
    "references in a circle": (
        {"x": datatype("a"), "y": {"tag": "struct", "type": backref(1), "data": []}}
        | {"_backrefs": [backref(2), backref(1)]},
        "a reference to itself at byte 195",
    ),
    "a cycle": (
        {"x": backref(1), "_backrefs": [[backref(1)]]},
        "the value at byte 60 contains itself; save a Flux.state of the model",
    ),
    "too few bytes": (
        {"x": array(np.ones(2), "Core.Float64", size=[3])},
        "expected 24 bytes for an array of shape [3] at byte 134, found 16",
    ),
    "a huge size": (
        {"x": array(np.ones(2), "Core.Float64", size=[2**61, 2**61])},
        "an array of shape [2305843009213693952, 2305843009213693952] is too large for any memory",
    ),
    "a negative size": (
        {"x": array(np.ones(2), "Core.Float64", size=[-1])},
        "invalid array shape (-1,)",
    ),
    "too few values": (
        {"x": array(np.ones(2), "Core.Any", data=[1])},
        "expected 2 values of an array, found 1",
    ),
    "no values": (
        {"x": array(np.ones(2), "Core.Any", data=3)},
        "expected the values of an array at byte 130",
    ),
    "no type": (
        {"x": {"tag": "struct", "type": 3, "data": []}},
        "expected a type at byte 33",
    ),
    "no name": (
        {"x": {"tag": "struct", "type": datatype("a") | {"name": []}, "data": []}},
        "expected names at byte 74",
    ),
    "no list": (
        {"x": {"tag": "struct", "type": datatype("a"), "data": "b"}},
        "expected a list at byte 95",
    ),
    "names of a named tuple": (
        {"x": a_struct("Core.NamedTuple", 1, parameters=(a_tuple(),))},
        "expected 1 names of a named tuple, found ()",
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_file_is_refused(tmp_path: Path, case: str) -> None:
    values, message = MALFORMED[case]
    (tmp_path / "x").write_bytes(bson.document(values))
    assert refusal(tmp_path / "x") == f"cannot read this BSON file: {message}"


def test_elements_of_mongodb_are_named(tmp_path: Path) -> None:
    data = b"\x07_id\0" + bytes(12)
    (tmp_path / "x").write_bytes(
        struct.pack("<i", len(bson.element("a", 1)) + len(data) + 5)
        + bson.element("a", 1)
        + data
        + b"\0"
    )
    assert refusal(tmp_path / "x") == (
        "cannot read this BSON file: an element of type 7 (ObjectId) at byte 20, which BSON.jl "
        "never writes"
    )


def test_a_key_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    data = bson.document({"a": 1, "bc": 2}).replace(b"bc\0", b"b\xff\0")
    (tmp_path / "x").write_bytes(data)
    refused(tmp_path / "x", "damaged: a key that is not UTF-8 before byte 19")


def test_a_duplicate_key_is_refused(tmp_path: Path) -> None:
    body = bson.element("a", 1) * 2
    (tmp_path / "x").write_bytes(struct.pack("<i", len(body) + 5) + body + b"\0")
    refused(tmp_path / "x", "duplicate key 'a' at byte 18")


def test_a_file_that_was_cut_off_or_has_more_is_refused(tmp_path: Path) -> None:
    data = bson.document(bson.MODEL)
    for length in (40, len(data) // 2, len(data) - 1):
        (tmp_path / "x").write_bytes(data[:length])
        expected = f"cannot read this BSON file: truncated: expected {len(data):,} bytes, found "
        assert refusal(tmp_path / "x") == f"{expected}{length:,}"
    (tmp_path / "x").write_bytes(data + b"\0")
    refused(tmp_path / "x", f"damaged: expected {len(data):,} bytes, found {len(data) + 1:,}$")


def damaged_by_text(case: str) -> bytes:
    data = bson.document({"m": bson.MODEL["model"], "note": "a\nb\n"})
    if case == "blanks":
        return data.replace(b"\0", b" ")
    if case == "line ends":
        return data.replace(b"\r", b"").replace(b"\n", b"\r\n")
    if case == "msgpack":  # its length begins with a byte that msgpack may begin with
        return b"\xc7" + data[1:].replace(b"\0", b" ")
    encoding, errors = ("latin1", "strict") if case == "Latin-1" else ("utf8", "replace")
    return data.decode(encoding, errors).encode()


DISGUISES = {
    "blanks": "not a checkpoint: a BSON file of Julia, damaged by a transfer as text, which "
    "replaced its NUL bytes; get it again, as binary",
    "line ends": "damaged: expected 826 bytes, found 828, after a transfer as text, which "
    "turned LF into CRLF; get it again, as binary",
    "UTF-8": "transfer as text, which replaced bytes that are not UTF-8; get it again, as binary",
    "Latin-1": "transfer as text, which encoded its bytes as UTF-8; get it again, as binary",
    "msgpack": "not a checkpoint: a BSON file of Julia, damaged by a transfer as text, which "
    "replaced its NUL bytes; get it again, as binary",
}


@pytest.mark.parametrize("case", DISGUISES)
def test_a_transfer_as_text_is_named(tmp_path: Path, case: str) -> None:
    (tmp_path / "x.bson").write_bytes(damaged_by_text(case))
    refused(tmp_path / "x.bson", DISGUISES[case])


IMPOSTORS = {
    b"": "not a checkpoint: an empty file",
    b"7JL\x0e\4\0\0\0": "not a checkpoint: Julia's own serialization, which only Julia reads; load "
    "it there with Serialization.deserialize, and save the model with JLD2.jldsave or BSON.bson",
    b"\x1f\x8b\x08\0": "not a checkpoint: a gzip archive; unpack it with gunzip",
    b'{"class_name": "Sequential", "config": []}': "not a checkpoint: the configuration of a "
    "Keras model in JSON, without its weights; save them in Keras: model.save_weights",
}


@pytest.mark.parametrize("data", IMPOSTORS)
def test_impostors_are_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "model.bson").write_bytes(data)
    assert refusal(tmp_path / "model.bson") == IMPOSTORS[data]


def nested(depth: int, wrap: Any) -> Any:
    x: Any = 1
    for _ in range(depth):
        x = wrap(x)
    return x


@pytest.mark.parametrize(
    "wrap",
    [lambda x: [x], lambda x: {"a": x}, lambda x: a_tuple(x), lambda x: a_struct("T", x)],
)
def test_deep_nesting_is_refused(tmp_path: Path, wrap: Any) -> None:
    (tmp_path / "x").write_bytes(bson.document({"x": nested(110, wrap)}))
    refused(tmp_path / "x", "nested more than 100 levels deep at byte")


@pytest.mark.slow
def test_references_that_double_each_other_are_refused(tmp_path: Path) -> None:
    references = [[backref(n), backref(n)] for n in range(2, 42)]
    data = bson.document({"x": backref(1), "_backrefs": [*references, 1]})
    (tmp_path / "x").write_bytes(data)
    refused(tmp_path / "x", "too many values for its size")


@pytest.mark.slow
def test_many_references_to_many_values_are_refused(tmp_path: Path) -> None:
    values = {"x": [backref(1)] * 1000, "_backrefs": [[None] * 1000]}
    (tmp_path / "x").write_bytes(bson.document(values))
    refused(tmp_path / "x", "too many values for its size")


def test_bytes_that_many_arrays_share_are_refused(tmp_path: Path) -> None:
    shared = array(np.ones(1), "Core.Float64", size=[2**17], data=backref(1))
    wrapped = a_struct("LinearAlgebra.Transpose", backref(1))
    for x, target in ((shared, bytes(2**20)), (wrapped, array(np.ones(2**17), "Core.Float64"))):
        (tmp_path / "x").write_bytes(bson.document({"x": [x] * 80, "_backrefs": [target]}))
        refused(tmp_path / "x", "its arrays share bytes: they would take 7.,...,... bytes, and the")


@pytest.mark.slow
def test_more_arrays_than_a_file_may_have_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bson.document({"x": [[b"a"] * 11] * 9000}))
    refused_quickly(tmp_path / "x", "too many values for its size")


def test_a_large_dictionary_is_refused_before_its_keys_are_read(tmp_path: Path) -> None:
    numbers = array(np.arange(2**17), "Core.Int64")
    (tmp_path / "x").write_bytes(bson.document({"x": dictionary("Base.Dict", numbers, numbers)}))
    refused_quickly(tmp_path / "x", "too many values for its size: more than 84,")


def test_a_long_type_is_read_once(tmp_path: Path) -> None:
    structs = [{"tag": "struct", "type": backref(1), "data": []}] * 300
    values = {"x": structs, "_backrefs": [datatype("T", *([1] * 3000))]}
    (tmp_path / "x").write_bytes(bson.document(values))
    with Profile() as work:
        jtree.open(tmp_path / "x")
    assert calls(work) < 300_000


@pytest.mark.slow
def test_a_list_of_too_many_values_is_refused_early(tmp_path: Path) -> None:
    data = b"\x0a\0" * 500_000
    body = b"\x04x\0" + struct.pack("<i", len(data) + 5) + data + b"\0"
    (tmp_path / "x").write_bytes(struct.pack("<i", len(body) + 5) + body + b"\0")
    refused_quickly(tmp_path / "x", "too many values for its size: more than 81,9")


def test_arrays_are_read_on_demand(tmp_path: Path) -> None:
    data = bytearray(bson.document({"x": array(np.ones(2**16), "Core.Float64")}))
    (tmp_path / "x").write_bytes(data)
    checkpoint = jtree.open(tmp_path / "x")
    (tmp_path / "x").write_bytes(data[:-1])
    with pytest.raises(jtree.CheckpointError, match="cannot read x: the file has changed"):
        checkpoint["x"].read()


STATE = {
    "layers": (
        {"weight": np.arange(6.0, dtype=np.float32).reshape(2, 3), "bias": False, "σ": ()},
        {"weight": np.ones((2, 2), np.float32), "bias": np.zeros(2, np.float32), "σ": ()},
    )
}


def test_a_state_is_written_as_julia_writes_it(tmp_path: Path) -> None:
    vector, matrix = (datatype("Core.Array", datatype("Core.Float32"), n) for n in (1, 2))

    def layer_type(bias: Any) -> Any:
        names = a_tuple(*map(symbol, ("weight", "bias", "σ")))
        types = datatype("Core.Tuple", backref(3), bias, datatype("Core.Tuple"))
        return datatype("Core.NamedTuple", names, types)

    types = layer_type(datatype("Core.Bool")), layer_type(backref(4))
    layers = [
        {
            "tag": "struct",
            "type": julia_type,
            "data": [
                floats(layer["weight"]),
                layer["bias"] if layer["bias"] is False else floats(layer["bias"]),
                a_tuple(),
            ],
        }
        for julia_type, layer in zip(types, STATE["layers"], strict=True)
    ]
    outer = datatype(
        "Core.NamedTuple",
        a_tuple(symbol("layers")),
        datatype("Core.Tuple", datatype("Core.Tuple", *types)),
    )
    expected = {
        "model_state": {"tag": "struct", "type": outer, "data": [a_tuple(*layers)]},
        "_backrefs": [matrix, matrix, matrix, vector],
    }
    jtree.save(tmp_path / "model.bson", STATE)
    assert (tmp_path / "model.bson").read_bytes() == bson.document(expected)


def test_every_value_returns_as_it_was(tmp_path: Path) -> None:
    state = {
        "z": [1, 2.5, "π", None, True, 2j, (), {}],
        "a": {"bytes": np.arange(3, dtype=np.uint8), "scalar": np.float32(0.5), "raw": b"ab"},
        "complex": np.array([[1 + 2j, 3]], np.complex64),
        "half": np.ones((2, 3), np.float16),
        "brain": jnp.ones((3, 1), jnp.bfloat16),
        "flags": np.array([[True], [False]]),
        "empty": np.zeros((0, 3)),
        "point": np.array(3.5),
        "numbers": (np.int8(3), np.complex64(1 + 2j), np.int64(5), np.bool_(True), np.int32(-7)),
        "numbered": {3: np.arange(24).reshape(2, 3, 4)},
    }
    jtree.save(tmp_path / "x.bson", state)
    found = jtree.load(tmp_path / "x.bson")["model_state"]
    assert found["z"] == state["z"]
    assert found["a"]["raw"].tolist() == list(b"ab")
    assert found["a"]["scalar"].dtype == np.float32
    assert found["numbers"] == (3, 1 + 2j, 5, True, -7)
    for key in ("complex", "half", "brain", "flags", "empty", "point"):
        assert found[key].dtype == np.asarray(state[key]).dtype
        assert found[key].shape == np.shape(state[key])
        assert (found[key] == np.asarray(state[key])).all()
    assert (found["numbered"]["3"] == state["numbered"][3]).all()


def test_names_keep_the_order_that_flux_compares(tmp_path: Path) -> None:
    for save in (jtree.save, lambda *args: jtree.save_async(*args).result()):
        save(tmp_path / f"{id(save)}.bson", {"weight": np.ones(1), "bias": np.ones(1)})
        tree = jtree.open(tmp_path / f"{id(save)}.bson").tree
        assert list(tree["model_state"]) == ["weight", "bias"]


def test_what_is_opened_is_written_again_with_its_ties(tmp_path: Path) -> None:
    (tmp_path / "a.bson").write_bytes(
        bson.document({"model_state": [backref(1), backref(1)], "_backrefs": [floats(bson.BIAS)]})
    )
    jtree.save(tmp_path / "b.bson", jtree.open(tmp_path / "a.bson"))
    assert jtree.open(tmp_path / "b.bson").ties == (("model_state/0", "model_state/1"),)
    assert (tmp_path / "a.bson").read_bytes() == (tmp_path / "b.bson").read_bytes()


def test_missing_values_are_written_again(tmp_path: Path) -> None:
    layer = {"tag": "tuple", "data": [1, a_struct("Main.Base.Missing"), a_tuple()]}
    (tmp_path / "a.bson").write_bytes(bson.document({"model_state": layer}))
    jtree.save(tmp_path / "b.bson", jtree.open(tmp_path / "a.bson"))
    assert (tmp_path / "a.bson").read_bytes() == (tmp_path / "b.bson").read_bytes()


def test_the_name_of_the_format_selects_it(tmp_path: Path) -> None:
    jtree.save(tmp_path / "model", {"a": np.ones(2)}, format="flux-state")
    assert jtree.open(tmp_path / "model").format == "BSON"


REFUSED: dict[str, tuple[Any, str]] = {
    "a dtype": (
        {"a": jnp.ones(2, jnp.float8_e5m2)},
        "model_state/a: Julia cannot hold float8_e5m2[2]; cast it, or use format='safetensors' or "
        "'orbax'",
    ),
    "a large integer": (
        {"a": 2**63},
        "model_state/a: Julia holds integers of 64 bits, found 9223372036854775808; use "
        "format='orbax'",
    ),
    "a name with a NUL": (
        {"a\0b": 1},
        "model_state: a name with a NUL, which Julia's names cannot have; rename it",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_julia_cannot_hold_is_refused(tmp_path: Path, case: str) -> None:
    state, message = REFUSED[case]
    with pytest.raises(jtree.ModelError, match=f"^{re.escape(message)}$"):
        jtree.save(tmp_path / "x.bson", state)
    assert not [*tmp_path.iterdir()]


def test_two_gibibytes_are_refused(tmp_path: Path) -> None:
    huge = np.broadcast_to(np.float32(0), (2**29,))
    with pytest.raises(jtree.ModelError, match="BSON holds less than 2 GiB, and this takes 2,147,"):
        jtree.save(tmp_path / "x.bson", huge)


def test_another_encoder_of_bson_agrees() -> None:
    assert bson.document({"a": 1}) == b"\x10\0\0\0\x12a\0\1\0\0\0\0\0\0\0\0"
    assert io.BytesIO(bson.document({})).read() == b"\5\0\0\0\0"
