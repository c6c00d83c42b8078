"""The base class of operators: symmetric matrices known by their products, labeled by path."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Self

import jax
import numpy as np

from ..._errors import ArgumentError, ArgumentTypeError
from ..._tree.leaves import describe, isarray
from ..._tree.paths import Where
from ..._vector.restructure import Restructure
from .._autodiff import dense
from .._autodiff.arguments import import_extra, no_labels, require_labels
from .._autodiff.dense import DenseOptions
from .._autodiff.partition import join, split
from .._autodiff.protocol import Piecewise
from .linear_map import LinearMap, is_model


class Operator(LinearMap):
    """A symmetric matrix over the parameters of a model, known by its products with vectors.

    `op @ v` is the product with a vector `(n,)`, or with the columns of a matrix `(n, k)`; with
    labels, `op @ model` is the product with a model, as a model. `op + other`, `op - other`,
    `2 * op` and `-op` are operators again, and so are products that are symmetric, such as
    `op @ op`; `op @ other` is a `Product`. An operator can also be called, `op(v)`, as `matfree`
    and `jax.scipy.sparse.linalg` require, and SciPy's solvers take it as it is.

    Every operator is a frozen, registered dataclass: `jit` takes it as an argument, its arrays as
    data, and compiles once for a function and the shapes of its arguments.

    Attributes:
      shape: `(n, n)`.
      dtype: the dtype of the vector; vectors of other real dtypes are converted.
      re: the `Restructure` that labels rows and columns, or None.

    Example:
      >>> flat, re = jtree.destructure({"w": jnp.array([1.0, 2.0]), "b": jnp.array(3.0)})
      >>> loss = lambda v: re(v)["w"].prod() * re(v)["b"]
      >>> op = jtree.curvature.hessian(loss, flat, re=re)
      >>> op
      Hessian(<lambda>, 3 x 3, float32, b, w)
      >>> op @ jnp.array([1.0, 0.0, 0.0])
      Array([0., 2., 1.], dtype=float32)
      >>> op.block("w", "b").tolist()
      [[2.0], [1.0]]
    """

    @property
    @abstractmethod
    def size(self) -> int:
        """The number of rows."""

    @property
    @abstractmethod
    def re(self) -> Restructure | None: ...

    @property
    @abstractmethod
    def name(self) -> str:
        """The name of the function behind the operator, as its repr shows it."""

    @property
    def shape(self) -> tuple[int, int]:
        return self.size, self.size

    @property
    def T(self) -> Self:  # noqa: N802 (as arrays call it)
        """The operator itself, which is symmetric."""
        return self

    @property
    def examples(self) -> int | None:
        """The number of examples behind the operator, or None where it is unknown."""
        return None

    @property
    def traceable(self) -> bool:
        """Whether products can be part of a compiled function."""
        return True

    @property
    def semidefinite(self) -> bool:
        """Whether the operator is known to have no negative eigenvalue."""
        return False

    @abstractmethod
    def piecewise(self) -> Piecewise:
        """Return the operator as maps between pieces of its vector, for use within `jit`."""

    def linear(self) -> Callable[[jax.Array], jax.Array]:
        """Return the product with one vector, linearized here, for use within `jit`."""
        pieces = self.piecewise()
        every = tuple(range(len(pieces.sizes)))
        linear = pieces.between(every, every)
        return lambda v: join(linear(split(v, pieces.sizes)))

    def mv_tree(self, model: Any, /) -> Any:
        """Return the product with the parameters of a model, as a model.

        Leaves have the model's own dtypes; leaves that are not parameters stay as they are.

        >>> model = {"w": jnp.ones(2), "name": "head"}
        >>> flat, re = jtree.destructure(model)
        >>> op = jtree.curvature.hessian(lambda v: (v ** 3).sum() / 6, flat, re=re)
        >>> op.mv_tree({"w": jnp.array([2.0, 5.0]), "name": "head"})
        {'name': 'head', 'w': Array([2., 5.], dtype=float32)}
        """
        re = require_labels(self.re, "mv_tree")
        return re(self.mv(re.ravel(model)))

    def dense(
        self,
        chunk: int | str | None = "auto",
        *,
        memory: int | None = None,
        sharding: jax.sharding.Sharding | None = None,
        progress: bool = True,
    ) -> jax.Array:
        """Return the matrix.

        It is computed by products with unit vectors, `chunk` at a time. A Hessian is differentiated
        parameter by parameter, in the order in which the model uses them, and each block is
        computed once and mirrored.

        Args:
          chunk: how many products to batch; `"auto"` or None decides by the memory.
          memory: the bytes that this may take, the matrix included; by default the free memory.
          sharding: the sharding of the rows, such as `NamedSharding(mesh, P("x", None))`; each
            device computes its own rows.
          progress: whether to show a progress bar, on a terminal.

        Returns:
          `(n, n)`, symmetric up to rounding.

        Raises:
          ArgumentError: the matrix needs more memory than there is.
        """
        return self.matrix(DenseOptions(chunk, memory, sharding, progress).check())

    def matrix(self, options: DenseOptions) -> jax.Array:
        """Return the matrix for the options of `dense`; overridden where there is a faster way."""
        return dense.matrix(self, options)

    def exact_diagonal(self) -> jax.Array:
        """Return the diagonal, without estimating it."""
        diagonal: jax.Array = dense.diagonal(self)
        return diagonal

    def block(self, rows: Where, cols: Where = None, /) -> jax.Array:
        """Return the block of some parameters against others, and compute nothing else.

        Args:
          rows: a path, a glob such as `"layers/0/**"`, or several.
          cols: the same; by default the paths of the rows.

        Returns:
          The block: the elements of the rows' parameters by those of the columns' parameters, each
          in the order of the vector.

        Raises:
          PathError: a glob matches no parameter.
          ArgumentError: the operator has no labels.
        """
        layout = require_labels(self.re, "block").layout
        first = layout.select(rows)
        second = first if cols is None else layout.select(cols)
        block: jax.Array = dense.block(self, first, second)
        return block

    def restrict(self, where: Where, /) -> Operator:  # noqa: ARG002 (operators with labels override it)
        """Return the operator over some parameters, with the others fixed.

        The function is differentiated by these alone, so nothing is computed for the others.

        Args:
          where: a path, a glob such as `"head/**"`, or several.

        Raises:
          PathError: a glob matches no parameter.
          ArgumentError: the operator has no labels.
        """
        raise ArgumentError(no_labels("restrict"))

    def labeled(self, re: Restructure) -> Operator:  # noqa: ARG002 (some cannot be labeled)
        """Return the operator with these labels, if it has none and can be labeled."""
        return self

    def damped(self, damping: Any, /) -> Operator:
        """Return the operator plus a multiple of the identity.

        >>> op = jtree.curvature.hessian(lambda v: (v ** 2).sum(), jnp.ones(2))
        >>> op.damped(0.5).dense().tolist()
        [[2.5, 0.0], [0.0, 2.5]]
        """
        damped: Operator = LinearMap.combine([(1.0, self)], damping)
        return damped

    def as_preconditioner(self, damping: Any = 0.0, /) -> Any:  # noqa: ARG002
        """Return the function that `solve` applies for `preconditioner=`: the operator itself.

        Approximations of an operator return their damped inverse.
        """
        return self

    def known_solution(self, b: jax.Array, damping: Any) -> jax.Array | None:  # noqa: ARG002
        """Return the solution of a damped system if the operator is decomposed, or None."""
        return None

    def as_lineax(self) -> Any:
        """Return the operator for `lineax`, tagged as symmetric, for any of its solvers.

        Gauss-Newton and Fisher matrices are also tagged as positive semidefinite, which
        `lineax.CG` and `lineax.Cholesky` require. To tag another operator, write
        `lineax.TaggedLinearOperator(op.as_lineax(), lineax.positive_semidefinite_tag)`.

        >>> import lineax as lx
        >>> op = jtree.curvature.hessian(lambda v: (v ** 2).sum(), jnp.ones(2))
        >>> lx.linear_solve(op.as_lineax(), jnp.ones(2), lx.GMRES(rtol=1e-6, atol=1e-6)).value
        Array([0.5, 0.5], dtype=float32)
        """
        lx = import_extra("lineax")
        struct = jax.ShapeDtypeStruct((self.size,), self.dtype)
        tags = [lx.symmetric_tag, *[lx.positive_semidefinite_tag] * self.semidefinite]
        return lx.FunctionLinearOperator(self.mv, struct, frozenset(tags))

    def __matmul__(self, other: Any) -> Any:
        if isarray(other):
            return self.mv(other)
        if is_model(other) and (self.re is not None or not isinstance(other, list | tuple)):
            require_labels(self.re, "op @ model")
            return self.mv_tree(other)
        return super().__matmul__(other)

    def __repr__(self) -> str:
        shape = f"{self.size} x {self.size}, {np.dtype(self.dtype).name}"
        paths = () if self.re is None else self.re.paths
        shown = paths if len(paths) <= 4 else (*paths[:3], "...")
        return f"{type(self).__name__}({', '.join([self.name, shape, *shown])})"


def require_operator(op: Any, name: str) -> None:
    """Raise for an argument that is not a symmetric operator."""
    if isinstance(op, Operator):
        return
    hint, shown = "hessian, ggn, fisher and batched return one", describe(op)
    if isinstance(op, LinearMap):
        shown = op.label
        hint = "it is not symmetric; use ggn, or the product with its transpose, A.T @ A"
    elif isarray(op):
        hint = "for an array A pass hessian(lambda v: v @ A @ v / 2, jnp.zeros(len(A)))"
    elif callable(op):
        hint = "for a function of a vector pass hessian(function, vector)"
    raise ArgumentTypeError(f"{name}: expected an operator, found {shown}; {hint}")
