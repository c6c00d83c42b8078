"""The Fisher information of a model whose outputs are the parameters of a distribution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp

from ..._arguments import check_integer, check_key
from ..._errors import ArgumentError, ArgumentTypeError
from ..._tree.leaves import describe, istracer
from ..._vector.destructure import flatten_function
from ..._vector.restructure import Restructure
from .._autodiff.call import bind, with_automatic_axes
from .differentiated import as_point
from .ggn import GaussNewton, check
from .likelihoods import LIKELIHOODS
from .metric import Factors, Metric, unit_rows
from .outputs import OutputStructure, as_rows
from .probabilities import warn_about_probabilities


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["y", "key"],
    meta_fields=["likelihood", "kind", "samples"],
)
@dataclass(frozen=True, eq=False)
class FisherMetric(Metric):
    """The Fisher information of the outputs, divided by the number of examples."""

    y: Any
    key: Any
    likelihood: str
    kind: str
    samples: int

    @property
    def name(self) -> str:
        return f"{self.likelihood} {self.kind}"

    @property
    def rank(self) -> int | None:
        return {"exact": None, "mc": self.samples, "empirical": 1}[self.kind]

    def product(
        self, structure: OutputStructure, out: jax.Array
    ) -> Callable[[jax.Array], jax.Array]:
        """Return the product: in closed form if exact, otherwise by scores."""
        if self.kind != "exact":
            scores = self._scores(structure, out)
            return lambda u: jnp.einsum("rnd,rne,ne->nd", scores, scores, u)
        likelihood, outputs = LIKELIHOODS[self.likelihood], _as_parameters(structure, out)

        def product(u: jax.Array) -> jax.Array:
            inner = likelihood.transposed(outputs, _as_parameters(structure, u))
            return as_rows(likelihood.root(outputs, inner)) / len(out)

        return product

    def factors(self, structure: OutputStructure, out: jax.Array) -> Factors:
        """Return scores, or the columns of a square root."""
        if self.kind != "exact":
            return self._scores(structure, out), None
        likelihood, outputs = LIKELIHOODS[self.likelihood], _as_parameters(structure, out)

        def root(u: jax.Array) -> jax.Array:
            return as_rows(likelihood.root(outputs, _as_parameters(structure, u)))

        return jax.vmap(root)(unit_rows(out)) / jnp.sqrt(len(out)).astype(out.dtype), None

    def _scores(self, structure: OutputStructure, out: jax.Array) -> jax.Array:
        """Return gradients of the log-likelihood with respect to the outputs, `(samples, N, D)`."""
        likelihood, outputs = LIKELIHOODS[self.likelihood], _as_parameters(structure, out)
        score = jax.grad(lambda rows, y: likelihood.log(_as_parameters(structure, rows), y))
        scores: jax.Array
        if self.kind == "empirical":
            scores = score(out, self.y)[None]
        else:
            keys = jax.random.split(self.key, self.samples)
            scores = jax.vmap(lambda key: score(out, likelihood.sample(key, outputs)))(keys)
        return scores / jnp.sqrt(len(out) * len(scores)).astype(out.dtype)

    def check(self, structure: OutputStructure, _: jax.Array, /) -> None:
        """Raise for outputs that are not the parameters of the likelihood."""
        if not self._has_parameters(structure):
            raise ArgumentError(
                f"likelihood={self.likelihood!r}: expected one array of outputs, found arrays of "
                f"shapes {', '.join(map(str, structure.shapes))}; only 'gaussian' takes a pair, "
                "a tuple of means and log standard deviations"
            )
        shape = structure.shapes[0]
        if self.likelihood == "categorical" and (len(shape) < 2 or shape[-1] < 2):
            raise ArgumentError(
                "likelihood='categorical': expected logits of shape (N, ..., classes), found "
                f"{shape}; for one logit per example use likelihood='bernoulli'"
            )
        if self.kind == "empirical":
            self._check_labels(shape)

    def _has_parameters(self, structure: OutputStructure) -> bool:
        """Return whether there is one array, or the pair of a Gaussian in the model's order."""
        shapes = structure.shapes
        if self.likelihood != "gaussian" or len(shapes) != 2:
            return len(shapes) == 1
        ordered = isinstance(structure.treedef.unflatten(shapes), tuple | list)  # unlike a dict
        return ordered and shapes[0] == shapes[1]

    def _check_labels(self, outputs: tuple[int, ...]) -> None:
        categorical, shape = self.likelihood == "categorical", tuple(jnp.shape(self.y))
        valid = [outputs, outputs[:-1]] if categorical else [outputs]
        one = not categorical and outputs[1:] == (1,) and shape == outputs[:1]
        if shape not in valid and not one:
            raise ArgumentError(
                f"y: expected shape {' or '.join(map(str, valid))} for outputs of shape {outputs}, "
                f"found {shape}"
            )

    def takes_logits(self, _: jax.Array, last: str, /) -> bool:
        """Return whether it normalizes outputs; a sigmoid is certain from the operation alone."""
        return self.likelihood == ("bernoulli" if last == "logistic" else "categorical")

    def check_classes(self, outputs: tuple[int, ...]) -> None:
        """Raise for labels that are not classes of outputs of this shape, unless traced."""
        if self.kind != "empirical" or self.likelihood != "categorical" or istracer(self.y):
            return
        if self.y.shape == outputs or not self.y.size:
            return
        low, high = float(self.y.min()), float(self.y.max())
        if not (low >= 0 and high < outputs[-1]):
            raise ArgumentError(
                f"y: expected classes from 0 to {outputs[-1] - 1}, found values from {low:g} to "
                f"{high:g}; leave out examples without a class"
            )


