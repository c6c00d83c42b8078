"""Matrices known by their products: what operators and Jacobians have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import jax

from ..._tree.leaves import isarray
from .._autodiff.arguments import as_columns
from .._autodiff.linearize import product


class LinearMap(ABC):
    """A matrix known by its products with vectors.

    Every linear map is a frozen, registered dataclass: `jit` takes it as an argument, its arrays
    as data, and compiles once for a function and the shapes of its arguments.

    Attributes:
      shape: `(rows, columns)`.
      dtype: the dtype of products; vectors of other real dtypes are converted.
    """

    __array_ufunc__ = None  # so that NumPy's arrays leave `v @ op` and `2.0 * op` to the operator

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]: ...

    @property
    @abstractmethod
    def dtype(self) -> Any: ...

    @property
    @abstractmethod
    def T(self) -> LinearMap:  # noqa: N802 (as arrays call it)
        """The transpose."""

    @abstractmethod
    def linear(self) -> Callable[[jax.Array], jax.Array]:
        """Return the product with one vector, linearized here, for use within `jit`."""

    def mv(self, v: Any, /) -> jax.Array:
        """Return the product with a vector, or with each column of a matrix.

        The first eager product linearizes, and the map keeps what the next products need.

        Args:
          v: `(n,)`, or `(n, k)` for k vectors at once, of any real dtype.

        Returns:
          The product, `(m,)` or `(m, k)`.

        Raises:
          VectorError: `v` has another length or rank.
          VectorTypeError: `v` is not an array, or is complex.
        """
        return product(self, as_columns(v, self.shape[1], self.dtype))

    def __matmul__(self, v: Any) -> Any:
        return self.mv(v) if isarray(v) else NotImplemented

    def __rmatmul__(self, v: Any) -> Any:
        return self.T.mv(v.T).T if isarray(v) else NotImplemented

    def __call__(self, v: Any, /) -> jax.Array:
        return self.mv(v)
