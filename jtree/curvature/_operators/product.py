"""Products of linear maps, and those that are symmetric."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..._errors import VectorError
from ..._vector.restructure import Restructure
from .._autodiff.arguments import as_columns
from .._autodiff.dense import DenseOptions
from .._autodiff.protocol import Piecewise, one_piece
from .base import Operator
from .linear_map import LinearMap


@partial(jax.tree_util.register_dataclass, data_fields=["maps"], meta_fields=[])
@dataclass(frozen=True, eq=False, repr=False)
class Product(LinearMap):
    """A product of linear maps, as `A @ B` returns it; vectors go through them from the right.

    Attributes:
      maps: the factors, from the left.
    """

    maps: tuple[LinearMap, ...]

    @property
    def shape(self) -> tuple[int, int]:
        return self.maps[0].shape[0], self.maps[-1].shape[1]

    @property
    def dtype(self) -> Any:
        return np.result_type(*(m.dtype for m in self.maps))

    @property
    def name(self) -> str:
        return " @ ".join(m.label for m in self.maps)

    @property
    def label(self) -> str:
        return f"({self.name})"

    @property
    def T(self) -> Product:  # noqa: N802 (as arrays call it)
        """The product of the transposes, in the reverse order."""
        return Product(tuple(m.T for m in reversed(self.maps)))

    @property
    def traceable(self) -> bool:
        return all(m.traceable for m in self.maps)

    def linear(self) -> Callable[[jax.Array], jax.Array]:
        functions = [(m.dtype, m.linear()) for m in reversed(self.maps)]

        def product(v: jax.Array) -> jax.Array:
            for dtype, function in functions:
                v = function(v.astype(dtype))
            return v.astype(self.dtype)

        return product

    def mv(self, v: Any, /) -> jax.Array:
        """Return the product with a vector or with columns, by each factor's own product."""
        v = as_columns(v, self.shape[1], self.dtype)
        for m in reversed(self.maps):
            v = m.mv(v)
        product: jax.Array = v.astype(self.dtype)
        return product


@partial(jax.tree_util.register_dataclass, data_fields=["product"], meta_fields=[])
@dataclass(frozen=True, eq=False, repr=False)
class SymmetricProduct(Operator):
    """A product that reads the same from both sides, such as `A @ A` or `J.T @ A @ J`.

    Attributes:
      product: the `Product`.
    """

    product: Product

    @property
    def size(self) -> int:
        return self.product.shape[0]

    @property
    def dtype(self) -> Any:
        return self.product.dtype

    @property
    def re(self) -> Restructure | None:
        return None  # a part of a product is not the product of parts

    @property
    def name(self) -> str:
        return self.product.name

    @property
    def label(self) -> str:
        return self.product.label

    @property
    def traceable(self) -> bool:
        return self.product.traceable

    @property
    def semidefinite(self) -> bool:
        maps = self.product.maps
        middle = maps[len(maps) // 2]
        return len(maps) % 2 == 0 or (isinstance(middle, Operator) and middle.semidefinite)

    def linear(self) -> Callable[[jax.Array], jax.Array]:
        return self.product.linear()

    def mv(self, v: Any, /) -> jax.Array:
        """Return the product with a vector or with columns, by each factor's own product."""
        return self.product.mv(v)

    def piecewise(self) -> Piecewise:
        return one_piece(self)

    def matrix(self, options: DenseOptions) -> jax.Array:
        return super().matrix(options) if self.traceable else self.product.dense()

    def exact_diagonal(self) -> jax.Array:
        return super().exact_diagonal() if self.traceable else jnp.diagonal(self.product.dense())


def compose(a: LinearMap, b: LinearMap) -> Product | SymmetricProduct:
    """Return the product of two linear maps; products of products become one."""
    if a.shape[1] != b.shape[0]:
        raise VectorError(f"@: expected a linear map with {a.shape[1]} rows, found {b!r}")
    maps = (*_factors(a), *_factors(b))
    pairs = zip(maps, reversed(maps), strict=True)
    symmetric = all(left.is_transpose_of(right) for left, right in pairs)
    return SymmetricProduct(Product(maps)) if symmetric else Product(maps)


def _factors(m: LinearMap) -> tuple[LinearMap, ...]:
    if isinstance(m, SymmetricProduct):
        m = m.product
    return m.maps if isinstance(m, Product) else (m,)


LinearMap.compose = compose
