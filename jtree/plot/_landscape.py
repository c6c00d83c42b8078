"""Plots of a loss around a vector of parameters, along one or two directions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from .._arguments import check_callable, check_integer, check_number, unexpected
from .._errors import ArgumentError, ArgumentTypeError, VectorError
from .._tree.leaves import describe, isarray
from .._vector.layout import check_vector
from .._vector.restructure import Restructure, check_restructure
from ._figure import as_values, check_installed, check_title
from ._landscape_figure import draw_line, draw_plane

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Scaling = Literal["filter", "norm", "none"]


def landscape(
    loss: Callable[..., Any],
    flat: Any,
    /,
    re: Restructure,
    directions: Any,
    *args: Any,
    scale: Scaling = "filter",
    span: float | Sequence[float] = 1.0,
    points: int | None = None,
    quadratic: bool = True,
    names: Sequence[str] = ("direction 1", "direction 2"),
    title: str | None = None,
) -> Figure:
    """Plot a loss on a line or a plane through a vector.

    Along one direction it is a curve, with the parabola that has the same slope and curvature in
    the middle. Along two directions it is a contour map, with logarithmic colors if the largest
    loss is more than 20 times the smallest. Losses that are not finite are left blank.

    Args:
      loss: `loss(flat, *args)`, a real scalar. It is compiled once, and evaluated at one vector
        after another.
      flat: `(n,)`, the vector in the middle.
      re: the `Restructure` of the vector, which tells its filters.
      directions: `(n,)` or `(1, n)` for a line, `(2, n)` for a plane.
      args: the arguments of the loss after the vector.
      scale: `"filter"` gives each filter of a direction the norm of the same filter of `flat`, so
        that distances are relative to the weights and networks can be compared. A filter computes
        one output: it has all values at one index of the last axis of a kernel, `(in, out)` or
        `(*window, in, out)`; parameters of rank 1 or 0 are one filter. `"norm"` gives each
        direction the norm of `flat`. `"none"` keeps the directions, as is usual for eigenvectors.
      span: the distance to the ends on both sides; one number, or one per direction.
      points: the number of points along each direction, rounded up to an odd number; by default
        101 on a line and 31 on a plane.
      quadratic: whether to draw the parabola, which takes two forward derivatives of the loss.
      names: the names of the directions.
      title: the title.

    Returns:
      A new figure.

    Raises:
      VectorError: the vector or the directions have another length.
      ArgumentError: there are more than two directions, the loss is not finite anywhere, or `scale`
        is unknown.
      ArgumentTypeError: the loss is not a real scalar, or the vector is not floating point.
      ExtraError: matplotlib is not installed.

    Example:
      >>> flat, re = jtree.destructure({"w": jnp.ones((2, 2)), "b": jnp.zeros(2)})
      >>> loss = lambda v: (re(v)["w"].sum(0) ** 2).sum() + (re(v)["b"] ** 2).sum()
      >>> direction = jax.random.normal(jax.random.key(0), (6,))
      >>> figure = jtree.plot.landscape(loss, flat, re, direction)
      >>> figure.axes[0].get_xlabel()
      'direction 1'

    Source: Li, Xu, Taylor, Studer and Goldstein, "Visualizing the loss landscape of neural nets",
    NeurIPS 2018, arXiv:1712.09913; filter normalization is in section 4.
    """
    check_installed()
    check_title(title)
    check_callable("loss", loss)
    check_vector(flat, check_restructure(re).layout)
    flat = jnp.asarray(as_values("flat", flat))
    if not jnp.issubdtype(flat.dtype, jnp.floating):
        raise ArgumentTypeError(f"flat: expected a floating-point vector, found {flat.dtype}")
    if not isinstance(scale, str) or scale not in _SCALES:
        raise ArgumentError(f"scale: expected 'filter', 'norm' or 'none', found {scale!r}")
    scaled = _SCALES[scale](re, flat, _as_directions(directions, re, flat))
    check_names(names, len(scaled))
    _check_loss(loss, flat, args)
    grid = _grid(span, len(scaled), points)
    values = _evaluate(loss, flat, scaled, grid, args)
    if not np.isfinite(values).any():
        raise ArgumentError(
            f"loss: expected finite values, found none at the {values.size} points around flat"
        )
    if len(scaled) == 1:
        taylor = _taylor(loss, flat, scaled[0], args) if quadratic else None
        return draw_line(grid[0], values, taylor, names[0], title)
    return draw_plane(grid, values, names, title)


def _as_directions(directions: Any, re: Restructure, flat: jax.Array) -> jax.Array:
    try:
        rows = jnp.atleast_2d(jnp.asarray(directions))
    except (TypeError, ValueError) as error:
        raise unexpected("directions", "one or two vectors", directions) from error
    if rows.ndim != 2 or rows.shape[1] != re.size:
        raise VectorError(
            f"directions: expected shape ({re.size},) or (2, {re.size}), found "
            f"{np.shape(directions)}"
        )
    if len(rows) not in (1, 2):
        raise ArgumentError(f"directions: expected one or two, found {len(rows)}")
    return rows.astype(flat.dtype)


def check_names(names: Sequence[str], count: int) -> None:
    """Refuse anything but a name for each direction."""
    several = isinstance(names, list | tuple) and len(names) >= count
    if not several or not all(isinstance(name, str) for name in names):
        expected = "the name of a direction" if count == 1 else "the names of two directions"
        raise ArgumentTypeError(f"names: expected {expected} in a list, found {names!r}")


def _by_filter(re: Restructure, flat: jax.Array, directions: jax.Array) -> jax.Array:
    """Return directions whose filters have the norms of the vector's filters."""
    parts = [
        _scale_filters(direction[part].reshape(shape), flat[part].reshape(shape)).ravel()
        for direction in directions
        for part, shape in zip(re.slices.values(), re.shapes.values(), strict=True)
    ]
    return jnp.concatenate(parts).reshape(directions.shape)


