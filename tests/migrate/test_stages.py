"""The stages of a conversion: each once and in order, one walk of the model, one comparison."""

from __future__ import annotations

import sys
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

STAGES = ["source", "names", "target", "match", "values", "unused", "report"]
ROOM = Path(jtree.__file__).parent / "migrate" / "_convert"


def model() -> Holder:
    rngs = nnx.Rngs(0)
    return Holder(conv=nnx.Conv(1, 4, (3, 3), padding=1, rngs=rngs), fc=linear(16, 3))


def source() -> dict[str, Any]:
    convolution = {"conv.weight": normal(4, 1, 3, 3), "conv.bias": normal(4)}
    return convolution | {"fc.weight": normal(3, 16), "fc.bias": normal(3)}


def test_the_stages_follow_each_other_and_none_is_called_twice() -> None:
    stages: list[str] = []
    files: set[str] = set()

    def record(frame: FrameType, event: str, _: Any) -> None:
        path, caller = Path(frame.f_code.co_filename), frame.f_back
        if event == "call" and path.parent == ROOM:
            files.add(path.stem)
            if (
                caller is not None
                and caller.f_code.co_name in ("convert", "_convert")
                and path.stem != "convert"
            ):
                stages.append(path.stem)

    hints = [migrate.flattened("fc", shape=(4, 2, 2))]
    target, arrays = model(), source()
    sys.setprofile(record)
    try:
        migrate.convert(target, arrays, hints=hints)
    finally:
        sys.setprofile(None)
    assert stages == ["hints", *STAGES]
    assert files == {"convert", "hints", "images", *STAGES, "settings", "checks"}


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
