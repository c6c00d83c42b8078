"""What users say of arrays that the source has not: numbers that change nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..._errors import ArgumentTypeError
from ..._tree import paths
from .._layouts.canonical import ONES
from .._layouts.spec import ArraySpec


@dataclass(frozen=True)
class Neutral:
    """Arrays of the model that may have neutral numbers; made by `migrate.neutral`."""

    where: tuple[str, ...]


def neutral(*where: str) -> Neutral:
    """Return a rule for `convert`: what the source lacks here is what changes nothing.

    A bias and a running mean are zeros, a scale and a running variance ones. Kernels and tables
    have no such numbers, so they stay missing. What the source has is taken from there; a glob that
    nothing is filled for is an error.

    Args:
      where: globs over the paths of arrays in the model, as errors print them: `"head/bias"`,
        `"**/bias"`.

    Returns:
      A rule.

    Example:
      >>> from flax import nnx
      >>> from jtree import migrate
      >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> source = {"weight": np.ones((3, 2))}
      >>> model, report = migrate.convert(model, source, rules=[migrate.neutral("bias")])
      >>> report.layers[0].notes
      ('bias: zeros, by migrate.neutral',)
    """
    if not where or not all(isinstance(glob, str) for glob in where):
        raise ArgumentTypeError(f"neutral: expected one glob or more, found {where!r}")
    for glob in where:
        paths.wildcards(glob)
    return Neutral(where)


def neutral_number(spec: ArraySpec) -> int | None:
    """Return the number that changes nothing in an array of a layer, or None."""
    numbers = {_number(canonical_name) for canonical_name in spec.canonical}
    return numbers.pop() if len(numbers) == 1 else None


def _number(canonical_name: str) -> int | None:
    if canonical_name in ONES:
        return 1
    isbias = (
        canonical_name == "mean"
        or canonical_name.startswith("bias")
        or canonical_name.endswith("_bias")
    )
    return 0 if isbias or canonical_name.startswith("hidden_bias") else None


def allowed(rules: Iterable[Neutral], path: str) -> list[str]:
    """Return the globs that allow neutral numbers at a path."""
    return [glob for rule in rules for glob in rule.where if paths.matches(glob, path)]


def word(number: int) -> str:
    """Return what an array of one number everywhere is called."""
    return "ones" if number else "zeros"


def advice(path: str, spec: ArraySpec) -> str:
    """Return how to fill an array that is missing, if there is a way."""
    number = neutral_number(spec)
    if number is None:
        return ""
    if spec.canonical[0] in ("mean", "var"):
        return (
            "; where the source normalises by each batch, and the model does, add "
            f"migrate.neutral({path!r}) to the rules"
        )
    return f"; for {word(number)} add migrate.neutral({path!r}) to the rules"
