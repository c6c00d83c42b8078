"""The shape of the output of a model."""

from __future__ import annotations

from operator import index
from typing import Any, SupportsIndex, TypeGuard

import jax
import jax.numpy as jnp

from .._arguments import check_callable, check_dtype, check_flag
from .._errors import ArgumentError
from .._tree.leaves import isarray
from .._tree.walk import walk
from ._chain import Chain
from ._mode import testmode


def outputsize(
    model: Any, /, *input_shapes: Any, padbatch: bool = False, dtype: Any = jnp.float32
) -> Any:
    """Return the shape of the output for inputs of these shapes, without computing it.

    Layers of jtree are in inference mode, and may be abstract, that is, created without a key.

    Args:
      model: any callable on arrays, such as a layer, an Equinox or NNX module, or a function. The
        elements of a list or a tuple are called in sequence.
      *input_shapes: the shape of the input. Several shapes, or a tuple of shapes, are the shapes of
        several inputs, which are passed as one tuple.
      padbatch: whether to prepend a batch axis of size 1 to every shape.
      dtype: the dtype of the inputs.

    Returns:
      A tuple of ints that includes the batch, or a pytree of such tuples if the output is a pytree.

    Raises:
      ArgumentError: there is no shape, or an argument is not one.
      ModelError: an input does not fit a layer; the message says which and why.

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
    if type(model) not in (list, tuple):
        check_callable("model", model)
    shapes, dtype = _inputs(input_shapes), check_dtype("dtype", dtype)
    pad = (1,) if check_flag("padbatch", padbatch) else ()
    inputs = tuple(jax.ShapeDtypeStruct((*pad, *shape), dtype) for shape in shapes)
    x = inputs[0] if len(inputs) == 1 else inputs
    walked = walk(Chain(*model) if type(model) in (list, tuple) else model)
    indices = [i for i, slot in enumerate(walked.slots) if isarray(slot.value)]

    def call(arrays: list[Any], x: Any) -> Any:
        values = [slot.value for slot in walked.slots]
        for i, array in zip(indices, arrays, strict=True):
            values[i] = array
        return testmode(walked.rebuild(values))(x)

    outputs = jax.eval_shape(call, [walked.slots[i].value for i in indices], x)
    return jax.tree.map(lambda output: tuple(output.shape), outputs)


def _inputs(shapes: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the shapes of the inputs, which may be separate arguments or one tuple."""
    inner = shapes[0] if len(shapes) == 1 and not _isshape(shapes[0]) else shapes
    if not isinstance(inner, tuple | list) or not inner or not all(map(_isshape, inner)):
        text = ", ".join(map(repr, shapes)) or "nothing"
        raise ArgumentError(
            f"outputsize expects shapes, which are tuples of ints such as (10, 10, 3), found {text}"
        )
    return tuple(inner)


def _isshape(x: Any) -> TypeGuard[tuple[int, ...]]:
    return isinstance(x, tuple | list) and all(
        isinstance(n, SupportsIndex) and index(n) >= 0 for n in x
    )
