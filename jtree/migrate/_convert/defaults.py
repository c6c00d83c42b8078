"""Defaults: identity values for arrays that the source lacks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..._errors import ArgumentTypeError
from ..._tree import paths
from .._layouts.canonical import ONES
from .._layouts.spec import ArraySpec


@dataclass(frozen=True, repr=False)
class Defaults:
    """Arrays of the model that may take identity values; made by `migrate.defaults`."""

    where: tuple[str, ...]

    def __repr__(self) -> str:
        return f"defaults({', '.join(map(repr, self.where))})"


def defaults(*where: str) -> Defaults:
    """Return a hint for `convert`: fill these arrays with identity values if the source lacks them.

    A bias and a running mean become zeros, a scale and a running variance ones. Kernels and
    embedding tables have no identity value, so they stay missing. Arrays that the source has are
    taken from the source. A glob that fills no array is an error.

    Args:
      where: globs over the paths of arrays in the model, as errors print them: `"head/bias"`,
        `"**/bias"`.

    Returns:
      A hint.

    Example:
      >>> from flax import nnx
      >>> from jtree import migrate
      >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> source = {"weight": np.ones((3, 2))}
      >>> model, report = migrate.convert(model, source, hints=[migrate.defaults("bias")])
      >>> report.layers[0].notes
      ('bias: zeros, by migrate.defaults',)
    """
    if not where or not all(isinstance(glob, str) for glob in where):
        raise ArgumentTypeError(f"defaults: expected one or more globs, found {where!r}")
    for glob in where:
        paths.count_wildcards(glob)
    return Defaults(where)


def default_value(spec: ArraySpec) -> int | None:
    """Return the identity value of an array of a layer, or None."""
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


def allowed(hints: Iterable[Defaults], path: str) -> list[str]:
    """Return the globs that allow an identity value at a path."""
    return [glob for hint in hints for glob in hint.where if paths.matches(glob, path)]


def word(number: int) -> str:
    """Return what an array of one number everywhere is called."""
    return "ones" if number else "zeros"


def advice(path: str, spec: ArraySpec) -> str:
    """Return how to fill an array that is missing, if there is a way."""
    number = default_value(spec)
    if number is None:
        return ""
    if spec.canonical[0] in ("mean", "var"):
        return (
            "; where the source normalises by each batch, and the model does, add "
            f"migrate.defaults({path!r}) to the hints"
        )
    return f"; for {word(number)} add migrate.defaults({path!r}) to the hints"
