"""A picture of a Hessian: its blocks by path, and its eigenvalues."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

import jtree

POSITIVE, NEGATIVE, INK = "#b2182b", "#2166ac", "#333333"  # the two ends of RdBu, and text


def draw(path: Path, hessian: np.ndarray, eigenvalues: np.ndarray, re: jtree.Restructure) -> None:
    """Write a picture of a Hessian over all parameters of `re` to a file."""
    figure = Figure(figsize=(9, 10.6), layout="compressed")
    matrix, spectrum = figure.subplots(2, 1, height_ratios=(4.2, 1))
    image = _draw_matrix(matrix, hessian)
    bar = figure.colorbar(image, ax=matrix, shrink=0.7, pad=0.02, aspect=30)
    bar.set_label("∂²loss / ∂wᵢ∂wⱼ (symmetric logarithm)", color=INK)
    bar.outline.set_visible(False)
    _label_blocks(matrix, re)
    _draw_spectrum(spectrum, eigenvalues)
    figure.savefig(path, dpi=150, bbox_inches="tight", pad_inches=0.25)


def _draw_matrix(axes: Axes, hessian: np.ndarray) -> AxesImage:
    size = len(hessian)
    title = f"Every second derivative of a small trained network: {size} by {size}"
    axes.set_title(title, fontsize=13, pad=12)
    return axes.imshow(hessian, cmap="RdBu_r", norm=_norm(hessian), interpolation="nearest")


def _norm(hessian: np.ndarray) -> SymLogNorm:
    """Return symmetric colours that are linear for the smaller half of the entries."""
    most = float(np.abs(hessian).max())
    return SymLogNorm(float(np.median(np.abs(hessian))), vmin=-most, vmax=most)


def _label_blocks(axes: Axes, re: jtree.Restructure) -> None:
    """Draw a line where each parameter of the network begins, and write its path beside it."""
    for part in re.slices[1:]:
        axes.axhline(part.start - 0.5, color=INK, linewidth=0.8)
        axes.axvline(part.start - 0.5, color=INK, linewidth=0.8)
    middles = [(part.start + part.stop - 1) / 2 for part in re.slices]
    axes.set_yticks(middles, re.paths)
    axes.set_xticks(middles, re.paths, rotation=35, ha="right", rotation_mode="anchor")
    axes.tick_params(length=0, labelsize=10, labelfontfamily="monospace")


def _draw_spectrum(axes: Axes, eigenvalues: np.ndarray) -> None:
    ranks, colors = np.arange(len(eigenvalues)), np.where(eigenvalues < 0, NEGATIVE, POSITIVE)
    order = np.argsort(-eigenvalues)  # negative ones last, on top
    axes.scatter(ranks[order], np.abs(eigenvalues)[order], s=9, c=colors[order])
    axes.set_yscale("log")
    axes.set_title(
        f"Its eigenvalues, from {eigenvalues[0]:.2g} to {eigenvalues[-1]:.3g} (negative: blue)"
    )
    axes.set_xlabel("rank")
    axes.set_ylabel("magnitude")
    axes.spines[["top", "right"]].set_visible(False)
