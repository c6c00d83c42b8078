"""The rules of migrations: values, lazy reads, errors, TOML, plans."""

from __future__ import annotations

import json
import pickle
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jtree
from jtree import migrate as m
from jtree._tree.lazy import LazyArray, Source, read_all
from jtree.migrate._rules.lazy_arrays import read_pieces

A = np.arange(24).reshape(2, 3, 4).astype(np.float32)


class RecordingSource(Source):
    """A source that records the names in every read."""

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        self.arrays = arrays
        self.reads: list[list[Hashable]] = []

    def lazy(self) -> dict[str, LazyArray]:
        return {k: LazyArray(self, k, x.shape, x.dtype) for k, x in self.arrays.items()}

    def read(self, shardings: Mapping[Hashable, Any], /) -> dict[Hashable, Any]:
        self.reads.append(list(shardings))
        return {name: self.arrays[str(name)] for name in shardings}


def layers(n: int, **arrays: Any) -> dict[str, Any]:
    return {f"layers/{i}/{k}": x + i for i in range(n) for k, x in arrays.items()}


# rule, source, expected
VALUES: list[tuple[Any, dict[str, Any], dict[str, Any]]] = [
    (m.rename("a/*/w", "b/*/kernel"), {"a/1/w": A}, {"b/1/kernel": A}),
    (m.rename("a/**", "**"), {"a/x/y": A, "a/z": A}, {"x/y": A, "z": A}),
    (m.rename("**/w", "**/v"), {"w": A, "x/y/w": A}, {"v": A, "x/y/v": A}),
    (m.rename("*/*", "{2}/{1}"), {"a/b": A}, {"b/a": A}),
    (m.rename("?[01]", "*-*"), {"a0": A, "b1": A}, {"a-0": A, "b-1": A}),
    (m.rename(r"\.", "/", regex=True), {"a.b.c": A}, {"a/b/c": A}),
    (m.rename(r"^h(\d+)", r"l/\1", regex=True), {"h12/w": A, "x": A}, {"l/12/w": A, "x": A}),
    (m.drop(("x", "y/*")), {"x": A, "y/0": A, "z": A}, {"z": A}),
    (m.tie("e", "h"), {"e": A}, {"e": A, "h": A}),
    (m.tie("e", "h"), {"e": A, "h": A.copy()}, {"e": A, "h": A}),
    (m.transpose("w"), {"w": A[0]}, {"w": A[0].T}),
    (m.transpose("w", (2, 0, 1)), {"w": A}, {"w": A.transpose(2, 0, 1)}),
    (m.take("w", (1, 0), axis=-1), {"w": A}, {"w": A[..., [2, 3, 0, 1]]}),
    (m.flip("w", (0, -1)), {"w": A}, {"w": A[::-1, :, ::-1]}),
    (m.flip("w", 1), {"w": A}, {"w": A[:, ::-1]}),
    (m.reshape("w", (4, -1)), {"w": A}, {"w": A.reshape(4, 6)}),
    (m.reshape("w", ()), {"w": np.ones((1, 1))}, {"w": np.ones(())}),
    (m.reshape("w", (0, 3)), {"w": np.ones((2, 0))}, {"w": np.ones((0, 3))}),
    (m.cast("*", "bf16"), {"w": A, "n": np.arange(2)}, {"w": A.astype(jnp.bfloat16), "n": [0, 1]}),
    (m.cast("*", "f32"), {"z": np.ones(2, complex)}, {"z": np.ones(2, np.complex64)}),
    (m.cast("*", "int8"), {"n": np.array([True])}, {"n": np.ones(1, np.int8)}),
    (m.cast("*", np.int16), {"n": np.array([-5, 3])}, {"n": np.array([-5, 3], np.int16)}),
    (m.scale("w", 0.5), {"w": A}, {"w": A / 2}),
    (m.scale("w", 2), {"w": np.array([1j])}, {"w": np.array([2j])}),
    (m.fill("b", (2,), "int8", 3), {"w": A}, {"w": A, "b": np.full(2, 3, np.int8)}),
    (m.fill("w", (2,), optional=True), {"w": A}, {"w": A}),
    (
        m.stack("layers/#/**", "layers/**", axis=-1),
        layers(11, w=A),
        {"layers/w": np.stack([A + i for i in range(11)], -1)},
    ),
    (
        m.stack("*_#/*", "{2}/{1}", start=1),
        {"a_2/w": A + 2, "a_1/w": A, "b_1/w": A, "a_x/w": A},
        {"w/a": np.stack([A, A + 2]), "w/b": A[None], "a_x/w": A},
    ),
    (
        m.unstack("layers/**", "layers/#/**", axis=1),
        {"layers/w": A},
        {f"layers/{i}/w": A[:, i] for i in range(3)},
    ),
    (
        m.split("*/p", ("*/q", "*/k"), axis=2),
        {"0/p": A},
        {"0/q": A[..., :2], "0/k": A[..., 2:]},
    ),
    (m.split("p", ("q", "k"), axis=1, sizes=(1, 2)), {"p": A}, {"q": A[:, :1], "k": A[:, 1:]}),
    (
        m.concatenate(("*/q", "*/k"), "*/p", axis=1),
        {"0/k": A[:, :2], "0/q": A},
        {"0/p": np.concatenate([A, A[:, :2]], 1)},
    ),
]


