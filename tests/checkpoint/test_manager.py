"""The checkpoints of a training loop."""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from orbax.checkpoint import checkpoint_managers as policies
from orbax.checkpoint import v1

import jtree


def write(directory: Path, *steps: int, **options: Any) -> None:
    with jtree.Manager(directory, **options) as manager:
        for step in steps:
            assert manager.save(step, {"layers": ({"w": np.full(3, step)},), "b": jnp.ones(2)})


def flip(path: Path, position: int) -> None:
    """Flip one bit of a file."""
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << position % 8
    path.write_bytes(data)


def data_file(step: Path) -> Path:
    """Return the largest file of arrays of a step."""
    files = [x for x in (step / "state").rglob("*") if x.is_file() and x.parent.name == "d"]
    return max(files, key=lambda x: x.stat().st_size)


def test_steps_are_checkpoints(tmp_path: Path) -> None:
    write(tmp_path / "run", 1, 2, 3, max_to_keep=2)
    assert sorted(x.name for x in (tmp_path / "run").iterdir()) == ["2", "3"]
    state = jtree.load(tmp_path / "run" / "3")
    assert type(state["layers"]) is tuple
    assert state["layers"][0]["w"].tolist() == [3, 3, 3]
    assert jtree.open(tmp_path / "run" / "3").checksums
    with jtree.Manager(tmp_path / "run") as manager:
        assert manager.latest_step() == 3
        assert manager.all_steps() == [2, 3]
        assert repr(manager) == f"Manager({str(tmp_path / 'run')!r}, steps=[2, 3])"
        assert manager.restore(step=2)["layers"][0]["w"].tolist() == [2, 2, 2]
        model = {"layers": ({"w": jnp.zeros(3)},), "b": jnp.zeros(2, jnp.bfloat16)}
        restored = manager.restore(model)
        assert restored["b"].dtype == jnp.bfloat16
        assert restored["layers"][0]["w"].tolist() == [3, 3, 3]
        assert manager.restore(where="b").keys() == {"b"}


def test_policies_decide_what_is_saved_and_kept(tmp_path: Path) -> None:
    with jtree.Manager(tmp_path / "a", save_interval=3, max_to_keep=1, keep_period=6) as manager:
        saved = [step for step in range(1, 14) if manager.save(step, {"step": step})]
        assert manager.save(14, {"step": 14}, force=True, metadata={"loss": 0.5})
        manager.wait_until_finished()
        assert saved == [1, 3, 6, 9, 12]
        assert manager.all_steps() == [6, 12, 14]
        assert not manager.save(9, {"step": 9}), "older than the newest"
    assert jtree.open(tmp_path / "a" / "14").metadata == {"loss": 0.5}
    options: dict[str, Any] = {
        "save_policy": policies.SpecificStepsPolicy([2, 4, 5]),
        "preservation_policy": policies.CustomSteps([2, 5]),
    }
    with jtree.Manager(tmp_path / "b", **options) as manager:
        assert [step for step in range(7) if manager.save(step, {"step": step})] == [2, 4, 5]
        manager.wait_until_finished()
        assert manager.all_steps() == [2, 5]


LOSSES = {1: 0.5, 2: 0.1, 3: float("nan"), 4: 0.3, 5: 0.9}


@pytest.mark.parametrize(("mode", "best", "kept"), [("min", 2, [2, 4, 6]), ("max", 5, [1, 5, 6])])
@pytest.mark.filterwarnings("ignore:Sharding info not provided:UserWarning")
def test_the_best_steps_are_kept(tmp_path: Path, mode: Any, best: int, kept: list[int]) -> None:
    options: dict[str, Any] = {"best_fn": lambda metrics: metrics["loss"], "best_mode": mode}
    with jtree.Manager(tmp_path, max_to_keep=2, **options) as manager:
        assert manager.best_step() is None
        for step, loss in LOSSES.items():
            assert manager.save(step, {"w": jnp.ones(2)}, metrics={"loss": jnp.float32(loss)})
        assert manager.save(6, {"w": jnp.ones(2)})
        manager.wait_until_finished()
        assert manager.all_steps() == kept
        assert manager.best_step() == best
        assert manager.metrics(best) == {"loss": pytest.approx(LOSSES[best])}
        assert manager.metrics(6) is None
        assert manager.restore(step=best)["w"].tolist() == [1, 1]
        assert not jtree.verify(tmp_path / str(best))
    orbax = policies.CheckpointManagerOptions(max_to_keep=2, read_only=True, **options)
    with ocp.CheckpointManager(tmp_path, options=orbax) as theirs:
        assert theirs.best_step() == best
        assert theirs.metrics(best) == {"loss": pytest.approx(LOSSES[best])}
        assert_lists(theirs.restore(best).state, {"w": [1, 1]})
    with v1.training.Checkpointer(tmp_path) as checkpointer:
        assert_lists(checkpointer.load(best), {"w": [1, 1]})
        assert checkpointer.checkpointables_metadata(best).metrics == {
            "loss": pytest.approx(LOSSES[best])
        }


