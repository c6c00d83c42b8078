"""Elements of Julia's arrays that NumPy has a dtype for."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .hdf5_types import Datatype
from .julia_values import DTYPES, last_name

_COMPLEX: dict[Any, Any] = {np.dtype("<f4"): np.dtype("<c8"), np.dtype("<f8"): np.dtype("<c16")}
_BYTE = np.dtype(np.uint8)


class ElementType(NamedTuple):
    """An element of an array.

    Attributes:
      dtype: NumPy's dtype of what is stored.
      axes: the axes that an element has itself, such as that of the bytes of an unknown type.
      ispair: whether they are the two parts of a complex number.
    """

    dtype: np.dtype[Any]
    axes: tuple[int, ...] = ()
    ispair: bool = False


def element(type: Datatype, julia_type: str) -> ElementType | None:
    """Return what NumPy has for an element, or None where it is a value of its own."""
    name = last_name(julia_type)
    if type.dtype is not None:
        return ElementType(type.dtype)
    if type.kind == "opaque":
        dtype = DTYPES.get(name, _BYTE)
        known = name in DTYPES and dtype.itemsize == type.size
        return ElementType(dtype) if known else ElementType(_BYTE, (type.size,))
    if type.kind in ("int", "float", "bits"):
        return ElementType(_BYTE, (type.size,))
    return _parts(type, name) or _wrapped(type) if type.kind == "compound" else None


def _wrapped(type: Datatype) -> ElementType | None:
    """Return the number that is all that a struct holds, such as the day of a date."""
    inner = type
    while len(inner.members) == 1:
        inner = inner.members[0].type
    return ElementType(inner.dtype) if inner.dtype is not None else None


def _parts(type: Datatype, name: str) -> ElementType | None:
    """Return the element that a complex number or a tuple of equal numbers is."""
    if name not in ("Complex", "Tuple", "NTuple") or not type.members:
        return None
    count, dtype = len(type.members), type.members[0].type.dtype
    offsets = [x.offset for x in type.members]
    if dtype is None or any(x.type.dtype != dtype for x in type.members):
        return None
    if offsets != [n * dtype.itemsize for n in range(count)] or type.size != count * dtype.itemsize:
        return None
    if name != "Complex":
        return ElementType(dtype, (count,))
    return (
        ElementType(_COMPLEX[dtype])
        if dtype in _COMPLEX
        else ElementType(dtype, (count,), ispair=True)
    )
