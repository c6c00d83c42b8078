"""The Fisher information of a model that outputs the parameters of a distribution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from ..._errors import ArgumentError, ArgumentTypeError
from ..._tree.leaves import describe, istracer
from ..._vector.restructure import Restructure
from .._autodiff.call import automatic, call
from .differentiated import checked
from .ggn import GaussNewton, check
from .metric import Factors, Metric, units
from .outputs import Form, rows


class Likelihood(NamedTuple):
    """A distribution of `y` given a model's outputs.

    Attributes:
      root: `root(outputs, u)`, a square root B of the Fisher information times u.
      transposed: `transposed(outputs, u)`, the transpose of B times u.
      log: `log(outputs, y)`, the log-likelihood, summed up.
      sample: `sample(key, outputs)`, one y for every example.
    """

    root: Callable[[Any, Any], Any]
    transposed: Callable[[Any, Any], Any]
    log: Callable[[Any, Any], jax.Array]
    sample: Callable[[Any, Any], Any]


def _categorical() -> Likelihood:
    def root(logits: jax.Array, u: jax.Array) -> jax.Array:
        p = jax.nn.softmax(logits)
        return jnp.sqrt(p) * u - p * (jnp.sqrt(p) * u).sum(-1, keepdims=True)

    def transposed(logits: jax.Array, u: jax.Array) -> jax.Array:
        p = jax.nn.softmax(logits)
        return jnp.sqrt(p) * (u - (p * u).sum(-1, keepdims=True))

    def log(logits: jax.Array, y: jax.Array) -> jax.Array:
        soft = y.shape == logits.shape
        target = y if soft else jax.nn.one_hot(y, logits.shape[-1], dtype=logits.dtype)
        return (jax.nn.log_softmax(logits) * target.astype(logits.dtype)).sum()

    return Likelihood(root, transposed, log, jax.random.categorical)


def _bernoulli() -> Likelihood:
    def root(logits: jax.Array, u: jax.Array) -> jax.Array:
        p = jax.nn.sigmoid(logits)
        return jnp.sqrt(p * (1 - p)) * u

    def log(logits: jax.Array, y: jax.Array) -> jax.Array:
        return (
            y.reshape(logits.shape).astype(logits.dtype) * logits - jax.nn.softplus(logits)
        ).sum()

    def sample(key: Any, logits: jax.Array) -> jax.Array:
        return jax.random.bernoulli(key, jax.nn.sigmoid(logits))

    return Likelihood(root, root, log, sample)


def _gaussian() -> Likelihood:
    """Means with unit variance, or a pair of means and logarithms of standard deviations."""

    def both(outputs: Any) -> tuple[jax.Array, jax.Array]:
        if isinstance(outputs, tuple):
            return outputs[0], outputs[1]
        return outputs, jnp.zeros_like(outputs)

    def root(outputs: Any, u: Any) -> Any:
        if not isinstance(outputs, tuple):
            return u
        return u[0] * jnp.exp(-outputs[1]), u[1] * jnp.sqrt(2).astype(u[1].dtype)

    def log(outputs: Any, y: jax.Array) -> jax.Array:
        mean, log_sigma = both(outputs)
        y = y.reshape(mean.shape).astype(mean.dtype)
        return (-0.5 * ((y - mean) * jnp.exp(-log_sigma)) ** 2 - log_sigma).sum()

    def sample(key: Any, outputs: Any) -> jax.Array:
        mean, log_sigma = both(outputs)
        return mean + jnp.exp(log_sigma) * jax.random.normal(key, mean.shape, mean.dtype)

    return Likelihood(root, root, log, sample)


LIKELIHOODS = {
    "categorical": _categorical(),
    "bernoulli": _bernoulli(),
    "gaussian": _gaussian(),
}


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

    def product(self, form: Form, out: jax.Array) -> Callable[[jax.Array], jax.Array]:
        """Return the product: in closed form if exact, and with scores if not."""
        if self.kind != "exact":
            scores = self._scores(form, out)
            return lambda u: jnp.einsum("rnd,rne,ne->nd", scores, scores, u)
        given = LIKELIHOODS[self.likelihood]
        outputs = _plain(form, out)

        def product(u: jax.Array) -> jax.Array:
            inner = given.transposed(outputs, _plain(form, u))
            return rows(given.root(outputs, inner)) / len(out)

        return product

    def factors(self, form: Form, out: jax.Array) -> Factors:
        """Return scores, or the columns of a square root."""
        if self.kind != "exact":
            return self._scores(form, out), None
        given, outputs = LIKELIHOODS[self.likelihood], _plain(form, out)

        def root(u: jax.Array) -> jax.Array:
            return rows(given.root(outputs, _plain(form, u)))

        return jax.vmap(root)(units(out)) / jnp.sqrt(len(out)).astype(out.dtype), None

    def _scores(self, form: Form, out: jax.Array) -> jax.Array:
        """Return gradients of the log-likelihood by the outputs, `(samples, N, D)`."""
        given = LIKELIHOODS[self.likelihood]
        score = jax.grad(lambda rows, y: given.log(_plain(form, rows), y))
        found: jax.Array
        if self.kind == "empirical":
            found = score(out, self.y)[None]
        else:
            keys = jax.random.split(self.key, self.samples)
            found = jax.vmap(lambda key: score(out, given.sample(key, _plain(form, out))))(keys)
        return found / jnp.sqrt(len(out) * len(found)).astype(out.dtype)

    def check(self, form: Form, _: jax.Array, /) -> None:
        """Refuse outputs of which the likelihood has no use."""
        pair = self.likelihood == "gaussian" and len(form.shapes) == 2 and _ordered(form)
        if len(form.shapes) != 1 and not (pair and form.shapes[0] == form.shapes[1]):
            raise ArgumentError(
                f"likelihood={self.likelihood!r}: expected one array of outputs, found arrays of "
                f"shapes {', '.join(map(str, form.shapes))}; only 'gaussian' takes a pair, of "
                "means and logarithms of standard deviations, as a tuple"
            )
        if self.likelihood == "categorical" and not _classes(form):
            raise ArgumentError(
                f"likelihood='categorical': expected logits of shape (N, classes), found "
                f"{form.shapes[0]}; for one logit per example use 'bernoulli'"
            )
        if self.kind == "empirical":
            self._check_labels(form)

    def _check_labels(self, form: Form) -> None:
        shape, found = form.shapes[0], tuple(jnp.shape(self.y))
        fitting = [shape, shape[:-1]] if self.likelihood == "categorical" else [shape]
        one = self.likelihood != "categorical" and shape[1:] == (1,) and found == shape[:1]
        if found not in fitting and not one:
            raise ArgumentError(
                f"y: expected shape {' or '.join(map(str, fitting))} for outputs {shape}, "
                f"found {found}"
            )

    def check_classes(self, shape: tuple[int, ...]) -> None:
        """Refuse numbers that are no classes of these outputs, where they can be read."""
        if self.kind != "empirical" or self.likelihood != "categorical" or istracer(self.y):
            return
        if self.y.shape == shape or not self.y.size:
            return
        low, high = float(self.y.min()), float(self.y.max())
        if not (low >= 0 and high < shape[-1]):
            raise ArgumentError(
                f"y: expected class numbers from 0 to {shape[-1] - 1}, found some from {low:g} to "
                f"{high:g}; leave out examples without a class"
            )


def _plain(form: Form, given: jax.Array) -> Any:
    """Return outputs as an array, or as a pair, without what else the model has them in."""
    found = jax.tree.leaves(form.outputs(given))
    return found[0] if len(found) == 1 else tuple(found)


def _ordered(form: Form) -> bool:
    """Tell whether outputs have an order that is the model's, as those of a dict have not."""
    return isinstance(form.treedef.unflatten(form.shapes), tuple | list)


