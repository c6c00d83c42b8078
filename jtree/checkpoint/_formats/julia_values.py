"""Values of Julia that the readers of BSON and JLD2 return."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


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
