"""Plots of eigenvalues: their density, and how it changes during training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .._arguments import check_number, unexpected
from .._errors import ArgumentError, ArgumentTypeError
from .._text import plural
from ._figure import (
    INK,
    NEGATIVE,
    POSITIVE,
    as_values,
    check_installed,
    check_title,
    new_figure,
    tidy,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS = 500  # of a curve, on each side of zero
DECADES = 4  # from the largest eigenvalue down to where the axis becomes linear, at most
MIN_WEIGHT = 1e-9  # of the largest: a smaller weight is due to rounding
MIN_DENSITY = 0.3  # eigenvalues per decade, the lower end of the axis


def spectrum(
    eigenvalues: Any,
    /,
    weights: Any = None,
    *,
    smooth: float = 0.06,
    title: str | None = None,
) -> Figure:
    """Plot the density of eigenvalues.

    The curve is the number of eigenvalues per decade, each smoothed by a Gaussian, red above zero
    and blue below. The axis is logarithmic on both sides of zero, and linear around it: below the
    median magnitude, or below 1e-4 of the largest. The eigenvalues of a single matrix are also
    plotted by rank. Several spectra, such as those of several training steps, are plotted below
    one another on the same axes.

    Args:
      eigenvalues: `(n,)`, real, in any order; or the result of `jtree.curvature.spectrum`; or a
        pair `(nodes, weights)`; or a dict of labels to any of these.
      weights: `(n,)`, the multiplicity of each eigenvalue; by default 1.
      smooth: the standard deviation of the Gaussian, in decades.
      title: the title; by default the number of eigenvalues and their range.

    Returns:
      A new figure.

    Raises:
      ArgumentError: there are no eigenvalues, some are not finite, or the weights do not match.
      ArgumentTypeError: the eigenvalues are complex.
      ExtraError: matplotlib is not installed.

    Example:
      >>> figure = jtree.plot.spectrum(jnp.array([-0.1, 0.0, 0.2, 30.0]))
      >>> figure.get_suptitle()
      '4 eigenvalues from -0.1 to 30'
      >>> figure = jtree.plot.spectrum({"step 0": jnp.ones(3), "step 10": 9 * jnp.ones(3)})
      >>> [axes.get_ylabel() for axes in figure.axes]
      ['step 0', 'step 10']

    Source: Ghorbani, Krishnan and Xiao, "An investigation into neural net optimization via Hessian
    eigenvalue density", ICML 2019, arXiv:1901.10159, has densities on such axes.
    """
    check_installed()
    check_title(title)
    several = isinstance(eigenvalues, Mapping)
    if several and weights is not None:
        raise ArgumentError("weights: in a dict, pass each spectrum as a pair (nodes, weights)")
    named = eigenvalues if several else {"": _with_weights(eigenvalues, weights)}
    spectra = {str(label): _weighted(spectrum) for label, spectrum in named.items()}
    if not spectra:
        raise ArgumentError("eigenvalues: expected at least one spectrum, found an empty dict")
    if not check_number("smooth", smooth) > 0:
        raise ArgumentError(f"smooth: expected a positive number, found {smooth}")
    axis = EigenvalueAxis.around(np.concatenate([x.nodes for x in spectra.values()]), smooth)
    figure = _draw_several(spectra, axis) if several else _draw_one(spectra[""], axis)
    figure.suptitle(title or _title(list(spectra.values())), color=INK)
    return figure


def _with_weights(eigenvalues: Any, weights: Any) -> Any:
    return eigenvalues if weights is None else (eigenvalues, weights)


class WeightedEigenvalues(NamedTuple):
    """Eigenvalues in increasing order, and their multiplicities."""

    nodes: np.ndarray
    weights: np.ndarray

    @property
    def range(self) -> str:
        return f"from {self.nodes[0]:.3g} to {self.nodes[-1]:.3g}"


def _weighted(spectrum: Any) -> WeightedEigenvalues:
    """Return the eigenvalues of a spectrum in increasing order, with their weights."""
    if hasattr(spectrum, "nodes"):
        spectrum = _quadrature(spectrum)
    nodes, weights = spectrum if isinstance(spectrum, tuple) else (spectrum, None)
    nodes = as_values("eigenvalues", nodes)
    if np.iscomplexobj(nodes):
        raise ArgumentTypeError(
            f"eigenvalues: expected real values, found {nodes.dtype}; use numpy.linalg.eigvalsh "
            "for a symmetric matrix"
        )
    nodes = _as_floats("eigenvalues", nodes)
    weights = np.ones(len(nodes)) if weights is None else _as_floats("weights", weights)
    if not len(nodes):
        raise ArgumentError("eigenvalues: expected at least one, found none")
    if len(nodes) != len(weights):
        raise ArgumentError(
            f"weights: expected one for each of {plural(len(nodes), 'eigenvalue')}, "
            f"found {len(weights)}"
        )
    if not np.isfinite(nodes).all():
        raise ArgumentError("eigenvalues: expected finite values, found NaN or infinity")
    order = np.argsort(nodes)
    return WeightedEigenvalues(nodes[order], weights[order])


def _as_floats(name: str, x: Any) -> np.ndarray:
    try:
        return np.asarray(x, np.float64).ravel()
    except (TypeError, ValueError) as error:
        raise unexpected(name, "an array of real values", x) from error


def _quadrature(spectrum: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the nodes and weights of a `jtree.curvature.Spectrum`, scaled to its size."""
    nodes, weights = np.asarray(spectrum.nodes), np.asarray(spectrum.weights)
    significant = weights > MIN_WEIGHT * weights.max()
    return nodes[significant], weights[significant] * (spectrum.size / weights.sum())


