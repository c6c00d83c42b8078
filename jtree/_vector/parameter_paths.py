"""Parameters by their paths: their indices, a mask over the vector, and a value for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._errors import ArgumentError, ArgumentTypeError, PathError
from .._tree import paths as _path
from .._tree.leaves import describe, isnumber, istracer
from .._tree.paths import Where
from .layout import VectorLayout


class ParameterPaths:
    """The parameters in a vector by their paths, as its layout has them."""

    layout: VectorLayout

    @property
    def paths(self) -> tuple[str, ...]:
        return self.layout.paths

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return self.layout.shapes_by_path

    @property
    def dtypes(self) -> Mapping[str, np.dtype[Any]]:
        return self.layout.dtypes_by_path

    @property
    def slices(self) -> Mapping[str, slice]:
        return self.layout.slices_by_path

    @property
    def ties(self) -> tuple[tuple[str, ...], ...]:
        return self.layout.ties

    @property
    def size(self) -> int:
        return self.layout.size

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.layout.dtype

    def __len__(self) -> int:
        return self.layout.size

    def __getitem__(self, where: str, /) -> Any:
        """Return the slice of the vector for a path, or an array of indices for a glob."""
        if not isinstance(where, str):
            raise ArgumentTypeError(
                f"expected a path or a glob such as 'layers/0/**', found {describe(where)}"
            )
        by_path = self.layout.by_path
        if where in by_path:
            return self.layout.slices[by_path[where]]
        indices = {k for path, k in by_path.items() if _path.matches(where, path)}
        if not indices:
            raise PathError(_path.no_match(where, list(by_path)))
        slices = (self.layout.slices[k] for k in sorted(indices))
        return np.concatenate([np.arange(x.start, x.stop) for x in slices])

    def __contains__(self, path: object, /) -> bool:
        return path in self.layout.by_path

    __iter__ = None  # `re[...]` takes paths, so Python must not iterate by index

    def mask(self, where: Where, /) -> jax.Array:
        """Return a vector of booleans, True at the elements of the selected parameters.

        Args:
          where: a glob over paths, several globs, or a function `(path, leaf) -> bool`. A tied
            parameter is selected by any of its paths.

        Returns:
          `(size,)`, of bool: for a decay of some parameters, or to freeze the others.

        Raises:
          PathError: nothing is selected.

        >>> flat, re = jtree.destructure({"bias": jnp.zeros(1), "kernel": jnp.ones((1, 2))})
        >>> re.mask("**/kernel")
        Array([False,  True,  True], dtype=bool)
        """
        if where is None:
            raise ArgumentTypeError(
                "where: expected a glob such as '**/kernel', several, or a function, found None"
            )
        selected = np.zeros(self.layout.size, bool)
        for k in self.layout.select(where):
            selected[self.layout.slices[k]] = True
        return jnp.asarray(selected)

    def vector(self, values: Mapping[str, Any], /) -> jax.Array:
        """Return a vector of a value for each parameter, such as learning rates per layer.

        Args:
          values: from globs over paths to numbers, or arrays that broadcast to the shapes of the
            parameters; they may be tracers. The first glob that matches a parameter counts.

        Returns:
          `(size,)`, of `re.dtype`.

        Raises:
          PathError: a glob matches nothing, or a parameter has no value.

        >>> flat, re = jtree.destructure({"bias": jnp.zeros(1), "kernel": jnp.ones((1, 2))})
        >>> re.vector({"kernel": 0.5, "**": 2.0})
        Array([2. , 0.5, 0.5], dtype=float32)
        """
        if not isinstance(values, Mapping):
            raise ArgumentTypeError(
                "expected a dict from globs to values, such as {'**': 0.1}, "
                f"found {describe(values)}"
            )
        owners: dict[int, Any] = {}
        for glob, value in values.items():
            if not isinstance(glob, str):
                raise ArgumentTypeError(f"expected globs as keys, found {describe(glob)}")
            for k in self.layout.select(glob):
                owners.setdefault(k, self._broadcast(glob, value, k))
        absent = [path for k, path in enumerate(self.layout.paths) if k not in owners]
        if absent:
            raise PathError(
                f"no value for {_path.shorten(absent)}; add one for all others as the last entry, "
                "such as '**': 0.0"
            )
        dtype = self.layout.dtype
        pieces = [owners[k].reshape(-1).astype(dtype) for k in range(len(owners))]
        traced = any(map(istracer, pieces))
        return jnp.asarray((jnp if traced else np).concatenate([np.zeros(0, dtype), *pieces]))

    def _broadcast(self, glob: str, value: Any, k: int) -> Any:
        """Return a value in the shape of parameter k."""
        shape, real = self.layout.shapes[k], jnp.issubdtype(self.layout.dtype, jnp.floating)
        x = value if istracer(value) else np.asarray(value)
        if not isnumber(x.dtype) or (real and jnp.issubdtype(x.dtype, jnp.complexfloating)):
            kind = "real number" if real else "number"
            raise ArgumentTypeError(
                f"{glob!r}: expected a {kind} or an array, found {describe(value)}"
            )
        try:
            return (jnp if istracer(x) else np).broadcast_to(x, shape)
        except ValueError as error:
            raise ArgumentError(
                f"{glob!r}: expected a number, or an array that broadcasts to {shape}, "
                f"found {describe(value)}"
            ) from error
