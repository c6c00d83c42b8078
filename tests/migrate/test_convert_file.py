"""Conversion of files: the command, its formats and refusals, kills, memory."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from typer.testing import CliRunner

import jtree
from jtree import migrate as m
from jtree._tree.lazy import LazyArray, Source
from jtree.cli import app
from jtree.migrate._files import convert_file as _convert_file

from ..forks import Forks
from ..same import same
from .conversions import convert_until, measure_memory

STATE = {
    "layers": [{"w": np.arange(6.0).reshape(2, 3) + n, "n": np.arange(3)} for n in range(11)],
    "half": jnp.ones((2, 3), jnp.bfloat16),
    "wide": np.array([2**40]),
    "empty": np.zeros((0, 3)),
    "rate": (0.1, None),
}
RULES = """
[[rules]]
rule = "stack"
pattern = "layers/#/**"
into = "layers/**"

[[rules]]
rule = "drop"
where = "half"
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    jtree.save(tmp_path / "a", STATE, metadata={"step": 3})
    return tmp_path / "a"


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["convert", *map(str, arguments)])


def hidden_beside(target: Path) -> list[str]:
    return sorted(x.name for x in target.parent.iterdir() if x.name.startswith("."))


def test_a_copy_is_equal(source: Path) -> None:
    target = source.with_name("b")
    result = run(source, target)
    assert (result.exit_code, result.stdout) == (
        0,
        f"{target}: 25 arrays, 812 bytes, orbax, verified\n",
    )
    assert same(jtree.load(target), jtree.load(source))
    assert jtree.open(target).metadata == {"step": 3}
    assert hidden_beside(target) == []


@pytest.mark.parametrize("suffix", ["", ".safetensors", ".npz"])
def test_rules_of_a_toml_file_apply_in_every_format(source: Path, suffix: str) -> None:
    target = source.with_name(f"b{suffix}")
    file = source.with_name("rules.toml")
    file.write_text(RULES)
    result = run(source, target, "--rules", file, "--cast", "f32")
    assert result.exit_code == 0, result.output
    written = jtree.open(target)
    expected = m.apply([*m.rules_from_toml(file), m.cast("**", "f32")], STATE)
    assert set(written) == {"layers/w", "layers/n", "wide", "empty"}
    for path, x in expected.items():
        assert (written[path].shape, written[path].dtype) == (x.shape, x.dtype)
        np.testing.assert_array_equal(written[path].read(), x.read())
    assert result.stdout == (
        f"{target}: 4 arrays, 536 bytes, {suffix.removeprefix('.') or 'orbax'}, verified\n"
        "dropped: half\n"
        "left out, not arrays: rate/0\n"
    )


def test_where_selects_the_paths_that_are_written(source: Path) -> None:
    target = source.with_name("b")
    assert run(source, target, "--where", "layers/3/*").exit_code == 0
    assert list(jtree.open(target)) == ["layers/3/n", "layers/3/w"]


def test_a_dry_run_prints_the_plan_and_writes_nothing(source: Path) -> None:
    file = source.with_name("rules.toml")
    file.write_text(RULES)
    result = run(source, source.with_name("b"), "--rules", file, "--dry-run")
    assert result.exit_code == 0
    assert "layers/w" in result.stdout
    assert "1 dropped; 2 untouched" in result.stdout
    as_json = run(source, source.with_name("b"), "--rules", file, "--dry-run", "--json")
    assert json.loads(as_json.stdout)["dropped"] == {"half": 2}
    assert sorted(x.name for x in source.parent.iterdir()) == ["a", "rules.toml"]


def test_the_report_is_printed_as_json(source: Path) -> None:
    target = source.with_name("b.safetensors")
    report = json.loads(run(source, target, "--json").stdout)
    assert (report["problems"], report["left_out"], report["resumed"]) == ({}, ["rate/0"], 0)
    assert len(report["plan"]["arrays"]) == 25


