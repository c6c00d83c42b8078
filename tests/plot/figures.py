"""The model, the vector and the helpers that the tests of plots share."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import jtree

MODEL = {
    "head": {"w": np.ones((2, 3), np.float32), "b": np.zeros(2, np.float32)},
    "scale": np.full((), 2, np.float32),
}
_, RE = jtree.destructure(MODEL)  # head/b: 0 and 1, head/w: 2 to 7, scale: 8
FLAT = np.array([0, 0, 1, 1, 1, 1, 1, 1, 2], np.float32)
DIRECTION = np.arange(1, 10, dtype=np.float32)


def quadratic(v: jax.Array) -> jax.Array:
    return 3.0 + (DIRECTION * v**2).sum()


def matrix(size: int = 9) -> np.ndarray:
    values = np.random.default_rng(0).normal(size=(size, size))
    return values + values.T


def tick_labels(axes: Axes, axis: str = "y") -> list[str]:
    return [x.get_text() for x in getattr(axes, f"get_{axis}ticklabels")()]


def labels_of(names: list[str], size: int = 2) -> jtree.Restructure:
    """Return the `Restructure` of a model with parameters of these paths."""
    tree: dict[str, Any] = {}
    for name in names:
        *above, last = name.split("/")
        node = tree
        for key in above:
            node = node.setdefault(key, {})
        node[last] = np.ones(size, np.float32)
    return jtree.destructure(tree)[1]


def draw(figure: Figure) -> None:
    """Render a figure, small."""
    figure.savefig(BytesIO(), dpi=40)
