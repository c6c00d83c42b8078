"""Sizes, strides and padding of windows over spatial axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from jax import lax

from .._arguments import check_integer, check_integers
from .._errors import ArgumentError

Window: TypeAlias = int | Sequence[int]
Padding: TypeAlias = Literal["SAME", "VALID"] | int | Sequence[int | tuple[int, int]]


def window_size(window: Window) -> tuple[int, ...]:
    """Return the size of a window along each spatial axis."""
    sizes = window if isinstance(window, tuple | list) else (window,)
    return check_integers("window", sizes, least=0)


def count_axes(stride: Any, weight: Any) -> int:
    """Return the number of spatial axes; a stack of weights has more axes than one weight."""
    by_stride = isinstance(stride, tuple | list)
    return max(len(stride) if by_stride else getattr(weight, "ndim", 0) - 2, 1)


def check_groups(owner: str, groups: Any, *channels: int) -> None:
    """Raise an error for numbers of channels that cannot be divided into groups."""
    if not isinstance(groups, int) or groups < 1:
        raise ArgumentError(f"{owner} expects groups to be a positive number, found {groups!r}")
    if any(check_integer(owner, count, least=0) % groups for count in channels):
        raise ArgumentError(
            f"{owner} expects numbers of channels that are divisible by groups={groups}"
        )


def per_axis(owner: str, name: str, x: Any, axes: int) -> tuple[int, ...]:
    values = tuple(x) if isinstance(x, tuple | list) else (x,) * axes
    if len(values) != axes or not all(isinstance(n, int) and n > 0 for n in values):
        raise ArgumentError(
            f"{owner} expects {name} to be a positive number, or {axes} of them, found {x!r}"
        )
    return values


def normalise_padding(owner: str, pad: Any, axes: int) -> Any:
    """Return "SAME", "VALID", or an int or an unequal pair for every axis."""
    if isinstance(pad, str) and pad.upper() in ("SAME", "VALID"):
        return pad.upper()
    pads = (pad,) * axes if isinstance(pad, int) else pad
    fits = isinstance(pads, tuple | list) and len(pads) == axes and all(map(_ispad, pads))
    if not fits:
        raise ArgumentError(
            f'{owner} expects pad to be "SAME", "VALID", a number, or {axes} numbers or pairs, '
            f"found {pad!r}"
        )
    return tuple(x if isinstance(x, int) or x[0] != x[1] else x[0] for x in map(_pad, pads))


def _ispad(x: Any) -> bool:
    pair = isinstance(x, tuple | list) and len(x) == 2 and all(isinstance(n, int) for n in x)
    return isinstance(x, int) or pair


def _pad(x: Any) -> Any:
    return x if isinstance(x, int) else tuple(x)


def pairs(pad: Any) -> Any:
    return pad if isinstance(pad, str) else [(x, x) if isinstance(x, int) else x for x in pad]


def short(x: Any, *, ones: bool = False) -> Any:
    """Return a single int in place of equal ones, or with `ones` in place of a tuple of one."""
    same = isinstance(x, tuple) and len(set(x)) == 1 and isinstance(x[0], int)
    return x[0] if same and not (ones and len(x) > 1) else x


def axes_text(rank: int) -> str:
    return f"an input of {rank} dimensions, (batch, {'space, ' * (rank - 2)}channels)"


def channels_last(rank: int) -> lax.ConvDimensionNumbers:
    """Return the dimension numbers for inputs, kernels and outputs with channels last."""
    space = tuple(range(1, rank - 1))
    kernel = (rank - 1, rank - 2, *range(rank - 2))
    outer = (0, rank - 1, *space)
    return lax.ConvDimensionNumbers(outer, kernel, outer)
