"""Figures of a loss along one or two directions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ._figure import INK, NEGATIVE, ORDERED, POSITIVE, add_colorbar, new_figure, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.contour import QuadContourSet
    from matplotlib.figure import Figure

LEVELS = 24
RATIO = 20  # of the largest to the smallest loss, above which colors are logarithmic


def draw_line(
    along: np.ndarray,
    values: np.ndarray,
    taylor: tuple[float, float, float] | None,
    name: str,
    title: str | None,
) -> Figure:
    """Draw losses along one direction, with a parabola if its Taylor coefficients are given."""
    figure = new_figure(6.4, 4)
    axes = figure.subplots()
    finite = np.where(np.isfinite(values), values, np.nan)
    axes.plot(along, finite, color=POSITIVE, linewidth=2, label="loss")
    middle = len(along) // 2
    if taylor is not None and np.isfinite(taylor).all():
        _draw_parabola(axes, along, finite, taylor)
    axes.plot(along[middle], finite[middle], "o", color=INK, zorder=3)
    axes.set(xlabel=name, ylabel="loss", xlim=(along[0], along[-1]))
    axes.set_title(title or "The loss along a line", fontsize=11, color=INK)
    axes.grid(alpha=0.2)
    axes.legend(frameon=False, fontsize=9)
    tidy(axes)
    return figure


def _draw_parabola(
    axes: Axes, along: np.ndarray, finite: np.ndarray, taylor: tuple[float, float, float]
) -> None:
    """Draw the parabola, within the range of the losses."""
    value, first, second = taylor
    least, most = np.nanmin(finite), np.nanmax(finite)
    margin = 0.08 * (most - least) or 1.0
    axes.plot(
        along,
        value + first * along + second / 2 * along**2,
        color=NEGATIVE,
        linestyle="--",
        linewidth=1.3,
        label=f"same slope ({first:.2g}) and curvature ({second:.2g})",
    )
    axes.set_ylim(least - margin, most + margin)


def draw_plane(
    grid: list[np.ndarray], values: np.ndarray, names: Sequence[str], title: str | None
) -> Figure:
    """Draw losses along two directions as a contour map."""
    figure = new_figure(6.8, 5.6, square=True)
    axes = figure.subplots()
    _draw_contours(axes, grid, np.ma.masked_invalid(values.T))
    axes.plot(0, 0, "o", markersize=6, markeredgecolor="white", color=POSITIVE)
    axes.set(xlabel=names[0], ylabel=names[1])
    if grid[0][-1] == grid[1][-1]:
        axes.set_aspect("equal")
    axes.set_title(title or "The loss on a plane", fontsize=11, color=INK)
    tidy(axes)
    return figure


def _draw_contours(axes: Axes, grid: list[np.ndarray], values: np.ma.MaskedArray) -> None:
    """Draw losses as filled contours, with lines at some levels and a color scale."""
    from matplotlib.colors import LogNorm, Normalize
    from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator

    least, most = float(values.min()), float(values.max())
    logarithmic = least > 0 and most > RATIO * least
    even = MaxNLocator(LEVELS).tick_values(least, most)
    levels = np.geomspace(least, most, LEVELS + 1) if logarithmic else even
    norm = (LogNorm if logarithmic else Normalize)(levels[0], levels[-1])
    filled = axes.contourf(*grid, values, levels=levels, cmap=ORDERED, norm=norm)
    lines = axes.contour(*grid, values, levels=levels[::3], colors="white", linewidths=0.6)
    digits = _digits(least, most)
    _label_lines(axes, lines, f"%.{digits}g")
    label = "loss, on a logarithmic scale" if logarithmic else "loss"
    bar = add_colorbar(filled, axes, label, f"%.{digits + 1}g")
    linear = MaxNLocator(8) if most > least else FixedLocator([least])
    bar.ax.yaxis.set(major_locator=LogLocator(subs=(1, 2, 5)) if logarithmic else linear)
    bar.minorticks_off()


def _digits(least: float, most: float) -> int:
    """Return how many digits distinguish losses in a range.

    >>> _digits(0.0, 5.0), _digits(1.0, 1.00001)
    (3, 8)
    """
    span = most - least
    common = np.log10(max(abs(least), abs(most)) / span) if span > 0 else 0
    return int(np.clip(np.ceil(common) + 2, 3, 12))


def _label_lines(axes: Axes, lines: QuadContourSet, fmt: str) -> None:
    """Label contour lines with their losses, but not where labels overlap."""
    from matplotlib.patheffects import withStroke

    size = 0.1 * np.ptp(axes.get_xlim()), 0.05 * np.ptp(axes.get_ylim())
    positions = [np.zeros(2)]
    for text in axes.clabel(lines, fmt=fmt, fontsize=8, inline=False):
        position = np.array(text.get_position())
        if any((np.abs(position - other) < size).all() for other in positions):
            text.remove()
        else:
            positions.append(position)
            text.set_path_effects([withStroke(linewidth=2, foreground=INK)])
