"""Plots of matrices over all parameters, and of the norms of their blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._errors import ArgumentError, ArgumentTypeError
from .._text import plural
from .._vector.restructure import Restructure, check_restructure
from ._blocks import LabeledBlock, label_blocks
from ._figure import (
    FAINT,
    INK,
    MONO,
    ORDERED,
    SIGNED,
    add_colorbar,
    as_values,
    check_installed,
    check_title,
    new_figure,
    tidy,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, SymLogNorm
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

PIXELS = 512  # along each side
MAX_LABELS = 36
MAX_WRITTEN = 8  # blocks along each side for their norms to be written as text
DECADES = 4  # of the logarithmic part of the colors, at most


def hessian(matrix: Any, /, *, re: Restructure | None = None, title: str | None = None) -> Figure:
    """Plot a symmetric matrix over parameters, with its blocks labeled by path.

    The left panel shows every entry, red above zero and blue below, on a symmetric logarithmic
    scale that is linear below the median magnitude, or below 1e-4 of the largest. A matrix of more
    than 512 rows is drawn in square cells, each with its entry of the largest magnitude. Entries
    that are not finite are gray. The right panel shows the Frobenius norm of each block, with all
    blocks of the same size. If there are more than 36 parameters, those below one node are one
    block, such as `layers/3/**`.

    Args:
      matrix: `(n, n)`, real; or an operator with a method `dense()` that returns the matrix, such
        as the result of `jtree.curvature.hessian`.
      re: the `Restructure` that labels the blocks, of size `n`; by default that of the operator.
        Without one there are no blocks and no second panel.
      title: the title; by default the kind of operator and the number of parameters.

    Returns:
      A new figure.

    Raises:
      ArgumentError: the matrix is not square, is empty, or does not have the size of `re`.
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
    check_title(title)
    re = getattr(matrix, "re", None) if re is None else re
    values = _as_matrix(matrix, re)
    figure = new_figure(*((13.4, 6.2) if re is not None else (7.4, 6.2)), square=True)
    kind = type(matrix).__name__ if hasattr(matrix, "dense") else "Matrix"
    figure.suptitle(title or f"{kind} over {plural(len(values), 'parameter')}", color=INK)
    if re is None:
        _draw_entries(figure.subplots(), values, [])
        return figure
    blocks = label_blocks(re, MAX_LABELS)
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    _draw_entries(left, values, blocks)
    _draw_norms(right, _block_norms(values, blocks), [block.label for block in blocks])
    return figure


def _as_matrix(matrix: Any, re: Restructure | None) -> np.ndarray:
    """Return a matrix, or that of an operator, as float32 or float64, which NumPy can reduce."""
    if re is not None:
        check_restructure(re)
    array = as_values("matrix", matrix.dense() if hasattr(matrix, "dense") else matrix)
    if array.ndim != 2 or array.shape[0] != array.shape[1]:
        raise ArgumentError(f"matrix: expected a square array, found shape {array.shape}")
    if re is not None and len(array) != re.size:
        raise ArgumentError(
            f"matrix: expected shape ({re.size}, {re.size}), one row for each parameter of {re}, "
            f"found {array.shape}"
        )
    if np.iscomplexobj(array):
        raise ArgumentTypeError(
            f"matrix: expected a real array, found {array.dtype}; plot its .real, .imag or abs"
        )
    if array.size == 0:
        raise ArgumentError("matrix: expected at least one row, found shape (0, 0)")
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)


def _draw_entries(axes: Axes, matrix: np.ndarray, blocks: list[LabeledBlock]) -> None:
    cell = -(-len(matrix) // PIXELS)
    image = _show(axes, _largest(matrix, cell), cell, len(matrix))
    add_colorbar(image, axes, "entry, on a symmetric logarithmic scale")
    each = f", each pixel the largest of {cell} by {cell}" if cell > 1 else ""
    axes.set_title(f"Entries{each}", fontsize=10, color=INK)
    axes.set_xlabel("position in the vector")
    tidy(axes)
    if blocks:
        _draw_borders(axes, [block.start for block in blocks[1:]])
        _draw_labels(axes, blocks, len(matrix))


def _largest(matrix: np.ndarray, cell: int) -> np.ndarray:
    """Return the signed entry of the largest magnitude in every square of `cell` by `cell`."""
    if cell == 1:
        return matrix
    starts = np.arange(0, len(matrix), cell)
    most = np.maximum.reduceat(np.maximum.reduceat(matrix, starts, axis=0), starts, axis=1)
    least = np.minimum.reduceat(np.minimum.reduceat(matrix, starts, axis=0), starts, axis=1)
    return np.where(-least > most, least, most)


def _show(axes: Axes, pixels: np.ndarray, cell: int, size: int) -> AxesImage:
    """Draw pixels over the elements of the vector that they represent."""
    end = len(pixels) * cell - 0.5
    image = axes.imshow(
        np.ma.masked_invalid(pixels),
        cmap=_colormap(SIGNED),
        norm=_symmetric_norm(pixels),
        interpolation="nearest",
        extent=(-0.5, end, end, -0.5),
    )
    axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5))
    return image


