"""Histograms of a vector's values."""

from __future__ import annotations

import numpy as np

from jtree.plot import parameters

from .figures import DIRECTION, RE, labels_of


def test_every_parameter_has_a_histogram_of_its_values() -> None:
    figure = parameters(DIRECTION, RE)
    assert [x.get_title(loc="left") for x in figure.axes] == ["head/b", "head/w", "scale"]
    heights = [sum(bar.get_height() for bar in axes.patches) for axes in figure.axes]
    assert heights == [2, 6, 1]


def test_below_the_path_are_the_shape_and_the_moments() -> None:
    texts = [axes.texts[0].get_text() for axes in parameters(DIRECTION - 1, RE).axes]
    assert texts == ["[2]   0.5 ± 0.5   1 zero", "[2, 3]   4.5 ± 1.7", "[]   8 ± 0"]
    broken = np.array([1.0, *[np.nan] * 8], np.float32)
    texts = [axes.texts[0].get_text() for axes in parameters(broken, RE).axes]
    assert texts == [
        "[2]   1 ± 0   1 not finite",
        "[2, 3]   6 not finite",
        "[]   1 not finite",
    ]


def test_many_parameters_are_one_histogram_per_node() -> None:
    re = labels_of([f"layers/{k}/{part}" for k in range(20) for part in "wb"])
    figure = parameters(np.ones(80, np.float32), re)
    assert len(figure.axes) == 20
    assert figure.axes[0].texts[0].get_text() == "4 elements   1 ± 0"