def test_wrong_metrics_are_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected = "metrics: expected a dict of numbers by name, such as {'loss': 0.5}"
    with jtree.Manager(tmp_path / "run", best_fn=lambda metrics: metrics["loss"]) as manager:
        for metrics, found in [(0.5, ", found 0.5"), ({"loss": object()}, "; Object of type obj")]:
            with pytest.raises(jtree.ArgumentTypeError, match=f"^{re.escape(expected + found)}"):
                manager.save(1, {}, metrics=metrics)  # type: ignore[arg-type]
        assert manager.all_steps() == []
        manager.save(1, {"x": 1}, metrics={"loss": 0.5})
        manager.wait_until_finished()
        file = tmp_path / "run" / "1" / "metrics" / "metrics"
        file.write_text("{")
        start = f"{file}: cannot read these metrics: invalid JSON: "
        with pytest.raises(jtree.CheckpointError, match=f"^{re.escape(start)}"):
            manager.metrics(1)
        manager.save(2, {"x": 2}, metrics={"loss": 0.25})
        manager.wait_until_finished()
        assert "step 1 counts as one without metrics: " in caplog.text
    for options, message in [
        ({"best_fn": 3}, "best_fn: expected a function from metrics to a number, found 3"),
        ({"best_fn": len, "best_mode": "low"}, "best_mode: expected 'max' or 'min', found 'low'"),
    ]:
        with pytest.raises(jtree.ArgumentError, match=f"^{re.escape(message)}$"):
            jtree.Manager(tmp_path, **options)  # type: ignore[arg-type]
    with jtree.Manager(tmp_path / "run") as manager:
        message = "best_step needs best_fn=; pass it to jtree.Manager"
        with pytest.raises(jtree.ArgumentError, match=f"^{re.escape(message)}$"):
            manager.best_step()


def test_the_values_at_the_time_of_the_call_are_saved(tmp_path: Path) -> None:
    x, y = np.zeros(3), jnp.zeros(3)
    with jtree.Manager(tmp_path) as manager:
        manager.save(1, {"x": x, "y": y})
        x += 1
        y.delete()
        assert manager.restore()["x"].tolist() == [0, 0, 0]


@pytest.mark.filterwarnings("ignore:Sharding info not provided:UserWarning")
def test_orbax_reads_the_steps(tmp_path: Path) -> None:
    write(tmp_path, 1, 2)
    expected = {"layers": {"0": {"w": [2, 2, 2]}}, "b": [1, 1]}
    with ocp.CheckpointManager(tmp_path) as manager:
        assert manager.all_steps() == [1, 2]
        restored = manager.restore(2)
    assert_lists(restored.state, expected)
    with v1.training.Checkpointer(tmp_path) as checkpointer:
        assert checkpointer.latest is not None
        assert checkpointer.latest.step == 2
        assert_lists(checkpointer.load(2), expected)
        assert_lists(checkpointer.load(), expected)


@pytest.mark.filterwarnings("ignore:Sharding info not provided:UserWarning")
def test_the_readers_of_orbax(tmp_path: Path) -> None:
    jtree.save(tmp_path / "1", {"layers": ({"w": np.arange(3)},), "b": jnp.ones(2)})
    expected = {"layers": {"0": {"w": [0, 1, 2]}}, "b": [1, 1]}
    assert_lists(v1.load(tmp_path / "1"), expected)
    assert_lists(v1.load_checkpointables(tmp_path / "1")["state"], expected)
    with ocp.CheckpointManager(tmp_path) as manager:
        assert_lists(manager.restore(1).state, expected)
    for kind in (ocp.StandardCheckpointer, ocp.PyTreeCheckpointer):
        with kind() as checkpointer:
            assert_lists(checkpointer.restore(tmp_path / "1" / "state"), expected)
            with pytest.raises(FileNotFoundError):
                checkpointer.restore(tmp_path / "1")


def assert_lists(tree: Any, expected: Any) -> None:
    if isinstance(expected, dict):
        assert tree.keys() == expected.keys()
        for key, x in expected.items():
            assert_lists(tree[key], x)
    else:
        assert np.asarray(tree).tolist() == expected


