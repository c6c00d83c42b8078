"""Histograms of a vector's values, by path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._arguments import check_integer
from .._errors import ArgumentError, ArgumentTypeError
from .._text import plural
from .._vector.layout import check_vector
from .._vector.restructure import Restructure, check_restructure
from ._blocks import LabeledBlock, label_blocks
from ._figure import (
    BARS,
    INK,
    MONO,
    PALE,
    as_values,
    check_installed,
    check_title,
    new_figure,
    tidy,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_HISTOGRAMS = 30
COLUMNS = 5


def parameters(
    flat: Any, /, re: Restructure, *, bins: int = 40, title: str | None = None
) -> Figure:
    """Plot histograms of a vector's values, one for each parameter, labeled by path.

    Each histogram has its own scales, and a line at zero. Below the path are the shape, the mean
    and the standard deviation, and the counts of values that are exactly zero or not finite, if
    there are any. If there are more than 30 parameters, those below one node share a histogram.

    Args:
      flat: `(re.size,)`, real: parameters, a gradient, an update or a diagonal.
      re: the `Restructure` that labels the vector.
      bins: the number of bars in each histogram.
      title: the title; by default the number of parameters.

    Returns:
      A new figure.

    Raises:
      VectorError: the vector has another length or rank.
      ArgumentError: there are no parameters.
      ArgumentTypeError: the vector is complex.
      ExtraError: matplotlib is not installed.

    Example:
      >>> flat, re = jtree.destructure({"w": jnp.ones((2, 2)), "b": jnp.zeros(2)})
      >>> figure = jtree.plot.parameters(flat, re)
      >>> [axes.get_title(loc="left") for axes in figure.axes]
      ['b', 'w']
    """
    check_installed()
    check_title(title)
    check_vector(flat, check_restructure(re).layout)
    check_integer("bins", bins, least=1)
    vector = as_values("flat", flat)
    if np.iscomplexobj(vector):
        raise ArgumentTypeError(
            f"flat: expected a real vector, found {vector.dtype}; plot its .real, .imag or abs"
        )
    if not re.size:
        raise ArgumentError(f"re: expected at least one parameter, found {re}")
    blocks = label_blocks(re, MAX_HISTOGRAMS)
    rows = -(-len(blocks) // COLUMNS)
    columns = -(-len(blocks) // rows)
    figure = new_figure(3 * columns + 0.4, 1.9 * rows + 0.5)
    figure.suptitle(title or plural(re.size, "parameter"), color=INK)
    for index, block in enumerate(blocks, 1):
        axes = figure.add_subplot(rows, columns, index)
        values = vector[block.start : block.stop].astype(np.float64)
        _draw_histogram(axes, block.label, values, bins)
        _write_moments(axes, _describe_shape(re, block), values)
    return figure


def _describe_shape(re: Restructure, block: LabeledBlock) -> str:
    """Return the shape of one parameter, or the number of elements of several."""
    for path, part in re.slices.items():
        if (part.start, part.stop) == (block.start, block.stop):
            return str(list(re.shapes[path]))
    return plural(block.size, "element")


def _draw_histogram(axes: Axes, label: str, values: np.ndarray, bins: int) -> None:
    finite = values[np.isfinite(values)]
    axes.axvline(0, color=INK, linewidth=0.7, zorder=0)
    axes.set_title(label, loc="left", fontsize=9, fontfamily=MONO, color=INK, pad=16)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    tidy(axes)
    if not finite.size or finite.min() == finite.max():  # one bar in the middle
        at = finite[0] if finite.size else 0.0
        half = abs(at) or 1.0
        axes.set_xlim(at - half, at + half)
        axes.hist(finite, bins=[at - half / 30, at + half / 30], color=BARS)
    else:
        axes.hist(finite, bins=min(bins, max(8, finite.size // 2)), color=BARS)
    axes.locator_params("x", nbins=4)


def _write_moments(axes: Axes, shape: str, values: np.ndarray) -> None:
    """Write the shape, the moments and the exceptional values below the path."""
    finite = values[np.isfinite(values)]
    text = f"{shape}   {finite.mean():.2g} ± {finite.std():.2g}" if finite.size else shape
    axes.text(0, 1.03, text + _exceptions(values), transform=axes.transAxes, fontsize=8, color=PALE)


def _exceptions(values: np.ndarray) -> str:
    """Return the counts of values that are zero or not finite, if there are any."""
    zeros, bad = int((values == 0).sum()), int((~np.isfinite(values)).sum())
    counts = [plural(zeros, "zero")] * (zeros > 0) + [f"{bad:,} not finite"] * (bad > 0)
    return "".join(f"   {count}" for count in counts)
