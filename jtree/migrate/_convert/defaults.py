"""Defaults: identity values of arrays that the source lacks."""

from __future__ import annotations

from dataclasses import dataclass

from ..._errors import ArgumentTypeError
from ..._tree import paths


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
