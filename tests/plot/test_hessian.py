"""Plots of matrices: entries, norms of blocks, labels."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import jtree
from jtree.plot import hessian

from .figures import RE, draw, matrix, tick_labels


def test_a_matrix_is_drawn_as_it_is() -> None:
    entries, norms, *_ = hessian(matrix(), re=RE).axes
    assert np.array_equal(entries.images[0].get_array(), matrix())
    assert entries.images[0].get_extent() == [-0.5, 8.5, 8.5, -0.5]
    assert norms.images[0].get_array().shape == (3, 3)


def test_blocks_are_labeled_by_path_in_both_panels() -> None:
    entries, norms, *_ = hessian(matrix(), re=RE).axes
    for shown in (tick_labels(entries), tick_labels(norms), tick_labels(norms, "x")):
        assert shown == ["head/b", "head/w", "scale"]


def test_borders_are_where_parameters_begin() -> None:
    entries = hessian(matrix(), re=RE).axes[0]
    lines = [(list(x.get_xdata()), list(x.get_ydata())) for x in entries.lines]
    for start in (2, 8):
        assert ([0, 1], [start - 0.5] * 2) in lines
        assert ([start - 0.5] * 2, [0, 1]) in lines
    assert sum(len(x) == 2 for x, _ in lines) == 4


def test_a_line_leads_from_each_label_to_the_middle_of_its_block() -> None:
    entries = hessian(matrix(), re=RE).axes[0]
    leaders = [x.get_ydata() for x in entries.lines if len(x.get_ydata()) == 3]
    assert [y[0] for y in leaders] == [0.5, 4.5, 8.0]
    assert [y[2] for y in leaders] == pytest.approx(list(entries.get_yticks()))


@pytest.mark.parametrize("sizes", [[1000, 1, 1, 1, 1], [1] * 30 + [1500], [3, 900, 2, 1, 900, 5]])
def test_labels_are_apart_and_inside_however_small_the_blocks(sizes: list[int]) -> None:
    tree = {f"p{k:02}": np.zeros(n, np.float32) for k, n in enumerate(sizes)}
    _, re = jtree.destructure(tree)
    total = sum(sizes)
    positions = np.array(hessian(np.eye(total, dtype=np.float32), re=re).axes[0].get_yticks())
    assert np.diff(positions).min() > total / 40
    assert -0.5 <= positions.min() <= positions.max() <= total - 0.5


def test_the_norm_of_each_block_is_drawn_and_written() -> None:
    values = matrix()
    norms = hessian(values, re=RE).axes[1]
    parts = [slice(0, 2), slice(2, 8), slice(8, 9)]
    expected = [[np.linalg.norm(values[a, b]) for b in parts] for a in parts]
    assert np.allclose(norms.images[0].get_array(), expected)
    assert [x.get_text() for x in norms.texts] == [f"{x:.2g}" for x in np.ravel(expected)]


def test_colors_are_symmetric_and_linear_below_the_median() -> None:
    norm = hessian(matrix(), re=RE).axes[0].images[0].norm
    assert norm.vmax == -norm.vmin == np.abs(matrix()).max()
    assert norm.linthresh == np.median(np.abs(matrix()))
    steep = np.diag(10.0 ** -np.arange(9))
    assert hessian(steep).axes[0].images[0].norm.linthresh == pytest.approx(1e-4)


def test_a_large_matrix_shows_the_largest_entry_of_every_cell() -> None:
    values = np.zeros((1100, 1100), np.float32)
    values[7, 1099], values[8, 1098], values[6, 1099] = -5, 3, 4
    entries = hessian(values).axes[0]
    pixels = entries.images[0].get_array()
    assert pixels.shape == (367, 367)  # 3 by 3 each, the last ones 2
    assert (pixels[2, 366], np.count_nonzero(pixels)) == (-5, 1)
    assert entries.get_title() == "Entries, each pixel the largest of 3 by 3"
    assert entries.images[0].get_extent() == [-0.5, 1100.5, 1100.5, -0.5]
    assert (entries.get_xlim(), entries.get_ylim()) == ((-0.5, 1099.5), (1099.5, -0.5))


def test_a_matrix_without_labels_is_one_panel() -> None:
    assert len(hessian(matrix()).axes) == 2  # the entries, and their colors


def test_entries_that_are_zero_or_not_finite_can_be_drawn() -> None:
    values = matrix()
    values[0, 1] = np.nan
    values[2, 3] = np.inf
    figure = hessian(values, re=RE)
    assert np.argwhere(figure.axes[0].images[0].get_array().mask).tolist() == [[0, 1], [2, 3]]
    assert np.argwhere(figure.axes[1].images[0].get_array().mask).tolist() == [[0, 0], [1, 1]]
    for each in (figure, hessian(np.zeros((9, 9)), re=RE), hessian(np.full((9, 9), np.nan), re=RE)):
        draw(each)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32, jnp.int32])
def test_a_matrix_of_any_real_dtype_can_be_drawn(dtype: Any) -> None:
    image = hessian(jnp.eye(9, dtype=dtype), re=RE).axes[0].images[0]
    assert np.array_equal(image.get_array(), np.eye(9))


class Operator:
    re = RE

    def dense(self) -> np.ndarray:
        return np.eye(9)


def test_an_operator_is_plotted_with_its_labels() -> None:
    figure = hessian(Operator())
    assert tick_labels(figure.axes[0]) == ["head/b", "head/w", "scale"]
    assert figure.get_suptitle() == "Operator over 9 parameters"
    assert hessian(Operator(), title="mine").get_suptitle() == "mine"
