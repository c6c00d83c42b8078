"""Causes that all problems of a conversion share: one line, whose remedy works when applied."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

import jtree
from jtree import migrate
from jtree._state.causes import find_causes

from ..same import normal, same


class Network(nnx.Module):
    """A model of four layers of three kinds."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.l1 = nnx.Linear(3, 4, rngs=rngs)
        self.l2 = nnx.Linear(4, 4, rngs=rngs)
        self.norm = nnx.LayerNorm(4, rngs=rngs)
        self.head = nnx.Linear(4, 2, rngs=rngs)


def torch_dict() -> dict[str, Any]:
    shapes = {"l1": (4, 3), "l2": (4, 4), "norm": (4,), "head": (2, 4)}
    weights = {f"{name}.weight": normal(*shape) for name, shape in shapes.items()}
    return weights | {f"{name}.bias": normal(shape[0]) for name, shape in shapes.items()}


def renamed(change: Callable[[str], str]) -> dict[str, Any]:
    return {change(name): x for name, x in torch_dict().items()}


def nested() -> Any:
    return nnx.to_pure_dict(nnx.state(Network()))


SOURCES: dict[str, Callable[[], tuple[Any, str]]] = {
    "a compiled module": lambda: (renamed("_orig_mod.{}".format), "torch"),
    "two prefixes": lambda: (renamed("module.model.{}".format), "torch"),
    "a level more": lambda: ({"state_dict": torch_dict(), "epoch": 3}, "torch"),
    "a suffix": lambda: (renamed("{}.value".format), "torch"),
    "another word": lambda: (renamed(lambda x: x.replace("norm", "ln_f")), "torch"),
    "two words": lambda: (
        renamed(lambda x: x.replace("norm", "ln_f").replace("head", "classifier")),
        "torch",
    ),
    "a prefix and a word": lambda: (
        renamed(lambda x: f"net.{x}".replace("net.head", "classifier")),
        "torch",
    ),
    "a suffix of nnx": lambda: (jax.tree.map(lambda x: {"value": x}, nested()), "nnx"),
    "another layout": lambda: (nested(), "torch"),
    "another layout below params": lambda: ({"params": nested()}, "torch"),
    "torch as linen": lambda: (torch_dict(), "linen"),
    "a prefix and another layout": lambda: (renamed("module.{}".format), "nnx"),
}


@pytest.mark.parametrize("name", SOURCES)
def test_a_shared_cause_is_one_line_and_its_remedy_works(name: str) -> None:
    source, layout = SOURCES[name]()
    with pytest.raises(jtree.LoadError) as error:
        migrate.convert(Network(), source, layout=layout)
    message = str(error.value)
    assert len(message.splitlines()) == 1
    remedy = message.rpartition("; pass ")[2].replace(", and ", ", ")
    options = {"layout": layout} | eval(f"dict({remedy})", {"jtree": jtree})
    converted, report = migrate.convert(Network(), source, **options)
    assert len(report.layers) == 4
    first = next(x for path, x in _arrays(source) if path.endswith(("l1.bias", "l1/bias", "value")))
    assert first is not None
    assert not same(converted, Network()) or layout == "nnx" or "layout" in remedy


def _arrays(source: Any) -> list[tuple[str, Any]]:
    return [(slot.path, slot.value) for slot in jtree.walk(source).slots]


def test_the_message_names_the_layout_and_the_prefix() -> None:
    with pytest.raises(jtree.LoadError) as error:
        migrate.convert(Network(), renamed("module.{}".format), layout="nnx")
    assert str(error.value) == (
        "nothing was loaded: 16 mismatches: the source has the names of 'torch', not of 'nnx'; "
        "pass layout='torch', and rename={'module': ''}"
    )


def test_other_problems_follow_the_cause() -> None:
    source = renamed("module.{}".format)
    del source["module.l1.bias"]
    with pytest.raises(jtree.LoadError) as error:
        migrate.convert(Network(), source)
    lines = str(error.value).splitlines()
    assert lines[0] == "nothing was loaded: 15 mismatches"
    assert lines[1] == (
        "  14 paths: the source has the prefix 'module' in its paths, unlike the destination; "
        "pass rename={'module': ''}"
    )
    assert len(lines) == 3
    assert lines[2].startswith("  l1/bias: expected float32[4], found no l1.bias in the source")


@pytest.mark.parametrize("source", [3, None, Network, object(), {"a": "text"}])
def test_a_source_without_arrays_is_refused(source: Any) -> None:
    with pytest.raises(jtree.ArgumentTypeError, match=r"^source: expected a state dict, a model"):
        migrate.convert(Network(), source)


def test_files_that_stand_for_others_are_named(tmp_path: Path) -> None:
    texts = {
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n": (
            "a Git LFS pointer; get the file itself by git lfs pull"
        ),
        "\n<!DOCTYPE html>\n<html></html>": (
            "an HTML page; download the file itself, from the link that says raw or download"
        ),
    }
    for suffix in ("safetensors", "pt", "npz", "h5"):
        for text, description in texts.items():
            path = tmp_path / f"model.{suffix}"
            path.write_text(text)
            with pytest.raises(jtree.CheckpointError) as error:
                jtree.load(path)
            assert str(error.value) == f"{path}: not a checkpoint: {description}"


def test_tensors_of_torch_are_a_cause() -> None:
    torch = pytest.importorskip("torch")
    source = {"w": torch.ones(2), "b": torch.ones(3)}
    (cause,) = find_causes({"w": np.ones(2), "b": np.ones(3)}, source)
    assert cause.text == (
        "the source holds tensors of PyTorch, not arrays; convert it with "
        "jtree.migrate.convert(model, source), or pass {name: x.numpy() for name, x in "
        "source.items()}"
    )
    assert cause.paths == {"w", "b"}
