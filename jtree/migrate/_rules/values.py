"""Rules about numbers: cast, scale, fill."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import ml_dtypes
import numpy as np

from ..._errors import ArgumentError, ArgumentTypeError, RuleError
from ..._state.dtypes import family, no_conversion
from ..._tree import paths
from .base import Arrays, EachRule, Edit, Rule, integers, normalise, public_rule, text
from .lazy_arrays import lazy
from .lazy_ops import Array, Node, filled, mapped

_SHORT = {"f16": "float16", "bf16": "bfloat16", "f32": "float32", "f64": "float64"}


def dtype_name(name: Any) -> str:
    """Return the full name of a dtype that numbers can be converted to.

    >>> dtype_name("bf16"), dtype_name(np.int8), dtype_name(jnp.float8_e4m3fn)
    ('bfloat16', 'int8', 'float8_e4m3fn')
    """
    try:
        known = _SHORT.get(name, name) if isinstance(name, str) else np.dtype(name).name
        found = _dtype(known)
    except (TypeError, ValueError, SyntaxError, AttributeError) as error:  # NumPy parses text
        raise ArgumentTypeError(
            f"expected a dtype such as 'bf16', 'float32' or 'int8', found {name!r}"
        ) from error
    if family(found) == "other":
        raise ArgumentTypeError(f"expected a dtype of numbers, found {name!r}")
    return found.name


def _dtype(name: str) -> np.dtype[Any]:
    return np.dtype(getattr(ml_dtypes, name, name))


@public_rule
class Cast(EachRule):
    """Convert arrays to another dtype.

    To a floating dtype, floating and complex arrays are converted, complex ones to the complex
    dtype that matches, and others stay as they are, as `jtree.bf16` does. To an integer dtype,
    integers and booleans are: a number that does not fit is an error when it is read, and floating
    numbers are never rounded.

    Args:
      where: a glob over paths, or several.
      dtype: a dtype or its name; `"bf16"`, `"f16"`, `"f32"` and `"f64"` are names too.
      optional: whether it may match nothing.

    Raises:
      RuleError: nothing matches, or numbers of an array would be lost.

    Example:
      >>> source = {"w": np.ones(2, np.float32), "step": np.array(3)}
      >>> jtree.migrate.apply([cast("**", "bf16")], source)
      {'w': LazyArray(bfloat16[2]), 'step': LazyArray(int64[])}
    """

    dtype: str

    def __post_init__(self) -> None:
        super().__post_init__()
        normalise(self, dtype=lambda _, __, x: dtype_name(x))

    def change(self, path: str, x: Node, /) -> Node | None:
        """Return the converted array."""
        dtype, theirs = _dtype(self.dtype), family(x.dtype)
        if family(dtype) == "floating" and theirs == "complex":
            dtype = np.dtype(np.complex128 if dtype.itemsize == 8 else np.complex64)
        if family(dtype) in ("floating", "complex") and theirs in ("integer", "bool"):
            return None
        if dtype == x.dtype:
            return None
        if family(dtype) != "integer" or theirs == "bool":
            reason = no_conversion(dtype, jax.ShapeDtypeStruct(x.shape, x.dtype))
            if reason:
                raise self.wrong(path, x, f"what can become {dtype}", reason)
            return mapped(x, dtype, partial(_converted, dtype=dtype))
        if theirs != "integer":
            reason = "numbers are not rounded to integers"
            raise self.wrong(path, x, f"integers to become {dtype}", reason)
        message = f"{self}: {paths.show(path)}: expected integers that fit, found others"
        return mapped(x, dtype, partial(_fitting, dtype=dtype, message=message))


def _converted(x: Array, dtype: Any) -> Array:
    with np.errstate(all="ignore"):  # too large numbers become infinite, in NumPy as in JAX
        return x.astype(dtype)


def _fitting(x: Array, dtype: Any, message: str) -> Array:
    new = x.astype(dtype)
    if not (new.astype(x.dtype) == x).all() or not ((new < 0) == (x < 0)).all():
        raise RuleError(message)
    return new


@public_rule
class Scale(EachRule):
    """Multiply arrays by a number; they keep their dtype.

    Args:
      where: a glob over paths, or several.
      by: the number. Products are computed in double precision.
      optional: whether it may match nothing.

    Raises:
      RuleError: nothing matches, or an array is not floating or complex.

    Example:
      >>> found = jtree.migrate.apply([scale("q", 0.5)], {"q": np.ones(2, np.float32)})
      >>> found["q"].read()
      array([0.5, 0.5], dtype=float32)
    """

    by: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.by, bool) or not isinstance(self.by, int | float):
            raise ArgumentTypeError(f"scale: by: expected a number, found {self.by!r}")

    def change(self, path: str, x: Node, /) -> Node:
        """Return the multiplied array."""
        kind = family(x.dtype)
        if kind not in ("floating", "complex"):
            raise self.wrong(path, x, "floating or complex numbers", "choose only such arrays")
        wide = np.float64 if kind == "floating" else np.complex128
        return mapped(x, x.dtype, lambda part: _converted(part.astype(wide) * self.by, x.dtype))


@public_rule
class Fill(Rule):
    """Make an array that the source has not, with one number everywhere.

    Args:
      path: where it is.
      shape: its shape.
      dtype: its dtype, as in `cast`.
      value: the number.
      optional: whether something may be at the path already, which then stays.

    Raises:
      RuleError: something is at the path already.
      ArgumentError: the dtype does not have this number.

    Example:
      >>> found = jtree.migrate.apply([fill("bias", (2,))], {"kernel": np.ones((3, 2))})
      >>> found["bias"].read()
      array([0., 0.], dtype=float32)
    """

    path: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    value: float = 0.0

    def __post_init__(self) -> None:
        normalise(self, path=text, shape=integers, dtype=lambda _, __, x: dtype_name(x))
        if min(self.shape, default=0) < 0:
            raise ArgumentError(f"{self}: expected lengths of 0 or more")
        if not isinstance(self.value, int | float):
            raise ArgumentTypeError(f"fill: value: expected a number, found {self.value!r}")
        if family(_dtype(self.dtype)) in ("integer", "bool") and not self._isexact():
            raise ArgumentError(f"{self}: {self.dtype} has no {self.value!r}")

    def edits(self, arrays: Arrays, /) -> Iterator[Edit]:
        """Yield the step that makes the array."""
        if not (self.optional and self.path in arrays):
            yield Edit((), {self.path: lazy(filled(self.shape, _dtype(self.dtype), self.value))})

    def _isexact(self) -> bool:
        try:
            with np.errstate(all="ignore"):
                return bool(np.array(self.value).astype(_dtype(self.dtype)) == self.value)
        except (OverflowError, ValueError):
            return False


cast = Cast
scale = Scale
fill = Fill
