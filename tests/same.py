"""Equality of models, to the bit."""

from __future__ import annotations

from cProfile import Profile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jtree

_RANDOM = np.random.default_rng(0)


def same_leaf(a: Any, b: Any) -> bool:
    if isinstance(a, jax.ShapeDtypeStruct):
        return isinstance(b, jax.ShapeDtypeStruct) and (a.shape, a.dtype) == (b.shape, b.dtype)
    if not isinstance(a, jax.Array | np.ndarray):
        return a is b or (type(a) is type(b) and bool(a == b))
    if a.dtype == jax.dtypes.float0:
        return bool(a.shape == b.shape and b.dtype == a.dtype)
    if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
        a, b = jax.random.key_data(a), jax.random.key_data(b)
    x, y = np.asarray(a), np.asarray(b)
    return (
        x.shape == y.shape
        and x.dtype.newbyteorder("=") == y.dtype.newbyteorder("=")
        and x.astype(x.dtype.newbyteorder("=")).tobytes()
        == y.astype(y.dtype.newbyteorder("=")).tobytes()
    )


def same(a: Any, b: Any) -> bool:
    """Return whether two models have the same types, paths and values, to the bit."""
    left, right = jtree.walk(a), jtree.walk(b)
    types = [(path, type(node)) for path, node in left.nodes]
    if types != [(path, type(node)) for path, node in right.nodes]:
        return False
    if [s.path for s in left.slots] != [s.path for s in right.slots]:
        return False
    pairs = zip(left.slots, right.slots, strict=True)
    return all(x.tie == y.tie and same_leaf(x.value, y.value) for x, y in pairs)


def close(a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=rtol, atol=atol)


def close_to_scale(found: Any, expected: Any) -> None:
    """Assert that outputs agree to 1e-5 of themselves, and of the largest one near zero."""
    scale = float(np.abs(np.asarray(expected)).max())
    close(found, expected, atol=1e-5 * scale)


def normal(*shape: int, seed: int | None = None) -> Any:
    """Return a standard normal float32 array, a new one at every call without a seed."""
    source = _RANDOM if seed is None else np.random.default_rng(seed)
    return source.normal(size=shape).astype(np.float32)


def calls(work: Profile) -> int:
    """Return how many functions were called: a measure of work that another load leaves alone."""
    return sum(function.callcount for function in work.getstats())
