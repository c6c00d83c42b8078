"""The package as a whole: layers, public names, the cost of importing it, errors."""

from __future__ import annotations

import ast
import doctest
import graphlib
import inspect
import pickle
import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from typing import Any

import jax
import pytest

import jtree

from .source import folder, imports, modules, syntax

# From the bottom up. A folder imports from itself and from the rows above it, but not from others
# in its row. Modules that lie beside the folders are listed by name.
LAYERS: list[tuple[str, ...]] = [
    ("_errors", "_progress", "_public", "_text"),
    ("_arguments", "_extras"),
    ("_tree", "_initialiser", "_callbacks"),
    ("_vector", "init", "callbacks"),
    ("_state", "_summary"),
    ("layers", "curvature/_autodiff", "checkpoint/_storage"),
    ("curvature/_operators", "checkpoint/_formats"),
    ("curvature/_algorithms", "checkpoint/_orbax"),
    ("curvature",),
    ("plot",),
    ("checkpoint",),
    ("migrate/_rules", "migrate/_layouts"),
    ("migrate/_files", "migrate/_convert"),
    ("migrate/_flux",),
    ("migrate",),
    ("demo", "_api"),
    ("cli",),
    ("__main__", "__init__"),
]
LAYER = {folder: level for level, row in enumerate(LAYERS) for folder in row}

FRAMEWORKS = {"flax", "equinox", "haiku", "torch", "keras"}
EXTRAS = {"h5py", "lineax", "matfree", "matplotlib", "optax", "sklearn"}
FOR_ONE = {
    "checkpoint._formats.keras": {"h5py"},
    "checkpoint._formats.hdf5_probe": {"h5py"},
}  # files that exist for an extra
PUBLIC = {
    "ArgumentError",
    "ArgumentTypeError",
    "Checkpoint",
    "CheckpointError",
    "ChecksumError",
    "CurvatureError",
    "DeletedArrayError",
    "Diff",
    "ExtraError",
    "JtreeError",
    "LoadError",
    "Manager",
    "ModelError",
    "PathError",
    "Restructure",
    "RuleError",
    "Saving",
    "Slot",
    "Summary",
    "VectorError",
    "VectorTypeError",
    "Walk",
    "bf16",
    "children",
    "count",
    "destructure",
    "diff",
    "f16",
    "f32",
    "f64",
    "from_flux",
    "isnumeric",
    "load",
    "loadmodel",
    "modules",
    "open",
    "outputsize",
    "save",
    "save_async",
    "state",
    "summary",
    "trainable",
    "trainables",
    "verify",
    "walk",
}
MODULES = {"callbacks", "curvature", "init", "layers", "migrate", "plot"}
PACKAGES = {name: import_module(f"jtree.{name}") for name in (*sorted(MODULES), "checkpoint")}


GRAPH = {name: imports(name)[0] for name in modules()}


def test_imports_have_no_cycle() -> None:
    graphlib.TopologicalSorter(GRAPH).prepare()


def test_imports_go_down_only() -> None:
    edges = {(name, x) for name in GRAPH for x in GRAPH[name] - {"__init__"}}
    edges = {(name, x) for name, x in edges if folder(name) != folder(x)}
    assert not {(name, x) for name, x in edges if LAYER[folder(x)] >= LAYER[folder(name)]}


def test_no_two_folders_import_each_other() -> None:
    edges = {(folder(name), folder(x)) for name in GRAPH for x in GRAPH[name]}
    assert not {(a, b) for a, b in edges if a < b and (b, a) in edges}


def test_the_longest_path_of_imports_has_ten_modules() -> None:
    """The version, which the command imports from the top of the package, counts for nothing."""

    @cache
    def longest(name: str) -> tuple[str, ...]:
        below = (longest(x) for x in sorted(GRAPH[name] - {"__init__"}))
        return name, *max(below, key=len, default=())

    path = max(map(longest, GRAPH), key=len)
    assert len(path) <= 10, " -> ".join(path)


def test_only_the_checkpoints_name_orbax_and_nothing_names_a_framework() -> None:
    for name in GRAPH:
        outer = imports(name)[1]
        assert "orbax" not in outer or name.startswith("checkpoint"), name
        allowed = {"matplotlib"} if name.startswith("plot") else FOR_ONE.get(name, set())
        exempt = name.startswith("demo") or name == "cli"
        assert exempt or not outer & (FRAMEWORKS | EXTRAS) - allowed, name


def test_only_the_walk_recurses_over_trees() -> None:
    recursive = {"_tree.structure", "_tree.walk"}
    for name in modules():
        for function in (x for x in syntax(name).body if isinstance(x, ast.FunctionDef)):
            calls = {x.func.id for x in ast.walk(function) if calls_a_name(x)}
            exempt = name in recursive or function.name in ("state", "_decode")
            assert function.name not in calls or exempt, f"{name}.{function.name}"


def calls_a_name(node: ast.AST) -> Any:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name)


def test_public_names_are_exactly_these() -> None:
    assert set(jtree.__all__) == PUBLIC | MODULES
    assert set(dir(jtree)) == {*jtree.__all__, "__version__"}
    assert [name for name in jtree.__all__ if not hasattr(jtree, name)] == []
    assert jtree.__version__