def test_the_report_lists_what_rules_do_not_touch(source: Path) -> None:
    rules = [m.drop("layers/**"), m.rename("half", "h")]
    report = m.convert_file(source, source.with_name("b"), rules=rules)
    assert str(report) == (
        f"{source.with_name('b')}: 3 arrays, 20 bytes, orbax, verified\n"
        "untouched by any rule: empty, wide\n"
        "dropped: layers/0/n, layers/0/w, layers/1/n, layers/1/w, ... (22 in all)\n"
        "left out, not arrays: rate/0"
    )


def refused(result: Any) -> str:
    assert result.exit_code == 2
    return str(result.stderr)


def test_invalid_conversions_are_refused(source: Path) -> None:
    target = source.with_name("b")
    target.mkdir()
    (target / "x").touch()
    exists = f"jtree: {target} already exists; remove it, or use another path\n"
    assert refused(run(source, target)) == exists
    assert (target / "x").exists()
    npy = source.with_name("b.npy")
    assert refused(run(source, npy)) == (
        f"jtree: {npy}: a conversion writes orbax, safetensors or npz, not npy; pass one of them "
        "as format=\n"
    )
    assert "HDF5 files can be read but not written" in refused(
        run(source, source.with_name("b.h5"))
    )
    new = source.with_name("c.npz")
    assert refused(run(source, new)) == (
        "jtree: half: npz cannot hold bfloat16[2, 3]; cast it, or use format='safetensors' or "
        "'orbax'\n"
    )
    assert "matches no parameter" in refused(run(source, new, "--where", "x"))
    assert "cannot read the rules" in refused(run(source, new, "--rules", "none"))
    assert "expected a dtype such as" in refused(run(source, new, "--cast", "f31"))
    assert refused(run(source, "gs://bucket/b")) == (
        "jtree: gs://bucket/b: arrays are staged beside the target, which must be on this machine; "
        "convert to a local path, and copy the result\n"
    )
    assert "no such file or directory" in refused(run(source.with_name("none"), new))
    assert hidden_beside(target) == []


def test_an_array_above_another_is_refused(source: Path) -> None:
    rules = [m.rename("half", "layers/0/w/x")]
    with pytest.raises(jtree.RuleError) as error:
        m.convert_file(source, source.with_name("b"), rules=rules)
    assert str(error.value) == (
        "layers/0/w is an array, so layers/0/w/x cannot be below it; rename one of them"
    )
    m.convert_file(source, source.with_name("b.safetensors"), rules=rules)


def test_names_that_a_format_cannot_hold_are_refused_before_reading(
    tmp_path: Path,
) -> None:
    np.save(tmp_path / "a.npy", np.ones(2))
    for suffix, message in (
        ("npz", "npz needs a name for each array; use "),
        (
            "safetensors",
            "safetensors needs another name; rename it, or put it in a dict",
        ),
    ):
        assert message in refused(run(tmp_path / "a.npy", tmp_path / f"b.{suffix}"))
    assert [x.name for x in tmp_path.iterdir()] == ["a.npy"]
    m.convert_file(tmp_path / "a.npy", tmp_path / "b.npz", rules=[m.rename("", "w")])
    m.convert_file(tmp_path / "a.npy", tmp_path / "c")
    assert same(jtree.load(tmp_path / "c"), np.ones(2))


