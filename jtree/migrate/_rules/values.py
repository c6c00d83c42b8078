"""Rules about values: cast, scale, fill."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import ml_dtypes
import numpy as np

from ..._errors import ArgumentError, ArgumentTypeError, RuleError
from ..._state.dtypes import conversion_problem, dtype_kind
from ..._tree import paths
from . import lazy_ops
from .arguments import check_fields, check_integers, check_number, check_text
from .base import ArrayRule, Edit, LazyArrays, Rule, public_rule
from .lazy_arrays import as_lazy
from .lazy_ops import Array, BlockArray

_SHORT = {"f16": "float16", "bf16": "bfloat16", "f32": "float32", "f64": "float64"}


def dtype_name(x: Any) -> str:
    """Return the full name of a numeric dtype.

    >>> dtype_name("bf16"), dtype_name(np.int8), dtype_name(jnp.float8_e4m3fn)
    ('bfloat16', 'int8', 'float8_e4m3fn')
    """
    try:
        dtype = _dtype(_SHORT.get(x, x) if isinstance(x, str) else np.dtype(x).name)
    except (TypeError, ValueError, SyntaxError, AttributeError) as error:  # NumPy parses text
        raise ArgumentTypeError(
            f"expected a dtype such as 'bf16', 'float32' or 'int8', found {x!r}"
        ) from error
    if dtype_kind(dtype) == "other":
        raise ArgumentTypeError(f"expected a numeric dtype, found {x!r}")
    return dtype.name


def _dtype(name: str) -> np.dtype[Any]:
    return np.dtype(getattr(ml_dtypes, name, name))


def _check_dtype(_: object, __: str, x: Any) -> str:
    return dtype_name(x)


@public_rule
class Cast(ArrayRule):
    """Convert arrays to another dtype.

    A floating dtype applies to floating and complex arrays, and complex ones get the matching
    complex dtype; integers and booleans stay as they are. An integer dtype applies to integers and
    booleans: a value that it cannot represent is an error when it is read, and floating values are
    never rounded.

    Args:
      where: a glob over paths, or several.
      dtype: a dtype or its name. `"bf16"`, `"f16"`, `"f32"` and `"f64"` are names too.
      optional: whether a glob may match nothing.

    Raises:
      RuleError: a glob matches nothing, or the dtype cannot represent the values of an array.

    Example:
      >>> source = {"w": np.ones(2, np.float32), "step": np.array(3)}
      >>> jtree.migrate.apply([cast("**", "bf16")], source)
      {'w': LazyArray(bfloat16[2]), 'step': LazyArray(int64[])}
    """

    dtype: str

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, dtype=_check_dtype)

    def transform(self, path: str, x: BlockArray, /) -> BlockArray | None:
        """Return the converted array."""
        dtype, kind = _dtype(self.dtype), dtype_kind(x.dtype)
        if dtype_kind(dtype) == "floating" and kind == "complex":
            dtype = np.dtype(np.complex128 if dtype.itemsize == 8 else np.complex64)
        if dtype_kind(dtype) in ("floating", "complex") and kind in ("integer", "bool"):
            return None
        if dtype == x.dtype:
            return None
        if dtype_kind(dtype) != "integer" or kind == "bool":
            reason = conversion_problem(dtype, jax.ShapeDtypeStruct(x.shape, x.dtype))
            if reason:
                raise self.mismatch(path, x, f"values that convert to {dtype}", reason)
            return lazy_ops.map_values(x, dtype, partial(_convert, dtype=dtype))
        if kind != "integer":
            advice = "values are never rounded to integers"
            raise self.mismatch(path, x, f"integers to convert to {dtype}", advice)
        convert = partial(_convert_exactly, dtype=dtype, where=f"{self}: {paths.show(path)}")
        return lazy_ops.map_values(x, dtype, convert)


def _convert(x: Array, dtype: Any) -> Array:
    with np.errstate(all="ignore"):  # what is too large becomes infinite, in NumPy as in JAX
        return x.astype(dtype)


def _convert_exactly(x: Array, dtype: Any, where: str) -> Array:
    new = x.astype(dtype)
    changed = (new.astype(x.dtype) != x) | ((new < 0) != (x < 0))
    if changed.any():
        raise RuleError(
            f"{where}: expected values that {dtype} can represent, found {x[changed][0]}; use a "
            "larger dtype"
        )
    return new


@public_rule
class ScaleRule(ArrayRule):
    """Multiply arrays by a number; their dtypes stay the same.

    Args:
      where: a glob over paths, or several.
      by: the number. Products are computed in double precision.
      optional: whether a glob may match nothing.

    Raises:
      RuleError: a glob matches nothing, or an array is not floating or complex.

    Example:
      >>> arrays = jtree.migrate.apply([scale("q", 0.5)], {"q": np.ones(2, np.float32)})
      >>> arrays["q"].read()
      array([0.5, 0.5], dtype=float32)
    """

    by: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, by=check_number)

    def transform(self, path: str, x: BlockArray, /) -> BlockArray:
        """Return the multiplied array."""
        kind = dtype_kind(x.dtype)
        if kind not in ("floating", "complex"):
            advice = "select only such arrays"
            raise self.mismatch(path, x, "floating or complex values", advice)
        double = np.float64 if kind == "floating" else np.complex128
        return lazy_ops.map_values(
            x, x.dtype, lambda block: _convert(block.astype(double) * self.by, x.dtype)
        )


@public_rule
class Fill(Rule):
    """Add an array that has one value everywhere.

    Args:
      path: the path of the array, which the source lacks.
      shape: its shape.
      dtype: its dtype, as in `cast`.
      value: the value.
      optional: whether the path may exist already; the array there then stays.

    Raises:
      RuleError: the path exists already.
      ArgumentError: the dtype cannot represent the value.

    Example:
      >>> arrays = jtree.migrate.apply([fill("bias", (2,))], {"kernel": np.ones((3, 2))})
      >>> arrays["bias"].read()
      array([0., 0.], dtype=float32)
    """

    path: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    value: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self, path=check_text, shape=check_integers, dtype=_check_dtype)
        if min(self.shape, default=0) < 0:
            raise ArgumentError(f"{self}: expected lengths of 0 or more")
        if not isinstance(self.value, int | float):
            raise ArgumentTypeError(f"fill: value: expected a number, found {self.value!r}")
        if dtype_kind(_dtype(self.dtype)) in ("integer", "bool") and not self._is_exact():
            raise ArgumentError(f"{self}: {self.dtype} cannot represent {self.value!r}")

    def edits(self, arrays: LazyArrays, /) -> Iterator[Edit]:
        """Yield the edit that adds the array."""
        if not (self.optional and self.path in arrays):
            new = lazy_ops.full(self.shape, _dtype(self.dtype), self.value)
            yield Edit((), {self.path: as_lazy(new)})

    def _is_exact(self) -> bool:
        try:
            with np.errstate(all="ignore"):
                return bool(np.array(self.value).astype(_dtype(self.dtype)) == self.value)
        except (OverflowError, ValueError):
            return False


cast = Cast
scale = ScaleRule
fill = Fill
