"""Images that are flattened, and vectors that become images, in two orders of axes."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import jtree
from jtree import migrate

from ..same import close_to_scale as close
from ..same import normal
from .models import channels_first, channels_last, randomised_torch, refusal

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("seeded_torch")


class Torch(torch.nn.Module):
    """An autoencoder, in which two dense layers and a norm have the features of an image."""

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


def test_an_autoencoder_with_hints() -> None:
    source, x = randomised_torch(Torch()), normal(2, 1, 8, 12)
    shape = (4, 4, 6)
    hints = [migrate.flattened("mean", shape=shape)]
    hints += [migrate.unflattened(name, shape=shape) for name in ("start", "norm")]
    model, report = migrate.convert(Flax(), source, hints=hints)
    close(model(channels_last(x)), channels_last(source(torch.tensor(x))))
    assert not report.warnings
    notes = {layer.path: layer.notes for layer in report.layers}
    assert notes["mean"] == ("rows permuted",)
    assert notes["start"] == notes["norm"] == ("columns permuted",)


def test_hints_about_images_that_fit_no_layer_are_refused() -> None:
    wrong = migrate.unflattened("start", shape=(4, 2, 2))
    assert refusal(Flax(), Torch(), hints=[wrong]) == (
        "nothing was loaded: 1 mismatch\n"
        "  start: expected a dense layer with 16 outputs, found dense with float32[3, 96] "
        "and float32[96]; correct the shape in unflattened('start', shape=(4, 2, 2))"
    )
    unknown = migrate.unflattened("strat", shape=(4, 4, 6))
    assert refusal(Flax(), Torch(), hints=[unknown]) == (
        "nothing was loaded: 1 mismatch\n"
        "  strat: expected a dense layer for migrate.unflattened, found no layer of this name"
    )
    with pytest.raises(jtree.ArgumentError) as caught:
        migrate.flattened("mean", shape=(96,))
    assert str(caught.value) == (
        "flattened: expected a shape (channels, *space) of positive integers, found (96,)"
    )


def test_an_autoencoder_without_hints_has_warnings() -> None:
    """Although each end has as many features as the other."""
    _, report = migrate.convert(Flax(), Torch())
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
def test_a_square_layer_after_an_image_has_a_warning(dims: int, space: str) -> None:
    conv = getattr(torch.nn, f"Conv{dims}d")(1, 4, 3, padding=1)
    parts = {"conv": conv, "fc": torch.nn.Linear(64, 64), "head": torch.nn.Linear(64, 3)}
    _, report = migrate.convert(Square((3,) * dims), torch.nn.ModuleDict(parts))
    assert report.warnings == (
        "fc: its 64 inputs may be a flattened image of 4 channels and 16 positions, which the two "
        f'frameworks order differently; if so, add migrate.flattened("fc", shape=(4, {space})) to '
        "hints",
    )


class Mixed(nnx.Module):
    """Blocks of dense layers beside convolutions: nothing is flattened."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.stem = nnx.Conv(3, 8, (4, 4), 4, padding=0, rngs=rngs)
        self.blocks = nnx.List(
            [nnx.List([nnx.Linear(8, 32, rngs=rngs), nnx.Linear(32, 8, rngs=rngs)])]
        )
        self.up = nnx.ConvTranspose(8, 3, (4, 4), (4, 4), rngs=rngs)


def test_blocks_of_dense_layers_have_no_warning() -> None:
    blocks = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.Linear(32, 8))
    parts = {"stem": torch.nn.Conv2d(3, 8, 4, 4), "blocks": torch.nn.ModuleList([blocks])}
    parts["up"] = torch.nn.ConvTranspose2d(8, 3, 4, 4)
    _, report = migrate.convert(Mixed(), torch.nn.ModuleDict(parts).state_dict())
    assert not report.warnings


def test_flattened_images_in_nnx_and_equinox() -> None:
    """Rows are permuted for NNX, and not for Equinox, which flattens as PyTorch does."""
    layers = [torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(60, 2)]
    source, x = torch.nn.Sequential(*layers), normal(2, 7, 5, 3)
    expected = source(torch.tensor(channels_first(x)))
    model = nnx.Sequential(
        nnx.Conv(3, 4, (3, 3), padding="VALID", rngs=nnx.Rngs(0)),
        nnx.relu,
        jtree.layers.flatten,
        nnx.Linear(60, 2, rngs=nnx.Rngs(0)),
    )
    for path in ("3", "layers/3"):
        hint = migrate.flattened(path, shape=(4, 5, 3))
        converted, report = migrate.convert(model, source.state_dict(), hints=[hint])
        close(converted(jnp.asarray(x)), expected)
        assert not report.warnings
    _, report = migrate.convert(model, source)
    assert report.warnings == (
        "layers/3: its 60 inputs may be a flattened image of 4 channels and 15 positions, which "
        "the two frameworks order differently; if so, add "
        'migrate.flattened("layers/3", shape=(4, height, width)) to hints',
    )
    key = jax.random.key(0)
    parts = [eqx.nn.Conv2d(3, 4, 3, key=key), eqx.nn.Lambda(jax.nn.relu), eqx.nn.Lambda(jnp.ravel)]
    target = eqx.nn.Sequential([*parts, eqx.nn.Linear(60, 2, key=key)])
    converted, report = migrate.convert(target, source, hints=[hint])
    close(jax.vmap(converted)(channels_first(x)), expected)
    assert not report.warnings
