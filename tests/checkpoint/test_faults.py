"""What can go wrong with files: killed writers, full disks, damage, others in the way."""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import shutil
import struct
import subprocess
import sys
import textwrap
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

import jtree
from jtree.checkpoint._storage import atomic as _files
from jtree.checkpoint._storage.paths import as_path

from ..same import same

STATE = {"a": np.arange(2000.0), "b": [np.ones((3, 5), np.float32), 0.5], "c": np.arange(7)}


def version(number: int) -> dict[str, Any]:
    """Return a state of some megabytes in which every number says which version it is."""
    return {
        "arrays": [np.full(200_000, number, np.int32) for _ in range(8)],
        "small": [np.full(10, number, np.int32) for _ in range(20)],
        "number": number,
    }


def version_of(state: Any) -> int:
    """Return which version a state is, if it is all of one."""
    found = {int(x) for array in jax.tree.leaves(state) for x in np.unique(array)}
    assert len(found) == 1
    return found.pop()


# A process that has imported everything, and forks one that saves each time it is asked to.
WRITER = """
    import os, sys, numpy as np, jtree
    from tests.checkpoint.test_faults import version
    import jtree.checkpoint._save
    from orbax.checkpoint import v1
    for line in sys.stdin:
        path, number, overwrite, packed = line.rstrip("\\n").split("\\t")
        child = os.fork()
        if child == 0:
            state = version(int(number))
            print(os.getpid(), flush=True)
            jtree.save(path, state, overwrite=overwrite == "1", packed=packed == "1")
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print("ended", status, flush=True)
"""


@pytest.fixture(scope="module")
def writer() -> Iterator[subprocess.Popen[str]]:
    code = textwrap.dedent(WRITER)
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        text=True,
    )
    yield process
    process.kill()
    process.communicate()


def ask(writer: Any, path: Path, number: int, overwrite: bool, packed: bool) -> int:
    """Have another process save a version; return its number once it begins."""
    writer.stdin.write(f"{path}\t{number}\t{overwrite:d}\t{packed:d}\n")
    writer.stdin.flush()
    return int(writer.stdout.readline())


def ended(writer: Any) -> bool:
    word, status = writer.stdout.readline().split()
    assert word == "ended"
    return status == "0"


def seconds(writer: Any, path: Path, packed: bool) -> float:
    """Return how long a save takes when nobody kills it."""
    ask(writer, path, 0, False, packed)
    start = time.perf_counter()
    assert ended(writer)
    return time.perf_counter() - start


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_killed_save_leaves_the_old_checkpoint_or_the_new(
    tmp_path: Path, writer: Any, overwrite: bool, packed: bool
) -> None:
    randomly = random.Random(overwrite * 2 + packed)
    target = tmp_path / "model"
    usual = min(seconds(writer, tmp_path / f"timed{n}", packed) for n in range(3))
    found, cut_short = set(), 0
    for number in range(1, 21):
        if overwrite:
            jtree.save(target, version(0), overwrite=True, packed=packed)
        pid = ask(writer, target, number, overwrite, packed)
        time.sleep(randomly.uniform(0, 1.1 * usual))  # the moment of the kill is what is tested
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.kill(pid, 9)
        cut_short += not ended(writer)
        if overwrite or target.exists():
            state = jtree.load(target)
            assert version_of(state) in ({0, number} if overwrite else {number})
            found.add(version_of(state) == number)
        assert not jtree.verify(target) if target.exists() else True
        if not overwrite:
            shutil.rmtree(target, ignore_errors=True)
    assert cut_short
    jtree.save(target, version(99), overwrite=True)  # removes what the killed ones have left
    assert sorted(x.name for x in tmp_path.iterdir()) == ["model", "timed0", "timed1", "timed2"]


