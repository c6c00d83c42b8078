"""Eigenvalues: how many there are of each size, and during training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .._errors import ArgumentError, ArgumentTypeError
from .._text import plural
from ._figure import INK, NEGATIVE, POSITIVE, check_installed, figure, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS = 500  # of a curve, on each side of zero
DECADES = 4  # from the largest eigenvalue down to where the axis becomes linear, at most
NOTHING = 1e-9  # of the largest weight: what rounding leaves of a node
FEWEST = 0.3  # eigenvalues per decade that are still shown


def spectrum(
    eigenvalues: Any,
    /,
    weights: Any = None,
    *,
    smooth: float = 0.06,
    title: str | None = None,
) -> Figure:
    """Return a picture of eigenvalues: how many there are of each size.

    The curve is the number of eigenvalues per decade, each smoothed by a Gaussian, red above zero
    and blue below. Sizes are on an axis that is logarithmic on both sides and linear around zero,
    where the eigenvalues are below the median, or a ten thousandth of the largest. All eigenvalues
    of one matrix are also drawn by rank. Several spectra, such as those of several steps of
    training, are drawn below one another on the same axes.

    Args:
      eigenvalues: `(n,)`, real, in any order; or what `jtree.curvature.spectrum` returns; or a
        pair `(nodes, weights)`; or a dict of any of these by the label of each.
      weights: `(n,)`: how many eigenvalues each number stands for; by default one.
      smooth: the standard deviation of the Gaussian, in decades.
      title: by default how many eigenvalues there are, and from where to where.

    Returns:
      A new figure.

    Raises:
      ArgumentError: there are no eigenvalues, or not one weight for each.
      ArgumentTypeError: the eigenvalues are complex.
      ExtraError: matplotlib is not installed.

    Example:
      >>> figure = jtree.plot.spectrum(jnp.array([-0.1, 0.0, 0.2, 30.0]))
      >>> figure.get_suptitle()
      '4 eigenvalues from -0.1 to 30'
      >>> figure = jtree.plot.spectrum({"step 0": jnp.ones(3), "step 10": 9 * jnp.ones(3)})
      >>> [axes.get_ylabel() for axes in figure.axes]
      ['step 0', 'step 10']

    Source: the density of Hessians on such axes is in Ghorbani, Krishnan, Xiao, "An investigation
    into neural net optimization via Hessian eigenvalue density", 2019,
    https://arxiv.org/abs/1901.10159.
    """
    check_installed()
    several = isinstance(eigenvalues, Mapping)
    if several and weights is not None:
        raise ArgumentError("weights: in a dict, give each spectrum as a pair (nodes, weights)")
    given = (
        eigenvalues if several else {"": eigenvalues if weights is None else (eigenvalues, weights)}
    )
    found = {str(label): _weighted(each) for label, each in given.items()}
    if not found:
        raise ArgumentError("expected one spectrum or more, found an empty dict")
    axis = _Axis.around(np.concatenate([each.nodes for each in found.values()]), smooth)
    picture = _draw_several(found, axis) if several else _draw_one(found[""], axis)
    picture.suptitle(title or _title(list(found.values())), color=INK)
    return picture


class _Weighted(NamedTuple):
    """Eigenvalues, and how many each one stands for."""

    nodes: np.ndarray
    weights: np.ndarray

    @property
    def range(self) -> str:
        return f"from {self.nodes[0]:.3g} to {self.nodes[-1]:.3g}"


def _weighted(given: Any) -> _Weighted:
    """Return eigenvalues from the smallest to the largest, with their weights."""
    if hasattr(given, "nodes"):
        given = _quadrature(given)
    nodes, weights = given if isinstance(given, tuple) else (given, None)
    nodes = np.asarray(nodes)
    if np.iscomplexobj(nodes):
        raise ArgumentTypeError(
            f"expected real eigenvalues, found {nodes.dtype}; those of a symmetric matrix are what "
            "numpy.linalg.eigvalsh returns"
        )
    nodes = nodes.astype(np.float64).ravel()
    weights = np.ones(len(nodes)) if weights is None else np.asarray(weights, np.float64).ravel()
    if not len(nodes) or len(nodes) != len(weights):
        raise ArgumentError(
            f"expected eigenvalues and one weight for each, found {len(nodes)} and {len(weights)}"
        )
    if not np.isfinite(nodes).all():
        raise ArgumentError("expected finite eigenvalues, found some that are not")
    order = np.argsort(nodes)
    return _Weighted(nodes[order], weights[order])


def _quadrature(given: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return what a `jtree.curvature.Spectrum` found, without nodes that stand for nothing."""
    nodes, weights = np.asarray(given.nodes), np.asarray(given.weights)
    seen = weights > NOTHING * weights.max()
    return nodes[seen], weights[seen] * (given.size / weights.sum())