@pytest.mark.parametrize(("rule", "source", "expected"), VALUES, ids=lambda x: repr(x)[:40])
def test_each_rule_computes_these_values(
    rule: Any, source: dict[str, Any], expected: dict[str, Any]
) -> None:
    recording = RecordingSource(source)
    arrays = m.apply([rule], recording.lazy())
    assert not recording.reads
    assert set(arrays) == set(expected)
    for path, x in arrays.items():
        array = x.read()
        assert (array.shape, array.dtype) == (x.shape, x.dtype)
        np.testing.assert_array_equal(array, expected[path])
        for most in (1, 20, 10**6):
            parts = [p.reshape(-1) for p in next(read_pieces([x], most))]
            np.testing.assert_array_equal(np.concatenate(parts), np.ravel(expected[path]))


def test_an_array_reads_only_its_sources_in_one_batch() -> None:
    source = RecordingSource(layers(3, w=A, b=A[0]))
    arrays = m.apply([m.stack("layers/#/**", "**"), m.transpose("b", (2, 1, 0))], source.lazy())
    arrays["b"].read()
    assert [sorted(map(str, batch)) for batch in source.reads] == [
        [f"layers/{n}/b" for n in range(3)]
    ]
    read_all((x, None) for x in arrays.values())
    assert [len(batch) for batch in source.reads[1:]] == [6]


def test_arrays_split_from_one_array_read_it_once() -> None:
    source = RecordingSource({"p": A})
    arrays = m.apply([m.split("p", ("q", "k"))], source.lazy())
    read_all((x, None) for x in arrays.values())
    assert source.reads == [["p"]]


def test_results_are_put_on_a_sharding() -> None:
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    arrays = m.apply([m.transpose("w")], {"w": A[0], "n": np.ones(2)})
    assert isinstance(arrays["w"].read(device), jax.Array)
    wide = m.apply([m.flip("n", 0)], {"n": np.ones(2)})["n"].read(device)
    assert wide.dtype == np.float64  # JAX would lose half of it


def test_any_tree_can_be_a_source() -> None:
    tree = {"a": [jnp.ones((2, 3)), {"b": np.zeros(2)}], "rate": 0.1, "f": jax.nn.relu}
    arrays = m.apply([m.transpose("a/0")], tree)
    assert repr(arrays) == ("{'a/0': LazyArray(float32[3, 2]), 'a/1/b': LazyArray(float64[2])}")
    assert (arrays.untouched, list(arrays.others)) == (("a/1/b",), ["f", "rate"])
    abstract = m.apply([m.transpose("w")], {"w": jax.ShapeDtypeStruct((2, 3), np.float32)})
    assert abstract["w"].shape == (3, 2)
    with pytest.raises(jtree.ModelError) as error:
        abstract["w"].read()
    assert str(error.value) == (
        "w: float32[2, 3] is abstract and has no values to read; it can only be planned with, as "
        "by jtree.migrate.plan"
    )


