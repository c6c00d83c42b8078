"""Leaves that are not arrays: the saved values that they accept, and their types."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._tree.leaves import describe, isarray, isscalar, istracer
from .casts import cast_problem
from .dtypes import conversion_problem, dtype_kind, isreadable
from .mismatch import mismatch

_KINDS = {bool: "bool", int: "integer", float: "floating", complex: "complex"}


def compare_scalar(path: str, expected: Any, found: Any) -> Any:
    """Return `found` if it is a value that a scalar leaf can take, or a `Mismatch`."""
    texts = describe(expected), describe(found)
    if type(expected) is type(found) and not isinstance(expected, np.generic):
        return found
    if not (isscalar(found) or isarray(found)) or getattr(found, "shape", ()) != ():
        return mismatch(path, "kind", *texts)
    if _kind(expected) is None or _kind(expected) != _kind(found):
        return mismatch(path, "kind", *texts, _hint(expected))
    if isinstance(expected, np.generic) and (problem := _problem(path, expected.dtype, found)):
        return mismatch(path, "dtype", *texts, f"; {problem}")
    return found


def as_array(path: str, expected: Any, found: Any) -> Any:
    """Return a Python number as an array, or a `Mismatch`, if a 0-d array can take its kind."""
    kind = _KINDS.get(type(found))
    if tuple(expected.shape) != () or kind is None or dtype_kind(expected.dtype) != kind:
        return None
    array = np.asarray(found)
    if array.dtype != object:
        return array
    hint = "; this integer does not fit"
    return mismatch(path, "dtype", describe(expected), describe(found), hint)


def to_scalar(like: Any, source: Any) -> Any:
    """Return the value of a scalar leaf, with the type that the leaf has."""
    if type(source) is type(like) or istracer(source):
        return source
    array = np.asarray(source)
    return array.astype(like.dtype)[()] if isinstance(like, np.generic) else type(like)(array[()])


def _kind(x: Any) -> str | None:
    """Return the kind of a number, a bool or an array; None for text, bytes and subclasses."""
    dtype = getattr(x, "dtype", None)
    return _KINDS.get(type(x)) if dtype is None else dtype_kind(dtype)


def _problem(path: str, dtype: Any, number: Any) -> str | None:
    array = number if isarray(number) else np.asarray(number)
    problem = conversion_problem(dtype, array)
    return cast_problem(path, dtype, array) if problem is None and isreadable(array) else problem


def _hint(expected: Any) -> str:
    text = _TEXTS.get(_kind(expected) or "")
    return f"; this leaf takes {text} or a 0-d array of that kind" if text else ""


_TEXTS = {
    "bool": "a bool",
    "integer": "an integer",
    "floating": "a floating-point number",
    "complex": "a complex number",
}
