"""The command `jtree`: show, diff, verify and stats."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flax import nnx
from orbax.checkpoint import v1 as ocp
from typer.testing import CliRunner

import jtree
from jtree.cli import app

from .zoo import Shared


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    jtree.save("shared", Shared(nnx.Rngs(0)), metadata={"step": 3})
    jtree.save("a", {"w": np.array([1.0, np.nan]), "z": np.zeros(3), "deep": {"x": [np.ones(2)]}})
    jtree.save("b", {"w": np.array([1.0, 2.0]), "z": np.zeros(4), "deep": {"x": [np.ones(2)]}})
    ocp.save(tmp_path / "plain", {"w": np.ones(2)})

    def call(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, arguments, env={"COLUMNS": "100"})
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result.exit_code, result.output

    return call


def words(text: str) -> str:
    return " ".join(text.split())


def test_show_prints_the_tree(run: Any) -> None:
    code, out = run("show", "shared")
    assert code == 0
    for text in (
        "jtree, with checksums",
        "metadata: {'step': 3}",
        "kernel float32[3, 2] tied to again/0 24",
        "5 arrays, 21 elements, 84 bytes; 18 other leaves",
    ):
        assert text in words(out)
    assert "use_bias" not in out
    assert "use_bias" in run("show", "shared", "--all")[1]


def test_show_chooses_and_counts(run: Any) -> None:
    _, out = run("show", "a", "--where", "deep/**")
    assert "float64[2]" in out
    assert "1 array, 2 elements, 16 bytes" in out
    _, out = run("show", "shared", "--depth", "1")
    assert re.search(r"enc +2 arrays +48", out)
    code, out = run("show", "a", "--where", "dep")
    assert code == 2
    assert "matches no parameter" in out


def test_show_as_json(run: Any) -> None:
    _, out = run("show", "shared", "--json")
    found = json.loads(out)
    assert found["format"] == "jtree"
    assert found["metadata"] == {"step": 3}
    assert found["nbytes"] == 84
    assert ["dec/bias", "enc/bias"] in found["ties"]
    assert found["arrays"]["enc/kernel"] == {"shape": [3, 3], "dtype": "float32", "nbytes": 36}


def test_diff_says_where_and_how(run: Any) -> None:
    assert run("diff", "a", "a", "--values") == (0, "no differences\n")
    assert run("diff", "a", "a") == (0, "no differences; values were not compared\n")
    code, out = run("diff", "a", "b")
    assert code == 1
    assert re.search(r"z +shape +\(3,\) +\(4,\)", out)
    assert "values" not in out
    code, out = run("diff", "a", "b", "--values", "--json")
    assert code == 1
    assert [(x["path"], x["kind"]) for x in json.loads(out)] == [("w", "values"), ("z", "shape")]


def test_diff_says_a_prefix_in_one_line(run: Any) -> None:
    jtree.save("nested", {"m": jtree.load("a")})
    code, out = run("diff", "a", "nested")
    assert code == 1
    assert out == (
        "6 paths: the source has the prefix 'm' in its paths, unlike the destination; rename them "
        "with jtree.migrate.apply([jtree.migrate.rename('m/**', '**')], source)\n"
    )
    jtree.save("other", {"m": jtree.load("a"), "z": np.zeros(4)})
    code, out = run("diff", "a", "other")
    assert code == 1
    assert re.search(r"^z +shape ", out, re.MULTILINE)


NAMES = {
    "\x1b[31mred\x07": "\\x1b[31mred\\x07",
    "a\nb": "a\\nb",
    "\u202e": "\\u202e",
    "\x9b2J": "\\x9b2J",
}


@pytest.mark.parametrize(
    "command", ["show names", "show names --lines 2", "diff a names", "diff names a", "stats names"]
)
def test_a_name_does_not_control_the_terminal(run: Any, command: str) -> None:
    jtree.save("names", {x: np.ones(1) for x in NAMES}, metadata={"x": "\x1b[2J"})
    _, out = run(*command.split())
    assert all(x.isprintable() for x in out.splitlines())
    assert "x1b[31mred" in out or "--lines" in command


def test_neither_do_names_in_errors_plans_and_long_trees(run: Any) -> None:
    jtree.save("names", {x: np.ones(1) for x in NAMES} | {f"w{n}": n for n in range(3)})
    np.savez("long.npz", **{f"{x}{n}": np.ones(1) for x in NAMES for n in range(130)})
    for arguments in (
        ("show", "names", "--where", "\x1b[1m"),
        ("convert", "names", "new.npz", "--dry-run"),
        ("convert", "names", "\x1b[1mnew", "--where", "\x1b*"),
        ("show", "\x1b[1m"),
        ("show", "long.npz"),
    ):
        _, out = run(*arguments)
        assert all(x.isprintable() for x in out.splitlines()), arguments


def test_verify(run: Any, tmp_path: Path) -> None:
    assert run("verify", "a") == (0, "a: all checksums match\n")
    assert run("verify", "plain") == (0, "plain: readable, without checksums to compare\n")
    metadata = ocp.metadata(tmp_path / "b").custom_metadata
    other = {"w": np.ones(2), "z": np.zeros(4), "deep": {"x": {"0": np.ones(2)}}}
    ocp.save(tmp_path / "wrong", other, custom_metadata=metadata)
    code, out = run("verify", "wrong")
    assert code == 1
    assert re.search(r"^w +.*checksum mismatch in w", out, re.MULTILINE)
    code, out = run("verify", "wrong", "--json")
    assert code == 1
    assert list(json.loads(out)["wrong"]) == ["w"]


def test_stats(run: Any) -> None:
    code, out = run("stats", "a")
    assert code == 0
    assert re.search(r"w +1 +1 +1 +0 +1 +0 +not finite", out)
    assert re.search(r"z +0 +0 +0 +0 +0 +0 +all zero", out)
    found = json.loads(run("stats", "b", "--json")[1])
    assert found["w"] == {
        "min": 1.0,
        "max": 2.0,
        "mean": 1.5,
        "std": 0.5,
        "nan": 0,
        "inf": 0,
        "flag": "",
    }


def test_stats_of_chunks_are_those_of_the_whole(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).normal(1e4, 1.0, 3_000_000)
    numbers[-5:] = [np.nan, np.inf, -np.inf, np.nan, np.nan]
    jtree.save(tmp_path / "x", {"x": numbers, "c": np.array([3 + 4j]), "empty": np.zeros(0)})
    found = jtree.checkpoint.stats(tmp_path / "x")
    whole = numbers[:-5]
    np.testing.assert_allclose(
        found["x"][:4], [whole.min(), whole.max(), whole.mean(), whole.std()], rtol=1e-12
    )
    assert found["x"][4:] == (3, 2)
    assert found["c"].max == 5
    assert found["empty"].min is None


def test_misuse_is_exit_code_2(run: Any) -> None:
    for arguments in (
        ["show", "nothing"],
        ["verify", "nothing"],
        ["diff", "a", "nothing"],
        ["diff", "no", "no"],
    ):
        code, out = run(*arguments)
        assert code == 2
        assert "no such file or directory" in out
    assert run("show")[0] == 2
    assert run("show", "a", "--depth", "0")[0] == 2


def test_the_command_is_a_module_too(tmp_path: Path) -> None:
    jtree.save(tmp_path / "x", {"w": np.ones(2)})
    command = [sys.executable, "-m", "jtree", "show", str(tmp_path / "x"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "w" in json.loads(done.stdout)["arrays"]
    assert subprocess.run([*command[:3], "show"], capture_output=True).returncode == 2


def test_the_command_starts_without_jax(run_python: Any) -> None:
    out = run_python(
        """
        import sys, jtree, jtree.cli
        print(jtree.__version__ != "", [name for name in ("jax", "numpy") if name in sys.modules])
        print(jtree.destructure({"a": 1})[0].shape, "jax" in sys.modules, jtree.checkpoint.__name__)
        """
    )
    assert out == "True []\n(0,) True jtree.checkpoint\n"
