"""The shape of a model's output, without computing it."""

from __future__ import annotations

from operator import index
from typing import Any, SupportsIndex, TypeGuard

import jax
import jax.numpy as jnp

from .._errors import ArgumentError
from .._tree.leaves import isarray
from .._tree.walk import walk
from ._chain import Chain
from ._mode import testmode


def outputsize(
    model: Any, /, *input_shapes: Any, padbatch: bool = False, dtype: Any = jnp.float32
) -> Any:
    """Return the shape of the output for inputs of these shapes. Nothing is computed.

    Layers of jtree are in inference, and may be abstract: made without a key.

    Args:
      model: anything that can be called with arrays: a layer, an Equinox or NNX module, a
        function. Of a list or a tuple, each is called with what the one before it returns.
      input_shapes: the shape of the input; several shapes, or a tuple of shapes, are inputs that
        go in as one tuple.
      padbatch: whether to put a batch of 1 in front of every shape.
      dtype: of the inputs.

    Returns:
      A tuple of numbers, with the batch; where the output is a tree of arrays, a tree of them.

    Raises:
      ArgumentError: no shape, or something else.
      ModelError: a layer does not fit what it is given; the message says which and why.

    Example:
      >>> from jtree.layers import Chain, Conv, Dense
      >>> outputsize(Dense(10, 4), (10,), padbatch=True)
      (1, 4)
      >>> outputsize([Conv((3, 3), 3, 16), Conv((3, 3), 16, 32)], (64, 10, 10, 3))
      (64, 6, 6, 32)
      >>> outputsize(lambda xs: {"sum": xs[0] + xs[1]}, (5, 1), (7,))
      {'sum': (5, 7)}

    Source: `outputsize` of Flux.jl; `jax.eval_shape`.
    """
    shapes = _inputs(input_shapes)
    pad = (1,) if padbatch else ()
    inputs = tuple(jax.ShapeDtypeStruct((*pad, *shape), dtype) for shape in shapes)
    given = inputs[0] if len(inputs) == 1 else inputs
    walked = walk(Chain(*model) if type(model) in (list, tuple) else model)
    places = [i for i, slot in enumerate(walked.slots) if isarray(slot.value)]

    def call(arrays: list[Any], x: Any) -> Any:
        values = [slot.value for slot in walked.slots]
        for i, array in zip(places, arrays, strict=True):
            values[i] = array
        return testmode(walked.rebuild(values))(x)

    found = jax.eval_shape(call, [walked.slots[i].value for i in places], given)
    return jax.tree.map(lambda array: tuple(array.shape), found)


def _inputs(shapes: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the shapes of the inputs, whether they were given apart or as one tuple."""
    inner = shapes[0] if len(shapes) == 1 and not _isshape(shapes[0]) else shapes
    if not isinstance(inner, tuple | list) or not inner or not all(map(_isshape, inner)):
        found = ", ".join(map(repr, shapes)) or "nothing"
        raise ArgumentError(
            f"outputsize expects shapes, tuples of numbers such as (10, 10, 3), found {found}"
        )
    return tuple(inner)


def _isshape(x: Any) -> TypeGuard[tuple[int, ...]]:
    return isinstance(x, tuple | list) and all(
        isinstance(n, SupportsIndex) and index(n) >= 0 for n in x
    )
