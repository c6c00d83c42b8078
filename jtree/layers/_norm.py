"""Batch normalisation, which differs between training and inference."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from .._arguments import check_flag, check_integer
from .._tree.leaves import isarray
from .._tree.nodes import trainable
from ._fields import check_function, check_present, replace, set_fields
from ._layer import (
    Activation,
    Layer,
    activation_argument,
    changed_arguments,
    check_input,
    identity,
    layer,
    train,
)


@layer("beta", "gamma", "mu", "sigma2")
class BatchNorm(Layer):
    """Batch normalisation of every channel (the last axis) over all other axes.

    In training (`jtree.layers.forward`), channels are normalised by the mean and variance of the
    batch, which also update the running statistics. In inference they are normalised by the running
    statistics `mu` and `sigma2`, which are not parameters. For half precision, statistics are
    computed in float32.

    Args:
      channels: the size of the last axis.
      activation: a function of the output.
      affine: whether to learn a shift `beta` and a scale `gamma`. If False they are None.
      track_stats: whether to track running statistics. If False they are None, and inference uses
        the statistics of the batch.
      eps: added to the variance.
      momentum: the weight of the batch in the running statistics.
      active: whether to use the statistics of the batch. True means always, False never, and None
        in training.

    Example:
      >>> layer = BatchNorm(2, jax.nn.relu)
      >>> layer
      BatchNorm(2, relu)
      >>> list(jtree.trainables(layer)), list(jtree.children(layer))
      (['beta', 'gamma'], ['beta', 'gamma', 'mu', 'sigma2'])

    Source: Ioffe and Szegedy, 2015, https://arxiv.org/abs/1502.03167; `BatchNorm` of Flux.jl.
    """

    beta: Any
    gamma: Any
    mu: Any
    sigma2: Any
    activation: Activation
    channels: int
    affine: bool
    track_stats: bool
    eps: float
    momentum: float
    active: bool | None

    def __init__(
        self,
        channels: int,
        activation: Activation = identity,
        *,
        affine: bool = True,
        track_stats: bool = True,
        eps: float = 1e-5,
        momentum: float = 0.1,
        active: bool | None = None,
    ) -> None:
        check_integer("BatchNorm: channels", channels, least=0)
        set_fields(
            self,
            beta=jnp.zeros(channels, jnp.float32) if check_flag("affine", affine) else None,
            gamma=jnp.ones(channels, jnp.float32) if affine else None,
            mu=jnp.zeros(channels, jnp.float32) if check_flag("track_stats", track_stats) else None,
            sigma2=jnp.ones(channels, jnp.float32) if track_stats else None,
            activation=activation,
            channels=channels,
            affine=affine,
            track_stats=track_stats,
            eps=eps,
            momentum=momentum,
            active=active,
        )._validate()

    def _validate(self) -> None:
        owner = f"BatchNorm({self.channels})"
        check_function(owner, "activation", self.activation)
        shape = (self.channels,)
        for name in ("beta", "gamma"):
            check_present(owner, name, getattr(self, name), shape if self.affine else None)
        for name in ("mu", "sigma2"):
            check_present(owner, name, getattr(self, name), shape if self.track_stats else None)

    def __call__(self, x: Any, /) -> Any:
        """Return the output for an input of shape (..., channels)."""
        self._check(x)
        if self.active or self.mu is None:
            return self._normalise(x, *statistics(x, range(x.ndim - 1)))
        return self._normalise(x, self.mu, self.sigma2)

    def _check(self, x: Any) -> None:
        fits = isarray(x) and x.ndim > 0 and x.shape[-1] == self.channels
        check_input(self, fits, f"{self.channels} input channels", x)

    def _normalise(self, x: Any, mean: Any, variance: Any) -> Any:
        y = normalise(x, mean, variance, self.eps)
        if self.gamma is not None:
            y = y * self.gamma + self.beta
        return self.activation(y)

    def _arguments(self) -> list[str]:
        defaults = {"affine": True, "track_stats": True, "active": None}
        changed = changed_arguments({name: getattr(self, name) for name in defaults}, defaults)
        return [str(self.channels), *activation_argument(self.activation), *changed]


@trainable.register(BatchNorm)
def _(node: BatchNorm) -> dict[str, Any]:
    return {"beta": node.beta, "gamma": node.gamma}


@train.register(BatchNorm)
def _(x: BatchNorm, inputs: Any, key: Any) -> tuple[Any, BatchNorm]:  # noqa: ARG001
    if x.active is False:
        return x(inputs), x
    x._check(inputs)
    mean, variance = statistics(inputs, range(inputs.ndim - 1))
    return x._normalise(inputs, mean, variance), _updated(x, inputs, mean, variance)


def statistics(x: Any, axes: Iterable[int], *, keepdims: bool = False) -> tuple[Any, Any]:
    """Return the mean and the variance over some axes, in float32 or wider."""
    promoted, over = x.astype(_stats_dtype(x)), tuple(axes)
    return promoted.mean(over, keepdims=keepdims), promoted.var(over, keepdims=keepdims)


def normalise(x: Any, mean: Any, variance: Any, eps: float) -> Any:
    """Return an input of mean 0 and variance 1, in its own dtype."""
    promoted, mean, variance = (a.astype(_stats_dtype(x)) for a in (x, mean, variance))
    y = (promoted - mean) * jax.lax.rsqrt(variance + eps)
    return y.astype(_floating_dtype(x))


def _updated(x: BatchNorm, inputs: Any, mean: Any, variance: Any) -> BatchNorm:
    """Return the layer with updated running statistics."""
    if x.mu is None:
        return x
    count = inputs.size // x.channels
    unbiased = variance * (count / max(count - 1, 1))
    mu, sigma2 = (
        running_average(x.mu, mean, x.momentum),
        running_average(x.sigma2, unbiased, x.momentum),
    )
    return replace(x, mu=mu, sigma2=sigma2)


def running_average(old: Any, new: Any, momentum: float) -> Any:
    """Return running statistics updated by those of a batch, which has the weight `momentum`."""
    new = jax.lax.stop_gradient(new).astype(old.dtype)
    return (1 - momentum) * old + momentum * new


def _stats_dtype(x: Any) -> Any:
    half = jnp.finfo(_floating_dtype(x)).bits < 32
    return jnp.dtype(jnp.float32) if half else _floating_dtype(x)


def _floating_dtype(x: Any) -> Any:
    return x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else jnp.dtype(jnp.float32)
