"""Plots of a loss along directions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtree.plot import landscape

from .figures import DIRECTION, FLAT, RE, draw, quadratic, tick_labels


def test_a_line_is_the_loss_along_a_direction() -> None:
    axes = landscape(quadratic, FLAT, RE, DIRECTION, scale="none", span=2, points=5).axes[0]
    along, values = axes.lines[0].get_data()
    assert along.tolist() == [-2, -1, 0, 1, 2]
    assert np.allclose(values, [quadratic(FLAT + t * DIRECTION) for t in along])


def test_the_parabola_of_a_quadratic_is_the_quadratic() -> None:
    loss, parabola, middle = landscape(quadratic, FLAT, RE, DIRECTION, points=9).axes[0].lines
    assert np.allclose(loss.get_ydata(), parabola.get_ydata(), rtol=1e-5)
    assert (middle.get_xdata()[0], middle.get_ydata()[0]) == (0, quadratic(FLAT))
    assert len(landscape(quadratic, FLAT, RE, DIRECTION, quadratic=False).axes[0].lines) == 2


def test_each_filter_of_a_direction_has_the_norm_of_the_same_filter() -> None:
    seen = []

    def loss(v: jax.Array) -> jax.Array:
        jax.debug.callback(lambda x: seen.append(np.asarray(x)), v, ordered=True)
        return v.sum()

    flat = np.arange(9, dtype=np.float32)
    landscape(loss, flat, RE, -DIRECTION, points=3, quadratic=False)
    jax.effects_barrier()
    moved = RE(seen[-1] - flat)  # the point at 1
    start = RE(flat)
    kernel = np.linalg.norm(start["head"]["w"], axis=0)
    assert np.allclose(np.linalg.norm(moved["head"]["w"], axis=0), kernel)
    assert np.allclose(np.linalg.norm(moved["head"]["b"]), np.linalg.norm(start["head"]["b"]))
    assert np.allclose(moved["scale"], -start["scale"])


def test_a_direction_is_zero_where_the_weights_are_zero() -> None:
    axes = landscape(quadratic, np.zeros(9, np.float32), RE, DIRECTION).axes[0]
    assert np.allclose(axes.lines[0].get_ydata(), 3)
    axes = landscape(quadratic, FLAT, RE, np.zeros(9, np.float32)).axes[0]
    assert np.allclose(axes.lines[0].get_ydata(), quadratic(FLAT))


def test_a_direction_can_have_the_norm_of_the_vector() -> None:
    axes = landscape(lambda v: ((v - FLAT) ** 2).sum(), FLAT, RE, DIRECTION, scale="norm").axes[0]
    assert axes.lines[0].get_ydata()[-1] == pytest.approx(float((FLAT**2).sum()))


def test_a_plane_is_the_loss_along_two_directions() -> None:
    basis = np.eye(9, dtype=np.float32)[[0, 8]]
    figure = landscape(
        lambda v, shift: v[0] + 10.0 * v[8] + shift, FLAT, RE, basis, 5.0, scale="none", span=(1, 2)
    )
    axes = figure.axes[0]
    x, y = axes.get_xlim(), axes.get_ylim()
    assert (x, y) == ((-1, 1), (-2, 2))
    low, high = axes.collections[0].get_clim()
    assert low <= 4 < 46 <= high  # 0 + 20 + 5 in the middle, 1 and 20 to either side
    assert figure.axes[1].get_ylabel() == "loss"


def test_colors_are_logarithmic_where_losses_are_far_apart() -> None:
    basis = np.eye(9, dtype=np.float32)[:2]
    loss = lambda v: jnp.exp(3.0 * v[0]) + v[1] ** 2  # noqa: E731
    figure = landscape(loss, FLAT, RE, basis, scale="none", names=("up", "along"))
    assert figure.axes[1].get_ylabel() == "loss, on a logarithmic scale"
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("up", "along")


LOSSES = [lambda v: v[0] * 0.0, lambda v: jnp.log(v[0]), lambda v: jnp.sqrt(v[0] - 0.1)]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("count", [1, 2])
def test_losses_that_are_constant_or_not_finite_everywhere_can_be_drawn(
    loss: Callable[[Any], Any], count: int
) -> None:
    draw(landscape(loss, FLAT, RE, np.eye(9, dtype=np.float32)[:count], scale="none"))


def test_nearly_equal_losses_are_labeled_with_enough_digits() -> None:
    nearly = landscape(
        lambda v: 1 + 1e-5 * quadratic(v), FLAT, RE, np.eye(9, dtype=np.float32)[:2], scale="none"
    )
    bar = nearly.axes[1]
    draw(nearly)
    ticks = [x for x in tick_labels(bar) if x]
    assert len(set(ticks)) == len(ticks) > 2


def test_a_loss_is_traced_only_a_few_times() -> None:
    count = 0

    def loss(v: jax.Array) -> jax.Array:
        nonlocal count
        count += 1
        return v.sum()

    landscape(loss, FLAT, RE, DIRECTION, points=201)
    assert count <= 4
