"""Values of Julia that the readers of BSON and JLD2 return."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

STATE = "model_state"  # the name of a `Flux.state` in a file, as the documentation of Flux has it

DTYPES: dict[str, Any] = {  # the element types of Julia's arrays that NumPy has
    **{f"Int{n}": np.dtype(f"<i{n // 8}") for n in (8, 16, 32, 64)},
    **{f"UInt{n}": np.dtype(f"<u{n // 8}") for n in (8, 16, 32, 64)},
    **{f"Float{n}": np.dtype(f"<f{n // 8}") for n in (16, 32, 64)},
    "Bool": np.dtype(bool),
    "BFloat16": np.dtype(ml_dtypes.bfloat16),
}
COMPLEX = {"Float32": np.dtype("<c8"), "Float64": np.dtype("<c16")}
NAMES = {dtype: name for name, dtype in DTYPES.items()}  # of the element types of arrays
COMPLEX_NAMES = {dtype: name for name, dtype in COMPLEX.items()}  # of the parts of complex numbers


@dataclass(frozen=True, eq=False)
class JuliaStruct:
    """A struct: fields by name where the file stores names, else by position.

    Attributes:
      type: the name of its type without parameters, such as `"Flux.Dense"`.
      fields: its values, by position or by name.
      parameters: the parameters of its type, where the file stores them.
    """

    type: str
    fields: tuple[Any, ...] | dict[str, Any]
    parameters: tuple[Any, ...] = ()

    @property
    def values(self) -> tuple[Any, ...]:
        """The fields in order."""
        return tuple(self.fields.values()) if isinstance(self.fields, dict) else self.fields


@dataclass(frozen=True, eq=False)
class JuliaFunction:
    """A function, a type, a module or serialised code: a name, and nothing that could run."""

    name: str


@dataclass(frozen=True, eq=False)
class JuliaDict:
    """A dictionary, whose keys may be any values."""

    pairs: tuple[tuple[Any, Any], ...]


def type_name(parts: Sequence[str]) -> str:
    """Return the name of a type without the prefixes that differ between versions of Julia.

    >>> type_name(["Main", "Core", "Float32"]), type_name(["Main", "Base", "#identity"])
    ('Float32', 'Base.identity')
    >>> type_name(["Core", "Flux", "Dense"]), type_name(["Main", "#3#4"])
    ('Flux.Dense', '#3#4')
    """
    kept = list(parts)
    while len(kept) > 1 and kept[0] in ("Main", "Core"):
        del kept[0]
    plain = kept[-1].removeprefix("#")
    if plain and "#" not in plain and not plain[0].isdigit():
        kept[-1] = plain
    return ".".join(kept)


def last_name(name: str) -> str:
    """Return the name of a type or a function without its modules.

    >>> last_name("Flux.Tracker.TrackedArray")
    'TrackedArray'
    """
    return name.rpartition(".")[2]


def named(x: dict[Any, Any]) -> dict[str, Any]:
    """Return a dict with its keys as text."""
    return {str(key): child for key, child in x.items()}


def element_type(x: Any) -> tuple[str, bool]:
    """Return the name of an array's element type, or of its parts, and whether it is complex."""
    dtype = np.dtype(x.dtype).newbyteorder("<")
    return (COMPLEX_NAMES[dtype], True) if dtype.kind == "c" else (NAMES[dtype], False)
