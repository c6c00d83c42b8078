"""Defaults: identity values of arrays that the source lacks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..._errors import ArgumentTypeError
from ..._tree import paths
from .._layouts.canonical import ONES
from .._layouts.spec import ArraySpec


@dataclass(frozen=True, repr=False)
class Defaults:
    """A hint that arrays may take identity values, from `migrate.defaults`."""

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
    values = {_identity(name) for name in spec.canonical}
    return values.pop() if len(values) == 1 else None


def _identity(name: str) -> int | None:
    if name in ONES:
        return 1
    bias = name.startswith(("bias", "hidden_bias")) or name.endswith("_bias")
    return 0 if bias or name == "mean" else None


def allowing_globs(hints: Iterable[Defaults], path: str) -> list[str]:
    """Return the globs that allow an identity value at a path."""
    return [glob for hint in hints for glob in hint.where if paths.matches(glob, path)]


def remedy(path: str, spec: ArraySpec) -> str:
    """Return the advice for a missing array, which is empty if it has no identity value."""
    value = default_value(spec)
    if value is None:
        return ""
    if spec.canonical[0] in ("mean", "var"):
        return (
            "; if the source and the model normalise by the statistics of each batch, add "
            f"migrate.defaults({path!r}) to hints"
        )
    return f"; for {'ones' if value else 'zeros'}, add migrate.defaults({path!r}) to hints"
