"""Reports of conversions, as text."""

from __future__ import annotations

import logging
import pickle

import numpy as np
import pytest
from flax import nnx

from jtree import migrate

from ..same import normal
from .models import TwoLayers, linear, two_layers_source


def test_a_report_prints_as_a_table() -> None:
    model, source = TwoLayers(nnx.Rngs(0)), two_layers_source()
    _, report = migrate.convert(model, source)
    assert repr(report) == "Report(2 layers from torch, 1 array copied)"
    lines = str(report).splitlines()
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]
    assert [row for row in cells if len(row) == 4] == [
        ["layers/0", "dense", "layers.0.weight, layers.0.bias", ""],
        ["layers/1", "dense", "layers.1.weight, layers.1.bias", ""],
        ["scale", "array", "scale", "copied"],
        ["drop/rngs/count", "array", "", "kept: the model's own"],
        ["drop/rngs/key", "array", "", "kept: the model's own"],
    ]


def test_a_report_counts_what_to_check() -> None:
    norm = nnx.LayerNorm(4, rngs=nnx.Rngs(0))
    _, report = migrate.convert(norm, {"weight": np.ones(4), "bias": np.zeros(4)})
    assert repr(report) == "Report(1 layer from torch, 1 setting to check)"
    assert "check" in str(report)


def test_a_report_pickles_by_public_names() -> None:
    _, report = migrate.convert(
        nnx.LayerNorm(4, rngs=nnx.Rngs(0)), {"weight": np.ones(4), "bias": np.zeros(4)}
    )
    assert pickle.loads(pickle.dumps(report)) == report
    parts = [report, report.layers[0], report.settings[0]]
    assert {type(x).__module__ for x in parts} == {"jtree.migrate"}


def test_warnings_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    model = nnx.Sequential(nnx.Conv(1, 4, (3, 3), rngs=nnx.Rngs(0)), linear(64, 3))
    source = {"0.weight": normal(4, 1, 3, 3), "0.bias": normal(4)}
    source |= {"1.weight": normal(3, 64), "1.bias": normal(3)}
    with caplog.at_level(logging.WARNING, logger="jtree"):
        _, report = migrate.convert(model, source)
    assert repr(report) == "Report(2 layers from torch, 1 warning)"
    assert caplog.messages == [f"converted, but {report.warnings[0]}"]


class Normed(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.layers = nnx.List([nnx.LayerNorm(4, epsilon=1e-5, rngs=rngs) for _ in range(5)])
        self.group = nnx.GroupNorm(4, 2, epsilon=1e-5, rngs=rngs)
        self.bn = nnx.BatchNorm(4, epsilon=1e-5, rngs=rngs)
        self.last = nnx.LayerNorm(4, rngs=rngs)


def test_what_changes_the_outputs_comes_first_and_momentum_last() -> None:
    names = [*(f"layers.{n}" for n in range(5)), "group", "bn", "last"]
    source = {f"{name}.weight": np.ones(4) for name in names}
    source |= {f"{name}.bias": np.zeros(4) for name in names}
    source |= {"bn.running_mean": np.zeros(4), "bn.running_var": np.ones(4)}
    _, report = migrate.convert(Normed(nnx.Rngs(0)), source)
    assert [x.name for x in report.settings] == ["epsilon", "momentum"]
    assert report.unverified == (
        "not verified, since weights do not tell it: epsilon=1e-05 of bn, group, layers/0 and 4 "
        "more",
        "not verified, since weights do not tell it: groups=2 of group",
    )
    assert repr(report) == "Report(8 layers from torch, 2 settings to check, 2 not verified)"
    text = str(report)
    order = ["not verified", "last: epsilon", "layers.0.weight", "bn: momentum"]
    assert sorted(order, key=text.index) == order
