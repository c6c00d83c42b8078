"""The parameters of an operator in groups: by layer, or by glob."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from ..._arguments import check_iterable, unexpected
from ..._errors import PathError
from .._autodiff.arguments import require_labels
from .._operators.base import Operator

_EXPECTED = "a glob such as 'layers/0/**', or several"

Groups = str | Iterable[str] | None


class ParameterGroup(NamedTuple):
    """Some parameters of an operator.

    Attributes:
      path: the path of one parameter, or the glob of several.
      indices: their indices in the vector.
      names: their paths.
      size: the number of their elements.
    """

    path: str
    indices: tuple[int, ...]
    names: frozenset[str]
    size: int

    def selects(self, path: str, _: Any) -> bool:
        """Return whether a parameter belongs to the group, for `restrict` and `block`."""
        return path in self.names


def group_parameters(op: Operator, where: Groups, name: str) -> list[ParameterGroup]:
    """Return a group for each glob; without globs one for each node that holds parameters.

    Parameters at the root are groups of their own.
    """
    layout = require_labels(op.re, name).layout
    if where is None:
        selections = _by_layer(layout.paths)
    else:
        selections = {glob: layout.select(glob) for glob in _check_globs(where)}
    return [
        ParameterGroup(
            path,
            indices,
            frozenset(layout.paths[k] for k in indices),
            sum(layout.sizes[k] for k in indices),
        )
        for path, indices in selections.items()
    ]


def _by_layer(paths: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    layers: dict[str, list[int]] = {}
    for k, path in enumerate(paths):
        layer, separator, _ = path.rpartition("/")
        layers.setdefault(f"{layer}/*" if separator else path, []).append(k)
    return {
        glob if len(indices) > 1 else paths[indices[0]]: tuple(indices)
        for glob, indices in layers.items()
    }


def _check_globs(where: str | Iterable[str]) -> list[str]:
    globs = [where] if isinstance(where, str) else list(check_iterable("where", where, _EXPECTED))
    if not globs:
        raise PathError("where: expected at least one glob, found none; None makes one per layer")
    for glob in globs:
        if not isinstance(glob, str):
            raise unexpected("where", _EXPECTED, glob)
    return globs
