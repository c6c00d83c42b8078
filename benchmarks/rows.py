"""The table: what each row compares, and the target that it is held against."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

Measured = dict[str, dict[str, float]]


class Row(NamedTuple):
    """One line of the table: a ratio, and the most that it should be."""

    number: int
    work: str
    against: str
    ratio: float
    target: float | None

    @property
    def verdict(self) -> str:
        if self.target is None:
            return ""
        return "yes" if self.ratio <= self.target else "no"


# Which cases each row needs, and how it reads them.
ROWS: dict[int, tuple[tuple[str, ...], Callable[[Measured], Iterator[Row]]]] = {}


def row(
    number: int, *cases: str
) -> Callable[[Callable[[Measured], Iterator[Row]]], Callable[[Measured], Iterator[Row]]]:
    def register(read: Callable[[Measured], Iterator[Row]]) -> Callable[[Measured], Iterator[Row]]:
        ROWS[number] = (cases, read)
        return read

    return register


@row(1, "ravel_large")
def _(m: Measured) -> Iterator[Row]:
    case, work = m["ravel_large"], "ravel, 146 leaves, 124 M float32, eager"
    yield Row(1, work, "numpy.concatenate", case["ours"] / case["floor"], 1.3)
    yield Row(1, work, "ravel_pytree", case["ours"] / case["baseline"], None)
    yield Row(1, work, "memory, in vectors", case["memory in vectors"], 1.05)


@row(2, "unravel_large")
def _(m: Measured) -> Iterator[Row]:
    case, work = m["unravel_large"], "unravel the same"
    yield Row(2, work, "unravel of ravel_pytree", case["ours"] / case["baseline"], 1 / 20)
    yield Row(2, work, "memory, in models", case["memory in models"], 0.01)


@row(3, "first_ravel", "first_ravel_pytree")
def _(m: Measured) -> Iterator[Row]:
    ratio = m["first_ravel"]["ours"] / m["first_ravel_pytree"]["ours"]
    yield Row(3, "first ravel of 2,000 leaves in a process", "ravel_pytree", ratio, 1 / 50)


@row(4, "first_unravel", "first_unravel_pytree")
def _(m: Measured) -> Iterator[Row]:
    ratio = m["first_unravel"]["ours"] / m["first_unravel_pytree"]["ours"]
    work = "first unravel of 2,000 leaves in a process"
    yield Row(4, work, "unravel of ravel_pytree", ratio, 1 / 200)


def _both(number: int, name: str, work: str, m: Measured) -> Iterator[Row]:
    case = m[name]
    yield Row(number, f"ravel, {work}", "ravel_pytree", case["ravel"] / case["ravel_pytree"], 1)
    ratio = case["unravel"] / case["its unravel"]
    yield Row(number, f"unravel, {work}", "unravel of ravel_pytree", ratio, 1)


@row(5, "repeated")
def _(m: Measured) -> Iterator[Row]:
    yield from _both(5, "repeated", "2,000 leaves, again", m)


@row(6, "tiny")
def _(m: Measured) -> Iterator[Row]:
    yield from _both(6, "tiny", "5 parameters, eager", m)


@row(7, "jitted")
def _(m: Measured) -> Iterator[Row]:
    case = m["jitted"]
    for what in ("run", "compile"):
        for ours, theirs in (("ravel", "ravel_pytree"), ("unravel", "its unravel")):
            ratio = case[f"{what} {ours}"] / case[f"{what} {theirs}"]
            yield Row(7, f"{what} {ours} inside jit, 200 leaves", "ravel_pytree", ratio, 1.05)
    ratio = case["compile unravel"] / case["compile slices"]
    yield Row(7, "compile unravel inside jit, 200 leaves", "one lax.slice per leaf", ratio, None)


@row(8, "steps")
def _(m: Measured) -> Iterator[Row]:
    case = m["steps"]
    for nested in [name for name in case if name.endswith(", nested")]:
        name = nested.removesuffix(", nested")
        target = 1.05 if name.endswith("run") else 1.5
        yield Row(8, f"step: {name}", "the nested model", case[name] / case[nested], target)
        ratio = case[name] / case[f"{name}, ravel_pytree"]
        yield Row(8, f"step: {name}", "ravel_pytree", ratio, None)


@row(9, "mixed")
def _(m: Measured) -> Iterator[Row]:
    yield from _both(9, "mixed", "600 leaves, two dtypes, a third riding along", m)
    case = m["mixed"]
    ratio = case["ravel with ties"] / case["ravel_pytree"]
    yield Row(9, "ravel, the same with ties by path", "ravel_pytree", ratio, 1)


@row(10, "imports")
def _(m: Measured) -> Iterator[Row]:
    extra = m["imports"]["ours"] * 1000
    yield Row(10, "import jtree and destructure after jax", "milliseconds", extra, 50)


@row(11, "queries")
def _(m: Measured) -> Iterator[Row]:
    case = m["queries"]
    for name in ("trainables", "state", "modules", "count"):
        ratio = case[name] / case["flatten_with_path"]
        yield Row(11, f"{name}, 2,000 leaves", "jax.tree.flatten_with_path", ratio, 3)


@row(12, "checkpoints:save_large")
def _(m: Measured) -> Iterator[Row]:
    case, work = m["checkpoints:save_large"], "save 524 MB in 200 leaves"
    yield Row(12, work, "Orbax", case["ours"] / case["orbax"], 1.15)
    more = (case["ours memory"] - case["orbax memory"]) / 1e6
    yield Row(12, work, "Orbax, memory, MB more", more, 50)
    for name in ("write and fsync", "flax msgpack", "safetensors", "torch.save"):
        if name in case:
            yield Row(12, work, name, case["ours"] / case[name], None)


@row(13, "checkpoints:load_large")
def _(m: Measured) -> Iterator[Row]:
    case, work = m["checkpoints:load_large"], "load the same"
    for where, what in (("host", "as NumPy arrays"), ("model", "into a model")):
        ratio = case[f"ours {where}"] / case[f"orbax {where}"]
        yield Row(13, f"{work}, {what}", "Orbax", ratio, 1.15)


@row(14, "checkpoints:packed")
def _(m: Measured) -> Iterator[Row]:
    case, work = m["checkpoints:packed"], "2,000 leaves of 1 KB"
    yield Row(14, f"save {work}, packed", "Orbax", case["save"] / case["orbax save"], 1 / 20)
    yield Row(14, f"load {work}, packed", "Orbax", case["load"] / case["orbax load"], 1 / 20)
    ratio = case["open"] / case["orbax metadata"]
    yield Row(14, f"open {work}", "Orbax metadata", ratio, 1.1)
    yield Row(14, f"open {work}, packed", "milliseconds", case["open packed"] * 1000, 50)
