"""Layers whose types override the call of a known type: unknown until a hint says what they are."""

from __future__ import annotations

from dataclasses import dataclass

from ..._errors import ArgumentTypeError
from ..._tree import paths


@dataclass(frozen=True, repr=False)
class AsBase:
    """A hint that layers store their weights as their base type does, from `migrate.as_base`."""

    where: tuple[str, ...]

    def __repr__(self) -> str:
        return f"as_base({', '.join(map(repr, self.where))})"


def as_base(*where: str) -> AsBase:
    """Return a hint for `convert`: convert these layers as layers of the type they derive from.

    A subclass of a known type that overrides the call, such as a weight-standardised convolution,
    may use its weights in any way. It is refused until this hint says that its weights mean what
    they mean in its base type, and that the model computes the same from them as the source.

    Args:
      where: globs over the paths of layers, in the model or in the source.

    Returns:
      A hint.

    Example:
      >>> from flax import nnx
      >>> from jtree import migrate
      >>> class Scaled(nnx.Linear):
      ...     def __call__(self, x):
      ...         return 2 * super().__call__(x)
      >>> model = nnx.Sequential(Scaled(2, 2, rngs=nnx.Rngs(0)))
      >>> source = {"0.weight": np.eye(2), "0.bias": np.zeros(2)}
      >>> migrate.convert(model, source, hints=[migrate.as_base("layers/0")])[1]
      Report(1 layer from torch)
    """
    if not where or not all(isinstance(glob, str) for glob in where):
        raise ArgumentTypeError(f"as_base: expected one or more globs, found {where!r}")
    for glob in where:
        paths.count_wildcards(glob)
    return AsBase(where)