SOURCES: list[tuple[Any, str]] = [
    (
        3,
        "expected a mapping from paths to arrays, a model, a state or a checkpoint, found no "
        "arrays in 3",
    ),
    ({"1": A, 1: A}, "expected a mapping with distinct paths as keys, found '1' twice"),
]


@pytest.mark.parametrize(("source", "message"), SOURCES)
def test_a_source_without_arrays_or_distinct_paths_is_refused(source: Any, message: str) -> None:
    with pytest.raises(jtree.ArgumentTypeError) as error:
        m.apply([], source)
    assert str(error.value) == message


def test_arrays_read_from_memory_are_read_only() -> None:
    source = {"w": A.copy()}
    x = m.apply([], source)["w"].read()
    with pytest.raises(ValueError, match="read-only"):
        x[0] = 1


def test_loadmodel_takes_migrated_arrays() -> None:
    model = {"fc": {"kernel": jnp.zeros((3, 2)), "bias": jnp.zeros(2)}}
    source = {"fc.weight": np.ones((2, 3), np.float32), "fc.bias": np.ones(2, np.float32)}
    rules = [m.rename("fc.weight", "fc/kernel"), m.rename("fc.bias", "fc/bias")]
    arrays = m.apply([*rules, m.transpose("fc/kernel")], source)
    assert jtree.loadmodel(model, arrays)["fc"]["kernel"].sum() == 6


def test_ties_of_the_source_are_kept_and_tied_arrays_must_be_equal() -> None:
    x = np.ones(2)
    assert m.apply([m.rename("b", "c")], {"a": x, "b": x}).ties == (("a", "c"),)
    arrays = m.apply([m.tie("e", "h")], {"e": A, "h": A + 1})
    with pytest.raises(jtree.RuleError) as error:
        arrays["e"].read()
    assert str(error.value) == (
        "tie('e', 'h'): e and h: expected equal values, found different ones; drop the wrong "
        "one first, as by drop('h')"
    )


def test_integers_that_a_dtype_cannot_represent_are_refused_when_read() -> None:
    arrays = m.apply([m.cast("n", "int8")], {"n": np.array([300])})
    with pytest.raises(jtree.RuleError) as error:
        arrays["n"].read()
    assert str(error.value) == (
        "cast('n', 'int8'): n: expected values that int8 can represent, found 300; use a larger "
        "dtype"
    )
    with pytest.raises(jtree.RuleError):
        m.apply([m.cast("n", "uint8")], {"n": np.array([-1], np.int8)})["n"].read()


def test_arrays_that_a_rule_does_not_fit_are_named_together_with_the_remedy_once() -> None:
    source = {f"conv{n}/w": np.zeros((3, 3, 2)) for n in range(12)} | {"fc/w": np.zeros((2, 3))}
    with pytest.raises(jtree.RuleError) as error:
        m.apply([m.transpose("**/w")], source)
    first, remedy, *facts, more = str(error.value).splitlines()
    assert first == "transpose('**/w'): 12 of 13 arrays do not fit"
    assert remedy == (
        "  12 paths: select only arrays with 2 axes, or pass the order of the axes, such as "
        "axes=(2, 3, 1, 0)"
    )
    assert facts == [f"    conv{n}/w: expected 2 axes, found float64[3, 3, 2]" for n in range(10)]
    assert more == "    ... and 2 more"


def test_each_remedy_is_said_once() -> None:
    source = {"a": np.zeros(2), "b": np.zeros((2, 3)), "c": jax.random.key(0), "d": np.zeros(3)}
    with pytest.raises(jtree.RuleError) as error:
        m.apply([m.flip("*", 1)], source)
    assert str(error.value) == (
        "flip('*', 1): 3 of 4 arrays do not fit\n"
        "  2 paths: its axes are 0 only\n"
        "    a: expected an axis 1, found float64[2]\n"
        "    d: expected an axis 1, found float64[3]\n"
        "  1 path: PRNG keys can only be renamed, dropped or tied\n"
        "    c: expected numeric values, found key<fry>[]"
    )