def test_ties_are_kept(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    shared = torch.arange(6.0).reshape(2, 3)
    torch.save({"emb": shared, "head": shared, "fc": shared[:1]}, tmp_path / "a.pt")
    for source, target in (("a.pt", "b"), ("b", "c")):
        assert run(tmp_path / source, tmp_path / target).exit_code == 0
        assert jtree.open(tmp_path / target).ties == (("emb", "head"),)
    assert not jtree.diff(tmp_path / "a.pt", tmp_path / "c", values=True)


def test_only_selected_leaves_are_reported_as_left_out(source: Path) -> None:
    target = source.with_name("b")
    assert "left out" not in run(source, target, "--where", "layers/3/*").stdout
    assert m.convert_file(
        source, source.with_name("c.safetensors"), where=["wide", "**"]
    ).left_out == ("rate/0",)


def test_prng_keys_are_written_by_orbax_only(tmp_path: Path) -> None:
    jtree.save(tmp_path / "a", {"key": jax.random.key(1), "w": np.ones(2)})
    m.convert_file(tmp_path / "a", tmp_path / "b", rules=[m.rename("key", "rng")])
    assert same(jtree.load(tmp_path / "b")["rng"], jax.random.key(1))
    with pytest.raises(jtree.ModelError, match="npz cannot hold key"):
        m.convert_file(tmp_path / "a", tmp_path / "b.npz")


def test_a_damaged_result_is_not_installed(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaging(new: Path, *arguments: Any) -> None:
        write(new, *arguments)
        data = bytearray(new.read_bytes())
        data[-1] ^= 1
        new.write_bytes(data)

    write = _convert_file._write_staged
    monkeypatch.setattr(_convert_file, "_write_staged", damaging)
    target = source.with_name("b.safetensors")
    result = run(source, target)
    assert result.exit_code == 1
    head, *problems = result.stdout.splitlines()
    assert head == f"{target}: 25 arrays, 812 bytes, not written"
    assert problems[-1].endswith(": expected the values that were computed, found others")
    assert not target.exists()
    assert hidden_beside(target) == []


class Failing(Source):
    """A source that fails to read one array."""

    batch_bytes = 1  # one array in each read

    def __init__(self, fails: str) -> None:
        self.fails = fails
        self.read_names: list[Hashable] = []

    def read(self, shardings: Mapping[Hashable, Any], /) -> dict[Hashable, Any]:
        if self.fails in shardings:
            raise jtree.CheckpointError("gone")
        self.read_names += shardings
        return {name: np.full((10, 10), int(str(name)), np.float32) for name in shardings}


def opened_as(monkeypatch: pytest.MonkeyPatch, path: Path, fails: str) -> Failing:
    from jtree.checkpoint._checkpoint import Checkpoint
    from jtree.checkpoint._open import open_checkpoint

    source = Failing(fails)
    tree = {str(n): LazyArray(source, str(n), (10, 10), np.dtype("f4")) for n in range(4)}
    opened = Checkpoint(str(path), "test", tree, {}, (), source)
    monkeypatch.setattr(
        _convert_file, "open_checkpoint", lambda x, **_: opened if x == path else open_checkpoint(x)
    )
    return source


def test_a_failed_conversion_resumes_unless_rules_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, target = tmp_path / "a", tmp_path / "b.npz"
    opened_as(monkeypatch, path, fails="2")
    with pytest.raises(jtree.CheckpointError, match="gone"):
        m.convert_file(path, target)
    assert not target.exists()
    assert hidden_beside(target) == [".b.npz.convert"]

    data = tmp_path / ".b.npz.convert" / "data"
    damaged = bytearray(data.read_bytes())
    damaged[0] ^= 1  # of the first array, which is thus computed again
    data.write_bytes(damaged)
    source = opened_as(monkeypatch, path, fails="none")
    result = m.convert_file(path, target)
    assert (result.resumed, source.read_names) == (1, ["0", "2", "3"])
    assert hidden_beside(target) == []
    assert jtree.open(target)["3"].read().sum() == 300

    other = tmp_path / "c.npz"
    opened_as(monkeypatch, path, fails="2")
    with pytest.raises(jtree.CheckpointError, match="gone"):
        m.convert_file(path, other)
    source = opened_as(monkeypatch, path, fails="none")
    assert m.convert_file(path, other, rules=[m.scale("0", 2.0)]).resumed == 0


def test_a_conversion_killed_before_it_cleaned_up_is_complete(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = source.with_name("b.npz")
    monkeypatch.setattr("jtree.migrate._files.journal.shutil.rmtree", lambda *_, **__: None)
    m.convert_file(source, target, cast="f32")
    assert hidden_beside(target) == [".b.npz.convert"]
    monkeypatch.undo()
    assert run(source, target, "--cast", "f32").exit_code == 0
    assert hidden_beside(target) == []
    assert run(source, target, "--cast", "f32").exit_code == 2


@pytest.mark.skipif(sys.platform == "win32", reason="there are no locks of this kind")
def test_only_one_process_converts_to_a_target(source: Path) -> None:
    from jtree.migrate._files.journal import locked_staging, staging_path

    target = source.with_name("b").resolve()
    with locked_staging(staging_path(target), target, 0):
        assert refused(run(source, target)) == (
            f"jtree: {target}: another process is converting to this path; wait until it ends\n"
        )


LARGE = 5 * 2**22  # bytes of each of 10 arrays
MANY = 300  # arrays of a mebibyte
ROOM = 150e6  # bytes besides the arrays
slow = pytest.mark.slow
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked")
needs_proc = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="memory is read from /proc"
)


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    forks = Forks()
    yield forks
    forks.close()


@pytest.fixture(scope="module")
def transposed(tmp_path_factory: Any) -> Path:
    file: Path = tmp_path_factory.mktemp("rules") / "rules.toml"
    m.rules_to_toml([m.transpose("**")], file)
    return file


@pytest.fixture(scope="module")
def large(tmp_path_factory: Any) -> Path:
    path: Path = tmp_path_factory.mktemp("large") / "a.safetensors"
    x = np.random.default_rng(0).normal(size=(LARGE // 4096, 1024)).astype(np.float32)
    jtree.save(path, {f"layers/{n}/w": x + n for n in range(10)})
    return path


def staging(target: Path) -> Path:
    return target.parent / f".{target.name}.convert"


def count_completed(target: Path) -> int:
    """Return how many arrays the journal beside a target lists."""
    journal = staging(target) / "journal"
    return journal.read_text().count("crc32") if journal.exists() else 0


@needs_fork
@pytest.mark.parametrize("suffix", ["", ".safetensors"])
@pytest.mark.parametrize("trials", [3, pytest.param(1000, marks=slow)])
def test_a_killed_conversion_resumes(
    tmp_path: Path, transposed: Path, forks: Forks, suffix: str, trials: int
) -> None:
    source = tmp_path / "a.npz"
    arrays = {f"{n}": np.arange(6.0).reshape(2, 3) + n for n in range(8)}
    jtree.save(source, arrays)
    changes = forks.run(convert_until, source, tmp_path / f"b{suffix}", transposed, -1).result
    resumed = set()
    for last in range(0, changes, max(1, changes // trials)):
        target = tmp_path / f"{last}" / f"b{suffix}"
        target.parent.mkdir()
        killed = forks.run(convert_until, source, target, transposed, last).killed
        assert killed or suffix == ""  # Orbax changes files in threads, seldom as often as before
        before = count_completed(target)
        if target.exists() and not any(staging(target).glob("*")):  # killed at the very end
            with pytest.raises(jtree.CheckpointError, match="already exists; remove it"):
                m.convert_file(source, target, rules=[m.transpose("**")])
        else:
            report = m.convert_file(source, target, rules=[m.transpose("**")])
            assert report.resumed == before
        written = jtree.open(target)
        assert {path: x.read().tolist() for path, x in written.items()} == {
            path: x.T.tolist() for path, x in arrays.items()
        }
        assert hidden_beside(target) == []
        resumed.add(before)
    assert {0, 8} < resumed


@needs_fork
@needs_proc
@pytest.mark.parametrize(
    "suffix", ["", *(pytest.param(x, marks=slow) for x in (".safetensors", ".npz"))]
)
def test_memory_is_bounded_by_the_largest_array(
    large: Path, transposed: Path, forks: Forks, tmp_path: Path, suffix: str
) -> None:
    arguments = large, tmp_path / f"b{suffix}", "--rules", transposed
    grown = forks.run(measure_memory, "convert", *arguments).result
    assert grown < 1.3 * LARGE + ROOM < 10 * LARGE


@needs_fork
@needs_proc
@slow
@pytest.mark.parametrize("cast", [(), ("--cast", "bf16")])
def test_memory_is_bounded_for_many_small_arrays(
    tmp_path: Path, forks: Forks, cast: tuple[str, ...]
) -> None:
    size = 2**20
    source = tmp_path / "a.safetensors"
    jtree.save(source, {str(n): np.full(size // 4, n, np.float32) for n in range(MANY)})
    bound = 1.3 * size + ROOM
    assert bound < MANY * size // 2
    grown = forks.run(measure_memory, "convert", source, tmp_path / "b", *cast).result
    assert grown < bound
    again = forks.run(measure_memory, "convert", tmp_path / "b", tmp_path / "c").result
    assert again < bound
