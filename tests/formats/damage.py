"""Damaged files, and what may come of reading one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import strategies as st

import jtree

from .files import whole_file


@st.composite
def damaged(draw: Any, format: str) -> bytes:
    """Return a file with some bytes flipped, set, left out, put in, repeated, or cut off."""
    data = bytearray(whole_file(format))
    for _ in range(draw(st.integers(1, 4))):
        low, high = sorted((draw(st.integers(0, len(data))), draw(st.integers(0, len(data)))))
        high = min(high, low + 40)
        what = draw(st.sampled_from(["flip", "set", "cut", "put", "repeat", "number", "truncate"]))
        if what == "flip" and low < len(data):
            data[low] ^= 1 << draw(st.integers(0, 7))
        elif what == "set" and low < len(data):
            data[low] = draw(st.integers(0, 255))
        elif what == "number":
            data[low : low + 4] = draw(
                st.sampled_from([b"\0" * 4, b"\xff" * 4, b"\xff\xff\xff\x7f"])
            )
        elif what == "cut":
            del data[low:high]
        elif what == "put":
            data[low:low] = draw(st.binary(max_size=12))
        elif what == "repeat":
            data[low:low] = data[low:high]
        elif what == "truncate":
            del data[low:]
    return bytes(data)


def read_all(path: Path, *, shown: bool = True) -> list[Any] | None:
    """Return the arrays of a file that could be read; None where it was refused."""
    try:
        found = jtree.open(path)
    except jtree.CheckpointError:
        return None
    arrays = []
    for x in found.values():
        assert x.nbytes <= 16 * path.stat().st_size + 2**26
        try:
            arrays.append(x.read())
        except jtree.CheckpointError:
            continue
        assert (arrays[-1].shape, arrays[-1].dtype) == (x.shape, x.dtype)
    if shown:
        str(found)
    return arrays