def test_many_paths_of_two_results_are_counted() -> None:
    source = {f"{side}/{n}": A for side in "ab" for n in range(4)}
    with pytest.raises(jtree.RuleError) as error:
        m.apply([m.rename("*/*", "{2}")], source)
    assert str(error.value) == (
        "rename('*/*', '{2}'): two results at 0 and 3 other paths: one from a/0, and one from "
        "b/0; rename or drop one of them first"
    )


DOTTED = {"encoder.0.weight": A, "encoder.0.bias": A, "head.weight": A}
NESTED = {"net/encoder/0/w": A, "net/encoder/0/b": A, "net/head/w": A}
WRONG_GLOBS = [
    ("encoder/**", DOTTED, "encoder.*"),
    ("encoder", DOTTED, "encoder.*"),
    ("weight", DOTTED, "*.weight"),
    ("**/weight", DOTTED, "*.weight"),
    ("head/weight", DOTTED, "head.weight"),
    ("encoder/**", NESTED, "**/encoder/**"),
    ("net.encoder.*", NESTED, "net/encoder/**"),
    ("net/encoder", NESTED, "net/encoder/**"),
    ("net/encoder/", NESTED, "net/encoder/**"),
    ("head/w", NESTED, "**/head/w"),
]


@pytest.mark.parametrize(("glob", "source", "near"), WRONG_GLOBS)
def test_a_glob_that_matches_is_offered_for_one_that_does_not(
    glob: str, source: Any, near: str
) -> None:
    with pytest.raises(jtree.RuleError) as error:
        m.apply([m.drop(glob)], source)
    assert str(error.value) == (
        f"drop({glob!r}): {glob!r} matches nothing; pass optional=True if that is expected; did "
        f"you mean {near!r}?"
    )
    assert len(m.apply([m.drop(near)], source)) < len(source)
    with pytest.raises(jtree.PathError) as wrong:
        jtree.destructure(source, where=glob)
    assert str(wrong.value) == f"{glob!r} matches no parameter; did you mean {near!r}?"
    jtree.destructure(source, where=near)


def test_a_glob_with_other_wildcards_is_not_offered_where_they_are_filled_in() -> None:
    with pytest.raises(jtree.RuleError, match=r"the paths are|did you mean net/"):
        m.apply([m.rename("encoder/**", "**")], NESTED)
    with pytest.raises(jtree.RuleError, match=r"did you mean 'encoder\.\*'\?$"):
        m.apply([m.rename("encoder/**", "**")], DOTTED)
    with pytest.raises(jtree.RuleError, match="the paths are"):
        m.apply([m.rename("(layer)/x", "y", regex=True)], NESTED)


