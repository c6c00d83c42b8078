"""Attention with several heads."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._arguments import check_flag, check_integers
from .._errors import ArgumentError, ModelError
from .._tree.leaves import describe, isarray
from .._tree.nodes import NodeKind, declare_kind
from ..init import glorot_uniform
from ._dense import Dense
from ._dropout import Dropout
from ._fields import set_fields
from ._layer import InitFunction, Layer, changed_arguments, check_input, layer, split_key, train

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj")


@layer("q_proj", "k_proj", "v_proj", "dropout", "out_proj")
class MultiHeadAttention(Layer):
    """Scaled dot-product attention with several heads.

    Queries, keys and values are projected by `q_proj`, `k_proj` and `v_proj`, whose features are
    divided among the heads, and the outputs of the heads together by `out_proj`. All four are
    `Dense`. For half precision, the softmax is computed in float32.

    Args:
      n_in: the number of features of the inputs, or a tuple of those of queries, keys and values.
      n_hidden: the number of features of all heads together, or a tuple of those of keys and those
        of values. By default it is that of queries.
      n_out: the number of output features, by default that of queries.
      heads: the number of heads, which divides `n_hidden`.
      key: a PRNG key for `init`. Without a key the layer is abstract: it has shapes but no values.
      bias: whether the projections have a bias.
      causal: whether position i attends to positions 0 to i only.
      dropout: the probability that an attention weight is dropped in training.
      init: an initialiser with the signature of `jax.nn.initializers`.

    Raises:
      ArgumentError: `heads` does not divide `n_hidden`, or `dropout` is not a probability.

    Example:
      >>> layer = MultiHeadAttention(64, heads=4, key=jax.random.key(0))
      >>> layer, layer(jnp.ones((2, 10, 64))).shape
      (MultiHeadAttention(64, heads=4), (2, 10, 64))
      >>> layer(jnp.ones((2, 10, 64)), jnp.ones((2, 7, 64))).shape
      (2, 10, 64)

    Source: Vaswani et al., 2017, https://arxiv.org/abs/1706.03762; `MultiHeadAttention` of Flux.jl.
    """

    q_proj: Any
    k_proj: Any
    v_proj: Any
    dropout: Any  # a Dropout
    out_proj: Any
    heads: int
    causal: bool

    def __init__(
        self,
        n_in: int | tuple[int, int, int],
        n_hidden: int | tuple[int, int] | None = None,
        n_out: int | None = None,
        *,
        heads: int = 8,
        key: Any = None,
        bias: bool = True,
        causal: bool = False,
        dropout: float = 0.0,
        init: InitFunction = glorot_uniform,
    ) -> None:
        q_in, k_in, v_in = _sizes("n_in", n_in, 3)
        qk, v = _sizes("n_hidden", q_in if n_hidden is None else n_hidden, 2)
        sizes = ((q_in, qk), (k_in, qk), (v_in, v), (v, q_in if n_out is None else n_out))
        each = zip(PROJECTIONS, sizes, split_key(key, 4), strict=True)
        set_fields(
            self,
            **{name: Dense(*size, key=one, bias=bias, init=init) for name, size, one in each},
            dropout=Dropout(dropout),
            heads=heads,
            causal=check_flag("causal", causal),
        )._validate()

    def _validate(self) -> None:
        owner = type(self).__name__
        for name, cls in (*((name, Dense) for name in PROJECTIONS), ("dropout", Dropout)):
            if not isinstance(getattr(self, name), cls):
                raise ArgumentError(
                    f"{owner} expects {name} to be of type {cls.__name__}, "
                    f"found {getattr(self, name)!r}"
                )
        q, k, v, out = (getattr(self, name).weight.shape[-2:] for name in PROJECTIONS)
        if q[1] != k[1]:
            raise ArgumentError(
                f"{owner} expects q_proj and k_proj to have equally many output features, "
                f"found {q[1]} and {k[1]}"
            )
        if v[1] != out[0]:
            raise ArgumentError(
                f"{owner} expects out_proj to take the {v[1]} output features of v_proj, "
                f"found {out[0]} input features"
            )
        heads = self.heads
        if not isinstance(heads, int) or heads < 1 or q[1] % heads or v[1] % heads:
            raise ArgumentError(
                f"{owner} expects heads to be a positive number that divides the hidden features "
                f"{q[1]} and {v[1]}, found {heads!r}"
            )

    def __call__(self, q: Any, /, k: Any = None, v: Any = None, *, mask: Any = None) -> Any:
        """Return the output, of shape (..., length, n_out).

        Args:
          q: queries of shape (..., length, features), or a tuple of queries, keys and values.
          k: keys of shape (..., key length, features), by default the queries.
          v: values of shape (..., key length, features), by default the keys.
          mask: booleans that broadcast to (..., heads, length, key length), True where a query may
            attend to a key. A query that may attend to no key attends to all alike, as in Flax.
        """
        inputs = q if isinstance(q, tuple) else tuple(x for x in (q, k, v) if x is not None)
        return self._attend(inputs, mask, self.dropout)

    def _attend(self, inputs: tuple[Any, ...], mask: Any, drop: Callable[[Any], Any]) -> Any:
        q, k, v = self._project(inputs)
        scores = jnp.einsum("...qhd,...khd->...hqk", q, k) / math.sqrt(q.shape[-1])
        allowed = self._allowed(mask, scores.shape)
        weights = drop(_softmax(scores, allowed).astype(v.dtype))
        y = jnp.einsum("...hqk,...khd->...qhd", weights, v)
        return self.out_proj(y.reshape(*y.shape[:-2], -1))

    def _project(self, inputs: tuple[Any, ...]) -> list[Any]:
        """Return queries, keys and values of shape (..., length, heads, features)."""
        if not 1 <= len(inputs) <= 3:
            raise ModelError(f"{self!r} expects one to three inputs, found {len(inputs)}")
        q, k, v = (*inputs, *inputs[-1:] * (3 - len(inputs)))
        for x in (q, k, v):
            fits = isarray(x) and x.ndim > 1
            check_input(self, fits, "inputs of shape (..., length, features)", x)
        check_input(self, k.shape[:-2] == q.shape[:-2], f"keys of batch {q.shape[:-2]}", k)
        check_input(self, v.shape[:-1] == k.shape[:-1], f"values for {k.shape[:-1]} keys", v)
        projected = (self.q_proj(q), self.k_proj(k), self.v_proj(v))
        return [x.reshape(*x.shape[:-1], self.heads, x.shape[-1] // self.heads) for x in projected]

    def _allowed(self, mask: Any, shape: tuple[int, ...]) -> Any:
        """Return which key each query may attend to, or None for all."""
        causal = jnp.tri(shape[-2], shape[-1], dtype=bool) if self.causal else None
        if mask is None:
            return causal
        if not isarray(mask) or mask.dtype != bool or not _broadcasts(mask.shape, shape):
            text = describe(mask) if isarray(mask) else repr(mask)
            raise ModelError(
                f"{self!r} expects a mask of booleans that broadcasts to {shape}, found {text}"
            )
        return mask if causal is None else mask & causal

    def _arguments(self) -> list[str]:
        q, k, v, out = (getattr(self, name).weight.shape[-2:] for name in PROJECTIONS)
        inputs, hidden = (q[0], k[0], v[0]), (q[1], v[1])
        sizes = [str(inputs[0] if len(set(inputs)) == 1 else inputs)]
        if {*hidden, out[1]} != {q[0]}:
            sizes += [str(hidden[0] if len(set(hidden)) == 1 else hidden), str(out[1])]
        defaults = {"bias": True, "causal": False, "dropout": 0.0}
        has_bias = any(getattr(self, name).bias is not False for name in PROJECTIONS)
        values = {"bias": has_bias, "causal": self.causal, "dropout": self.dropout.p}
        return [*sizes, f"heads={self.heads}", *changed_arguments(values, defaults)]


declare_kind(MultiHeadAttention, NodeKind(all_fields=True, one_line=True))


@train.register(MultiHeadAttention)
def _(x: MultiHeadAttention, inputs: Any, key: Any) -> tuple[Any, MultiHeadAttention]:
    given = inputs if isinstance(inputs, tuple) else (inputs,)
    return x._attend(given, None, lambda weights: train(x.dropout, weights, key)[0]), x


def _sizes(name: str, x: Any, count: int) -> tuple[int, ...]:
    """Return one size for each of several inputs, which may be the same."""
    sizes = x if isinstance(x, tuple | list) else (x,) * count
    if len(sizes) != count:
        raise ArgumentError(f"{name}: expected an integer or {count} of them, found {x!r}")
    return check_integers(f"MultiHeadAttention: {name}", sizes, least=1)


def _softmax(scores: Any, allowed: Any) -> Any:
    """Return the attention weights, in float32 or wider."""
    half = jnp.finfo(scores.dtype).bits < 32
    scores = scores.astype(jnp.float32) if half else scores
    if allowed is not None:
        scores = jnp.where(allowed, scores, jnp.finfo(scores.dtype).min)
    return jax.nn.softmax(scores)


def _broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    pairs = zip(reversed(shape), reversed(target), strict=False)
    return len(shape) <= len(target) and all(n in (1, m) for n, m in pairs)
