"""Plots of the curvature of each layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._arguments import unexpected
from .._errors import ArgumentError
from .._text import plural
from ._blocks import shorten_label
from ._figure import INK, MONO, NEGATIVE, POSITIVE, check_installed, check_title, new_figure, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_LABELS = 60
HEIGHT = 0.28  # inches for each layer


def layerwise(layers: Any, /, *, title: str | None = None) -> Figure:
    """Plot the trace and the largest eigenvalue of each layer as bars, labeled by path.

    Bars are red above zero and blue below. Where values differ by more than a factor of 100, the
    axis is linear below about a thousandth of the largest and logarithmic beyond. Traces
    that are estimates have their standard error.

    Args:
      layers: the result of `jtree.curvature.layerwise`.
      title: the title; by default the number of layers and parameters.

    Returns:
      A new figure.

    Raises:
      ArgumentTypeError: `layers` is not such a result.
      ArgumentError: there are no layers.
      ExtraError: matplotlib is not installed.

    Example:
      >>> flat, re = jtree.destructure({"w": jnp.array([1.0, 2.0]), "b": jnp.array(3.0)})
      >>> loss = lambda v: (re(v)["w"] ** 2).sum() * re(v)["b"] ** 2
      >>> op = jtree.curvature.hessian(loss, flat, re=re)
      >>> figure = jtree.plot.layerwise(jtree.curvature.layerwise(op))
      >>> [axes.get_xlabel() for axes in figure.axes]
      ['trace', 'largest eigenvalue']
    """
    check_installed()
    check_title(title)
    if not all(hasattr(layers, name) for name in ("paths", "traces", "errors", "largest")):
        raise unexpected("layers", "the result of jtree.curvature.layerwise", layers)
    count = len(layers.paths)
    if not count:
        raise ArgumentError("layers: expected at least one, found none")
    figure = new_figure(9, min(16, 1.4 + HEIGHT * count))
    total = plural(sum(layers.parameters), "parameter")
    figure.suptitle(title or f"{plural(count, 'layer')}, {total}", color=INK)
    left, right = figure.subplots(1, 2, sharey=True)
    _draw_bars(left, "trace", layers.traces, layers.errors)
    _draw_bars(right, "largest eigenvalue", layers.largest, None)
    shown = range(0, count, -(-count // MAX_LABELS))
    labels = [shorten_label(layers.paths[k]) for k in shown]
    left.set_yticks(list(shown), labels, fontfamily=MONO)
    left.invert_yaxis()
    return figure


def _draw_bars(axes: Axes, label: str, values: Any, errors: Any) -> None:
    heights = np.asarray(values, np.float64)
    bars = np.where(np.isfinite(heights), heights, 0)
    spread = None if errors is None or not np.any(errors) else np.asarray(errors, np.float64)
    colors = np.where(bars < 0, NEGATIVE, POSITIVE)
    axes.barh(range(len(bars)), bars, xerr=spread, color=colors, ecolor=INK, height=0.7)
    axes.axvline(0, color=INK, linewidth=0.7)
    magnitudes = np.abs(bars[bars != 0])
    if magnitudes.size and magnitudes.max() > 100 * magnitudes.min():
        # a power of ten, so that no tick is closer to zero
        linear = 10.0 ** np.ceil(np.log10(magnitudes.max()) - 3)
        axes.set_xscale("symlog", linthresh=linear)
    axes.margins(x=0.08)
    axes.set_xlabel(label, color=INK)
    tidy(axes)