def test_the_target_is_a_checkpoint_at_every_step_of_an_overwrite(
    tmp_path: Path, run_python: Any
) -> None:
    """A random kill seldom hits the moment of the swap; so look before every change of a file."""
    for name in "ab":
        (tmp_path / name).mkdir()
    if not _files._exchange(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this file system has no exchange in one step")
    out = run_python(
        f"""
        import os, sys, jtree, numpy as np
        target = {str(tmp_path)!r} + "/model"
        jtree.save(target, {{"a": np.zeros(3)}})
        seen = []
        def look(event, _):
            if event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree"):
                seen.append(os.path.exists(target + "/_CHECKPOINT_METADATA"))
        sys.addaudithook(look)
        jtree.save(target, {{"a": np.ones(3)}}, overwrite=True)
        print(len(seen) > 5, all(seen), jtree.load(target)["a"])
        """
    )
    assert out == "True True [1. 1. 1.]\n"


def test_the_overwritten_checkpoint_is_found_where_a_kill_between_two_renames_leaves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_files, "_exchange", lambda *_: False)  # as where the system has none
    target = tmp_path / "model"
    jtree.save(target, version(1))
    jtree.save(target, version(2), overwrite=True)
    assert version_of(jtree.load(target)) == 2
    work = tmp_path / ".model.0123abcd.jtree"
    work.mkdir()
    target.rename(work / "old")
    assert version_of(jtree.load(target)) == 2
    jtree.save(target, version(3), overwrite=True)
    assert version_of(jtree.load(target)) == 3
    assert [x.name for x in tmp_path.iterdir()] == ["model"]


def test_a_failing_rename_puts_the_old_one_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_files, "_exchange", lambda *_: False)
    jtree.save(tmp_path / "x", {"a": 1})
    path_class = type(as_path(tmp_path))
    rename = path_class.rename

    def fail(self: Any, target: Any) -> Any:
        if self.name == "new":
            raise OSError("no room")
        return rename(self, target)

    monkeypatch.setattr(path_class, "rename", fail)
    with pytest.raises(jtree.CheckpointError, match="cannot be written: no room"):
        jtree.save(tmp_path / "x", {"a": 2}, overwrite=True)
    monkeypatch.undo()
    assert jtree.load(tmp_path / "x") == {"a": 1}
    assert [x.name for x in tmp_path.iterdir()] == ["x"]


def test_a_full_disk(tmp_path: Path, run_python: Any) -> None:
    jtree.save(tmp_path / "x", {"a": 1})
    out = run_python(
        f"""
        import resource, numpy as np, jtree
        x = np.random.default_rng(0).standard_normal(1_000_000)
        jtree.save({str(tmp_path)!r} + "/warm", {{"a": x[:10]}})
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
        for name in ("x", "y"):
            try:
                jtree.save({str(tmp_path)!r} + "/" + name, {{"a": x}}, overwrite=True)
            except jtree.CheckpointError as error:
                print("cannot be written" in str(error))
        """
    )
    assert out == "True\nTrue\n"
    assert jtree.load(tmp_path / "x") == {"a": 1}
    assert sorted(x.name for x in tmp_path.iterdir()) == ["warm", "x"]


def test_a_directory_that_cannot_be_written_to(tmp_path: Path, run_python: Any) -> None:
    jtree.save(tmp_path / "x", {"a": 1})
    out = run_python(
        f"""
        import os, jtree, numpy as np
        path = {str(tmp_path)!r}
        jtree.save("warm", np.ones(1))
        os.chmod(path, 0o555)
        for folder in (path, *list(__import__("pathlib").Path(path).parents)[:-2]):
            os.chmod(folder, os.stat(folder).st_mode | 0o555)
        if os.getuid() == 0:
            os.seteuid(65534)
        try:
            jtree.save(path + "/x", {{"a": 2}}, overwrite=True)
        except jtree.CheckpointError as error:
            print("cannot be written" in str(error), "ermission" in str(error))
        """
    )
    os.chmod(tmp_path, 0o755)
    assert out == "True True\n"
    assert jtree.load(tmp_path / "x") == {"a": 1}