W = {"w": A, "b/x": A[0]}
ERRORS: list[tuple[Any, Any, str]] = [
    (
        m.rename("c/*", "d/*"),
        W,
        "rename('c/*', 'd/*'): 'c/*' matches nothing; pass optional=True if that is expected; the "
        "paths are w, b/x",
    ),
    (
        m.drop("b/y"),
        W,
        "drop('b/y'): 'b/y' matches nothing; pass optional=True if that is expected; did you "
        "mean b/x?",
    ),
    (
        m.rename("b/x", "w"),
        W,
        "rename('b/x', 'w'): two results at w: one from w, and one from b/x; rename or drop one "
        "of them first",
    ),
    (
        m.rename("[bw]*", "v", optional=True),
        {"b1": A, "w1": A},
        "rename('[bw]*', 'v', optional=True): two results at v: one from b1, and one from w1; "
        "rename or drop one of them first",
    ),
    (
        m.fill("w", (2,)),
        W,
        "fill('w', (2,)): two results at w: one from w, and one that is filled in; rename or "
        "drop one of them first",
    ),
    (
        m.transpose("w"),
        W,
        "transpose('w'): w: expected 2 axes, found float32[2, 3, 4]; select only arrays with 2 "
        "axes, or pass the order of the axes, such as axes=(2, 3, 1, 0)",
    ),
    (
        m.transpose("b/x", axes=(0, 2, 1)),
        W,
        "transpose('b/x', axes=(0, 2, 1)): b/x: expected 3 axes, found float32[3, 4]; select only "
        "arrays with 3 axes",
    ),
    (
        m.take("w", (1, 0), axis=1),
        W,
        "take('w', (1, 0), axis=1): w: expected an axis 1 whose length is a multiple of 2, "
        "found float32[2, 3, 4]; check order= and axis=",
    ),
    (
        m.flip("w", 3),
        W,
        "flip('w', 3): w: expected an axis 3, found float32[2, 3, 4]; its axes are 0 to 2",
    ),
    (
        m.reshape("w", (5, -1)),
        W,
        "reshape('w', (5, -1)): w: expected a multiple of 5 elements, found float32[2, 3, 4]; "
        "check shape=",
    ),
    (
        m.cast("w", "int32"),
        W,
        "cast('w', 'int32'): w: expected integers to convert to int32, found float32[2, 3, 4]; "
        "values are never rounded to integers",
    ),
    (
        m.scale("n", 2.0),
        {"n": np.arange(2)},
        "scale('n', 2.0): n: expected floating or complex values, found int64[2]; select only "
        "such arrays",
    ),
    (
        m.stack("#/w", "w"),
        {"0/w": A, "1/w": A, "10/w": A},
        "stack('#/w', 'w'): w: expected consecutive indices from 0, found 0, 1, 10; missing 2, 3, "
        "4, 5, ... (8 in all); pass start= to begin at another one",
    ),
    (
        m.stack("#/w", "w"),
        {"0/w": A, "00/w": A},
        "stack('#/w', 'w'): 0/w and 00/w both have index 0 in w; rename or drop one of them first",
    ),
    (
        m.stack("#/w", "w"),
        {"0/w": A, "1/w": A[0]},
        "stack('#/w', 'w'): 1/w: expected float32[2, 3, 4], as at 0/w, found float32[3, 4]; "
        "reshape or cast it first, or select fewer arrays",
    ),
    (
        m.unstack("w", "w#", axis=5),
        W,
        "unstack('w', 'w#', axis=5): w: expected an axis 5, found float32[2, 3, 4]; its axes are "
        "0 to 2",
    ),
    (
        m.split("w", ("a", "b"), axis=1),
        W,
        "split('w', ('a', 'b'), axis=1): w: expected an axis 1 whose length is a multiple of 2, "
        "found float32[2, 3, 4]; pass the length of each new array with sizes=",
    ),
    (
        m.split("w", ("a", "a")),
        W,
        "split('w', ('a', 'a')): two results at a; give each a path of its own",
    ),
    (
        m.concatenate(("*/q", "*/k"), "*/p"),
        {"0/q": A, "0/k": A, "1/q": A},
        "concatenate(('*/q', '*/k'), '*/p'): '1/k' matches nothing; pass optional=True if "
        "that is expected; did you mean 1/q or 0/k?",
    ),
    (
        m.concatenate(("q", "k"), "p"),
        {"q": A, "k": A[:, :1]},
        "concatenate(('q', 'k'), 'p'): k: expected float32[2, 3, 4] except along axis 0, as at q, "
        "found float32[2, 1, 4]; reshape or cast it first, or select fewer arrays",
    ),
    (
        m.tie("w", "b/x"),
        W,
        "tie('w', 'b/x'): b/x: expected float32[2, 3, 4], as at w, found float32[3, 4]; drop the "
        "wrong one first, as by drop('b/x')",
    ),
    (
        m.flip("k", 0),
        {"k": jax.random.split(jax.random.key(0))},
        "flip('k', 0): k: expected numeric values, found key<fry>[2]; PRNG keys can only be "
        "renamed, dropped or tied",
    ),
]


@pytest.mark.parametrize(("rule", "source", "message"), ERRORS, ids=lambda x: repr(x)[:30])
def test_rules_that_do_not_fit_are_refused_before_anything_is_read(
    rule: Any, source: Any, message: str
) -> None:
    recording = RecordingSource(source)
    with pytest.raises(jtree.RuleError) as error:
        m.apply([rule], recording.lazy())
    assert str(error.value) == message
    assert not recording.reads


