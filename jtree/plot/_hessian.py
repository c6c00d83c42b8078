"""A matrix over all parameters, and the norms of its blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._errors import ArgumentError, ArgumentTypeError
from .._text import plural
from .._vector.restructure import Restructure
from ._blocks import Block, blocks
from ._figure import FAINT, INK, MONO, ORDERED, SIGNED, add_bar, check_installed, figure, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, SymLogNorm
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

PIXELS = 512  # along each side of the picture
LABELS = 36
WRITTEN = 8  # blocks whose norms are written as numbers
DECADES = 4  # of the logarithmic part of the colours, at most


def hessian(matrix: Any, /, *, re: Restructure | None = None, title: str | None = None) -> Figure:
    """Return a picture of a symmetric matrix over parameters, with its blocks named by path.

    On the left is every entry, red above zero and blue below, on a symmetric logarithmic scale
    that is linear for the smaller half of the entries, or below a ten thousandth of the largest.
    A matrix of more than 512 rows is drawn in square cells, each of which shows its entry of the
    largest magnitude; entries that are not finite are grey. On the right is the Frobenius norm of
    each block, all blocks the same size. Where there are more than 36 parameters, those under one
    node (`layers/3/**`) make one block.

    Args:
      matrix: `(n, n)`, real; or an operator with a method `dense()` that returns it, such as
        `jtree.curvature.hessian`.
      re: names the blocks; `re.size` is `n`. By default an operator's own `re`. Without any there
        are no blocks, and no second panel.
      title: by default the kind of operator, if any, and the number of rows.

    Returns:
      A new figure.

    Raises:
      ArgumentError: the matrix is not square, or not of the size of `re`.
      ArgumentTypeError: the matrix is complex.
      ExtraError: matplotlib is not installed.

    Example:
      >>> flat, re = jtree.destructure({"w": jnp.ones((2, 2)), "b": jnp.zeros(2)})
      >>> loss = lambda v: (re(v)["w"] @ jnp.sin(re(v)["b"])).sum() ** 2
      >>> figure = jtree.plot.hessian(jax.hessian(loss)(flat), re=re)
      >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
      ['b', 'w']
    """
    check_installed()
    re = getattr(matrix, "re", None) if re is None else re
    dense = _dense(matrix, re)
    picture = figure(*((13.4, 6.2) if re is not None else (7.4, 6.2)), square=True)
    kind = type(matrix).__name__ if hasattr(matrix, "dense") else "Matrix"
    picture.suptitle(title or f"{kind} over {plural(len(dense), 'parameter')}", color=INK)
    if re is None:
        _draw_entries(picture.subplots(), dense, [])
        return picture
    named = blocks(re, LABELS)
    left, right = picture.subplots(1, 2, width_ratios=(1.25, 1))
    _draw_entries(left, dense, named)
    _draw_norms(right, _norms(dense, named), [block.label for block in named])
    return picture


def _dense(matrix: Any, re: Restructure | None) -> np.ndarray:
    """Return a matrix, or an operator's, as a real NumPy array of a dtype that NumPy can reduce."""
    found = np.asarray(matrix.dense() if hasattr(matrix, "dense") else matrix)
    if found.ndim != 2 or found.shape[0] != found.shape[1]:
        raise ArgumentError(f"expected a square matrix, found an array of shape {found.shape}")
    if re is not None and len(found) != re.size:
        raise ArgumentError(
            f"expected a matrix of shape ({re.size}, {re.size}), one row per parameter of {re}, "
            f"found {found.shape}"
        )
    if np.iscomplexobj(found):
        raise ArgumentTypeError(
            f"expected a real matrix, found one of {found.dtype}; draw its .real, .imag or abs"
        )
    if found.size == 0:
        raise ArgumentError("expected a matrix of one row or more, found an empty one")
    return found if found.dtype in (np.float32, np.float64) else found.astype(np.float32)


def _draw_entries(axes: Axes, matrix: np.ndarray, named: list[Block]) -> None:
    cell = -(-len(matrix) // PIXELS)
    image = _show(axes, _largest(matrix, cell), cell, len(matrix))
    add_bar(image, axes, "entry, on a symmetric logarithmic scale")
    each = f", each pixel the largest of {cell} by {cell}" if cell > 1 else ""
    axes.set_title(f"Entries{each}", fontsize=10, color=INK)
    axes.set_xlabel("position in the vector")
    tidy(axes)
    if named:
        _draw_borders(axes, [block.start for block in named[1:]])
        _draw_labels(axes, named, len(matrix))


def _largest(matrix: np.ndarray, cell: int) -> np.ndarray:
    """Return the entry of the largest magnitude in every square of `cell` by `cell`, signed."""
    if cell == 1:
        return matrix
    starts = np.arange(0, len(matrix), cell)
    most = np.maximum.reduceat(np.maximum.reduceat(matrix, starts, axis=0), starts, axis=1)
    least = np.minimum.reduceat(np.minimum.reduceat(matrix, starts, axis=0), starts, axis=1)
    return np.where(-least > most, least, most)


def _show(axes: Axes, pixels: np.ndarray, cell: int, size: int) -> AxesImage:
    """Draw pixels at the positions in the vector that they stand for."""
    end = len(pixels) * cell - 0.5
    image = axes.imshow(
        np.ma.masked_invalid(pixels),
        cmap=_colours(SIGNED),
        norm=_symmetric(pixels),
        interpolation="nearest",
        extent=(-0.5, end, end, -0.5),
    )
    axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5))
    return image


