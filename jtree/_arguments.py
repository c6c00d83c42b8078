"""Checks of arguments: each returns the argument, or raises an error that names it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from operator import index
from typing import Any, SupportsIndex

from ._errors import ArgumentError, ArgumentTypeError

Path = str | os.PathLike[str]


def unexpected(name: str, expected: str, x: Any) -> ArgumentTypeError:
    """Return the error for an argument of the wrong type.

    >>> unexpected("wait", "an integer", [1])
    ArgumentTypeError('wait: expected an integer, found list')
    """
    plain = x is None or isinstance(x, bool | int | float | complex | str)
    found = repr(x) if plain else type(x).__name__
    return ArgumentTypeError(f"{name}: expected {expected}, found {found}")


def check_callable(name: str, x: Any) -> Any:
    """Return a function, or any other object that can be called."""
    if not callable(x):
        raise unexpected(name, "a function", x)
    return x


def check_flag(name: str, x: Any) -> bool:
    """Return True or False, of Python or NumPy, or as 1 or 0."""
    if type(x).__name__ not in ("bool", "bool_") and not isinstance(x, int):
        raise unexpected(name, "True or False", x)
    return bool(x)


def check_choice(name: str, x: Any, choices: Sequence[str]) -> Any:
    """Return one of a few strings."""
    if not isinstance(x, str) or x not in choices:
        *first, last = map(repr, choices)
        text = repr(x) if isinstance(x, str) else type(x).__name__
        raise ArgumentError(f"{name}: expected {', '.join(first)} or {last}, found {text}")
    return x


def check_integer(name: str, x: Any, *, least: int | None = None) -> int:
    """Return an integer that is not too small, as an int."""
    if isinstance(x, bool) or not isinstance(x, SupportsIndex):
        raise unexpected(name, "an integer", x)
    try:
        number = index(x)
    except TypeError as error:  # an array of other values
        raise unexpected(name, "an integer", x) from error
    if least is not None and number < least:
        raise ArgumentError(f"{name}: expected at least {least}, found {number}")
    return number


def check_integers(name: str, x: Any, *, least: int | None = None) -> tuple[int, ...]:
    """Return a sequence of integers as a tuple."""
    if not isinstance(x, Sequence) or isinstance(x, str | bytes):
        raise unexpected(name, "a tuple of integers", x)
    return tuple(check_integer(name, n, least=least) for n in x)


def check_number(name: str, x: Any) -> Any:
    """Return a real number, which may be an array without axes or a tracer."""
    number = isinstance(x, int | float) and not isinstance(x, bool)
    array = getattr(x, "shape", None) == () and getattr(x.dtype, "kind", "O") not in "bOSU"
    if not number and not array:
        raise unexpected(name, "a number", x)
    return x


def check_iterable(name: str, x: Any, expected: str) -> Any:
    """Return an object that can be iterated over, other than text."""
    array = getattr(x, "shape", None) == ()
    if array or not isinstance(x, Iterable) or isinstance(x, str | bytes):
        raise unexpected(name, expected, x)
    return x


def check_path(name: str, x: Any) -> Path:
    """Return the path of a file."""
    if not isinstance(x, str | os.PathLike):
        raise unexpected(name, "a path as str or pathlib.Path", x)
    return x


def check_dtype(name: str, x: Any) -> Any:
    """Return a dtype, from what JAX takes for one."""
    import jax.numpy as jnp

    expected = "a dtype such as jnp.float32 or 'bfloat16'"
    try:
        dtype = jnp.dtype(x)
    except (TypeError, ValueError) as error:
        raise unexpected(name, expected, x) from error
    array = not isinstance(x, type | jnp.dtype) and hasattr(x, "shape")
    if x is None or array or (dtype.kind != "b" and not jnp.issubdtype(dtype, jnp.number)):
        raise unexpected(name, expected, x)
    return dtype


def check_key(name: str, x: Any) -> Any:
    """Return a PRNG key of JAX: a typed one, or an old one of unsigned integers."""
    import jax
    import jax.numpy as jnp

    array = isinstance(x, jax.Array) or hasattr(x, "dtype")
    typed = array and jnp.issubdtype(x.dtype, jax.dtypes.prng_key) and x.shape == ()
    if not typed and not (array and x.dtype == jnp.uint32 and x.ndim == 1):
        raise unexpected(name, "a key such as jax.random.key(0)", x)
    return x