def _scale_filters(direction: jax.Array, weights: jax.Array) -> jax.Array:
    """Return an array with the norms of another, over all axes but the last."""
    axes = tuple(range(weights.ndim - 1)) if weights.ndim > 1 else None
    new, old = (jnp.sqrt(jnp.sum(x * x, axes, keepdims=True)) for x in (weights, direction))
    return jnp.asarray(direction * new / jnp.where(old > 0, old, 1))


def _by_norm(_: Restructure, flat: jax.Array, directions: jax.Array) -> jax.Array:
    """Return directions with the norm of the vector."""
    norms = jnp.linalg.norm(directions, axis=1, keepdims=True)
    return jnp.asarray(directions * jnp.linalg.norm(flat) / jnp.where(norms > 0, norms, 1))


_SCALES: dict[str, Callable[[Restructure, jax.Array, jax.Array], jax.Array]] = {
    "filter": _by_filter,
    "norm": _by_norm,
    "none": lambda _, __, directions: directions,
}


def _check_loss(loss: Callable[..., Any], flat: jax.Array, args: tuple[Any, ...]) -> None:
    for x in jax.tree.leaves(args):
        if not (isarray(x) or isinstance(x, bool | int | float | complex)):
            raise unexpected("args", "arrays, which the loss takes after the vector", x)
    value = jax.eval_shape(loss, flat, *args)
    if getattr(value, "shape", None) != () or not jnp.issubdtype(value.dtype, jnp.floating):
        raise ArgumentTypeError(f"loss: expected a real scalar, found {describe(value)}")


def _grid(span: float | Sequence[float], count: int, points: int | None) -> list[np.ndarray]:
    """Return the coordinates along each direction."""
    several = span if isinstance(span, list | tuple | np.ndarray) else [span] * count
    if len(several) != count:
        raise ArgumentError(f"span: expected one number or {count}, found {len(several)}")
    ends = [float(check_number("span", end)) for end in several]
    points = (101, 31)[count - 1] if points is None else check_integer("points", points, least=1)
    return [np.linspace(-end, end, points + 1 - points % 2) for end in ends]


def _evaluate(
    loss: Callable[..., Any],
    flat: jax.Array,
    directions: jax.Array,
    grid: list[np.ndarray],
    args: tuple[Any, ...],
) -> np.ndarray:
    """Return the losses on the grid, with an axis for each direction."""
    points = np.stack(np.meshgrid(*grid, indexing="ij"), axis=-1).reshape(-1, len(grid))

    @jax.jit
    def losses(flat: jax.Array, directions: jax.Array, points: jax.Array, args: Any) -> Any:
        return jax.lax.map(lambda point: loss(flat + point @ directions, *args), points)

    values = losses(flat, directions, jnp.asarray(points, flat.dtype), args)
    return np.asarray(values, np.float64).reshape([len(coordinates) for coordinates in grid])


def _taylor(
    loss: Callable[..., Any], flat: jax.Array, direction: jax.Array, args: tuple[Any, ...]
) -> tuple[float, float, float]:
    """Return the value, the slope and the curvature in the middle."""

    @jax.jit
    def derivatives(flat: jax.Array, direction: jax.Array, args: Any) -> tuple[Any, Any, Any]:
        def slope(flat: jax.Array) -> tuple[jax.Array, jax.Array]:
            return jax.jvp(lambda v: loss(v, *args), (flat,), (direction,))

        (value, first), (_, second) = jax.jvp(slope, (flat,), (direction,))
        return value, first, second

    value, first, second = derivatives(flat, direction, args)
    return float(value), float(first), float(second)
