"""save and load, through Orbax."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from orbax.checkpoint import v1 as ocp

import jtree

from .same import same
from .zoo import Net, Shared, abstract


def test_what_orbax_alone_loses_is_kept(tmp_path: Path) -> None:
    state = {
        "a.b": np.ones(1),
        "a": {"b": np.zeros(2), "": np.float32(2)},
        "empty": np.zeros((0, 3)),
        "four": np.ones(3, jnp.uint4),
        "eight": np.ones(3, jnp.float8_e4m3),
        "wide": np.array([2**40]),
        "complex": 1 + 2j,
        "bytes": b"x\0",
        "numbers": (1, [2.5, (True, None)], float("inf"), 2**80),
        "\U0001f600 '\"\n": np.arange(2),
        "integer keys": {1: "one", 2: "two"},
    }
    jtree.save(tmp_path / "a b\u00e9", state)
    assert same(jtree.load(tmp_path / "a b\u00e9"), state)


@pytest.mark.parametrize("state", [3, {}, np.arange(3), "text", {"a": ()}])
def test_states_with_few_arrays_or_none(tmp_path: Path, state: Any) -> None:
    jtree.save(tmp_path / "x", state)
    assert same(jtree.load(tmp_path / "x"), state)


def test_plain_orbax_reads_it_as_an_ordinary_tree(tmp_path: Path) -> None:
    jtree.save(tmp_path / "x", {"layers": [{"w": np.arange(3)}], "rate": 0.1})
    target = {"layers": {"0": {"w": np.zeros(3, np.int64)}}}
    assert ocp.load(tmp_path / "x", target)["layers"]["0"]["w"].tolist() == [0, 1, 2]


def test_a_model_is_loaded_into_another_and_into_an_abstract_one(tmp_path: Path) -> None:
    model = Net(nnx.Rngs(0))
    jtree.save(tmp_path / "x", model)
    for target in (Net(nnx.Rngs(1)), abstract(Net(nnx.Rngs(1)))):
        loaded = jtree.load(tmp_path / "x", target)
        assert same(loaded.conv.kernel[...], model.conv.kernel[...])
        assert isinstance(loaded.conv.kernel[...], jax.Array)
    shared = Shared(nnx.Rngs(0))
    jtree.save(tmp_path / "s", shared)
    assert (again := jtree.load(tmp_path / "s", Shared(nnx.Rngs(1)))).enc is again.dec
    with pytest.raises(jtree.LoadError):
        jtree.load(tmp_path / "s", model)


def test_what_is_there_is_replaced_only_when_asked(tmp_path: Path) -> None:
    jtree.save(tmp_path / "x", {"a": 1})
    with pytest.raises(OSError, match="exists already; use overwrite=True to replace it"):
        jtree.save(tmp_path / "x", {"a": 2})
    assert jtree.load(tmp_path / "x") == {"a": 1}
    jtree.save(tmp_path / "x", {"a": 2}, overwrite=True)
    assert jtree.load(tmp_path / "x") == {"a": 2}
    assert [x.name for x in tmp_path.iterdir()] == ["x"]


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(jtree.CheckpointError, match="there is nothing here"):
        jtree.load(tmp_path / "x")
    with pytest.raises(jtree.CheckpointError, match="cannot be read as a checkpoint"):
        jtree.load(tmp_path)
    ocp.save(tmp_path / "plain", {"a": np.ones(2)})
    with pytest.raises(jtree.CheckpointError, match=r"was not written by jtree.save"):
        jtree.load(tmp_path / "plain")


def test_what_cannot_be_saved_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    for leaf in (jax.ShapeDtypeStruct((1,), np.float32), np.array(["text"])):
        with pytest.raises(jtree.ModelError, match=r"^a: cannot save "):
            jtree.save(tmp_path / "x", {"a": leaf})
    assert not list(tmp_path.iterdir())


def test_other_numbers_than_those_written_are_refused_by_name(tmp_path: Path) -> None:
    jtree.save(tmp_path / "x", {"a": np.ones(2), "b": np.ones(2)})
    metadata = ocp.metadata(tmp_path / "x").custom_metadata
    ocp.save(tmp_path / "y", {"a": np.ones(2), "b": np.zeros(2)}, custom_metadata=metadata)
    with pytest.raises(
        jtree.ChecksumError, match=r"^the bytes of b are not those that were written"
    ):
        jtree.load(tmp_path / "y")
    assert jtree.load(tmp_path / "y", verify=False)["b"].tolist() == [0, 0]


def test_a_failing_save_leaves_what_was_there(tmp_path: Path, monkeypatch: Any) -> None:
    jtree.save(tmp_path / "x", {"a": 1})
    with pytest.raises(jtree.ModelError):
        jtree.save(tmp_path / "x", {"a": np.array(["text"])}, overwrite=True)
    rename = Path.rename
    calls = []

    def fail_the_second(self: Path, target: Any) -> Any:
        calls.append(self)
        if len(calls) == 2:
            raise OSError("no room")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_the_second)
    with pytest.raises(jtree.CheckpointError, match="no room"):
        jtree.save(tmp_path / "x", {"a": 2}, overwrite=True)
    monkeypatch.undo()
    assert jtree.load(tmp_path / "x") == {"a": 1}
    assert [x.name for x in tmp_path.iterdir()] == ["x"]


def test_what_is_no_checkpoint_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "thesis.tex").write_text("the only copy")
    (tmp_path / "y.old").mkdir()
    with pytest.raises(jtree.CheckpointError, match="is there and is no checkpoint, so it is not"):
        jtree.save(tmp_path / "x", {"a": 1}, overwrite=True)
    jtree.save(tmp_path / "y", {"a": 1})
    jtree.save(tmp_path / "y", {"a": 2}, overwrite=True)
    assert sorted(x.name for x in tmp_path.iterdir()) == ["x", "y", "y.old"]
    assert (tmp_path / "x" / "thesis.tex").read_text() == "the only copy"


def test_a_changed_structure_is_noticed(tmp_path: Path) -> None:
    jtree.save(tmp_path / "x", {"rate": 0.25})
    files = [file for file in (tmp_path / "x").iterdir() if file.is_file()]
    (file,) = [file for file in files if "0.25" in file.read_text(errors="ignore")]
    file.write_text(file.read_text().replace("0.25", "0.75"))
    with pytest.raises(jtree.ChecksumError, match="the structure that was read is not the one"):
        jtree.load(tmp_path / "x")


def test_a_path_comes_first(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"^expected a path first, found a dict"):
        jtree.save({"a": 1}, tmp_path / "x")  # type: ignore[arg-type]
    with pytest.raises(jtree.CheckpointError, match="only local paths"):
        jtree.load("gs://bucket/x")


def test_options_of_loadmodel_are_those_of_load(tmp_path: Path) -> None:
    jtree.save(tmp_path / "x", {"a": np.ones(2), "b": None})
    dst = {"a": jnp.zeros(2), "b": jnp.ones(1)}
    assert jtree.load(tmp_path / "x", dst, none="zero")["b"].tolist() == [0]
