"""Plots of eigenvalues."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from jtree.plot import spectrum

from .figures import draw


def test_the_density_of_eigenvalues_integrates_to_their_number() -> None:
    values = np.concatenate([np.linspace(-1, 2, 50), [30.0]])
    density, ranks = spectrum(values).axes
    total = 0.0
    for line in density.lines:
        x, y = line.get_xdata(), line.get_ydata()
        linear = density.xaxis.get_transform().linear_width
        total += np.trapezoid(y, np.arcsinh(x / linear) / np.log(10))
    assert total == pytest.approx(51, rel=1e-3)
    assert np.allclose(np.sort(ranks.collections[0].get_offsets()[:, 1]), np.sort(np.abs(values)))


def test_weights_are_multiplicities() -> None:
    one = spectrum(jnp.array([1.0, 2.0, 2.0, 2.0])).axes[0].lines[1]
    two = spectrum((np.array([1.0, 2.0]), np.array([1.0, 3.0]))).axes[0].lines[1]
    same = spectrum(np.array([2.0, 1.0]), np.array([3.0, 1.0])).axes[0].lines[1]
    heights = [np.max(line.get_ydata()) for line in (one, two, same)]
    assert heights == pytest.approx([heights[0]] * 3, rel=0.05)
    figure = spectrum(np.array([2.0, 1.0]), np.array([3.0, 1.0]))
    assert len(figure.axes) == 1  # no ranks with weights
    assert figure.get_suptitle() == "4 eigenvalues from 1 to 2"


def test_a_quadrature_is_scaled_to_all_eigenvalues() -> None:
    class Quadrature:
        nodes = jnp.array([[1.0, 3.0, 99.0], [1.0, 4.0, -7.0]])  # two runs
        weights = jnp.array([[0.5, 0.5, 0.0], [0.5, 0.5, 1e-12]])
        size = 100

    figure = spectrum(Quadrature())
    assert figure.get_suptitle() == "100 eigenvalues from 1 to 4"
    pair = spectrum(np.array([1.0, 3.0, 4.0]), np.array([50.0, 25.0, 25.0]))
    heights = [x.axes[0].lines[1].get_ydata() for x in (figure, pair)]
    assert np.allclose(*heights)


@pytest.mark.parametrize(("values", "colors"), [([0, 5], 1), ([-5, 0], 1), ([-5, 5], 2)])
def test_a_side_without_eigenvalues_has_no_color(values: list[int], colors: int) -> None:
    density = spectrum(np.array(values)).axes[0]
    assert len({x.get_color() for x in density.lines if len(x.get_xdata())}) == colors


def test_several_spectra_share_their_axes() -> None:
    figure = spectrum({"step 0": np.array([-3.0, 1.0]), 10: (np.array([2.0]), np.array([2.0]))})
    assert [axes.get_ylabel() for axes in figure.axes] == ["step 0", "10"]
    assert figure.axes[0].get_xlim() == figure.axes[1].get_xlim()
    assert [axes.texts[0].get_text() for axes in figure.axes] == ["from -3 to 1", "from 2 to 2"]


@pytest.mark.parametrize("values", [[0.0, 0.0], [1.0], [-1e-12, 1e12], list(range(-500, 500))])
def test_ticks_are_zero_and_powers_of_ten(values: list[float]) -> None:
    figure = spectrum(np.array(values))
    draw(figure)
    ticks = figure.axes[0].get_xticks()
    powers = np.log10(np.abs(ticks[ticks != 0]))
    assert 0 in ticks
    assert len(ticks) <= 9
    assert np.allclose(powers, np.round(powers))