def test_modules_that_are_imported_when_asked_for(run_python: Any) -> None:
    out = run_python(
        """
        import sys, jtree
        names = "layers", "init", "callbacks", "curvature", "migrate", "plot"
        print([name for name in names if f"jtree.{name}" in sys.modules])
        print(jtree.layers.Dense.__name__, jtree.init.nfan(3), jtree.callbacks.stop.__name__)
        print(jtree.plot.hessian.__name__, "matplotlib" in sys.modules)
        print(hasattr(jtree, "nothing"))
        """
    )
    assert out == "[]\nDense (1, 3) stop\nhessian False\nFalse\n"


def test_every_public_name_has_an_example_that_runs() -> None:
    for name in PUBLIC - {x for x in PUBLIC if x.endswith("Error")}:
        assert ">>> " in (inspect.getdoc(getattr(jtree, name)) or ""), name


@pytest.mark.parametrize("name", PACKAGES)
def test_classes_and_functions_name_their_public_package(name: str) -> None:
    package = PACKAGES[name]
    for x in (vars(package)[public] for public in package.__all__):
        if inspect.isclass(x) or inspect.isfunction(x):
            home = import_module(x.__module__)
            assert home.__name__ in (f"jtree.{name}", "jtree"), x
            assert pickle.loads(pickle.dumps(x)) is getattr(home, x.__name__)


@pytest.mark.parametrize("name", PACKAGES)
def test_the_source_of_classes_and_functions_is_found(name: str) -> None:
    package = PACKAGES[name]
    for x in (vars(package)[public] for public in package.__all__):
        if inspect.isclass(x) or (inspect.isfunction(x) and not hasattr(x, "__wrapped__")):
            source = inspect.getsource(x)
            keyword = "class" if inspect.isclass(x) else "def"
            assert re.search(rf"{keyword} {x.__name__}\w*\b", source, re.IGNORECASE), x


def test_a_subclass_and_an_instance_have_their_own_source() -> None:
    class Wide(jtree.layers.Dense):
        """A class of a user."""

    assert inspect.getsource(Wide).startswith("    class Wide")
    assert inspect.signature(Wide) == inspect.signature(jtree.layers.Dense)
    assert not hasattr(jtree.layers.Dense(1, 1, key=jax.random.key(0)), "__wrapped__")


def test_the_signature_of_a_class_is_that_of_its_calls() -> None:
    assert [*inspect.signature(jtree.layers.Scale).parameters][:2] == ["size", "activation"]
    assert [*inspect.signature(jtree.migrate.rename).parameters][:1] == ["pattern"]


def public_objects() -> dict[str, Any]:
    """Return the public classes and functions by the names that users know."""
    found = [getattr(jtree, name) for name in jtree.__all__]
    found += [vars(package)[name] for package in PACKAGES.values() for name in package.__all__]
    known = [x for x in found if inspect.isclass(x) or inspect.isfunction(x)]
    return {f"{x.__module__}.{x.__name__}": x for x in known}


def uncollected_examples(x: Any) -> Iterator[doctest.DocTest]:
    """Yield the examples that a collection by module leaves out.

    Those are in methods of a class that names a public package, and in decorated functions.
    """
    if inspect.isfunction(x):
        home = x.__globals__["__name__"]
        homes = {home} if vars(import_module(home)).get(x.__name__) is not x else set()
    else:
        methods = [f for f in vars(x).values() if inspect.isfunction(f)]
        homes = {f.__module__ for f in methods if f.__module__.startswith("jtree.")}
        homes -= {x.__module__}
    for home in homes:
        for example in doctest.DocTestFinder().find(x, x.__name__, module=import_module(home)):
            if inspect.isfunction(x) or example.name != x.__name__:
                yield example


@pytest.mark.parametrize("x", public_objects().values(), ids=public_objects())
def test_examples_that_no_module_collects(x: Any, doctest_namespace: dict[str, Any]) -> None:
    for example in uncollected_examples(x):
        example.globs |= doctest_namespace | {x.__name__: x}
        options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        assert doctest.DocTestRunner(optionflags=options).run(example).failed == 0


ERRORS = {
    "ModelError": ValueError,
    "DeletedArrayError": RuntimeError,
    "VectorError": ValueError,
    "VectorTypeError": TypeError,
    "PathError": KeyError,
    "ArgumentError": ValueError,
    "ArgumentTypeError": TypeError,
    "CurvatureError": ArithmeticError,
    "ExtraError": ImportError,
    "LoadError": ValueError,
    "RuleError": ValueError,
    "CheckpointError": OSError,
    "ChecksumError": OSError,
}


@pytest.mark.parametrize("name", ERRORS)
def test_each_error_is_the_built_in_that_a_user_would_catch(name: str) -> None:
    assert issubclass(getattr(jtree, name), ERRORS[name])
    assert issubclass(getattr(jtree, name), jtree.JtreeError)


def test_a_load_error_pickles_with_its_diff() -> None:
    error = jtree.LoadError("no", jtree.Diff())
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.diff) == ("no", jtree.Diff())


def test_importing_jtree_imports_no_framework_and_no_orbax(run_python: Any) -> None:
    out = run_python(
        """
        import sys, jtree
        heavy = "flax equinox orbax optax matplotlib rich typer sklearn tensorstore".split()
        print([name for name in heavy if name in sys.modules])
        """
    )
    assert out == "[]\n"