def _colours(name: str) -> Colormap:
    from matplotlib import colormaps

    return colormaps[name].with_extremes(bad=FAINT)


def _symmetric(pixels: np.ndarray) -> SymLogNorm:
    """Return symmetric colours that are linear for the smaller half of what is not zero."""
    from matplotlib.colors import SymLogNorm

    sizes = np.abs(pixels[np.isfinite(pixels) & (pixels != 0)])
    most = float(sizes.max()) if sizes.size else 1.0
    linear = max(float(np.median(sizes)), most / 10**DECADES) if sizes.size else 1.0
    return SymLogNorm(linear, vmin=-most, vmax=most)


def _draw_borders(axes: Axes, starts: list[int]) -> None:
    width = 0.8 if len(starts) < 12 else 0.3
    for start in starts:
        axes.axhline(start - 0.5, color=INK, linewidth=width)
        axes.axvline(start - 0.5, color=INK, linewidth=width)


def _draw_labels(axes: Axes, named: list[Block], size: int) -> None:
    """Write each label beside its block, pushed apart where they would overlap, with a line."""
    middles = np.array([block.middle for block in named])
    places = _apart(middles, size, 1 / (LABELS + 2))
    axes.set_yticks(places, [block.label for block in named])
    axes.tick_params("y", length=0, pad=16, labelsize=_fontsize(named), labelfontfamily=MONO)
    for middle, place in zip(middles, places, strict=True):
        (leader,) = axes.plot((0, -0.008, -0.03), (middle, middle, place), color=INK, linewidth=0.5)
        leader.set(transform=axes.get_yaxis_transform(), clip_on=False, in_layout=False)


def _apart(wanted: np.ndarray, size: int, share: float) -> np.ndarray:
    """Return the places nearest to those wanted that are a share of the whole apart, in order."""
    from scipy.optimize import isotonic_regression

    steps = np.arange(len(wanted)) * share * size
    end = size - 1 - steps[-1]
    free = isotonic_regression(wanted - steps).x
    return np.asarray(np.clip(free, min(0, end), max(0, end)) + steps)


def _fontsize(named: list[Any]) -> float:
    return 9 if len(named) <= 24 else 7.5


def _norms(matrix: np.ndarray, named: list[Block]) -> np.ndarray:
    """Return the Frobenius norm of every block, summed in double precision."""
    starts = [block.start for block in named]
    sums = [
        np.add.reduceat(np.einsum("ij,ij->j", rows, rows, dtype=np.float64), starts)
        for rows in (matrix[block.start : block.stop] for block in named)
    ]
    return np.sqrt(sums)


def _draw_norms(axes: Axes, norms: np.ndarray, labels: list[str]) -> None:
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import LogLocator

    positive = norms[np.isfinite(norms) & (norms > 0)]
    most = float(positive.max()) if positive.size else 1.0
    least = max(float(positive.min()), most / 10 ** (2 * DECADES)) if positive.size else most
    lowest = min(least, most / 10)  # equal norms are no reason for a scale of no length
    image = axes.imshow(
        np.ma.masked_where(~(norms > 0), norms),
        cmap=_colours(ORDERED),
        norm=LogNorm(lowest, most),
        interpolation="nearest",
    )
    bar = add_bar(image, axes, "norm (grey: zero, or not finite)", "%g")
    bar.ax.yaxis.set(major_locator=LogLocator(subs=(1, 2, 5) if least > most / 100 else (1,)))
    bar.minorticks_off()
    axes.set_title("Frobenius norms of the blocks", fontsize=10, color=INK)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xticks(range(len(labels)), labels, rotation=90)
    axes.tick_params(length=0, labelsize=_fontsize(labels), labelfontfamily=MONO)
    axes.spines[:].set_visible(False)
    if len(labels) <= WRITTEN:
        _write(axes, norms, np.sqrt(most * lowest))


def _write(axes: Axes, norms: np.ndarray, middle: float) -> None:
    """Write each norm into its cell, in the ink that can be read there."""
    for (row, column), norm in np.ndenumerate(norms):
        color = "white" if 0 < norm < middle else INK
        text = f"{norm:.{2 + (norm >= 100)}g}"
        axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
