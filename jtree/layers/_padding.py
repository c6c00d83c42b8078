"""The padding of a transposed convolution by name."""

from __future__ import annotations


def named_padding(name: str, size: int, step: int) -> tuple[int, int]:
    """Return the padding that `jax.lax.conv_transpose` computes for a name."""
    if name == "VALID":
        return size - 1, step - 1 + max(size - step, 0)
    total = size + step - 2
    before = size - 1 if step > size - 1 else -(-total // 2)
    return before, total - before