# Loads copies of checkpoints, each with one file damaged. In a process of its own: what Orbax
# leaves running after a failed read may complain long after that.
DAMAGED = """
    import collections, random, shutil, sys, numpy as np, jtree
    from pathlib import Path
    from tests.checkpoint.test_faults import STATE
    from tests.same import same

    randomly = random.Random(int(sys.argv[2]))
    at = Path(sys.argv[1])
    seen = collections.Counter()

    def damage(file, how):
        data = bytearray(file.read_bytes())
        if how == "missing":
            file.unlink()
        elif how == "truncated":
            file.write_bytes(data[: randomly.randrange(len(data))])
        else:
            data[randomly.randrange(len(data))] ^= 1 << randomly.randrange(8)
            file.write_bytes(data)

    for packed in (False, True):
        jtree.save(at / "x", STATE, packed=packed, overwrite=True)
        files = [x.relative_to(at / "x") for x in (at / "x").rglob("*") if x.is_file()]
        for file in files:
            size = (at / "x" / file).stat().st_size
            kinds = ["missing"] + ["truncated", "flipped"] * (5 if size else 0)
            for how in kinds:
                shutil.copytree(at / "x", at / "y")
                damage(at / "y" / file, how)
                try:
                    found = jtree.load(at / "y")
                    assert same(found, STATE), (file, how)
                    seen[f"{how}: harmless"] += 1
                except jtree.CheckpointError as error:
                    assert str(at / "y") in str(error), error
                    assert len(str(error)) < 1500, error
                    seen[how] += 1
                    wrong = jtree.verify(at / "y") if how == "flipped" else {"": ""}
                    assert wrong, (file, how)
                shutil.rmtree(at / "y")
    print(dict(seen))
"""


def test_damaged_files_are_noticed_or_harmless(tmp_path: Path) -> None:
    code = textwrap.dedent(DAMAGED)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), "0"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    seen = eval(done.stdout.splitlines()[-1])
    assert seen["flipped"] > 30
    assert seen["truncated"] > 30
    assert seen["missing"] > 8


def test_a_flipped_bit_in_the_numbers_names_the_array(tmp_path: Path) -> None:
    """Orbax compresses, so what is stored plainly is found in what it cannot compress."""
    numbers = np.frombuffer(random.Random(0).randbytes(80_000), np.float64).copy()
    numbers[~np.isfinite(numbers)] = 1.0
    noticed = 0
    for seed in range(14):
        jtree.save(tmp_path / "x", {"w": numbers, "v": np.ones(3)}, overwrite=True)
        file = max((x for x in (tmp_path / "x").rglob("*") if x.is_file()), key=_size)
        data = bytearray(file.read_bytes())
        data[random.Random(seed).randrange(2000, 60_000)] ^= 1 << (seed % 8)
        file.write_bytes(data)
        with pytest.raises(jtree.CheckpointError, match=r"\bw\b") as error:
            jtree.load(tmp_path / "x")
        noticed += isinstance(error.value, jtree.ChecksumError)
        assert list(jtree.verify(tmp_path / "x")) == ["w"]
        assert jtree.load(tmp_path / "x", where="v")["v"].tolist() == [1, 1, 1]
    assert noticed


def _size(file: Path) -> int:
    return file.stat().st_size


def test_two_processes_save_to_one_path(tmp_path: Path, run_python: Any) -> None:
    script = """
        import os, numpy as np, jtree, jtree.checkpoint._save
        from orbax.checkpoint import v1
        path = {path!r}
        def save(number):
            try:
                jtree.save(path, [np.full(50_000, number)] * 3, overwrite={overwrite})
                return 1
            except jtree.CheckpointError as error:
                assert "already exists" in str(error), error
                return 0
        children = []
        for number in range(6):
            children.append(os.fork())
            if not children[-1]:
                os._exit(save(number))
        print(sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
    """
    for overwrite in (False, True):
        path = str(tmp_path / f"{overwrite}" / "x")
        saved = int(run_python(script.format(path=path, overwrite=overwrite)))
        assert saved == (6 if overwrite else 1)
        version_of(jtree.load(path))
        assert [x.name for x in Path(path).parent.iterdir()] == ["x"]


