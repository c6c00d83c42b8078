"""Plots of the curvature of each layer."""

from __future__ import annotations

import jax.numpy as jnp
import pytest

from jtree import ArgumentError
from jtree.curvature import Layerwise
from jtree.plot import layerwise

from .figures import draw, tick_labels


def table(count: int = 3, error: float = 0.0) -> Layerwise:
    paths = tuple(f"layers/{k}/*" for k in range(count))
    values = jnp.array([-2.0, 0.5, *[1000.0] * count])[:count]
    return Layerwise(paths, (5,) * count, values, jnp.full(count, error), values / 2)


def test_a_bar_for_each_layer_red_or_blue() -> None:
    left, right = layerwise(table()).axes
    assert tick_labels(left) == ["layers/0/*", "layers/1/*", "layers/2/*"]
    assert [bar.get_width() for bar in left.patches] == [-2, 0.5, 1000]
    assert [bar.get_width() for bar in right.patches] == [-1, 0.25, 500]
    colors = [bar.get_facecolor() for bar in left.patches]
    assert colors[0] != colors[1] == colors[2]
    assert left.get_xscale() == "symlog"


def test_many_layers_estimates_and_values_that_are_not_finite() -> None:
    many = layerwise(table(200, error=3.0))
    assert len(tick_labels(many.axes[0])) == 50
    assert many.get_figheight() == 16
    draw(many)
    draw(layerwise(Layerwise(("a",), (0,), jnp.zeros(1), jnp.zeros(1), jnp.full(1, jnp.nan))))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (3, "layers: expected the result of jtree.curvature.layerwise, found 3"),
        (table(0), "layers: expected at least one, found none"),
    ],
)
def test_layers_that_cannot_be_drawn(layers: object, message: str) -> None:
    with pytest.raises(ArgumentError) as error:
        layerwise(layers)
    assert str(error.value) == message
