"""Images that become vectors, and vectors that become images, in frameworks of two orders."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flax import nnx

from jtree import LoadError, migrate

from ..same import close_to_scale as close
from ..same import normal

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("seeded_torch")


class Torch(torch.nn.Module):
    """An autoencoder: the features of the image are those of two dense layers, and of a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 4, 3, 2, 1)
        self.mean = torch.nn.Linear(96, 3)
        self.start = torch.nn.Linear(3, 96)
        self.norm = torch.nn.BatchNorm1d(96, momentum=0.01)
        self.up = torch.nn.ConvTranspose2d(4, 1, 4, 2, 1)

    def forward(self, x: Any) -> Any:
        x = self.norm(self.start(self.mean(self.conv(x).flatten(1))))
        return self.up(x.reshape(-1, 4, 4, 6))


class Flax(nnx.Module):
    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.conv = nnx.Conv(1, 4, (3, 3), 2, padding=1, rngs=rngs)
        self.mean = nnx.Linear(96, 3, rngs=rngs)
        self.start = nnx.Linear(3, 96, rngs=rngs)
        self.norm = nnx.BatchNorm(96, use_running_average=True, rngs=rngs)
        self.up = nnx.ConvTranspose(4, 1, (4, 4), (2, 2), rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = self.norm(self.start(self.mean(self.conv(x).reshape(len(x), -1))))
        return self.up(x.reshape(-1, 4, 6, 4))


def module() -> Any:
    found = Torch()
    for x in (*found.norm.parameters(), *found.norm.buffers()):
        if x.is_floating_point():
            torch.nn.init.uniform_(x, 0.5, 2.0)
    return found.eval()


def test_an_autoencoder() -> None:
    source, x = module(), normal(2, 1, 8, 12)
    shape = (4, 4, 6)
    hints = [migrate.flattened("mean", shape=shape)]
    hints += [migrate.unflattened(name, shape=shape) for name in ("start", "norm")]
    model, report = migrate.convert(Flax(), source, hints=hints)
    expected = np.moveaxis(np.asarray(source(torch.tensor(x))), 1, -1)
    close(model(np.moveaxis(x, 1, -1)), expected)
    assert not report.warnings
    notes = {layer.path: layer.notes for layer in report.layers}
    assert notes["mean"] == ("rows permuted",)
    assert notes["start"] == notes["norm"] == ("columns permuted",)
    wrong = migrate.unflattened("start", shape=(4, 2, 2))
    with pytest.raises(LoadError, match=r"start: expected a dense layer with 16 outputs, found de"):
        migrate.convert(Flax(), source, hints=[hints[0], wrong])
    with pytest.raises(
        LoadError, match=r"strat: expected a dense layer for migrate\.unflattened, found no"
    ):
        migrate.convert(Flax(), source, hints=[migrate.unflattened("strat", shape=shape)])


def test_both_ends_of_an_image_are_warned_of() -> None:
    """That one has as many features as the other hides neither."""
    _, report = migrate.convert(Flax(), module())
    assert report.warnings == (
        "mean: its 96 inputs may be a flattened image of 4 channels and 24 positions, which the "
        'two frameworks order differently; if so, add migrate.flattened("mean", '
        "shape=(4, height, width)) to hints",
        "start: its 96 outputs may become an image of 4 channels and 24 positions, which the "
        'two frameworks order differently; if so, add migrate.unflattened("start", '
        "shape=(4, height, width)) to hints",
    )


class Square(nnx.Module):
    """A dense layer with as many outputs as inputs, after an image of one or three axes."""

    def __init__(self, window: tuple[int, ...]) -> None:
        rngs = nnx.Rngs(0)
        self.conv = nnx.Conv(1, 4, window, rngs=rngs)
        self.fc = nnx.Linear(64, 64, rngs=rngs)
        self.head = nnx.Linear(64, 3, rngs=rngs)


@pytest.mark.parametrize(("dims", "space"), [(1, "length"), (3, "depth, height, width")])
def test_a_square_layer_after_an_image_is_warned_of(dims: int, space: str) -> None:
    conv = getattr(torch.nn, f"Conv{dims}d")(1, 4, 3, padding=1)
    parts = {"conv": conv, "fc": torch.nn.Linear(64, 64), "head": torch.nn.Linear(64, 3)}
    _, report = migrate.convert(Square((3,) * dims), torch.nn.ModuleDict(parts))
    assert len(report.warnings) == 1
    assert f'migrate.flattened("fc", shape=(4, {space}))' in report.warnings[0]


class Mixed(nnx.Module):
    """Blocks of dense layers beside convolutions: nothing is flattened."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.stem = nnx.Conv(3, 8, (4, 4), 4, padding=0, rngs=rngs)
        self.blocks = nnx.List(
            [nnx.List([nnx.Linear(8, 32, rngs=rngs), nnx.Linear(32, 8, rngs=rngs)])]
        )
        self.up = nnx.ConvTranspose(8, 3, (4, 4), (4, 4), rngs=rngs)


def test_blocks_of_dense_layers_are_not_warned_of() -> None:
    blocks = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.Linear(32, 8))
    parts = {"stem": torch.nn.Conv2d(3, 8, 4, 4), "blocks": torch.nn.ModuleList([blocks])}
    parts["up"] = torch.nn.ConvTranspose2d(8, 3, 4, 4)
    _, report = migrate.convert(Mixed(), torch.nn.ModuleDict(parts).state_dict())
    assert not report.warnings