class _Axis(NamedTuple):
    """The axis of eigenvalues: logarithmic on both sides, linear below a width."""

    linear: float
    values: np.ndarray
    smooth: float

    @classmethod
    def around(cls, nodes: np.ndarray, smooth: float) -> _Axis:
        sizes = np.abs(nodes[nodes != 0]) if nodes.any() else np.ones(1)
        most = float(sizes.max())
        linear = np.clip(np.median(sizes), most / 10**DECADES, most / 100)
        ends = _decades(np.array([nodes.min(), nodes.max()]), linear)
        room = 4 * smooth
        below, above = min(ends[0], 0) - room, max(ends[1], 0) + room
        along = np.concatenate([np.linspace(below, 0, POINTS), np.linspace(0, above, POINTS)])
        return cls(float(linear), linear * np.sinh(along * np.log(10)), smooth)

    def density(self, spectrum: _Weighted) -> np.ndarray:
        """Return the number of eigenvalues per decade at every value of the axis."""
        at, where = _decades(self.values, self.linear), _decades(spectrum.nodes, self.linear)
        total: np.ndarray = np.zeros(len(at))
        for node, weight in zip(where, spectrum.weights, strict=True):
            total += weight * np.exp(-(((at - node) / self.smooth) ** 2) / 2)
        total /= self.smooth * np.sqrt(2 * np.pi)
        return total

    def ticks(self) -> list[float]:
        """Return zero and some powers of ten on both sides, none so near that labels overlap."""
        positive = _powers(3 * self.linear, self.values[-1])
        negative = _powers(3 * self.linear, -self.values[0])
        return [*(-x for x in negative[::-1]), 0.0, *positive]


def _powers(least: float, most: float) -> list[float]:
    """Return powers of ten in a range, no more than four."""
    if most < least:
        return []
    exponents = range(int(np.ceil(np.log10(least))), int(np.floor(np.log10(most))) + 1)
    return [10.0**k for k in exponents][:: -1 - len(exponents) // 5][::-1]


def _decades(values: np.ndarray, linear: float) -> np.ndarray:
    """Return positions on the axis, in decades where it is logarithmic."""
    return np.asarray(np.arcsinh(values / linear) / np.log(10))


def _title(found: list[_Weighted]) -> str:
    if len(found) > 1:
        return "Eigenvalues"
    total = round(float(found[0].weights.sum()))
    return f"{plural(total, 'eigenvalue')} {found[0].range}"


def _draw_one(spectrum: _Weighted, axis: _Axis) -> Figure:
    if not (spectrum.weights == 1).all():
        picture = figure(7, 3.6)
        _draw_density(picture.subplots(), spectrum, axis)
        return picture
    picture = figure(11, 3.8)
    left, right = picture.subplots(1, 2)
    _draw_density(left, spectrum, axis)
    _draw_ranks(right, spectrum.nodes)
    return picture


def _draw_several(found: dict[str, _Weighted], axis: _Axis) -> Figure:
    picture = figure(8, 1.1 * len(found) + 1.2)
    rows = picture.subplots(len(found), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, (label, spectrum) in zip(rows, found.items(), strict=True):
        _draw_density(axes, spectrum, axis)
        axes.set_ylabel(label, rotation=0, ha="right", va="center")
        axes.text(1, 1, spectrum.range, transform=axes.transAxes, ha="right", va="top", fontsize=8)
        axes.label_outer()
    return picture


def _draw_density(axes: Axes, spectrum: _Weighted, axis: _Axis) -> None:
    from matplotlib.ticker import LogFormatterSciNotation

    density = axis.density(spectrum)
    signed = spectrum.nodes[spectrum.nodes != 0]
    border = 0.0 if len(signed) and signed[0] < 0 else -np.inf  # no blue where none is below zero
    border = np.inf if len(signed) and signed[-1] < 0 else border
    for side, color in ((axis.values <= border, NEGATIVE), (axis.values >= border, POSITIVE)):
        axes.fill_between(axis.values, FEWEST, density, where=side, color=color, alpha=0.35, lw=0)
        axes.plot(axis.values[side], density[side], color=color, linewidth=1.2)
    axes.set_xscale("asinh", linear_width=axis.linear)
    axes.set(yscale="log", ylim=(FEWEST, 2 * max(density.max(), 2 * FEWEST)))
    axes.set_xticks(axis.ticks(), minor=False)
    axes.xaxis.set_major_formatter(LogFormatterSciNotation(linthresh=axis.linear))
    axes.minorticks_off()
    axes.set_xlim(axis.values[0], axis.values[-1])
    axes.set(xlabel="eigenvalue", ylabel="eigenvalues per decade")
    tidy(axes)


def _draw_ranks(axes: Axes, nodes: np.ndarray) -> None:
    """Draw the sizes of eigenvalues by rank, the negative ones on top."""
    ranks, colors = np.arange(len(nodes)), np.where(nodes < 0, NEGATIVE, POSITIVE)
    order = np.argsort(-nodes)
    axes.scatter(ranks[order], np.abs(nodes)[order], s=9, c=colors[order])
    axes.set(
        yscale="log" if nodes.any() else "linear",
        xlabel="rank",
        ylabel="magnitude (blue: negative)",
    )
    tidy(axes)