def test_a_damaged_step_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, 1, 2, 3, 4)
    for step in (3, 4):
        (tmp_path / str(step) / "_CHECKPOINT_METADATA").write_text("{")
    with jtree.Manager(tmp_path, max_to_keep=1) as manager:
        with pytest.raises(jtree.CheckpointError) as info:
            manager.restore()
        assert str(info.value).startswith(f"{tmp_path}: step 4 is damaged: {tmp_path / '4'}: ")
        end = "; pass fallback=True to restore the newest whole step instead"
        assert str(info.value).endswith(end)
        with pytest.raises(jtree.CheckpointError, match=re.escape(f"{tmp_path}: step 3 is dam")):
            manager.restore(step=3)
        with caplog.at_level(logging.WARNING, "jtree"):
            assert manager.restore(fallback=True)["layers"][0]["w"].tolist() == [2, 2, 2]
        warnings = [x.getMessage() for x in caplog.records if x.name == "jtree"]
        starts = ["step 4 is damaged, restored 2: ", "step 3 is damaged, restored 2: "]
        assert [x[: len(starts[0])] for x in warnings] == starts
        assert manager.save(3, {"again": 3}), "a damaged step is replaced"
        manager.wait_until_finished()
        assert manager.all_steps() == [3, 4], "a damaged step is not deleted"
        assert manager.restore(fallback=True) == {"again": 3}


def test_all_steps_may_be_damaged(tmp_path: Path) -> None:
    write(tmp_path, 1, 2)
    for step in (1, 2):
        (tmp_path / str(step) / "_CHECKPOINT_METADATA").unlink()
    message = re.escape(f"{tmp_path}: all steps are damaged: 2, 1: ")
    with jtree.Manager(tmp_path) as manager, pytest.raises(jtree.CheckpointError, match=message):
        manager.restore(fallback=True)


def test_single_flipped_bits_are_found(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = {"w": rng.random(4000), "b": rng.random(100)}
    with jtree.Manager(tmp_path / "run") as manager:
        manager.save(1, values)
        manager.wait_until_finished()
        file = data_file(tmp_path / "run" / "1")
        whole, found = file.read_bytes(), 0
        for position in rng.choice(len(whole), 8, replace=False):
            flip(file, int(position))
            restored = None
            with contextlib.suppress(jtree.CheckpointError):
                restored = manager.restore()
            found += restored is None
            assert restored is None or all((restored[key] == values[key]).all() for key in values)
            file.write_bytes(whole)
        assert found > 4


def test_errors_are_raised_by_the_next_call(tmp_path: Path) -> None:
    manager = jtree.Manager(tmp_path)
    manager.save(1, {"w": np.zeros(2)})
    manager.wait_until_finished()
    with pytest.raises(jtree.CheckpointError, match="1 already exists"):
        manager.save(1, {"w": np.zeros(2)}, force=True)
    manager.save(2, {"w": np.zeros(1_000_000)})
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / "mine").touch()
    with pytest.raises(jtree.CheckpointError, match="2 already exists"):
        manager.wait_until_finished()
    shutil.rmtree(tmp_path / "2")
    assert manager.restore()["w"].tolist() == [0, 0]
    manager.close()


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    for options, message in [
        ({"max_to_keep": 0}, "max_to_keep: expected at least 1, found 0"),
        ({"save_interval": 0}, "save_interval: expected at least 1, found 0"),
        ({"save_interval": 1.5}, "save_interval: expected an int, found float"),
        ({"keep_period": True}, "keep_period: expected an int, found bool"),
    ]:
        with pytest.raises(jtree.ArgumentError, match=f"^{re.escape(message)}$"):
            jtree.Manager(tmp_path / "run", **options)  # type: ignore[arg-type]
    with jtree.Manager(tmp_path / "run") as manager:
        for step, message in [
            (-1, "step: expected an int of at least 0, found -1"),
            (1.5, "step: expected an int, found float"),
        ]:
            with pytest.raises(jtree.ArgumentError, match=f"^{re.escape(message)}$"):
                manager.save(step, {})  # type: ignore[arg-type]
        empty = f"{tmp_path / 'run'} does not have any steps; save one first"
        with pytest.raises(jtree.CheckpointError, match=f"^{re.escape(empty)}$"):
            manager.restore()
        assert manager.latest_step() is None
        manager.save(4, {})
        missing = f"{tmp_path / 'run'} does not have step 5; its newest steps are: 4"
        with pytest.raises(jtree.CheckpointError, match=f"^{re.escape(missing)}$"):
            manager.restore(step=5)
        both = "fallback=True is for the newest step; leave out step= or fallback="
        with pytest.raises(jtree.ArgumentError, match=f"^{re.escape(both)}$"):
            manager.restore(step=4, fallback=True)