def test_optional_rules_may_match_nothing() -> None:
    rules = [
        m.rename("x", "y", optional=True),
        m.rename("x", "y", regex=True, optional=True),
        m.drop("x", optional=True),
        m.tie("x", "y", optional=True),
        m.transpose("x", optional=True),
        m.stack("x/#", "x", optional=True),
        m.unstack("x", "x/#", optional=True),
        m.split("x", ("y", "z"), optional=True),
        m.concatenate(("x", "y"), "z", optional=True),
    ]
    assert m.apply(rules, {"w": A}).untouched == ("w",)


MISUSE: list[tuple[Any, str]] = [
    (
        lambda: m.rename("a/*", "b/{2}"),
        "rename('a/*', 'b/{2}'): 'a/*' has 1 wildcard, which cannot fill 'b/{2}'; each '*' takes "
        "the next one, and {1} takes the first",
    ),
    (
        lambda: m.rename("a/*", "*/{1}"),
        "rename('a/*', '*/{1}'): use either '*' or indices such as '{1}' in '*/{1}', not both",
    ),
    (
        lambda: m.rename("(", "b", regex=True),
        "rename('(', 'b', regex=True): not a valid regular expression: missing ), "
        "unterminated subpattern at position 0",
    ),
    (lambda: m.rename(3, "b"), "rename: pattern: expected a str, found 3"),
    (lambda: m.drop([]), "drop: where: expected a glob or a non-empty sequence of globs, found []"),
    (lambda: m.drop("[a"), "'[a' is not a glob: '[' without ']'"),
    (
        lambda: m.transpose("w", (1, 1)),
        "transpose('w', axes=(1, 1)): expected axes= to contain each axis from 0 to 1 once",
    ),
    (
        lambda: m.take("w", ()),
        "take('w', ()): expected order= to contain each index from 0 to n - 1 once",
    ),
    (lambda: m.flip("w", "x"), "flip: axes: expected integers, found 'x'"),
    (lambda: m.flip("w", True), "flip: axes: expected an integer, found True"),
    (
        lambda: m.reshape("w", (-1, -1)),
        "reshape('w', (-1, -1)): expected lengths of 0 or more, of which at most one may be -1",
    ),
    (
        lambda: m.cast("w", "float31"),
        "expected a dtype such as 'bf16', 'float32' or 'int8', found 'float31'",
    ),
    (lambda: m.cast("w", "O"), "expected a numeric dtype, found 'O'"),
    (lambda: m.scale("w", "2"), "scale: by: expected a number, found '2'"),
    (lambda: m.fill("w", (-1,)), "fill('w', (-1,)): expected lengths of 0 or more"),
    (
        lambda: m.fill("w", (), "int8", 300),
        "fill('w', (), dtype='int8', value=300): int8 cannot represent 300",
    ),
    (
        lambda: m.stack("layers/*/w", "w"),
        "stack('layers/*/w', 'w'): pattern: expected one '#' for the index, as in "
        "'layers/#/**', found 'layers/*/w'",
    ),
    (
        lambda: m.split("w", ("a", "b"), sizes=(1,)),
        "split('w', ('a', 'b'), sizes=(1,)): expected a size of 0 or more for each of the 2 paths "
        "in into=",
    ),
    (
        lambda: m.concatenate(("a/*", "b"), "c"),
        "concatenate(('a/*', 'b'), 'c'): expected the same number of wildcards in each pattern",
    ),
    (
        lambda: m.apply(["x"], {"w": A}),  # type: ignore[list-item]
        "expected rules such as jtree.migrate.rename('a', 'b'), found 'x'",
    ),
]


@pytest.mark.parametrize(("make", "message"), MISUSE, ids=range(len(MISUSE)))
def test_invalid_arguments_of_rules_are_refused(make: Any, message: str) -> None:
    with pytest.raises(jtree.ArgumentError) as error:
        make()
    assert str(error.value) == message


EVERY = [case[0] for case in VALUES] + [case[0] for case in ERRORS]
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