def _classes(form: Form) -> bool:
    """Tell whether outputs have an axis of two or more classes behind that of examples."""
    shape = form.shapes[0]
    return len(shape) > 1 and shape[-1] > 1


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

    It is the mean over examples of the expected outer product of the score, the gradient of the
    log-likelihood of one example. The exact one equals the Gauss-Newton matrix of the mean
    negative log-likelihood. The empirical one, which takes the labels of the data for the model's
    own, is another matrix (Kunstner et al. 2019); it is made of the gradients of single examples,
    never of the square of their sum.

    Args:
      apply: `apply(flat, x)`: logits `(N, ..., classes)` for `"categorical"`; logits for
        `"bernoulli"`; for `"gaussian"` means with unit variance, or a pair of means and logarithms
        of standard deviations.
      flat: `(n,)`, floating; the first result of `jtree.destructure`.
      x: the inputs, arrays with N examples along their first axis.
      y: the labels, for the empirical one: class numbers or probabilities; 0 or 1; numbers.
      likelihood: the distribution of `y` given the outputs.
      kind: `"exact"`; `"mc"`, with labels drawn from the model; or `"empirical"`.
      samples: how many labels are drawn for each example.
      key: the PRNG key to draw with. The operator is one fixed matrix for one key.
      re: the second result of `jtree.destructure`, which labels rows and columns.

    Returns:
      A `GaussNewton`, `(n, n)`, of the vector's dtype, positive semidefinite.

    Raises:
      ArgumentError: an option has a value that is none of those offered; `y` or `key` is missing;
        the outputs do not fit the likelihood.
      VectorTypeError: complex parameters, or no floating numbers.

    Example:
      >>> x = jnp.ones((5, 1))
      >>> gaussian = lambda v, x: (v[0] * x, v[1] * x)
      >>> at = jnp.array([3.0, jnp.log(2.0)])             # mu and log sigma
      >>> jtree.curvature.fisher(gaussian, at, x, likelihood="gaussian").dense().round(6)
      Array([[0.25, 0.  ],
             [0.  , 2.  ]], dtype=float32)

    Source: Martens, "New insights and perspectives on the natural gradient method", JMLR 21, 2020;
    Kunstner, Balles and Hennig, "Limitations of the empirical Fisher approximation", NeurIPS 2019,
    arXiv:1905.12558.
    """
    _check_options(y, likelihood, kind, samples, key)
    vector, sizes = checked(flat, re)
    y = _labels(y) if kind == "empirical" else None
    metric = FisherMetric(y, key if kind == "mc" else None, likelihood, kind, samples)
    found = GaussNewton(call(apply, x), metric, vector, re, sizes)
    check.eval_shape(found)
    metric.check_classes(found._outputs.form(vector).shapes[0])
    return found


def _labels(y: Any) -> jax.Array:
    try:
        found: jax.Array = automatic(jnp.asarray(y))
        return found
    except TypeError as error:
        raise ArgumentTypeError(f"y: expected an array of numbers, found {describe(y)}") from error


def _check_options(y: Any, likelihood: str, kind: str, samples: int, key: Any) -> None:
    if likelihood not in LIKELIHOODS:
        raise ArgumentError(
            f"likelihood: expected {', '.join(map(repr, LIKELIHOODS))}, found {likelihood!r}"
        )
    if kind not in ("exact", "mc", "empirical"):
        raise ArgumentError(f"kind: expected 'exact', 'mc' or 'empirical', found {kind!r}")
    if kind == "empirical" and y is None:
        raise ArgumentError("kind='empirical' is made of the data's own labels: give y")
    if kind == "mc" and key is None:
        raise ArgumentError("kind='mc' draws labels: give key=jax.random.key(0)")
    if samples < 1:
        raise ArgumentError(f"samples: expected 1 or more, found {samples}")
