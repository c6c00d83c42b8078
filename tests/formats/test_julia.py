"""Values of Julia, and the nested state that they become."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jtree
from jtree.checkpoint._checkpoint import Checkpoint
from jtree.checkpoint._formats.file import Entries, File
from jtree.checkpoint._formats.julia import JuliaDict, JuliaFunction, JuliaStruct, julia_tree
from jtree.checkpoint._formats.julia_fields import FIELDS
from jtree.checkpoint._show import as_json

RELU = JuliaFunction("NNlib.relu")


@pytest.fixture(name="lazy")
def _lazy(tmp_path: Path) -> Any:
    """Return a function that makes a lazy array of an array."""
    (tmp_path / "x").write_bytes(bytes(1000))
    source = Entries(File(tmp_path / "x"))
    return lambda x: source.add_named("x", np.shape(x), np.asarray(x).dtype, lambda: np.asarray(x))


def dense(lazy: Any, bias: Any = None) -> JuliaStruct:
    weight = lazy(np.arange(6.0).reshape(2, 3))
    return JuliaStruct("Flux.Dense", (weight, lazy(np.ones(2)) if bias is None else bias, RELU))


def test_structs_are_dicts_by_the_names_of_their_fields(lazy: Any) -> None:
    layers = dense(lazy), JuliaFunction("NNlib.softmax"), dense(lazy, bias=False)
    tree, types, ties = julia_tree({"model": JuliaStruct("Flux.Chain", (layers,))})
    first, softmax, last = tree["model"]["layers"]
    assert list(first) == ["weight", "bias", "σ"]
    assert softmax == first["σ"] == ()
    assert last["bias"] is False
    assert ties == ()
    assert types == {
        "model": "Flux.Chain",
        "model/layers/0": "Flux.Dense",
        "model/layers/0/σ": "NNlib.relu",
        "model/layers/1": "NNlib.softmax",
        "model/layers/2": "Flux.Dense",
        "model/layers/2/σ": "NNlib.relu",
    }


def test_unknown_structs_are_tuples_unless_their_fields_are_given(lazy: Any) -> None:
    tower = JuliaStruct("TwoTower", (dense(lazy), dense(lazy)))
    assert isinstance(julia_tree(tower).tree, tuple)
    tree = julia_tree(tower, {"TwoTower": ("query", "key")}).tree
    assert list(tree) == ["query", "key"]
    message = "fields: TwoTower has 2 fields in this file, found 1 names: query"
    with pytest.raises(ValueError, match=f"^{message}$"):
        julia_tree(tower, {"TwoTower": ("query",)})


def test_the_file_may_name_the_fields(lazy: Any) -> None:
    named = JuliaStruct("TwoTower", {"query": dense(lazy), "key": None})
    assert julia_tree(named).tree["key"] is None


@pytest.mark.parametrize(
    ("type", "values", "names"),
    [
        ("Flux.Dense", (RELU, 1, 2), "σ weight bias"),
        ("Flux.Dense", (1, 2, RELU), "weight bias σ"),
        ("Flux.BatchNorm", (RELU, *range(7)), "λ β γ μ σ² ϵ momentum active"),
        ("Flux.Conv", (RELU, *range(5)), "σ weight bias stride pad dilation"),
        ("Flux.LSTMCell", range(5), "Wi Wh b h c"),
        ("Flux.Optimise.ADAM", range(3), "eta beta state"),
        ("Flux.ADADelta", range(2), "rho state"),
    ],
)
def test_each_version_of_a_struct_has_names(type: str, values: Any, names: str) -> None:
    assert list(julia_tree(JuliaStruct(type, tuple(values))).tree) == names.split()


def test_versions_of_a_struct_that_have_as_many_fields_differ_in_the_weight() -> None:
    for versions in FIELDS.values():
        longest = [len(names) for names in versions]
        assert len({*longest}) == len(longest) or all("weight" in names for names in versions)


def test_wrappers_of_tracker_and_zygote_are_their_values(lazy: Any) -> None:
    value, gradient = lazy(np.ones(2)), lazy(np.zeros(2))
    tracked = JuliaStruct("Tracker.TrackedArray", (None, value, gradient))
    old = JuliaStruct("Flux.Tracker.TrackedArray", (np.uint32(0), None, value, gradient))
    undefined = JuliaStruct("Tracker.TrackedArray", (None, value))
    for x in (tracked, old, undefined):
        assert julia_tree({"w": x}).tree == {"w": value}
        assert julia_tree({"w": x}).types == {"w": x.type}
    buffer = JuliaStruct("Zygote.Buffer", ([value, gradient], False))
    parameters = JuliaStruct("Zygote.Params", (buffer, None))
    assert julia_tree(parameters).tree == [value, gradient]
    assert julia_tree(JuliaStruct("Tracker.TrackedReal", (2.5, None))).tree == 2.5
    assert julia_tree(JuliaStruct("Flux.Zeros", ())).tree is False


def test_dictionaries_have_text_as_keys_or_are_pairs() -> None:
    assert julia_tree(JuliaDict((("a", 1), (2, 3)))).tree == {"a": 1, "2": 3}
    assert julia_tree(JuliaDict((("2", 1), (2, 3)))).tree == [("2", 1), (2, 3)]
    assert julia_tree(JuliaDict((((1, 2), 3),))).tree == [((1, 2), 3)]


def test_one_array_at_several_paths_is_tied(lazy: Any) -> None:
    weight, empty = lazy(np.ones(2)), lazy(np.ones(0))
    wrapped = JuliaStruct("LinearAlgebra.Transpose", (weight,))
    tree = julia_tree({"a": weight, "b": [weight], "c": empty, "d": empty, "e": (wrapped, wrapped)})
    assert tree.ties == (("a", "b/0"), ("e/0", "e/1"))


def unwrapped(name: str, *values: Any, parameters: tuple[Any, ...] = ()) -> Any:
    return julia_tree(JuliaStruct(name, values, parameters)).tree.read()


def struct(name: str, *values: Any) -> JuliaStruct:
    return JuliaStruct(name, values)


def test_wrapped_arrays_are_what_they_stand_for(lazy: Any) -> None:
    x = np.arange(6.0).reshape(2, 3)
    z = x + 1j
    matrix, vector = lazy(x), lazy(np.arange(3.0))
    assert (unwrapped("LinearAlgebra.Transpose", matrix) == x.T).all()
    assert (unwrapped("LinearAlgebra.Adjoint", lazy(z)) == z.conj().T).all()
    assert unwrapped("LinearAlgebra.Adjoint", vector).shape == (1, 3)
    reshaped = unwrapped("Base.ReshapedArray", matrix, (3, 2), ())
    assert (reshaped == x.reshape(3, 2, order="F")).all()
    permuted = unwrapped("Base.PermutedDimsArray", matrix, parameters=(None, 2, (2, 1), (2, 1)))
    assert (permuted == x.T).all()
    every = struct("Base.Slice", struct("Base.OneTo", 3))
    for index, expected in {
        1: x[0],
        struct("Base.UnitRange", 2, 2): x[1:],
        struct("Base.UnitRange", 1, 0): x[:0],
        struct("Base.StepRange", 2, -1, 1): x[::-1],
        struct("Base.OneTo", 1): x[:1],
    }.items():
        part = unwrapped("Base.SubArray", matrix, (index, every), 0, 0)
        assert part.shape == expected.shape
        assert (part == expected).all()
    words = lazy(np.array([0b101], np.uint64))
    assert unwrapped("Base.BitArray", words, 3, (3,)).tolist() == [True, False, True]
    hot = unwrapped("OneHotArrays.OneHotArray", lazy(np.array([2, 1], np.uint32)), 3)
    assert hot.tolist() == [[False, True], [True, False], [False, False]]


def test_wrappers_that_do_not_fit_their_arrays_are_refused(lazy: Any) -> None:
    matrix = lazy(np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"an array of shape \[2, 3\] reshaped to \[7\]"):
        unwrapped("Base.ReshapedArray", matrix, (7,), ())
    with pytest.raises(ValueError, match="an index of 4 into an axis of 3"):
        unwrapped("Base.SubArray", matrix, (1, 4), 0, 0)
    with pytest.raises(ValueError, match="expected 65 bits, found 64"):
        unwrapped("Base.BitArray", lazy(np.ones(1, np.uint64)), 65, (65,))
    with pytest.raises(jtree.CheckpointError, match="a one-hot index of 4 in a vector of 3"):
        unwrapped("OneHotArrays.OneHotArray", lazy(np.array([4])), 3)
    hot = JuliaStruct("OneHotArrays.OneHotArray", (lazy(np.array([4])), 2**40))
    assert list(julia_tree(hot).tree) == ["indices", "nlabels"]  # more than the file could hold


def test_a_struct_that_contains_itself_is_refused() -> None:
    cyclic: list[Any] = []
    cyclic.append(cyclic)
    message = "a/0: contains itself; save a Flux.state of the model"
    with pytest.raises(ValueError, match=f"^{message}$"):
        julia_tree({"a": cyclic})


def test_values_that_are_shared_many_times_are_too_many() -> None:
    values: Any = ()
    for _ in range(40):
        values = (values, values)
    with pytest.raises(ValueError, match="too many values for its size"):
        julia_tree(values)


def test_types_are_printed_beside_branches_and_functions(lazy: Any) -> None:
    chain = {"model": JuliaStruct("Flux.Chain", ((dense(lazy), JuliaFunction("NNlib.softmax")),))}
    tree, types, ties = julia_tree(chain)
    checkpoint = Checkpoint("x", "BSON", tree, {}, ties, Entries(lazy(1).source.file), types)
    lines = [" ".join(line.split()) for line in str(checkpoint).splitlines()]
    assert [line for line in lines if "Flux" in line or "NNlib" in line] == [
        "model Flux.Chain",
        "0 Flux.Dense",
        "σ NNlib.relu",
        "1 NNlib.softmax",
    ]
    assert as_json(checkpoint)["types"] == types
    assert as_json(checkpoint, "model/layers/0/weight")["types"] == {
        "model": "Flux.Chain",
        "model/layers/0": "Flux.Dense",
    }


def test_other_formats_have_no_types(tmp_path: Path) -> None:
    jtree.save(tmp_path / "x.npz", {"a": np.ones(1)})
    assert jtree.open(tmp_path / "x.npz").types == {}