@given(st.lists(st.sampled_from(EVERY) | st.builds(m.fill, TEXTS, st.just((1,)))))
def test_rules_survive_toml(tmp_path_factory: Any, rules: list[Any]) -> None:
    file: Path = tmp_path_factory.mktemp("toml") / "rules.toml"
    text = m.rules_to_toml(rules, file)
    for toml in (text, file, str(file)):
        again = m.rules_from_toml(toml)
        assert again == tuple(rules)
        assert list(map(repr, again)) == list(map(repr, rules))
    assert m.rules_to_toml(again) == text


TOML: list[tuple[str, str]] = [
    ("a = 1", "expected only [[rules]] tables, found a"),
    ("", "expected only [[rules]] tables, found none"),
    ("x", "not valid TOML: Expected '=' after a key in a key/value pair (at end of document)"),
    (
        '[[rules]]\nrule = "renam"',
        "rule 1: expected rule = and the name of a rule, found 'renam'; did you mean rename?",
    ),
    ('[[rules]]\nrule = "drop"', "rule 1: drop requires where"),
    (
        '[[rules]]\nrule = "drop"\nwher = "x"',
        "rule 1: drop has no argument 'wher'; did you mean where?",
    ),
    (
        '[[rules]]\nrule = "drop"\nwhere = "x"\n[[rules]]\nrule = "flip"\nwhere = "x"\naxes = "y"',
        "rule 2: flip: axes: expected integers, found 'y'",
    ),
]


@pytest.mark.parametrize(("text", "message"), TOML)
def test_invalid_toml_is_refused_with_its_location(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "rules.toml"
    file.write_text(text)
    with pytest.raises(jtree.ArgumentError) as error:
        m.rules_from_toml(file)
    assert str(error.value) == f"{file}: {message}"
    if "=" in text:
        with pytest.raises(jtree.ArgumentError) as error:
            m.rules_from_toml(text)
        assert str(error.value) == f"the TOML text: {message}"


HOSTILE_TOML = {
    "x = " + "[" * 100_000: "not valid TOML",
    "[[rules]]\nrule" + ".a" * 5000 + " = 1": "found a dict; the rules are",
    '[[rules]]\nrule = "cast"\nwhere = "*"\ndtype = ",f2"': "rule 1: expected a dtype such as",
    '[[rules]]\nrule = "drop"\nwhere' + ".a" * 5000 + " = 1": "rule 1: ",
}


@pytest.mark.parametrize("message", HOSTILE_TOML.values())
def test_deeply_nested_toml_is_refused(tmp_path: Path, message: str) -> None:
    (text,) = (text for text, x in HOSTILE_TOML.items() if x == message)
    (tmp_path / "x").write_text(text)
    with pytest.raises(jtree.ArgumentError, match=message):
        m.rules_from_toml(tmp_path / "x")


def test_a_toml_file_that_cannot_be_read_or_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(jtree.CheckpointError) as error:
        m.rules_from_toml(tmp_path / "none.toml")
    reason = f"[Errno 2] No such file or directory: '{tmp_path}/none.toml'"
    assert str(error.value) == f"{tmp_path}/none.toml: cannot read the rules: {reason}"
    with pytest.raises(jtree.CheckpointError) as error:
        m.rules_to_toml([], tmp_path)
    reason = f"[Errno 21] Is a directory: '{tmp_path}'"
    assert str(error.value) == f"{tmp_path}: cannot write the rules: {reason}"
    (tmp_path / "latin.toml").write_bytes(b"\xff")
    with pytest.raises(jtree.ArgumentError, match="not valid TOML: 'utf-8' codec"):
        m.rules_from_toml(tmp_path / "latin.toml")


@pytest.mark.parametrize("rule", [case[0] for case in VALUES], ids=lambda x: repr(x)[:40])
def test_rules_pickle(rule: Any) -> None:
    assert pickle.loads(pickle.dumps(rule)) == rule


def test_a_plan_shows_the_sources_of_each_array_without_reading() -> None:
    source = RecordingSource({"h.0.w": A, "h.1.w": A, "b": A[0], "old": A, "e": np.ones(2)})
    rules = [
        m.rename(r"\.", "/", regex=True),
        m.stack("h/#/w", "w"),
        m.drop("old"),
        m.fill("f", ()),
    ]
    plan = m.plan([*rules, m.transpose("b")], source.lazy())
    assert not source.reads
    assert str(plan) == (
        "source                                           destination\n"
        "h.0.w, h.1.w  float32[2, 3, 4] and 1 like it  →  w            float32[2, 2, 3, 4]  1, 2\n"
        "b             float32[3, 4]                   →  b            float32[4, 3]        5\n"
        "e             float64[2]                      →  e            float64[2]           "
        "untouched\n"
        "(filled)                                      →  f            float32[]            4\n"
        "old           float32[2, 3, 4]                →  (dropped)                         3\n"
        "\n"
        "1  rename('\\\\.', '/', regex=True)  2 edits\n"
        "2  stack('h/#/w', 'w')             1 edit\n"
        "3  drop('old')                     1 edit\n"
        "4  fill('f', ())                   1 edit\n"
        "5  transpose('b')                  1 edit\n"
        "4 arrays, 260 bytes; 1 dropped; 1 untouched"
    )
    assert json.loads(json.dumps(plan.to_json()))["arrays"][0] == {
        "path": "w",
        "array": "float32[2, 2, 3, 4]",
        "sources": {"h.0.w": "float32[2, 3, 4]", "h.1.w": "float32[2, 3, 4]"},
        "rules": [1, 2],
    }
    assert (plan.untouched, plan.dropped) == (("e",), {"old": 3})


SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)


