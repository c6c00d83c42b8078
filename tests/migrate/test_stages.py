"""The stages of a conversion: each once and in order, one walk of the model, one comparison."""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from flax import nnx

import jtree
from jtree import migrate
from jtree._state.load import compare_walks
from jtree._tree.walk import walk

from ..same import normal
from .models import Holder, linear

STAGES = [
    ("hints", "check_arguments"),
    ("source", "read_source"),
    ("target", "read_target"),
    ("names", "name_model"),
    ("names", "name_source"),
    ("match", "match_layers"),
    ("values", "convert_values"),
    ("unused", "find_unused"),
    ("traps", "find_traps"),
    ("traps", "find_cautions"),
    ("checks", "make_report"),
]
ROOM = Path(jtree.__file__).parent / "migrate"


def model() -> Holder:
    rngs = nnx.Rngs(0)
    return Holder(conv=nnx.Conv(1, 4, (3, 3), padding=1, rngs=rngs), fc=linear(16, 3))


def source() -> dict[str, Any]:
    convolution = {"conv.weight": normal(4, 1, 3, 3), "conv.bias": normal(4)}
    return convolution | {"fc.weight": normal(3, 16), "fc.bias": normal(3)}


def calls(target: Any, arrays: dict[str, Any], **options: Any) -> list[FrameType]:
    """Return the frames of the functions of jtree.migrate that a conversion calls, in order."""
    frames: list[FrameType] = []

    def record(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and ROOM in Path(frame.f_code.co_filename).parents:
            frames.append(frame)

    sys.setprofile(record)
    try:
        migrate.convert(target, arrays, **options)
    finally:
        sys.setprofile(None)
    return frames


def file(frame: FrameType) -> str:
    return Path(frame.f_code.co_filename).stem


def test_the_stages_follow_each_other_and_none_is_called_twice() -> None:
    hints = [migrate.flattened("fc", shape=(4, 2, 2))]
    stages = [
        (file(frame), frame.f_code.co_name)
        for frame in calls(model(), source(), hints=hints)
        if frame.f_back is not None and file(frame.f_back) == "convert" != file(frame)
    ]
    assert stages == STAGES


def test_a_conversion_passes_through_thirteen_files() -> None:
    """A reader who follows a conversion opens these files, one after another."""
    hints = [migrate.flattened("fc", shape=(4, 2, 2))]
    files = [file(frame) for frame in calls(model(), source(), hints=hints)]
    stages = {name for name, _ in STAGES}
    assert set(files) == {"convert", *stages, "flax", "fields", "transforms"}
    assert len(set(files)) <= 13


def test_a_conversion_returns_to_no_stage() -> None:
    """Generators count: they may not run a stage's code while another stage runs."""
    frames = calls(model(), source())
    stages = [file(x) for x in frames if Path(x.f_code.co_filename).parent.name == "_convert"]
    assert [name for name, _ in groupby(stages)] == [
        "convert",
        *dict.fromkeys(name for name, _ in STAGES if name != "hints"),
    ]


def test_a_conversion_walks_the_model_once_and_compares_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other walks are of the source and of the new values."""
    calls: dict[Any, list[Any]] = {walk: [], compare_walks: []}

    def counted(function: Any) -> Any:
        def call(x: Any, *args: Any, **options: Any) -> Any:
            calls[function].append(x)
            return function(x, *args, **options)

        return call

    replacements = {function: counted(function) for function in calls}
    for name, module in list(sys.modules.items()):
        if name.startswith("jtree."):
            for function, replacement in replacements.items():
                if getattr(module, function.__name__, None) is function:
                    monkeypatch.setattr(module, function.__name__, replacement)
    target = model()
    migrate.convert(target, source())
    assert sum(x is target for x in calls[walk]) == 1
    assert len(calls[walk]) == 3
    assert len(calls[compare_walks]) == 1