class EigenvalueAxis(NamedTuple):
    """The axis of eigenvalues: logarithmic on both sides of zero, linear in between."""

    linear: float
    values: np.ndarray
    smooth: float

    @classmethod
    def around(cls, nodes: np.ndarray, smooth: float) -> EigenvalueAxis:
        sizes = np.abs(nodes[nodes != 0]) if nodes.any() else np.ones(1)
        most = float(sizes.max())
        linear = np.clip(np.median(sizes), most / 10**DECADES, most / 100)
        ends = _decades(np.array([nodes.min(), nodes.max()]), linear)
        margin = 4 * smooth
        below, above = min(ends[0], 0) - margin, max(ends[1], 0) + margin
        along = np.concatenate([np.linspace(below, 0, POINTS), np.linspace(0, above, POINTS)])
        return cls(float(linear), linear * np.sinh(along * np.log(10)), smooth)

    def density(self, spectrum: WeightedEigenvalues) -> np.ndarray:
        """Return the number of eigenvalues per decade at every value of the axis."""
        points, nodes = (_decades(x, self.linear) for x in (self.values, spectrum.nodes))
        total: np.ndarray = np.zeros(len(points))
        for node, weight in zip(nodes, spectrum.weights, strict=True):
            total += weight * np.exp(-(((points - node) / self.smooth) ** 2) / 2)
        total /= self.smooth * np.sqrt(2 * np.pi)
        return total

    def ticks(self) -> list[float]:
        """Return zero and powers of ten on both sides, few enough that their labels fit."""
        positive = _powers(3 * self.linear, self.values[-1])
        negative = _powers(3 * self.linear, -self.values[0])
        return [*(-x for x in negative[::-1]), 0.0, *positive]


def _powers(least: float, most: float) -> list[float]:
    """Return at most four powers of ten in a range."""
    if most < least:
        return []
    exponents = range(int(np.ceil(np.log10(least))), int(np.floor(np.log10(most))) + 1)
    return [10.0**k for k in exponents][:: -1 - len(exponents) // 5][::-1]


def _decades(values: np.ndarray, linear: float) -> np.ndarray:
    """Return positions on the axis, in decades where it is logarithmic."""
    return np.asarray(np.arcsinh(values / linear) / np.log(10))


def _title(spectra: list[WeightedEigenvalues]) -> str:
    if len(spectra) > 1:
        return "Eigenvalues"
    total = round(float(spectra[0].weights.sum()))
    return f"{plural(total, 'eigenvalue')} {spectra[0].range}"


def _draw_one(spectrum: WeightedEigenvalues, axis: EigenvalueAxis) -> Figure:
    if not (spectrum.weights == 1).all():
        figure = new_figure(7, 3.6)
        _draw_density(figure.subplots(), spectrum, axis)
        return figure
    figure = new_figure(11, 3.8)
    left, right = figure.subplots(1, 2)
    _draw_density(left, spectrum, axis)
    _draw_ranks(right, spectrum.nodes)
    return figure


def _draw_several(spectra: dict[str, WeightedEigenvalues], axis: EigenvalueAxis) -> Figure:
    figure = new_figure(8, 1.1 * len(spectra) + 1.2)
    rows = figure.subplots(len(spectra), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, (label, spectrum) in zip(rows, spectra.items(), strict=True):
        _draw_density(axes, spectrum, axis)
        axes.set_ylabel(label, rotation=0, ha="right", va="center")
        axes.text(1, 1, spectrum.range, transform=axes.transAxes, ha="right", va="top", fontsize=8)
        axes.label_outer()
    return figure


def _draw_density(axes: Axes, spectrum: WeightedEigenvalues, axis: EigenvalueAxis) -> None:
    from matplotlib.ticker import LogFormatterSciNotation

    density = axis.density(spectrum)
    signed = spectrum.nodes[spectrum.nodes != 0]
    border = (
        0.0 if len(signed) and signed[0] < 0 else -np.inf
    )  # no blue curve without negative eigenvalues
    border = np.inf if len(signed) and signed[-1] < 0 else border
    for side, color in ((axis.values <= border, NEGATIVE), (axis.values >= border, POSITIVE)):
        axes.fill_between(
            axis.values, MIN_DENSITY, density, where=side, color=color, alpha=0.35, lw=0
        )
        axes.plot(axis.values[side], density[side], color=color, linewidth=1.2)
    axes.set_xscale("asinh", linear_width=axis.linear)
    axes.set(yscale="log", ylim=(MIN_DENSITY, 2 * max(density.max(), 2 * MIN_DENSITY)))
    axes.set_xticks(axis.ticks(), minor=False)
    axes.xaxis.set_major_formatter(LogFormatterSciNotation(linthresh=axis.linear))
    axes.minorticks_off()
    axes.set_xlim(axis.values[0], axis.values[-1])
    axes.set(xlabel="eigenvalue", ylabel="eigenvalues per decade")
    tidy(axes)


def _draw_ranks(axes: Axes, nodes: np.ndarray) -> None:
    """Draw the magnitudes of eigenvalues by rank, the negative ones on top."""
    ranks, colors = np.arange(len(nodes)), np.where(nodes < 0, NEGATIVE, POSITIVE)
    order = np.argsort(-nodes)
    axes.scatter(ranks[order], np.abs(nodes)[order], s=9, c=colors[order])
    axes.set(
        yscale="log" if nodes.any() else "linear",
        xlabel="rank",
        ylabel="magnitude (blue: negative)",
    )
    tidy(axes)
