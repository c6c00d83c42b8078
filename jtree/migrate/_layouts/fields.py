"""Readers of the fields of layers: plain ones, and those of convolutions in one form for all."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from ...layers._padding import named_padding

FieldReader: TypeAlias = Callable[[Any], dict[str, Any]]


def read_fields(**fields: str) -> FieldReader:
    """Return a function that reads fields of a node: our name for each, and the node's."""
    return lambda node: {name: getattr(node, field, None) for name, field in fields.items()}


def no_max_norm(_: Any) -> dict[str, Any]:
    """Return the settings of an embedding whose rows may have any norm, as outside of PyTorch."""
    return {"max_norm": False}


def per_axis(x: Any, dims: int) -> tuple[int, ...]:
    """Return one integer for each axis of a window: 1 for None, the same one for an integer."""
    if x is None:
        return (1,) * dims
    return (x,) * dims if isinstance(x, int) else tuple(x)


def conv_settings(
    window: Sequence[int],
    *,
    stride: Any = 1,
    dilation: Any = 1,
    padding: Any = 0,
    groups: int = 1,
) -> dict[str, Any]:
    """Return the settings of a convolution."""
    strides, dilations = per_axis(stride, len(window)), per_axis(dilation, len(window))
    explicit = _explicit_padding(padding, window, dilations, strided=math.prod(strides) > 1)
    return {"strides": strides, "dilation": dilations, "padding": explicit, "groups": groups}


def conv_transpose_settings(
    window: Sequence[int], padding: Any, *, stride: Any = 1, dilation: Any = 1
) -> dict[str, Any]:
    """Return the settings of a transposed convolution, given the padding of its input.

    The padding is added around the input after it is dilated by the strides, as in
    `jax.lax.conv_transpose`.
    """
    strides, dilations = per_axis(stride, len(window)), per_axis(dilation, len(window))
    if isinstance(padding, str) and padding.upper() in ("SAME", "VALID"):
        sizes = [d * (n - 1) + 1 for d, n in zip(dilations, window, strict=True)]
        each = zip(sizes, strides, strict=True)
        padding = [named_padding(padding.upper(), size, step) for size, step in each]
    if not isinstance(padding, str):
        padding = _pairs(padding, len(window))
    return {"strides": strides, "dilation": dilations, "padding": padding}


def transposed_conv_padding(
    window: Sequence[int], padding: Any, output_padding: Any, dilation: Any
) -> tuple[tuple[int, int], ...]:
    """Return the padding of the input of a transposed convolution, as JAX has it.

    PyTorch and Equinox have the padding of the convolution whose transpose the layer is.
    """
    each = zip(
        window,
        _pairs(padding, len(window)),
        per_axis(output_padding, len(window)),
        per_axis(dilation, len(window)),
        strict=True,
    )
    return tuple((d * (n - 1) - a, d * (n - 1) - b + extra) for n, (a, b), extra, d in each)


def _explicit_padding(
    padding: Any, window: Sequence[int], dilations: tuple[int, ...], *, strided: bool
) -> Any:
    """Return a pair for each axis; a name whose padding depends on the input stays as it is."""
    if not isinstance(padding, str):
        return _pairs(padding, len(window))
    name = padding.upper()
    if name == "VALID" or (name in ("SAME", "CAUSAL") and all(n == 1 for n in window)):
        return ((0, 0),) * len(window)
    if name != "SAME" or strided:
        return name
    totals = [d * (n - 1) for d, n in zip(dilations, window, strict=True)]
    return tuple((total // 2, total - total // 2) for total in totals)


def _pairs(padding: Any, dims: int) -> tuple[tuple[int, int], ...]:
    """Return (before, after) for each axis."""
    each = (padding,) * dims if isinstance(padding, int) else padding
    return tuple((x, x) if isinstance(x, int) else (x[0], x[1]) for x in each)