def test_threads_save_and_load_at_once(tmp_path: Path) -> None:
    def work(number: int) -> int:
        jtree.save(tmp_path / f"{number}", version(number), packed=number % 2 == 0)
        return version_of(jtree.load(tmp_path / f"{number}"))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(12))) == list(range(12))


def test_a_checkpoint_that_is_being_written(tmp_path: Path) -> None:
    saving = jtree.save_async(tmp_path / "x", [np.zeros(100_000)] * 20)
    try:
        jtree.load(tmp_path / "x")
    except jtree.CheckpointError as error:
        assert "no such file or directory" in str(error)  # noqa: PT017
    saving.result()
    assert len(jtree.load(tmp_path / "x")) == 20
    (tmp_path / "y.orbax-checkpoint-tmp").mkdir()
    with pytest.raises(
        jtree.CheckpointError, match="still being written, or its writer was killed"
    ):
        jtree.load(tmp_path / "y.orbax-checkpoint-tmp")


class Harmful:
    def __reduce__(self) -> Any:
        return os.mkdir, ("harm",)


def test_what_is_no_checkpoint_is_called_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "old.pt").write_bytes(pickle.dumps(Harmful(), protocol=2))
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps(Harmful(), protocol=2))
    bson = b"\x02tag\0\x07\0\0\0struct\0"
    (tmp_path / "model.bson").write_bytes(struct.pack("<i", len(bson) + 5) + bson + b"\0")
    (tmp_path / "weights.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 100)
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "folder").mkdir()
    expected = {
        "old.pt": "not a checkpoint: a pickle, as PyTorch before 1.6 writes",
        "model.pt": "cannot read this PyTorch file",
        "model.bson": "a BSON file, as Flux.jl writes",
        "weights.h5": "cannot read this HDF5 file",
        "notes.txt": "not a checkpoint: a file in an unknown format",
        "folder": "not a checkpoint: an empty directory",
        "nothing": "no such file or directory",
    }
    for name, text in expected.items():
        with pytest.raises(jtree.CheckpointError) as error:
            jtree.load(tmp_path / name)
        assert f"{tmp_path / name}: " in str(error.value)
        assert text in str(error.value)
    assert not Path("harm").exists()


def test_what_is_no_checkpoint_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "thesis.tex").write_text("the only copy")
    (tmp_path / ".y.old").mkdir()
    (tmp_path / ".y.mine").write_text("mine")
    with pytest.raises(
        jtree.CheckpointError,
        match="exists and is not a jtree checkpoint; refusing to overwrite it",
    ):
        jtree.save(tmp_path / "x", {"a": 1}, overwrite=True)
    jtree.save(tmp_path / "y", {"a": 1})
    jtree.save(tmp_path / "y", {"a": 2}, overwrite=True)
    assert sorted(x.name for x in tmp_path.iterdir()) == [".y.mine", ".y.old", "x", "y"]
    assert (tmp_path / "x" / "thesis.tex").read_text() == "the only copy"


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    jtree.save(tmp_path / "x", {"a": np.ones(1)})
    metadata = ocp.metadata(tmp_path / "x").custom_metadata
    metadata["jtree"]["format"] = 99
    ocp.save(tmp_path / "y", {"a": np.ones(1)}, custom_metadata=metadata)
    with pytest.raises(jtree.CheckpointError) as error:
        jtree.load(tmp_path / "y")
    assert str(error.value) == (
        f"{tmp_path / 'y'}: expected jtree's checkpoint format 2, found 99; use the version of "
        "jtree that wrote it"
    )


