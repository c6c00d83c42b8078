"""Limits on what a file may ask for, since a file may come from anybody."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

MEMORY = 2**26  # bytes of memory that even a small file may ask for
JSON_BYTES = 2**26  # of the JSON of a checkpoint
JSON_MEMORY = 2**29  # bytes of memory that the JSON of a checkpoint may take
GROWTH = 16  # times its size that a compressed file may grow
DEPTH = 100  # containers in one another
MAX_RANK = 32  # axes of an array


class DamageError(Exception):
    """Bytes that differ from those that were written."""


class Budget:
    """The number of values that a file may hold: each takes about a kilobyte, and its path more."""

    def __init__(self, size: int, times: int = 1) -> None:
        self.total = self.left = times * (80_000 + size // 512)

    def spend(self, parts: Sequence[str] = ()) -> None:
        """Count a value at the path of these parts; refuse it where the budget is spent."""
        self.left -= 1 + sum(map(len, parts)) // 256
        if len(parts) > DEPTH:
            raise ValueError(f"nested more than {DEPTH} levels deep")
        self.check(0)

    def check(self, count: int) -> None:
        """Refuse more values to come than the budget has left."""
        if self.left < count:
            raise ValueError(
                f"too many values for its size: more than {self.total:,}, where values at very "
                "long paths count several times; store long lists as arrays"
            )


def array_nbytes(shape: Iterable[int], dtype: Any) -> int:
    """Return the bytes of an array as an int that cannot overflow; refuse an invalid shape."""
    shape = tuple(shape)
    wrong = [n for n in shape if type(n) is not int or not 0 <= n < 2**62]
    if wrong or len(shape) > MAX_RANK:
        raise ValueError(f"invalid array shape {shape!s:.80}")
    if math.prod(max(n, 1) for n in shape) * max(np.dtype(dtype).itemsize, 1) >= 2**62:
        raise ValueError(f"an array of shape {list(shape)} is too large for any memory")
    return math.prod(shape) * int(np.dtype(dtype).itemsize)


def parse_json(text: bytes, size: int) -> Any:
    """Return parsed JSON, unless its objects would take too much memory for a file of this size."""
    if _json_cost(text) > 2 * size + MEMORY:
        raise ValueError(f"its JSON of {len(text):,} bytes has too many elements")
    try:
        return json.loads(text.decode(), object_pairs_hook=_unique, parse_int=_parse_int)
    except ValueError as error:
        raise ValueError(f"invalid JSON: {error}") from error


def check_json(text: bytes) -> None:
    """Refuse the JSON of a checkpoint that is too long, or has too many elements."""
    if len(text) > JSON_BYTES or _json_cost(text) > JSON_MEMORY:
        raise ValueError(
            f"its JSON of {len(text):,} bytes has too many elements or exceeds {JSON_BYTES:,} bytes"
        )


def _json_cost(text: bytes) -> int:
    """Return about how many bytes of memory the parsed JSON takes."""
    costs = {b"{": 100, b"[": 100, b",": 40, b":": 130}
    return sum(text.count(x) * each for x, each in costs.items()) + 2 * len(text)


def check_growth(total: int, size: int) -> None:
    """Refuse arrays that take much more memory than the file that they are in."""
    if total > GROWTH * size + MEMORY:
        raise ValueError(
            f"its arrays would take {total:,} bytes, and the file has {size:,}: refused as a "
            "decompression bomb; unpack it with the library that wrote it"
        )


def check_copies(total: int, size: int) -> None:
    """Refuse arrays that are the same bytes of a file many times over."""
    if total > 2 * size + MEMORY:
        raise ValueError(
            f"its arrays share bytes: they would take {total:,} bytes, and the file has {size:,}"
        )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    parsed = dict(pairs)
    if len(parsed) != len(pairs):
        ((key, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"duplicate key {key!r:.80}")
    return parsed


def _parse_int(digits: str) -> int:
    if len(digits) > 100:
        raise ValueError(f"an integer of {len(digits):,} digits")
    return int(digits)
