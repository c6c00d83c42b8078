"""The package itself: its layers, its public names, what importing it costs, its errors."""

from __future__ import annotations

import ast
import graphlib
import inspect
import pickle
from pathlib import Path
from typing import Any

import pytest

import jtree

ROOT = Path(jtree.__file__).parent

# From the bottom up: a module may import from modules above it in this list only.
LAYERS = [
    *("_errors", "_path", "_lazy", "_leaves", "_kinds", "_ties", "_explore", "_walk"),
    "_opened",
    *("_measure", "_layers_text", "_summary"),
    *("_query", "_cast", "_eager", "_layout", "_vector", "_match", "_restructure", "_flat"),
    *("_diff", "_conversion", "_compare", "_state"),
    *("init", "layers._layer", "layers._dense", "layers._conv", "layers._norm", "layers._chain"),
    *("layers._mode", "layers", "_outputsize", "callbacks"),
    *("checkpoint._checksum", "checkpoint._encoding", "checkpoint._files", "checkpoint._looks"),
    *("checkpoint._orbax", "checkpoint._progress", "checkpoint._show", "checkpoint._reading"),
    *(
        "checkpoint._zip",
        "checkpoint._safetensors",
        "checkpoint._shards",
        "checkpoint._numpy",
        "checkpoint._msgpack",
    ),
    *(
        "checkpoint._pickle",
        "checkpoint._torch_names",
        "checkpoint._torch",
        "checkpoint._hdf5",
        "checkpoint._keras",
    ),
    *(
        "checkpoint._formats",
        "checkpoint._arrays",
        "checkpoint._plain",
        "checkpoint._checkpoint",
        "checkpoint._open",
        "checkpoint._equinox",
    ),
    *("checkpoint._memory", "checkpoint._staged"),
    *("checkpoint._save", "checkpoint._write", "checkpoint._save_as", "checkpoint._load"),
    *("checkpoint._stats", "checkpoint._differences"),
    "checkpoint",
    *("migrate._blocks", "migrate._derived", "migrate._source", "migrate._rule"),
    *("migrate._places", "migrate._axes", "migrate._numbers", "migrate._stack", "migrate._split"),
    *("migrate._apply", "migrate._plan", "migrate._toml"),
    *("migrate._staged", "migrate._written", "migrate._file"),
    *("migrate._turns", "migrate._layer", "migrate._layouts_torch", "migrate._layouts_flax"),
    *("migrate._layouts_equinox", "migrate._layouts_jtree", "migrate._layouts_haiku"),
    *("migrate._layouts_keras", "migrate._layouts", "migrate._names", "migrate._model"),
    *("migrate._linen", "migrate._arrays", "migrate._roles", "migrate._find"),
    *(
        "migrate._flattened",
        "migrate._neutral",
        "migrate._report",
        "migrate._settings",
        "migrate._suspicious",
        "migrate._left",
        "migrate._refused",
        "migrate._told",
        "migrate._findings",
        "migrate._work",
    ),
    *("migrate._convert", "migrate"),
    *(f"curvature.{name}" for name in ("_parts", "_call", "_pieces", "_progress", "_arguments")),
    *(
        "curvature._memory",
        "curvature._linearised",
        "curvature._dense",
        "curvature._operator",
        "curvature._host",
    ),
    *(f"curvature.{name}" for name in ("_differentiated", "_hessian", "_examples", "_metric")),
    *(f"curvature.{name}" for name in ("_ggn", "_fisher", "_jacobian", "_over", "_diagonal")),
    *(f"curvature.{name}" for name in ("_eigen", "_spectrum", "_krylov", "_solve", "_newton")),
    "curvature",
    *("plot._display", "plot._figure", "plot._blocks", "plot._hessian", "plot._spectrum"),
    *("plot._landscape", "plot._parameters", "plot"),
]

FRAMEWORKS = {"flax", "equinox", "haiku", "torch", "keras"}
EXTRAS = {"h5py", "lineax", "matfree", "matplotlib", "optax", "sklearn"}
FOR_ONE = {
    "checkpoint._keras": {"h5py"},
    "checkpoint._hdf5": {"h5py"},
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
    "ModelError",
    "PathError",
    "Restructure",
    "RuleError",
    "Saving",
    "Summary",
    "VectorError",
    "VectorTypeError",
    "bf16",
    "children",
    "count",
    "destructure",
    "diff",
    "f16",
    "f32",
    "f64",
    "inspect",
    "isnumeric",
    "load",
    "loadmodel",
    "modules",
    "open",
    "outputsize",
    "save",
    "save_as",
    "save_async",
    "state",
    "summary",
    "trainable",
    "trainables",
    "verify",
    "walk",
}


def modules() -> dict[str, Path]:
    files = sorted(ROOT.rglob("*.py"))
    names = {".".join(f.relative_to(ROOT).with_suffix("").parts): f for f in files}
    return {name.removesuffix(".__init__"): file for name, file in names.items()}


def imports(name: str, file: Path) -> set[str]:
    """Return what a module imports, lazily too: `jtree` modules by their short names."""
    package = name.split(".") if file.name == "__init__.py" else name.split(".")[:-1]
    package = [] if name == "__init__" else package
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ["", ""]
            base = ".".join([*above, node.module or ""]).strip(".") if node.level else node.module
            known = modules()
            inner = {f"{base}.{alias.name}".strip(".") for alias in node.names}
            chosen = {x for x in inner if x in known} or {base or "__init__"}
            found |= {f"jtree:{x}" for x in chosen} if node.level else {str(base)}
    return found


GRAPH = {name: imports(name, file) for name, file in modules().items()}


def test_imports_have_no_cycle() -> None:
    inner = {
        name: {x.removeprefix("jtree:") for x in found if x.startswith("jtree:")}
        for name, found in GRAPH.items()
    }
    graphlib.TopologicalSorter(inner).prepare()


def test_imports_go_down_only() -> None:
    for name in LAYERS:
        for found in GRAPH[name]:
            if found.startswith("jtree:"):
                below = found.removeprefix("jtree:")
                assert LAYERS.index(below) < LAYERS.index(name), f"{name} imports {below}"
    assert set(GRAPH) - set(LAYERS) <= {"__init__", "__main__", "cli"} | {
        x for x in GRAPH if "demo" in x
    }


def test_only_the_checkpoints_name_orbax_and_nothing_names_a_framework() -> None:
    for name in LAYERS:
        outer = {found.split(".")[0] for found in GRAPH[name]}
        assert "orbax" not in outer or name.startswith("checkpoint"), name
        allowed = {"matplotlib"} if name.startswith("plot") else FOR_ONE.get(name, set())
        assert not outer & (FRAMEWORKS | EXTRAS) - allowed, name


def test_only_the_walk_recurses_over_trees() -> None:
    inner = {"_explore", "_walk"}
    for name in LAYERS:
        tree = ast.parse(modules()[name].read_text())
        for function in (x for x in tree.body if isinstance(x, ast.FunctionDef)):
            calls = {x.func.id for x in ast.walk(function) if calls_a_name(x)}
            recursive = function.name in calls and function.name not in ("state", "_decode")
            assert not recursive or name in inner, f"{name}.{function.name}"


def calls_a_name(node: ast.AST) -> Any:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name)


def test_public_names_are_exactly_these() -> None:
    names = {
        x for x in vars(jtree) if not x.startswith("_") and not inspect.ismodule(vars(jtree)[x])
    } - {"TYPE_CHECKING", "Any"}
    assert names == PUBLIC
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