def test_brackets_in_a_path_are_no_glob(tmp_path: Path) -> None:
    for path in (tmp_path / "run[1]" / "m", tmp_path / "m[!a]"):
        for packed in (False, True):
            jtree.save(path, STATE, packed=packed, overwrite=True)
            assert same(jtree.load(path), STATE)
            assert [x.name for x in path.parent.iterdir() if x.name != "run[1]"] == [path.name]


def test_what_belongs_to_another_target_is_left_alone(tmp_path: Path) -> None:
    jtree.save(tmp_path / "model.best", {"best": 1})
    (tmp_path / ".model.best.0123abcd.jtree").mkdir()
    (tmp_path / "model.best").rename(tmp_path / ".model.best.0123abcd.jtree" / "old")
    (tmp_path / ".model.mine.jtree").mkdir()
    with pytest.raises(jtree.CheckpointError, match="no such file or directory"):
        jtree.load(tmp_path / "model")
    jtree.save(tmp_path / "model", {"x": 1})
    jtree.save(tmp_path / "model", {"x": 2}, overwrite=True)
    assert jtree.load(tmp_path / "model.best") == {"best": 1}
    assert (tmp_path / ".model.mine.jtree").exists()


def test_a_directory_that_appears_while_a_checkpoint_is_written(tmp_path: Path) -> None:
    jtree.save(tmp_path / "x", {"a": 1})
    saving = jtree.save_async(tmp_path / "x", [np.zeros(1_000_000)] * 4, overwrite=True)
    shutil.rmtree(tmp_path / "x")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "thesis.tex").touch()
    with pytest.raises(jtree.CheckpointError, match="exists and is not a jtree checkpoint"):
        saving.result()
    assert [x.name for x in (tmp_path / "x").iterdir()] == ["thesis.tex"]
    (tmp_path / "empty").mkdir()
    jtree.save(tmp_path / "empty", {"a": 1})
    assert jtree.load(tmp_path / "empty") == {"a": 1}


def test_the_last_of_two_saves_in_the_background_is_the_one_that_stays(tmp_path: Path) -> None:
    large = np.random.default_rng(0).random(2_000_000)
    first = jtree.save_async(tmp_path / "x", {"a": large}, overwrite=True)
    second = jtree.save_async(tmp_path / "x", {"a": np.ones(1)}, overwrite=True)
    second.result()
    first.result()
    assert jtree.load(tmp_path / "x")["a"].shape == (1,)


def test_a_checkpoint_that_is_overwritten_while_it_is_read(tmp_path: Path) -> None:
    jtree.save(tmp_path / "x", version(0))
    found = jtree.open(tmp_path / "x")
    with ThreadPoolExecutor(1) as pool:
        saving = pool.submit(
            lambda: [jtree.save(tmp_path / "x", version(n), overwrite=True) for n in range(1, 9)]
        )
        while not saving.done():
            version_of(jtree.load(tmp_path / "x"))
        saving.result()
    with pytest.raises(jtree.CheckpointError, match="has been overwritten since it was opened"):
        np.asarray(found["arrays/0"])


def test_paths_and_states_that_cannot_be(tmp_path: Path) -> None:
    deep: Any = 1
    for _ in range(900):
        deep = [deep]
    with pytest.raises(jtree.ModelError, match="nested too deeply"):
        jtree.save(tmp_path / "x", deep)
    with pytest.raises(jtree.ArgumentError, match="contains a NUL character"):
        jtree.load("a\0")
    with pytest.raises(jtree.CheckpointError, match="cannot be reached"):
        jtree.load("file:///x")
    with pytest.raises(
        jtree.CheckpointError, match="are for unfinished checkpoints; use another name"
    ):
        jtree.save(tmp_path / "x.orbax-checkpoint-tmp-1", {})
    assert not list(tmp_path.iterdir())
