"""Slices of a loss through a vector of parameters, along one direction or two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from .._errors import ArgumentError, ArgumentTypeError, VectorError
from .._tree.leaves import describe
from .._vector.layout import check_vector
from .._vector.restructure import Restructure
from ._figure import INK, NEGATIVE, ORDERED, POSITIVE, add_bar, check_installed, figure, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.contour import QuadContourSet
    from matplotlib.figure import Figure

Scaling = Literal["filter", "norm", "none"]
LEVELS = 24
RATIO = 20  # of the largest to the smallest loss, from which on colours are logarithmic


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
    """Return a picture of a loss on a line or a plane through a vector.

    Along one direction, a curve, and with it the parabola of the same slope and curvature in the
    middle. Along two, a map with contour lines, in logarithmic colours where the largest loss is
    20 times the smallest or more. Losses that are not finite are left blank.

    Args:
      loss: `loss(flat, *args)` is a real scalar. It is compiled once, and called for one vector
        after another.
      flat: `(n,)`: the vector in the middle.
      re: the layout of the vector; filters are read from it.
      directions: `(n,)` or `(1, n)` for a line, `(2, n)` for a plane.
      args: handed to the loss, compiled as arguments.
      scale: `"filter"` gives each filter of a direction the norm of the same filter of `flat`, so
        that the unit is the size of the network's own weights, and networks can be compared: a
        filter is what makes one output, all numbers at one index of the last axis of a kernel,
        `(in, out)` or `(*window, in, out)`. Parameters of rank 1 or 0 are one filter each.
        `"norm"` gives each direction the norm of `flat`. `"none"` leaves directions as they are,
        as eigenvectors want.
      span: how far to go from the middle, both ways; one number, or one per direction.
      points: along each direction: by default 101 on a line and 31 on a plane, always odd, so that
        the middle is one.
      quadratic: whether to draw the parabola; it takes two forward derivatives of the loss.
      names: what to call the directions.
      title: by default, what the picture is of.

    Returns:
      A new figure.

    Raises:
      VectorError: the vector or the directions have another length.
      ArgumentError: more than two directions, a loss that is nowhere finite, or an option that is
        none of those offered.
      ArgumentTypeError: the loss is no real scalar, or the vector is not of real numbers.
      ExtraError: matplotlib is not installed.

    Example:
      >>> flat, re = jtree.destructure({"w": jnp.ones((2, 2)), "b": jnp.zeros(2)})
      >>> loss = lambda v: (re(v)["w"].sum(0) ** 2).sum() + (re(v)["b"] ** 2).sum()
      >>> direction = jax.random.normal(jax.random.key(0), (6,))
      >>> figure = jtree.plot.landscape(loss, flat, re, direction)
      >>> figure.axes[0].get_xlabel()
      'direction 1'

    Source: Li, Xu, Taylor, Studer, Goldstein, "Visualizing the loss landscape of neural nets",
    2018, https://arxiv.org/abs/1712.09913 (filter normalisation is section 4).
    """
    check_installed()
    check_vector(flat, re.layout)
    flat = jnp.asarray(flat)
    if not jnp.issubdtype(flat.dtype, jnp.floating):
        raise ArgumentTypeError(f"expected a vector of real numbers, found one of {flat.dtype}")
    unscaled = _directions(directions, re, flat)
    scaled = _SCALES[_known(scale)](re, flat, unscaled)
    _check_scalar(loss, flat, args)
    grid = _grid(span, len(scaled), points)
    values = _evaluate(loss, flat, scaled, grid, args)
    if not np.isfinite(values).any():
        raise ArgumentError(
            f"the loss is not finite at any of {values.size} points around the vector"
        )
    if len(scaled) == 1:
        taylor = _taylor(loss, flat, scaled[0], args) if quadratic else None
        return _draw_line(grid[0], values, taylor, names[0], title)
    return _draw_plane(grid, values, names, title)


def _directions(directions: Any, re: Restructure, flat: jax.Array) -> jax.Array:
    found = jnp.atleast_2d(jnp.asarray(directions))
    if found.ndim != 2 or found.shape[1] != re.size:
        raise VectorError(
            f"directions: expected shape ({re.size},) or (2, {re.size}), found "
            f"{np.shape(directions)}"
        )
    if len(found) not in (1, 2):
        raise ArgumentError(f"directions: expected one or two, found {len(found)}")
    return found.astype(flat.dtype)


def _known(scale: str) -> str:
    if scale not in _SCALES:
        raise ArgumentError(f"scale: expected 'filter', 'norm' or 'none', found {scale!r}")
    return scale


def _by_filter(re: Restructure, flat: jax.Array, directions: jax.Array) -> jax.Array:
    """Give each filter of the directions the norm that it has in the vector."""
    parts = [
        _like(direction[part].reshape(shape), flat[part].reshape(shape)).ravel()
        for direction in directions
        for part, shape in zip(re.slices.values(), re.shapes.values(), strict=True)
    ]
    return jnp.concatenate(parts).reshape(directions.shape)


def _like(direction: jax.Array, weights: jax.Array) -> jax.Array:
    """Return an array with the norms of another, over all axes but the last."""
    axes = tuple(range(weights.ndim - 1)) if weights.ndim > 1 else None
    wanted, found = (jnp.sqrt(jnp.sum(x * x, axes, keepdims=True)) for x in (weights, direction))
    return jnp.asarray(direction * wanted / jnp.where(found > 0, found, 1))


def _by_norm(_: Restructure, flat: jax.Array, directions: jax.Array) -> jax.Array:
    """Give each direction the norm of the vector."""
    norms = jnp.linalg.norm(directions, axis=1, keepdims=True)
    return jnp.asarray(directions * jnp.linalg.norm(flat) / jnp.where(norms > 0, norms, 1))


_SCALES: dict[str, Callable[[Restructure, jax.Array, jax.Array], jax.Array]] = {
    "filter": _by_filter,
    "norm": _by_norm,
    "none": lambda _, __, directions: directions,
}


def _check_scalar(loss: Callable[..., Any], flat: jax.Array, args: tuple[Any, ...]) -> None:
    found = jax.eval_shape(loss, flat, *args)
    if getattr(found, "shape", None) != () or not jnp.issubdtype(found.dtype, jnp.floating):
        raise ArgumentTypeError(
            f"expected a loss that returns a real scalar, found {describe(found)}"
        )


def _grid(span: float | Sequence[float], count: int, points: int | None) -> list[np.ndarray]:
    """Return where to evaluate along each direction."""
    spans = np.broadcast_to(np.asarray(span, np.float64), count)
    number = (101, 31)[count - 1] if points is None else points
    return [np.linspace(-each, each, number + 1 - number % 2) for each in spans]


def _evaluate(
    loss: Callable[..., Any],
    flat: jax.Array,
    directions: jax.Array,
    grid: list[np.ndarray],
    args: tuple[Any, ...],
) -> np.ndarray:
    """Return the losses at all points of the grid, the first direction first."""
    points = np.stack(np.meshgrid(*grid, indexing="ij"), axis=-1).reshape(-1, len(grid))

    @jax.jit
    def along(flat: jax.Array, directions: jax.Array, points: jax.Array, args: Any) -> Any:
        return jax.lax.map(lambda point: loss(flat + point @ directions, *args), points)

    found = np.asarray(along(flat, directions, jnp.asarray(points, flat.dtype), args), np.float64)
    return found.reshape([len(each) for each in grid])


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


def _draw_line(
    along: np.ndarray,
    values: np.ndarray,
    taylor: tuple[float, float, float] | None,
    name: str,
    title: str | None,
) -> Figure:
    picture = figure(6.4, 4)
    axes = picture.subplots()
    finite = np.where(np.isfinite(values), values, np.nan)
    axes.plot(along, finite, color=POSITIVE, linewidth=2, label="loss")
    middle = len(along) // 2
    if taylor is not None and np.isfinite(taylor).all():
        _draw_parabola(axes, along, finite, taylor)
    axes.plot(along[middle], finite[middle], "o", color=INK, zorder=3)
    axes.set(xlabel=name, ylabel="loss", xlim=(along[0], along[-1]))
    axes.set_title(title or "The loss along a line", fontsize=11, color=INK)
    axes.grid(alpha=0.2)
    axes.legend(frameon=False, fontsize=9)
    tidy(axes)
    return picture


def _draw_parabola(
    axes: Axes, along: np.ndarray, finite: np.ndarray, taylor: tuple[float, float, float]
) -> None:
    """Draw the parabola in the middle, no further than the picture of the loss reaches."""
    value, first, second = taylor
    least, most = np.nanmin(finite), np.nanmax(finite)
    room = 0.08 * (most - least) or 1.0
    axes.plot(
        along,
        value + first * along + second / 2 * along**2,
        color=NEGATIVE,
        linestyle="--",
        linewidth=1.3,
        label=f"same slope ({first:.2g}) and curvature ({second:.2g})",
    )
    axes.set_ylim(least - room, most + room)


def _draw_plane(
    grid: list[np.ndarray], values: np.ndarray, names: Sequence[str], title: str | None
) -> Figure:
    picture = figure(6.8, 5.6, square=True)
    axes = picture.subplots()
    _draw_heights(axes, grid, np.ma.masked_invalid(values.T))
    axes.plot(0, 0, "o", markersize=6, markeredgecolor="white", color=POSITIVE)
    axes.set(xlabel=names[0], ylabel=names[1])
    if grid[0][-1] == grid[1][-1]:
        axes.set_aspect("equal")
    axes.set_title(title or "The loss on a plane", fontsize=11, color=INK)
    tidy(axes)
    return picture


def _draw_heights(axes: Axes, grid: list[np.ndarray], values: np.ma.MaskedArray) -> None:
    """Draw losses as colours, with lines at some of them and a scale beside."""
    from matplotlib.colors import LogNorm, Normalize
    from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator

    least, most = float(values.min()), float(values.max())
    logarithmic = least > 0 and most > RATIO * least
    near = MaxNLocator(LEVELS).tick_values(least, most)
    levels = np.geomspace(least, most, LEVELS + 1) if logarithmic else near
    norm = (LogNorm if logarithmic else Normalize)(levels[0], levels[-1])
    filled = axes.contourf(*grid, values, levels=levels, cmap=ORDERED, norm=norm)
    lines = axes.contour(*grid, values, levels=levels[::3], colors="white", linewidths=0.6)
    digits = _digits(least, most)
    _label_lines(axes, lines, f"%.{digits}g")
    label = "loss, on a logarithmic scale" if logarithmic else "loss"
    bar = add_bar(filled, axes, label, f"%.{digits + 1}g")
    linear = MaxNLocator(8) if most > least else FixedLocator([least])
    bar.ax.yaxis.set(major_locator=LogLocator(subs=(1, 2, 5)) if logarithmic else linear)
    bar.minorticks_off()


def _digits(least: float, most: float) -> int:
    """Return how many digits tell losses in a range apart.

    >>> _digits(0.0, 5.0), _digits(1.0, 1.00001)
    (3, 8)
    """
    span = most - least
    common = np.log10(max(abs(least), abs(most)) / span) if span > 0 else 0
    return int(np.clip(np.ceil(common) + 2, 3, 12))


def _label_lines(axes: Axes, lines: QuadContourSet, fmt: str) -> None:
    """Write losses on contour lines, none so near another, or the middle, that they overlap."""
    from matplotlib.patheffects import withStroke

    room = 0.1 * np.ptp(axes.get_xlim()), 0.05 * np.ptp(axes.get_ylim())
    kept = [np.zeros(2)]
    for text in axes.clabel(lines, fmt=fmt, fontsize=8, inline=False):
        place = np.array(text.get_position())
        if any((np.abs(place - other) < room).all() for other in kept):
            text.remove()
        else:
            kept.append(place)
            text.set_path_effects([withStroke(linewidth=2, foreground=INK)])
