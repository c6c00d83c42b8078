"""Models in another precision."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._errors import ArgumentError
from .leaves import check_alive, isabstract, isnumeric
from .opaque import check_leaves
from .walk import walk


def cast(model: Any, /, *, dtype: Any) -> Any:
    """Return a model with its floating-point arrays converted to another dtype.

    Complex arrays are converted to the complex dtype of that precision. All other leaves are
    returned as they are. NumPy arrays remain NumPy arrays, abstract arrays remain abstract, and
    ties and shared objects are preserved.

    Args:
      model: any pytree.
      dtype: a floating-point dtype.

    Returns:
      A new model, or the same object if nothing changes.

    Raises:
      ArgumentError: float64 without 64-bit mode.
      ModelError: arrays are in an object that JAX does not open.

    Example:
      >>> model = {"w": jnp.ones(2), "z": jnp.ones(2, jnp.complex64), "n": jnp.arange(2)}
      >>> jax.tree.map(lambda x: str(x.dtype), cast(model, dtype=jnp.bfloat16))
      {'n': 'int32', 'w': 'bfloat16', 'z': 'complex64'}

    Source: `f16`, `bf16`, `f32`, `f64` of Flux.jl.
    """
    if np.dtype(dtype).itemsize == 8 and not jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        raise ArgumentError(
            "float64 requires 64-bit mode, which is off; call "
            'jax.config.update("jax_enable_x64", True) before creating any array, or set the '
            "environment variable JAX_ENABLE_X64=1"
        )
    walked = check_leaves(walk(model))
    values = [_convert(slot.path, slot.value, np.dtype(dtype)) for slot in walked.slots]
    same = all(value is slot.value for value, slot in zip(values, walked.slots, strict=True))
    return model if same else walked.rebuild(values)


def f16(model: Any, /) -> Any:
    """Return a model in float16, with complex arrays in complex64; see `f32`.

    >>> f16({"w": jnp.ones(2)})["w"].dtype
    dtype('float16')
    """
    return cast(model, dtype=jnp.float16)


def bf16(model: Any, /) -> Any:
    """Return a model in bfloat16, with complex arrays in complex64; see `f32`.

    >>> bf16({"w": jnp.ones(2)})["w"].dtype
    dtype(bfloat16)
    """
    return cast(model, dtype=jnp.bfloat16)


def f32(model: Any, /) -> Any:
    """Return a model with floating-point arrays in float32, and complex arrays in complex64.

    All other leaves, such as integers, keys and functions, are returned as they are.

    Args:
      model: any pytree.

    Returns:
      A new model, or the same object if nothing changes.

    Example:
      >>> f32({"w": jnp.ones(2, jnp.bfloat16), "n": 3})
      {'n': 3, 'w': Array([1., 1.], dtype=float32)}

    Source: `f32` of Flux.jl.
    """
    return cast(model, dtype=jnp.float32)


def f64(model: Any, /) -> Any:
    """Return a model in float64, with complex arrays in complex128; see `f32`.

    Raises:
      ArgumentError: 64-bit mode is off; the message says how to enable it.

    >>> with jax.enable_x64(True):
    ...     print(f64({"w": jnp.ones(2, jnp.float32)})["w"].dtype)
    float64
    """
    return cast(model, dtype=jnp.float64)


def _convert(path: str, x: Any, dtype: np.dtype[Any]) -> Any:
    if not isnumeric(x):
        return x
    if not jnp.issubdtype(x.dtype, jnp.floating):
        dtype = np.dtype(np.complex128 if dtype.itemsize == 8 else np.complex64)
    if x.dtype == dtype:
        return x
    if isabstract(x):
        return jax.ShapeDtypeStruct(x.shape, dtype, sharding=x.sharding)
    check_alive(path, x)
    with np.errstate(all="ignore"):  # values out of range become infinite, as in JAX
        return x.astype(dtype)