def _as_parameters(structure: OutputStructure, rows: jax.Array) -> Any:
    """Return rows as the parameters of a likelihood: one array, or a pair."""
    arrays = jax.tree.leaves(structure.outputs(rows))
    return arrays[0] if len(arrays) == 1 else tuple(arrays)


def fisher(
    apply: Callable[..., Any],
    flat: Any,
    x: Any,
    /,
    y: Any = None,
    *,
    likelihood: Literal["categorical", "gaussian", "bernoulli"] = "categorical",
    kind: Literal["exact", "mc", "empirical"] = "exact",
    samples: int = 1,
    key: Any = None,
    re: Restructure | None = None,
) -> GaussNewton:
    """Return the Fisher information of a model at a vector of parameters, as an operator.

    It is the mean over examples of the expected outer product of the score, which is the gradient
    of one example's log-likelihood. The exact one equals the Gauss-Newton matrix of the mean
    negative log-likelihood. The empirical one uses the labels of the data instead of the model's
    distribution, and is a different matrix (Kunstner et al., 2019). It is computed from the
    gradients of single examples, never from the square of their sum.

    Args:
      apply: `apply(flat, x)`: logits `(N, ..., classes)` for `"categorical"`; logits for
        `"bernoulli"`; means with unit variance, or a pair of means and log standard deviations,
        for `"gaussian"`.
      flat: `(n,)`, floating point; the first result of `jtree.destructure`. Or a model, and then
        `apply(model, x)`.
      x: the inputs, arrays with N examples along their first axis.
      y: the labels for `"empirical"`: classes or probabilities for `"categorical"`, 0 or 1 for
        `"bernoulli"`, real values for `"gaussian"`.
      likelihood: the distribution of `y` given the outputs.
      kind: `"exact"`; `"mc"`, with labels sampled from the model; or `"empirical"`.
      samples: how many labels `"mc"` samples for each example.
      key: the PRNG key of the samples. One key gives one fixed matrix.
      re: the second result of `jtree.destructure`, which labels rows and columns.

    Returns:
      A `GaussNewton`, `(n, n)`, of the vector's dtype, positive semidefinite.

    Raises:
      ArgumentError: an option is unknown, `y` or `key` is missing, or the outputs do not fit the
        likelihood.
      VectorTypeError: the parameters are complex or not floating point.

    Warns:
      UserWarning: the outputs are probabilities, and the likelihood takes logits.

    Example:
      >>> x = jnp.ones((5, 1))
      >>> gaussian = lambda v, x: (v[0] * x, v[1] * x)
      >>> flat = jnp.array([3.0, jnp.log(2.0)])            # mean and log standard deviation
      >>> jtree.curvature.fisher(gaussian, flat, x, likelihood="gaussian").dense().round(6)
      Array([[0.25, 0.  ],
             [0.  , 2.  ]], dtype=float32)

    Source: Martens, "New insights and perspectives on the natural gradient method", JMLR 21, 2020;
    Kunstner, Balles and Hennig, "Limitations of the empirical Fisher approximation", NeurIPS 2019,
    arXiv:1905.12558.
    """
    _check_options(y, likelihood, kind, samples, key)
    apply, flat, re = flatten_function(apply, flat, re)
    vector, sizes = as_point(flat, re)
    y = _as_labels(y) if kind == "empirical" else None
    metric = FisherMetric(y, key if kind == "mc" else None, likelihood, kind, int(samples))
    op = GaussNewton(bind(apply, x), metric, vector, re, sizes)
    (last,) = check.eval_shape(op)
    warn_about_probabilities(op.apply, op.flat, op.metric, last)
    metric.check_classes(op.outputs.structure(vector).shapes[0])
    return op


def _as_labels(y: Any) -> jax.Array:
    try:
        labels: jax.Array = with_automatic_axes(jnp.asarray(y))
    except TypeError as error:
        raise ArgumentTypeError(f"y: expected a numeric array, found {describe(y)}") from error
    return labels


def _check_options(y: Any, likelihood: str, kind: str, samples: int, key: Any) -> None:
    if not isinstance(likelihood, str) or likelihood not in LIKELIHOODS:
        raise ArgumentError(
            f"likelihood: expected {', '.join(map(repr, LIKELIHOODS))}, found {likelihood!r}"
        )
    if not isinstance(kind, str) or kind not in ("exact", "mc", "empirical"):
        raise ArgumentError(f"kind: expected 'exact', 'mc' or 'empirical', found {kind!r}")
    if kind == "empirical" and y is None:
        raise ArgumentError("kind='empirical' uses the labels of the data; pass y=")
    if kind != "empirical" and y is not None:
        raise ArgumentError(
            f"y: kind={kind!r} uses no labels; leave out y, or pass kind='empirical'"
        )
    if kind == "mc" and key is None:
        raise ArgumentError("kind='mc' samples labels; pass key=jax.random.key(0)")
    if key is not None:
        check_key("key", key)
    if check_integer("samples", samples) < 1:
        raise ArgumentError(f"samples: expected 1 or more, found {samples}")
