"""Arrays of a file as arrays of JAX, without a change of their values."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np


def as_array(x: Any) -> Any:
    """Return an array of JAX, or of NumPy where JAX would round its values."""
    values = np.asarray(x)
    array = jnp.asarray(values)
    return array if array.dtype == values.dtype else values