def _colormap(name: str) -> Colormap:
    from matplotlib import colormaps

    return colormaps[name].with_extremes(bad=FAINT)


def _symmetric_norm(pixels: np.ndarray) -> SymLogNorm:
    """Return a symmetric scale that is linear below the median magnitude of the nonzero entries."""
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


def _draw_labels(axes: Axes, blocks: list[LabeledBlock], size: int) -> None:
    """Write each label beside its block, far enough from the others, with a line to the block."""
    middles = np.array([block.middle for block in blocks])
    positions = _spread(middles, size, 1 / (MAX_LABELS + 2))
    axes.set_yticks(positions, [block.label for block in blocks])
    axes.tick_params("y", length=0, pad=16, labelsize=_fontsize(blocks), labelfontfamily=MONO)
    for middle, position in zip(middles, positions, strict=True):
        ends = (middle, middle, position)
        (leader,) = axes.plot((0, -0.008, -0.03), ends, color=INK, linewidth=0.5)
        leader.set(transform=axes.get_yaxis_transform(), clip_on=False, in_layout=False)


def _spread(positions: np.ndarray, size: int, share: float) -> np.ndarray:
    """Return the nearest positions, in order, that are a share of the size apart."""
    from scipy.optimize import isotonic_regression

    steps = np.arange(len(positions)) * share * size
    end = size - 1 - steps[-1]
    free = isotonic_regression(positions - steps).x
    return np.asarray(np.clip(free, min(0, end), max(0, end)) + steps)


def _fontsize(labels: list[Any]) -> float:
    return 9 if len(labels) <= 24 else 7.5


def _block_norms(matrix: np.ndarray, blocks: list[LabeledBlock]) -> np.ndarray:
    """Return the Frobenius norm of every block, summed in double precision."""
    starts = [block.start for block in blocks]
    sums = [
        np.add.reduceat(np.einsum("ij,ij->j", rows, rows, dtype=np.float64), starts)
        for rows in (matrix[block.start : block.stop] for block in blocks)
    ]
    return np.sqrt(sums)


def _draw_norms(axes: Axes, norms: np.ndarray, labels: list[str]) -> None:
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import LogLocator

    positive = norms[np.isfinite(norms) & (norms > 0)]
    most = float(positive.max()) if positive.size else 1.0
    least = max(float(positive.min()), most / 10 ** (2 * DECADES)) if positive.size else most
    lowest = min(least, most / 10)  # a scale of length zero cannot be drawn
    image = axes.imshow(
        np.ma.masked_where(~(norms > 0), norms),
        cmap=_colormap(ORDERED),
        norm=LogNorm(lowest, most),
        interpolation="nearest",
    )
    bar = add_colorbar(image, axes, "norm (gray: zero or not finite)", "%g")
    bar.ax.yaxis.set(major_locator=LogLocator(subs=(1, 2, 5) if least > most / 100 else (1,)))
    bar.minorticks_off()
    axes.set_title("Frobenius norms of the blocks", fontsize=10, color=INK)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xticks(range(len(labels)), labels, rotation=90)
    axes.tick_params(length=0, labelsize=_fontsize(labels), labelfontfamily=MONO)
    axes.spines[:].set_visible(False)
    if len(labels) <= MAX_WRITTEN:
        _write_norms(axes, norms, np.sqrt(most * lowest))


def _write_norms(axes: Axes, norms: np.ndarray, middle: float) -> None:
    """Write each norm into its cell, in a color that contrasts with it."""
    for (row, column), norm in np.ndenumerate(norms):
        color = "white" if 0 < norm < middle else INK
        text = f"{norm:.{2 + (norm >= 100)}g}"
        axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
