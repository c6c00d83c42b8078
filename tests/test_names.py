"""Names: unique classes, functions that are not easily confused, and no banned words."""

from __future__ import annotations

import ast
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pytest

from .source import ROOT, modules, syntax

# Words that no name contains, with the word to use instead.
BANNED_WORDS = {
    "fillable": "defaults",
    "foretold": "predicted",
    "neutral": "defaults",
    "ours": "expected",
    "placement": "sharding",
    "scratch": "staging",
    "spot": "path",
    "spots": "paths",
    "theirs": "found",
    "told": "hints",
    "workplace": "staging",
}
# Names that do not say what they stand for: name the thing itself, such as `array` or `match`.
BANNED_LOCALS = {"chosen", "done", "found", "held", "made", "turn"}
PUBLIC_MODULES = [x for x in modules() if "._" not in f".{x}" or x == "__init__"]

BANNED_FUNCTIONS = {"behind", "looks_like", "of", "once", "together", "turn", "wide"}


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    yield from (x for x in ast.walk(tree) if isinstance(x, ast.FunctionDef | ast.AsyncFunctionDef))


def variables(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield the parameters, fields and other variables of a piece of code, with their lines."""
    for x in ast.walk(tree):
        if isinstance(x, ast.Name) and isinstance(x.ctx, ast.Store):
            yield x.id, x.lineno
        elif isinstance(x, ast.arg):
            yield x.arg, x.lineno


def definitions(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for x in ast.walk(tree):
        if isinstance(x, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield x.name, x.lineno


def words(name: str) -> set[str]:
    """Return the words of a name in either case: `ShardingFunction`, `load_into`."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", name)}


def offences(check: Callable[[ast.Module], Sequence[Any]], names: Iterable[str]) -> dict[str, Any]:
    """Return what a check reports, by module."""
    reports = {name: check(syntax(name)) for name in names}
    return {name: report for name, report in reports.items() if report}


def test_no_name_has_a_banned_word() -> None:
    def check(tree: ast.Module) -> list[tuple[str, int]]:
        names = [*variables(tree), *definitions(tree)]
        return [(x, line) for x, line in names if words(x) & BANNED_WORDS.keys()]

    assert not offences(check, modules())


def test_a_function_is_named_for_what_it_does_or_returns() -> None:
    def check(tree: ast.Module) -> list[str]:
        return [x.name for x in functions(tree) if x.name.strip("_") in BANNED_FUNCTIONS]

    assert not offences(check, modules())


def vague_variables(tree: ast.Module) -> list[tuple[str, int]]:
    """Return the banned variables; `found` may stand beside `expected` in one scope."""
    scopes = [x for x in ast.walk(tree) if isinstance(x, ast.ClassDef | ast.FunctionDef)]
    compared = [x for x in scopes if "expected" in dict(variables(x))]
    allowed = {pair for x in compared for pair in variables(x) if pair[0] == "found"}
    return [x for x in variables(tree) if x[0] in BANNED_LOCALS and x not in allowed]


def test_a_variable_is_named_for_what_it_is() -> None:
    assert not offences(vague_variables, modules())


def test_a_variable_of_a_benchmark_is_named_for_what_it_is() -> None:
    files = ROOT.parent.glob("benchmarks/*.py")  # in a clone
    names = {file.name: vague_variables(ast.parse(file.read_text())) for file in files}
    assert not {name: variables for name, variables in names.items() if variables}


def test_a_class_name_occurs_once() -> None:
    trees = map(syntax, modules())
    classes = [x for tree in trees for x in ast.walk(tree) if isinstance(x, ast.ClassDef)]
    counts = Counter(x.name.strip("_") for x in classes)
    assert not {name for name, count in counts.items() if count > 1}


def test_no_two_functions_of_a_module_differ_by_one_letter() -> None:
    def check(tree: ast.Module) -> list[tuple[str, ...]]:
        names = {x.name.strip("_") for x in tree.body if isinstance(x, ast.FunctionDef)}
        pairs = itertools.combinations(sorted(x for x in names if len(x) > 4), 2)
        return [pair for pair in pairs if differ_by_one_letter(*pair)]

    assert not offences(check, modules())


def differ_by_one_letter(a: str, b: str) -> bool:
    """Return whether one letter was replaced; file formats such as npy and npz are not letters."""
    formats = {a.rpartition("_")[2], b.rpartition("_")[2]} == {"npy", "npz"}
    same_length = len(a) == len(b)
    return same_length and sum(x != y for x, y in zip(a, b, strict=True)) == 1 and not formats


@pytest.mark.parametrize("name", PUBLIC_MODULES)
def test_a_module_with_public_names_lists_them(name: str) -> None:
    tree = syntax(name)
    lists = [x for x in tree.body if isinstance(x, ast.Assign) and _assigned(x) == "__all__"]
    assert lists, "define __all__"
    exported = set(ast.literal_eval(lists[0].value))
    defined = {x.name for x in tree.body if isinstance(x, ast.ClassDef | ast.FunctionDef)}
    imported = {
        alias.asname or alias.name
        for x in ast.walk(tree)  # those for type checkers too
        if isinstance(x, ast.ImportFrom) and x.level
        for alias in x.names
    }
    assert exported <= defined | imported | {x for x, _ in variables(tree)}
    commands = defined if name == "cli" else set()  # typer finds these
    assert {x for x in defined - commands if not x.startswith("_")} <= exported


def _assigned(x: ast.Assign) -> str:
    return x.targets[0].id if isinstance(x.targets[0], ast.Name) else ""
