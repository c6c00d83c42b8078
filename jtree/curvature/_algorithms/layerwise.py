"""The curvature of each layer: traces and largest eigenvalues of the blocks on the diagonal."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from ... import _progress
from ..._arguments import check_flag
from ..._text import align, plural, table
from .._operators.base import Operator, require_operator
from .diagonal import check_estimate, diagonal, trace
from .eigen import eigsh
from .estimate import Estimate
from .groups import Groups, ParameterGroup, group_parameters

if TYPE_CHECKING:
    from rich.table import Table

_TITLES = ("path", "parameters", "trace", "mean eigenvalue", "largest eigenvalue")


class LayerCurvature(NamedTuple):
    """A row of a `Layerwise` table.

    Attributes:
      path: the path of a parameter, or the glob of several.
      parameters: the number of their elements.
      trace: the trace of their block, with its standard error.
      largest: the largest eigenvalue of their block.
    """

    path: str
    parameters: int
    trace: Estimate
    largest: Any


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["traces", "errors", "largest"],
    meta_fields=["paths", "parameters"],
)
@dataclass(frozen=True, eq=False, repr=False)
class Layerwise:
    """The curvature of each layer: what `layerwise` returns. It prints as a table.

    Attributes:
      paths: the path of each parameter, or the glob of those in a layer.
      parameters: the number of elements in each.
      traces: `(layers,)`, the traces of the blocks.
      errors: `(layers,)`, their standard errors.
      largest: `(layers,)`, the largest eigenvalues of the blocks.
    """

    paths: tuple[str, ...]
    parameters: tuple[int, ...]
    traces: jax.Array
    errors: jax.Array
    largest: jax.Array

    @property
    def rows(self) -> tuple[LayerCurvature, ...]:
        """The table, row by row."""
        traces = map(Estimate, self.traces, self.errors)
        return tuple(map(LayerCurvature, self.paths, self.parameters, traces, self.largest))

    def __repr__(self) -> str:
        return "\n".join(align([_TITLES, *map(_cells, self.rows)], right=range(1, 5)))

    def __rich__(self) -> Table:
        cells = map(_cells, self.rows)
        return table(_TITLES, cells, right=_TITLES[1:], title=plural(len(self.paths), "layer"))


def _cells(row: LayerCurvature) -> tuple[str, ...]:
    value, error = map(float, row.trace)
    shown = f"{value:.4g}" if error == 0 else f"{value:.4g} ± {error:.2g}"
    mean = f"{value / row.parameters:.4g}" if row.parameters else ""
    return row.path, f"{row.parameters:_}", shown, mean, f"{float(row.largest):.4g}"


def layerwise(
    op: Operator,
    /,
    where: Groups = None,
    *,
    method: Literal["exact", "hutchinson", "xtrace"] = "exact",
    key: Any = None,
    samples: int = 100,
    progress: bool = True,
) -> Layerwise:
    """Return the trace and the largest eigenvalue of each layer's block of an operator.

    The mean eigenvalue is the trace over the number of parameters. A block has the curvature of the
    loss along the parameters of one layer, with all others fixed.

    Args:
      op: an operator with labels.
      where: a glob for each row, such as `["layers/0/**", "head/**"]`; `op.re.paths` makes a row
        for each parameter. By default a row is a layer: the parameters of one node, or one
        parameter at the root.
      method: the method of `trace`; estimates take `samples` products for each row.
      key: the PRNG key of the estimates.
      samples: the number of random vectors.
      progress: whether to show a progress bar, on a terminal.

    Returns:
      A `Layerwise`; `jtree.plot.layerwise` draws it.

    Raises:
      ArgumentError: the operator has no labels, or an estimate has no key.
      PathError: a glob matches no parameter.
      CurvatureError: an eigenvalue did not converge, or the operator is not finite.

    Example:
      >>> flat, re = jtree.destructure({"w": jnp.array([1.0, 2.0]), "b": jnp.array(3.0)})
      >>> loss = lambda v: (re(v)["w"] ** 2).sum() * re(v)["b"] ** 2
      >>> layers = jtree.curvature.layerwise(jtree.curvature.hessian(loss, flat, re=re))
      >>> layers
      path  parameters  trace  mean eigenvalue  largest eigenvalue
      b              1     10               10                  10
      w              2     36               18                  18
      >>> float(layers.rows[1].trace)
      36.0

    Source: Dong et al., "HAWQ-V2: Hessian aware trace-weighted quantization of neural networks",
    NeurIPS 2020, arXiv:1911.03852, has both by layer.
    """
    check_flag("progress", progress)
    require_operator(op, "layerwise")
    samples = check_estimate(method, ("exact", "hutchinson", "xtrace"), key, samples)
    groups = group_parameters(op, where, "layerwise")
    exact = diagonal(op) if method == "exact" else None
    rows = []
    for i, group in enumerate(_progress.tracked(groups, "layerwise", shown=progress)):
        part = op.restrict(group.selects)
        if exact is None:
            estimate = trace(part, method, key=jax.random.fold_in(key, i), samples=samples)
        else:
            estimate = Estimate(_sum_of(op, group, exact), jnp.zeros((), op.dtype))
        largest = eigsh(part, 1, "LA").values[0] if part.size else jnp.nan
        rows.append((*estimate, largest))
    columns = jnp.asarray(rows, op.dtype).reshape(-1, 3).T
    paths, sizes = tuple(x.path for x in groups), tuple(x.size for x in groups)
    return Layerwise(paths, sizes, *columns)


def _sum_of(op: Operator, group: ParameterGroup, diagonal: jax.Array) -> jax.Array:
    """Return the sum of the elements of a vector that belong to a group."""
    slices = op.re.layout.slices  # type: ignore[union-attr]
    parts = [diagonal[slices[k]].sum() for k in group.indices]
    return jnp.stack(parts).sum()
