"""Matrices known by their products: what operators and Jacobians have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import numpy as np

from ..._errors import ArgumentError, ArgumentTypeError
from ..._text import format_bytes
from ..._tree.leaves import describe, isarray, isscalar, istracer
from .._autodiff import memory
from .._autodiff.arguments import as_columns, as_scalar, check_scalar, import_extra
from .._autodiff.dense import rectangle
from .._autodiff.linearize import product

_ARRAY_BYTES = 2**26  # of the matrix that NumPy gets without asking for it by name


class LinearMap(ABC):
    """A matrix known by its products with vectors.

    `A @ v` is the product with a vector `(n,)`, or with the columns of a matrix `(n, k)`. Sums,
    differences, multiples, products `A @ B` and transposes `A.T` are linear maps again. SciPy takes
    every linear map as it is, since it has `shape`, `dtype`, `matvec` and `rmatvec`.

    Every linear map is a frozen, registered dataclass: `jit` takes it as an argument, its arrays
    as data, and compiles once for a function and the shapes of its arguments.

    Attributes:
      shape: `(rows, columns)`.
      dtype: the dtype of products; vectors of other real dtypes are converted.
    """

    __array_ufunc__ = None  # so that NumPy's arrays leave `v @ op` and `2.0 * op` to the operator

    # Set in combination.py and product.py: sums and products derive from this class.
    combine: ClassVar[Callable[..., Any]]
    compose: ClassVar[Callable[..., Any]]

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]: ...

    @property
    @abstractmethod
    def dtype(self) -> Any: ...

    @property
    @abstractmethod
    def name(self) -> str:
        """The name of the function behind the matrix, as its repr shows it."""

    @property
    @abstractmethod
    def T(self) -> LinearMap:  # noqa: N802 (as arrays call it)
        """The transpose."""

    @property
    def traceable(self) -> bool:
        """Whether products can be part of a compiled function."""
        return True

    @property
    def label(self) -> str:
        """The name within that of a sum or a product."""
        return f"{type(self).__name__}({self.name})"

    @abstractmethod
    def linear(self) -> Callable[[jax.Array], jax.Array]:
        """Return the product with one vector, linearized here, for use within `jit`."""

    def mv(self, v: Any, /) -> jax.Array:
        """Return the product with a vector, or with each column of a matrix.

        The first eager product linearizes, and the map keeps what the next products need. With 64
        labeled parameters or more on one CPU it keeps nothing, and every product is split and put
        together outside of what is compiled, which is then compiled much sooner.

        Args:
          v: `(n,)`, or `(n, k)` for k vectors at once, of any real dtype.

        Returns:
          The product, `(m,)` or `(m, k)`.

        Raises:
          VectorError: `v` has another length or rank.
          VectorTypeError: `v` is not an array, or is complex.
        """
        return product(self, v, as_columns)

    def matvec(self, v: Any, /) -> Any:
        """Return the product as `mv` does, as a NumPy array for one, which is what SciPy expects.

        >>> from scipy.sparse.linalg import cg
        >>> op = jtree.curvature.hessian(lambda v: (v ** 2).sum(), jnp.ones(2))
        >>> x, info = cg(op, np.ones(2))
        >>> x.tolist()
        [0.5, 0.5]
        """
        return _as_given(self.mv(v), v)

    def rmatvec(self, u: Any, /) -> Any:
        """Return the product of the transpose with a vector; see `matvec`."""
        return _as_given(self.T.mv(u), u)

    def matmat(self, v: Any, /) -> Any:
        """Return the product with the columns of a matrix; see `matvec`."""
        return self.matvec(v)

    def rmatmat(self, u: Any, /) -> Any:
        """Return the product of the transpose with the columns of a matrix; see `matvec`."""
        return self.rmatvec(u)

    def dense(self) -> jax.Array:
        """Return the matrix, by rows or by columns, whichever are fewer.

        Raises:
          ArgumentError: the matrix needs more memory than there is.
        """
        if not any(map(istracer, jax.tree.leaves(self))):
            memory.budget(self, None)
        if self.traceable:
            matrix: jax.Array = rectangle(self)
            return matrix
        return self.mv(np.eye(self.shape[1], dtype=self.dtype))

    def as_lineax(self) -> Any:
        """Return the linear map for `lineax`, for any solver that takes its shape.

        >>> import lineax as lx
        >>> J = jtree.curvature.jacobian(lambda w, x: x @ w, jnp.ones(2), 2 * jnp.eye(3, 2))
        >>> lx.linear_solve(J.as_lineax(), jnp.ones(3), lx.Normal(lx.CG(1e-6, 1e-6))).value
        Array([0.5, 0.5], dtype=float32)
        """
        lx = import_extra("lineax")
        struct = jax.ShapeDtypeStruct(self.shape[1:], self.dtype)
        return lx.FunctionLinearOperator(self.mv, struct)

    def is_transpose_of(self, other: LinearMap) -> bool:
        """Return whether two maps are known to be the transposes of each other."""
        return self.T is other

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray[Any, Any]:
        self._require_small(copy)
        return np.array(self.dense(), dtype=dtype)

    def _require_small(self, copy: Any) -> None:
        rows, cols = self.shape
        if copy is not None and not copy:
            raise ArgumentError(
                "copy=False: a matrix known by its products is computed, not copied"
            )
        if any(map(istracer, jax.tree.leaves(self))):
            raise ArgumentError("within jit NumPy cannot form a matrix; use op.dense()")
        nbytes = rows * cols * np.dtype(self.dtype).itemsize
        if nbytes > _ARRAY_BYTES:
            raise ArgumentError(
                f"the matrix of {rows} x {cols} {np.dtype(self.dtype).name} takes "
                f"{format_bytes(nbytes)}, and NumPy forms one of up to "
                f"{format_bytes(_ARRAY_BYTES)} by itself; use op.dense(), or products: op @ v, or "
                "scipy.sparse.linalg.aslinearoperator(op)"
            )

    def __matmul__(self, other: Any) -> Any:
        if isarray(other):
            return self.mv(other)
        if isinstance(other, LinearMap):
            return LinearMap.compose(self, other)
        return NotImplemented if _has_own(other, "__rmatmul__") else self.mv(other)

    def __rmatmul__(self, v: Any) -> Any:
        if isarray(v) and v.ndim == 2:
            return self.T.mv(v.T).T
        return self.T.mv(v)

    def __call__(self, v: Any, /) -> Any:
        return self.matvec(v)

    def __add__(self, other: Any) -> Any:
        return self._add(other, 1.0, "+")

    def __sub__(self, other: Any) -> Any:
        return self._add(other, -1.0, "-")

    def __radd__(self, other: Any) -> Any:
        # `sum` starts with the integer 0
        return self if isinstance(other, int) and other == 0 else self._add(other, 1.0, "+")

    def __rsub__(self, other: Any) -> Any:
        return self._add(other, -1.0, "-")

    def _add(self, other: Any, factor: float, symbol: str) -> Any:
        if isinstance(other, LinearMap):
            return LinearMap.combine([(1.0, self), (factor, other)])
        if _has_own(other, "__radd__") and not hasattr(other, "tocsr"):
            return NotImplemented
        array = isarray(other) or hasattr(other, "tocsr")  # a sparse one of SciPy
        hint = "; for the matrix use op.dense()" if array else ""
        if as_scalar(other) is not None and hasattr(self, "damped"):
            hint = "; for a multiple of the identity use op.damped(damping)"
        raise ArgumentTypeError(f"{symbol}: expected an operator, found {describe(other)}{hint}")

    def __mul__(self, factor: Any) -> Any:
        scalar = check_scalar("*", factor, "; use @ for products")
        return LinearMap.combine([(scalar, self)])

    def __rmul__(self, factor: Any) -> Any:
        return self.__mul__(factor)

    def __truediv__(self, factor: Any) -> Any:
        scalar = check_scalar("/", factor)
        if not istracer(scalar) and scalar == 0:
            raise ArgumentError("/: expected a scalar other than 0, found 0")
        return self.__mul__(1 / scalar)

    def __rtruediv__(self, other: Any) -> Any:
        raise ArgumentTypeError("/: an operator divides nothing; use curvature.solve(op, b)")

    def __pow__(self, _: Any) -> Any:
        raise ArgumentTypeError(
            "**: a matrix known by its products has no power; use op @ op for the square, "
            "or op.dense() for the matrix"
        )

    def __rpow__(self, other: Any) -> Any:
        return self.__pow__(other)

    def __getitem__(self, _: Any) -> Any:
        raise ArgumentTypeError(
            "[]: a matrix known by its products has no elements; use op.dense()[...], "
            "op @ v, or for parameters by path op.block(rows, cols)"
        )

    def __neg__(self) -> Any:
        return self.__mul__(-1.0)

    def __repr__(self) -> str:
        rows, cols = self.shape
        name = np.dtype(self.dtype).name
        return f"{type(self).__name__}({self.name}, {rows} x {cols}, {name})"


def is_model(x: Any) -> bool:
    """Return whether an argument of a product is a model rather than a vector."""
    vector = isarray(x) or isscalar(x) or x is None or isinstance(x, LinearMap)
    return not vector and not _has_own(x, "__rmatmul__")


def _as_given(x: jax.Array, v: Any) -> Any:
    """Return a product as a NumPy array that can be written to, if the vector was one."""
    return np.array(x) if isinstance(v, np.ndarray) and not istracer(x) else x


def _has_own(x: Any, method: str) -> bool:
    """Return whether an object of another library takes part in an operation by its own method."""
    plain = isarray(x) or isinstance(x, bool | int | float | complex | np.generic)
    return not plain and hasattr(type(x), method)