@st.composite
def inverses(draw: Any) -> tuple[tuple[int, ...], list[Any]]:
    """Draw a shape, and rules followed by their inverses."""
    shape = draw(SHAPES)
    axes = draw(st.permutations(range(len(shape))))
    axis = draw(st.integers(0, len(shape) - 1))
    order = draw(st.permutations(range(shape[axis])))
    pairs = [
        ([m.transpose("x", axes)], [m.transpose("x", np.argsort(axes).tolist())]),
        ([m.flip("x", axis)], [m.flip("x", axis - len(shape))]),
        ([m.take("x", order, axis)], [m.take("x", np.argsort(order).tolist(), axis)]),
        ([m.reshape("x", (-1,))], [m.reshape("x", shape)]),
        ([m.unstack("x", "x/#", axis, 7)], [m.stack("x/#", "x", axis, 7)]),
        (
            [m.split("x", [f"x{n}" for n in range(shape[axis])], axis)],
            [m.concatenate([f"x{n}" for n in range(shape[axis])], "x", axis)],
        ),
        ([m.scale("x", 2.0)], [m.scale("x", 0.5)]),
        ([m.cast("x", "f64")], [m.cast("x", "f32")]),
        ([m.rename("x", "y/z")], [m.rename("y/*", "x")]),
    ]
    outer = draw(st.lists(st.sampled_from(pairs[:4]), max_size=3))
    forth, back = draw(st.sampled_from(pairs))
    undo = [rule for _, rules in reversed(_fitting(outer, shape)) for rule in rules]
    return shape, [
        *[r for rules, _ in _fitting(outer, shape) for r in rules],
        *undo,
        *forth,
        *back,
    ]


def _fitting(pairs: list[Any], shape: tuple[int, ...]) -> list[Any]:
    """Keep those after which the shape is what it was, so that the next ones fit."""
    x = {"x": jax.ShapeDtypeStruct(shape, np.float32)}
    return [pair for pair in pairs if m.apply(pair[0], x)["x"].shape == shape]


@given(inverses(), st.integers(1, 40))
def test_inverse_rules_change_nothing(drawn: tuple[tuple[int, ...], list[Any]], most: int) -> None:
    shape, rules = drawn
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    again = m.apply(rules, {"x": x})["x"]
    np.testing.assert_array_equal(again.read(), x)
    parts = [part.reshape(-1) for part in next(read_pieces([again], most))]
    np.testing.assert_array_equal(np.concatenate(parts), x.reshape(-1))
