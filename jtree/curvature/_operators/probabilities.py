"""Probabilities in place of logits, which a softmax would normalize a second time."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, jaxprs_in_params

from ..._tree.leaves import istracer
from .._autodiff.call import Call
from .metric import Metric

_RESHAPING = {
    "broadcast_in_dim", "convert_element_type", "copy", "reshape", "squeeze", "transpose",
}  # fmt: skip
_NORMALIZING = {"div", "exp", "logistic", "mul"}  # the last operations of softmax and of a sigmoid

_INVERSES = ("softmax", "log(p)"), ("a sigmoid", "log(p / (1 - p))")


def last_operation(whole: ClosedJaxpr) -> str:
    """Return the operation that computes the first result of a jaxpr, also within calls."""
    jaxpr, var = whole.jaxpr, whole.jaxpr.outvars[0]
    while True:
        eqn = next((x for x in jaxpr.eqns if any(y is var for y in x.outvars)), None)
        if eqn is None:
            return "none"
        count, index = len(eqn.outvars), next(i for i, y in enumerate(eqn.outvars) if y is var)
        inner = [x for x in jaxprs_in_params(eqn.params) if len(x.outvars) == count]
        if inner:
            jaxpr, var = inner[0], inner[0].outvars[index]
        elif eqn.primitive.name in _RESHAPING:
            var = eqn.invars[0]
        else:
            return str(eqn.primitive.name)


def warn_about_probabilities(apply: Call, flat: jax.Array, metric: Metric, last: str) -> None:
    """Warn if a model's outputs are probabilities where logits are expected, unless traced.

    The model runs only if its last operation is one that can normalize.
    """
    if last not in _NORMALIZING or any(map(istracer, jax.tree.leaves((apply, flat, metric)))):
        return
    outputs = _outputs(apply, flat)
    if not isinstance(outputs, jax.Array) or not metric.takes_logits(outputs, last):
        return
    if last == "logistic" or _sums_to_one(outputs):
        kind, inverse = _INVERSES[last == "logistic"]
        warnings.warn(
            f"{apply.name}: the outputs are probabilities p, but {metric.name} takes logits, and "
            f"applies {kind} to them once more; return the logits, or {inverse}",
            stacklevel=3,
        )


@jax.jit
def _outputs(apply: Call, flat: jax.Array) -> Any:
    return apply(flat)


def _sums_to_one(outputs: jax.Array) -> bool:
    """Return whether all rows are positive and sum to 1, and are not all the same.

    Logits do so by chance in examples of a few zeros and ones, or where a new head is zero.
    """
    rows = outputs.reshape(-1, outputs.shape[-1])
    rounding = float(jnp.finfo(rows.dtype).eps) ** 0.5
    normalized = (rows > 0).all() & (jnp.abs(rows.sum(1) - 1) <= rounding).all()
    return rows.shape[1] > 1 and bool(normalized & (rows != rows[:1]).any())
