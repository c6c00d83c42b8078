"""Common parts of all plots: a figure, and colors that color-blind readers can distinguish."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._arguments import unexpected
from .._extras import check_extra

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.figure import Figure

POSITIVE, NEGATIVE = "#b2182b", "#2166ac"  # the two ends of RdBu
BARS = "#4477aa"
INK, PALE, FAINT = "#333333", "#666666", "#bbbbbb"  # text, secondary text, missing values
SIGNED, ORDERED = "RdBu_r", "viridis"
MONO = "monospace"


def check_installed() -> None:
    """Raise an error if matplotlib is not installed, before anything is computed."""
    check_extra("jtree.plot", "plot", "matplotlib")


def check_title(title: Any) -> None:
    """Raise an error for a title that is not a string."""
    if title is not None and not isinstance(title, str):
        raise unexpected("title", "a string", title)


def as_values(name: str, x: Any) -> np.ndarray:
    """Return the values of an array, or raise an error for keys and abstract arrays."""
    try:
        values = np.asarray(x)
    except TypeError as error:  # from PRNG keys
        raise unexpected(name, "an array of real values", x) from error
    if values.dtype == object:
        raise unexpected(name, "an array of real values", x)
    return values


def new_figure(width: float, height: float, *, square: bool = False) -> Figure:
    """Return an empty figure of a size in inches; `square` is for axes of equal scales."""
    from ._display import DisplayedFigure

    return DisplayedFigure(
        figsize=(width, height), layout="compressed" if square else "constrained"
    )


def tidy(axes: Axes) -> None:
    """Remove the sides of the frame that have no ticks."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK, labelsize=9)


def add_colorbar(image: Any, axes: Axes, label: str, format: str | None = None) -> Colorbar:
    """Draw the color scale of an image beside it."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    bar = figure.colorbar(image, ax=axes, pad=0.02, aspect=32, format=format)
    bar.set_label(label, color=INK)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=9, colors=INK)
    return bar
