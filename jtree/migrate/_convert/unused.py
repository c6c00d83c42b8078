"""What nothing in the model takes: refused, unless it is the embedding again, as a tied head."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import numpy as np

from ..._state.diff import Mismatch
from ..._tree import paths
from ..._tree.leaves import describe, equal
from .._layouts.spec import KeyPath
from .source import SourceArrays

_PARAMETRISED = re.compile(r"(^|\.)parametrizations\.|(^|\.)weight_(g|v|u|orig)$")
Used = Mapping[KeyPath, set[int | None]]  # what was taken, and which layers of stacks


def left_over(
    source: SourceArrays, used: Used, tables: Collection[KeyPath]
) -> tuple[dict[str, str], list[Mismatch]]:
    """Return the arrays of a source that are not needed and why, and those that are refused."""
    ignored: dict[str, str] = {}
    refused: list[Mismatch] = []
    for place, (name, array, _) in source.entries.items():
        numbers = used.get(place, set())
        if not numbers and (tied := _tied(source, used, tables, place)):
            ignored[name] = f"equal to {tied}"
        elif not numbers:
            found = f"{describe(array)} in the source, which no layer takes"
            advice = f"; {_advice(name)}"
            refused.append(mismatch(name, "unexpected", "nothing", found, advice))
        elif None not in numbers and len(numbers) != array.shape[0]:
            found = f"{describe(array)}, of which only {len(numbers)} layers are taken"
            what = "as many layers as the model has"
            refused.append(mismatch(name, "unexpected", what, found))
    return ignored, refused


def _advice(name: str) -> str:
    """Return what can be done about an array that nothing takes."""
    if _PARAMETRISED.search(name):
        return (
            "a weight that PyTorch computes from this (weight or spectral norm, parametrizations): "
            "call torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight'), or "
            "remove_weight_norm or remove_spectral_norm, before its state dict is taken"
        )
    return f"rename it, or add migrate.drop({name!r}) to the rules"


def _tied(
    source: SourceArrays, used: Used, tables: Collection[KeyPath], place: KeyPath
) -> str | None:
    """Return the name of the embedding that an array is equal to."""
    found = source.entries[place].array
    for table in tables:
        other = source.entries.get(table)
        if other is None or table not in used or tuple(other.array.shape) != tuple(found.shape):
            continue
        if equal(np.asarray(other.array), np.asarray(found)):
            return other.name
    return None


def mismatch(path: str, sort: str, expected: str, found: str, advice: str = "") -> Mismatch:
    """Return what is wrong at a place, as a sentence too."""
    text = f"{paths.show(path)}: expected {expected}, found {found}{advice}"
    return Mismatch(path, sort, expected, found, text)
