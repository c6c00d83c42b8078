"""Instance normalisation: of every channel of every example by itself."""

from __future__ import annotations

from typing import Any

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
from ._norm import normalise, running_average, statistics


@layer("beta", "gamma", "mu", "sigma2")
class InstanceNorm(Layer):
    """Instance normalisation: over the space of every channel of every example.

    With `track_stats` it keeps running statistics as `BatchNorm` does: in training
    (`jtree.layers.forward`) every example is normalised by itself and the statistics are updated,
    in inference all examples are normalised by the running statistics `mu` and `sigma2`, which are
    not parameters. For half precision, statistics are computed in float32.

    Args:
      channels: the size of the last axis.
      activation: a function of the output.
      affine: whether to learn a shift `beta` and a scale `gamma`. If False they are None.
      track_stats: whether to track running statistics. If False they are None.
      eps: added to the variance.
      momentum: the weight of the batch in the running statistics.
      active: whether to normalise every example by itself although `track_stats` is set. True means
        always, False never, and None in training.

    Example:
      >>> layer = InstanceNorm(1)
      >>> layer
      InstanceNorm(1)
      >>> layer(jnp.array([[[1.0], [3.0]], [[10.0], [30.0]]])).round(3).squeeze(-1).tolist()
      [[-1.0, 1.0], [-1.0, 1.0]]

    Source: Ulyanov et al., 2016, https://arxiv.org/abs/1607.08022; `InstanceNorm` of Flux.jl.
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
        affine: bool = False,
        track_stats: bool = False,
        eps: float = 1e-5,
        momentum: float = 0.1,
        active: bool | None = None,
    ) -> None:
        check_integer("InstanceNorm: channels", channels, least=0)
        zeros, ones = jnp.zeros(channels, jnp.float32), jnp.ones(channels, jnp.float32)
        set_fields(
            self,
            beta=zeros if check_flag("affine", affine) else None,
            gamma=ones if affine else None,
            mu=zeros if check_flag("track_stats", track_stats) else None,
            sigma2=ones if track_stats else None,
            activation=activation,
            channels=channels,
            affine=affine,
            track_stats=track_stats,
            eps=eps,
            momentum=momentum,
            active=active,
        )._validate()

    def _validate(self) -> None:
        owner, shape = f"InstanceNorm({self.channels})", (self.channels,)
        check_function(owner, "activation", self.activation)
        for name in ("beta", "gamma"):
            check_present(owner, name, getattr(self, name), shape if self.affine else None)
        for name in ("mu", "sigma2"):
            check_present(owner, name, getattr(self, name), shape if self.track_stats else None)

    def __call__(self, x: Any, /) -> Any:
        """Return the output for an input of shape (batch, *space, channels)."""
        self._check(x)
        if self.active or self.mu is None:
            return self._normalise(x, *_statistics(x))
        return self._normalise(x, self.mu, self.sigma2)

    def _check(self, x: Any) -> None:
        fits = isarray(x) and x.ndim > 2 and x.shape[-1] == self.channels
        check_input(self, fits, f"(batch, *space, {self.channels} channels)", x)

    def _normalise(self, x: Any, mean: Any, variance: Any) -> Any:
        y = normalise(x, mean, variance, self.eps)
        return self.activation(y if self.gamma is None else y * self.gamma + self.beta)

    def _arguments(self) -> list[str]:
        defaults = {"affine": False, "track_stats": False, "active": None}
        changed = changed_arguments({name: getattr(self, name) for name in defaults}, defaults)
        return [str(self.channels), *activation_argument(self.activation), *changed]


@trainable.register(InstanceNorm)
def _(node: InstanceNorm) -> dict[str, Any]:
    return {"beta": node.beta, "gamma": node.gamma}


@train.register(InstanceNorm)
def _(x: InstanceNorm, inputs: Any, key: Any) -> tuple[Any, InstanceNorm]:  # noqa: ARG001
    if x.active is False:
        return x(inputs), x
    x._check(inputs)
    mean, variance = _statistics(inputs)
    return x._normalise(inputs, mean, variance), _updated(x, inputs, mean, variance)


def _statistics(x: Any) -> tuple[Any, Any]:
    """Return the mean and the variance of every channel of every example."""
    return statistics(x, range(1, x.ndim - 1), keepdims=True)


def _updated(x: InstanceNorm, inputs: Any, mean: Any, variance: Any) -> InstanceNorm:
    """Return the layer with running statistics updated by the means over the batch."""
    if x.mu is None:
        return x
    count = inputs.size // max(x.channels * inputs.shape[0], 1)
    unbiased = variance * (count / max(count - 1, 1))
    mean, unbiased = (a.reshape(-1, x.channels).mean(0) for a in (mean, unbiased))
    mu = running_average(x.mu, mean, x.momentum)
    return replace(x, mu=mu, sigma2=running_average(x.sigma2, unbiased, x.momentum))
