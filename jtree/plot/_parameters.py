"""The numbers of a vector, by path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._errors import ArgumentError, ArgumentTypeError
from .._text import plural
from .._vector.layout import check_vector
from .._vector.restructure import Restructure
from ._blocks import Block, blocks
from ._figure import BARS, INK, MONO, PALE, check_installed, figure, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 30  # histograms
COLUMNS = 5


def parameters(
    flat: Any, /, re: Restructure, *, bins: int = 40, title: str | None = None
) -> Figure:
    """Return histograms of a vector's numbers, one for each parameter, named by path.

    Each histogram has its own scales. A line marks zero, and beside the path are the shape, the
    mean and the standard deviation, and how many numbers are exactly zero or not finite, where any
    are. Where there are more than 30 parameters, those under one node make one histogram.

    Args:
      flat: `(re.size,)`, real: parameters, a gradient, an update, a diagonal.
      re: names the parts of the vector.
      bins: how many bars a histogram has.
      title: by default the number of parameters.

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
    check_vector(flat, re.layout)
    numbers = np.asarray(flat)
    if np.iscomplexobj(numbers):
        raise ArgumentTypeError(
            f"expected real numbers, found {numbers.dtype}; draw .real, .imag or abs of the vector"
        )
    if not re.size:
        raise ArgumentError(f"expected a model with parameters, found {re}")
    named = blocks(re, MOST)
    rows = -(-len(named) // COLUMNS)
    columns = -(-len(named) // rows)
    picture = figure(3 * columns + 0.4, 1.9 * rows + 0.5)
    picture.suptitle(title or plural(re.size, "parameter"), color=INK)
    for number, block in enumerate(named):
        axes, part = picture.add_subplot(rows, columns, number + 1), slice(block.start, block.stop)
        _draw(axes, block.label, numbers[part].astype(np.float64), bins)
        _describe(axes, _shape(re, block), numbers[part].astype(np.float64))
    return picture


def _shape(re: Restructure, block: Block) -> str:
    """Return the shape of one parameter, or how many numbers several have."""
    for path, part in re.slices.items():
        if (part.start, part.stop) == (block.start, block.stop):
            return str(list(re.shapes[path]))
    return f"{block.size:,} numbers"


def _draw(axes: Axes, label: str, numbers: np.ndarray, bins: int) -> None:
    finite = numbers[np.isfinite(numbers)]
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


def _describe(axes: Axes, shape: str, numbers: np.ndarray) -> None:
    """Write the shape and a few figures under the path."""
    finite = numbers[np.isfinite(numbers)]
    about = f"{shape}   {finite.mean():.2g} ± {finite.std():.2g}" if finite.size else shape
    axes.text(0, 1.03, about + _odd(numbers), transform=axes.transAxes, fontsize=8, color=PALE)


def _odd(numbers: np.ndarray) -> str:
    """Return how many numbers are zero, and how many not finite, where any are."""
    zeros, bad = int((numbers == 0).sum()), int((~np.isfinite(numbers)).sum())
    parts = [f"{zeros:,} zeros"] * (zeros > 0) + [f"{bad:,} not finite"] * (bad > 0)
    return "".join(f"   {part}" for part in parts)
