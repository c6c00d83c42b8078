"""The command `jtree convert`, and what it does when it is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Hashable, Mapping
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
from jtree.migrate._files import convert_file as _file

from ..same import same

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


def beside(target: Path) -> list[str]:
    return sorted(x.name for x in target.parent.iterdir() if x.name.startswith("."))


def test_a_copy_is_the_same(source: Path) -> None:
    target = source.with_name("b")
    done = run(source, target)
    assert (done.exit_code, done.stdout) == (
        0,
        f"{target}: 25 arrays, 812 bytes, orbax, verified\n",
    )
    assert same(jtree.load(target), jtree.load(source))
    assert jtree.open(target).metadata == {"step": 3}
    assert beside(target) == []


@pytest.mark.parametrize("ending", ["", ".safetensors", ".npz"])
def test_rules_from_a_file_in_every_format(source: Path, ending: str) -> None:
    target = source.with_name(f"b{ending}")
    file = source.with_name("rules.toml")
    file.write_text(RULES)
    done = run(source, target, "--rules", file, "--cast", "f32")
    assert done.exit_code == 0, done.output
    found = jtree.open(target)
    expected = m.apply([*m.rules_from_toml(file), m.cast("**", "f32")], STATE)
    assert set(found) == {"layers/w", "layers/n", "wide", "empty"}
    for path, x in expected.items():
        assert (found[path].shape, found[path].dtype) == (x.shape, x.dtype)
        np.testing.assert_array_equal(found[path].read(), x.read())
    assert "dropped: half" in done.stdout
    assert "left out, not arrays: rate/0" in done.stdout
    assert "untouched by any rule" not in done.stdout


def test_where_chooses_what_is_written(source: Path) -> None:
    target = source.with_name("b")
    assert run(source, target, "--where", "layers/3/*").exit_code == 0
    assert list(jtree.open(target)) == ["layers/3/n", "layers/3/w"]


def test_a_dry_run_prints_the_plan_and_writes_nothing(source: Path) -> None:
    file = source.with_name("rules.toml")
    file.write_text(RULES)
    done = run(source, source.with_name("b"), "--rules", file, "--dry-run")
    assert done.exit_code == 0
    assert "layers/w" in done.stdout
    assert "1 dropped; 2 untouched" in done.stdout
    as_json = run(source, source.with_name("b"), "--rules", file, "--dry-run", "--json")
    assert json.loads(as_json.stdout)["dropped"] == {"half": 2}
    assert sorted(x.name for x in source.parent.iterdir()) == ["a", "rules.toml"]


def test_the_report_as_json(source: Path) -> None:
    target = source.with_name("b.safetensors")
    found = json.loads(run(source, target, "--json").stdout)
    assert (found["problems"], found["left_out"], found["resumed"]) == ({}, ["rate/0"], 0)
    assert len(found["plan"]["arrays"]) == 25


def refused(done: Any) -> str:
    assert done.exit_code == 2
    return str(done.stderr)


def test_what_is_refused(source: Path) -> None:
    target = source.with_name("b")
    target.mkdir()
    (target / "x").touch()
    there = f"jtree: {target} already exists; remove it, or use another path\n"
    assert refused(run(source, target)) == there
    assert (target / "x").exists()
    odd = source.with_name("b.h5")
    assert refused(run(source, odd)) == (
        f"jtree: {odd}: expected a format of orbax, safetensors, npz, found 'h5'; pass format=\n"
    )
    new = source.with_name("c.npz")
    assert refused(run(source, new)) == (
        "jtree: half: npz cannot hold bfloat16[2, 3]; cast it, or use format='safetensors' or "
        "'orbax'\n"
    )
    assert "matches no parameter" in refused(run(source, new, "--where", "x"))
    assert "cannot read the rules" in refused(run(source, new, "--rules", "none"))
    assert "expected a dtype such as" in refused(run(source, new, "--cast", "f31"))
    assert "must be on this machine" in refused(run(source, "gs://bucket/b"))
    assert "there is nothing here" in refused(run(source.with_name("none"), new))
    assert beside(target) == []


def test_an_array_cannot_be_above_another(source: Path) -> None:
    rules = [m.rename("half", "layers/0/w/x")]
    with pytest.raises(jtree.RuleError) as error:
        m.convert_file(source, source.with_name("b"), rules=rules)
    assert str(error.value) == (
        "layers/0/w is an array, so layers/0/w/x cannot be below it; rename one of them"
    )
    m.convert_file(source, source.with_name("b.safetensors"), rules=rules)


def test_names_that_a_format_lacks_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones(2))
    for ending, said in (
        ("npz", "one array alone has no name in npz; rename it, or use "),
        (
            "safetensors",
            "safetensors needs another name; rename it, or put it in a dict",
        ),
    ):
        assert said in refused(run(tmp_path / "a.npy", tmp_path / f"b.{ending}"))
    assert [x.name for x in tmp_path.iterdir()] == ["a.npy"]
    m.convert_file(tmp_path / "a.npy", tmp_path / "b.npz", rules=[m.rename("", "w")])
    m.convert_file(tmp_path / "a.npy", tmp_path / "c")
    assert same(jtree.load(tmp_path / "c"), np.ones(2))


def test_what_is_tied_stays_tied(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    shared = torch.arange(6.0).reshape(2, 3)
    torch.save({"emb": shared, "head": shared, "fc": shared[:1]}, tmp_path / "a.pt")
    for source, target in (("a.pt", "b"), ("b", "c")):
        assert run(tmp_path / source, tmp_path / target).exit_code == 0
        assert jtree.open(tmp_path / target).ties == (("emb", "head"),)
    assert jtree.checkpoint.differences(tmp_path / "a.pt", tmp_path / "c", values=True) == []


def test_leaves_that_were_not_asked_for_are_not_said_to_be_left_out(source: Path) -> None:
    target = source.with_name("b")
    assert "left out" not in run(source, target, "--where", "layers/3/*").stdout
    assert m.convert_file(
        source, source.with_name("c.safetensors"), where=["wide", "**"]
    ).left_out == ("rate/0",)


def test_keys_go_where_they_can(tmp_path: Path) -> None:
    jtree.save(tmp_path / "a", {"key": jax.random.key(1), "w": np.ones(2)})
    m.convert_file(tmp_path / "a", tmp_path / "b", rules=[m.rename("key", "rng")])
    assert same(jtree.load(tmp_path / "b")["rng"], jax.random.key(1))
    with pytest.raises(jtree.ModelError, match="npz cannot hold key"):
        m.convert_file(tmp_path / "a", tmp_path / "b.npz")


def test_what_was_written_is_verified(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaging(new: Path, *arguments: Any) -> None:
        write(new, *arguments)
        data = bytearray(new.read_bytes())
        data[-1] ^= 1
        new.write_bytes(data)

    write = _file._write_staged
    monkeypatch.setattr(_file, "_write_staged", damaging)
    target = source.with_name("b.safetensors")
    done = run(source, target)
    assert done.exit_code == 1
    assert "not written" in done.stdout
    assert "expected the values that were computed, found others" in done.stdout
    assert not target.exists()
    assert beside(target) == []


class Failing(Source):
    """A source that fails at one array."""

    def __init__(self, fails: str) -> None:
        self.fails = fails
        self.read_names: list[Hashable] = []

    def read(self, shardings: Mapping[Hashable, Any], /) -> dict[Hashable, Any]:
        if self.fails in shardings:
            raise jtree.CheckpointError("gone")
        self.read_names += shardings
        return {name: np.full((1000, 10000), int(str(name)), np.float32) for name in shardings}


def opened_as(monkeypatch: pytest.MonkeyPatch, path: Path, fails: str) -> Failing:
    from jtree.checkpoint._checkpoint import Checkpoint, open_checkpoint

    source = Failing(fails)
    tree = {str(n): LazyArray(source, str(n), (1000, 10000), np.dtype("f4")) for n in range(4)}
    opened = Checkpoint(str(path), "test", tree, {}, (), source)
    monkeypatch.setattr(
        _file, "open_checkpoint", lambda x, **_: opened if x == path else open_checkpoint(x)
    )
    return source


def test_it_goes_on_where_it_failed_unless_something_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, target = tmp_path / "a", tmp_path / "b.npz"
    opened_as(monkeypatch, path, fails="2")
    with pytest.raises(jtree.CheckpointError, match="gone"):
        m.convert_file(path, target)
    assert not target.exists()
    assert beside(target) == [".b.npz.convert"]

    data = tmp_path / ".b.npz.convert" / "data"
    damaged = bytearray(data.read_bytes())
    damaged[0] ^= 1  # of the first array, which is thus made again
    data.write_bytes(damaged)
    source = opened_as(monkeypatch, path, fails="none")
    done = m.convert_file(path, target)
    assert (done.resumed, source.read_names) == (1, ["0", "2", "3"])
    assert beside(target) == []
    assert jtree.open(target)["3"].read().sum() == 3e7

    other = tmp_path / "c.npz"
    opened_as(monkeypatch, path, fails="2")
    with pytest.raises(jtree.CheckpointError, match="gone"):
        m.convert_file(path, other)
    source = opened_as(monkeypatch, path, fails="none")
    assert m.convert_file(path, other, rules=[m.scale("0", 2.0)]).resumed == 0


def test_killed_between_the_last_step_and_tidying_up(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = source.with_name("b.npz")
    monkeypatch.setattr("jtree.migrate._files.journal.shutil.rmtree", lambda *_, **__: None)
    m.convert_file(source, target, cast="f32")
    assert beside(target) == [".b.npz.convert"]
    monkeypatch.undo()
    assert run(source, target, "--cast", "f32").exit_code == 0
    assert beside(target) == []
    assert run(source, target, "--cast", "f32").exit_code == 2


@pytest.mark.skipif(sys.platform == "win32", reason="there are no locks of this kind")
def test_only_one_process_converts_to_a_target(source: Path) -> None:
    from jtree.migrate._files.journal import locked_staging, staging_path

    target = source.with_name("b").resolve()
    with locked_staging(staging_path(target), target):
        assert refused(run(source, target)) == (
            f"jtree: {target}: another process is converting to this path; wait until it ends\n"
        )


LARGE = 2**25  # bytes of each of 10 arrays


@pytest.fixture(scope="module")
def large(tmp_path_factory: Any) -> Path:
    path: Path = tmp_path_factory.mktemp("large") / "a.safetensors"
    numbers = np.random.default_rng(0).normal(size=(LARGE // 4096, 1024)).astype(np.float32)
    jtree.save_as(path, {f"layers/{n}/w": numbers + n for n in range(10)})
    path.with_name("rules.toml").write_text('[[rules]]\nrule = "transpose"\nwhere = "**"\n')
    return path


def start(*arguments: Any) -> subprocess.Popen[bytes]:
    code = "from jtree.cli import app; app()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.mark.skipif(sys.platform == "win32", reason="processes are killed in another way")
@pytest.mark.parametrize("ending", ["", ".safetensors"])
def test_killed_and_run_again_it_goes_on(large: Path, tmp_path: Path, ending: str) -> None:
    target = tmp_path / f"b{ending}"
    arguments = ("convert", large, target, "--rules", large.with_name("rules.toml"))
    process = start(*arguments)
    journal = tmp_path / f".b{ending}.convert" / "journal"
    while not (journal.exists() and journal.read_text().count("\n") >= 4):
        assert process.poll() is None, process.stdout and process.stdout.read()
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not target.exists()

    again = start(*arguments)
    out = again.communicate()[0].decode()
    assert again.returncode == 0, out
    finished = next(line for line in out.splitlines() if "kept from an earlier run" in line)
    assert int(finished.split()[0]) >= 3
    found = jtree.open(target)
    for path, x in jtree.open(large).items():
        np.testing.assert_array_equal(found[path].read(), x.read().T)
    assert beside(target) == []


def peak(*arguments: Any) -> int:
    """Return the most memory that a process had, in bytes, mapped files included."""
    process = start(*arguments)
    found = 0
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        lines = [line.split() for line in status.splitlines() if line.startswith("VmHWM:")]
        found = max([found, *(int(line[1]) * 1024 for line in lines)])
        time.sleep(0.01)
    out = process.communicate()[0].decode()
    assert process.returncode == 0, out
    return found


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("ending", ["", ".safetensors", ".npz"])
def test_memory_is_bounded_by_the_largest_array(large: Path, tmp_path: Path, ending: str) -> None:
    target, rules = tmp_path / f"b{ending}", large.with_name("rules.toml")
    before = peak("convert", large, target, "--rules", rules, "--dry-run")
    used = peak("convert", large, target, "--rules", rules) - before
    assert used < 1.3 * LARGE + 200e6 < 10 * LARGE


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("cast", [(), ("--cast", "bf16")])
def test_memory_is_bounded_for_many_small_arrays(tmp_path: Path, cast: tuple[str, ...]) -> None:
    size = 2**20
    arrays = {str(n): np.full(size // 4, n, np.float32) for n in range(500)}
    jtree.save_as(tmp_path / "a.safetensors", arrays)
    del arrays
    before = peak("convert", tmp_path / "a.safetensors", tmp_path / "b", "--dry-run")
    used = peak("convert", tmp_path / "a.safetensors", tmp_path / "b", *cast) - before
    assert used < 1.3 * size + 200e6 < 500 * size // 2
    assert peak("convert", tmp_path / "b", tmp_path / "c") - before < 1.3 * size + 200e6
