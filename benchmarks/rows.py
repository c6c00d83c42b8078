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


NAMES = {
    "wide": "MLP 10 x 512",
    "deep": "MLP 100 x 128",
    "transformer": "transformer, 144 leaves",
    "leaves": "1,000 layers of 16 x 16",
    "gpt2": "GPT-2, 12 layers of width 256",
}


def _first_calls(kind: str, *tasks: str) -> tuple[str, ...]:
    return tuple(
        f"gradients:first.{kind}_{x}_{which}" for x in tasks for which in ("nested", "flat")
    )


def _ratios(kind: str, m: Measured) -> Iterator[tuple[str, float]]:
    for task, name in NAMES.items():
        nested, flat = _first_calls(kind, task)
        if nested in m:
            yield name, m[flat]["seconds"] / m[nested]["seconds"]


@row(15, *_first_calls("gradient", "wide", "deep", "transformer", "leaves"))
def _(m: Measured) -> Iterator[Row]:
    for name, ratio in _ratios("gradient", m):
        work = f"first call of re.value_and_grad, {name}"
        yield Row(15, work, "nested value_and_grad", ratio, 1.1)


@row(16, "gradients:again")
def _(m: Measured) -> Iterator[Row]:
    case = m["gradients:again"]
    for task, name in list(NAMES.items())[:4]:
        floor = case[f"{task} nested"] + case[f"{task} copy"]
        work = f"re.value_and_grad again, {name}"
        yield Row(16, work, "nested, and a copy", case[task] / floor, 1.05)


@row(17, *_first_calls("step", "leaves", "gpt2"))
def _(m: Measured) -> Iterator[Row]:
    for name, ratio in _ratios("step", m):
        target = 0.3 if name == NAMES["leaves"] else None
        yield Row(17, f"first step of Adam, {name}", "nested, one function", ratio, target)


@row(18, "gradients:steps_again", "gradients:memory_nested", "gradients:memory_flat")
def _(m: Measured) -> Iterator[Row]:
    case, name = m["gradients:steps_again"], NAMES["gpt2"]
    yield Row(18, f"step of Adam again, {name}", "nested", case["flat"] / case["nested"], 1)
    more = m["gradients:memory_flat"]["vectors"] - m["gradients:memory_nested"]["vectors"]
    yield Row(18, "step of Adam, MLP 10 x 2048", "nested, memory, vectors more", more, 1)


@row(19, *_first_calls("product", "leaves"), "gradients:first.operator_leaves_flat")
def _(m: Measured) -> Iterator[Row]:
    nested, _ = _first_calls("product", "leaves")
    for kind, by in (("product", "re.hvp"), ("operator", "curvature.hessian(loss, model) @ v")):
        _, flat = _first_calls(kind, "leaves")
        work = f"first Hessian-vector product by {by}, {NAMES['leaves']}"
        ratio = m[flat]["seconds"] / m[nested]["seconds"]
        yield Row(19, work, "nested jvp of grad", ratio, 1.1)
