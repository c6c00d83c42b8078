"""The functions of Julia that Flux's layers hold, as functions of JAX."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from jtree.layers import (
    flatten,
    flatten_channels_first,
    global_max_pool,
    global_mean_pool,
    identity,
)

Function: TypeAlias = Callable[..., Any]


def find_function(name: str) -> Function | None:
    """Return the function of JAX for an elementwise function of Julia, or None if it is unknown.

    Functions without a module are those of a user's script, whatever their names.

    >>> find_function("NNlib.relu").__name__, find_function("NNlib.σ").__name__
    ('relu', 'sigmoid')
    >>> find_function("relu") is None
    True
    """
    module, _, last = name.rpartition(".")
    return ACTIVATIONS.get(last.removeprefix("#")) if module else None


def find_connection(name: str) -> Function | None:
    """Return the function of JAX that combines the outputs of layers, or None if it is unknown."""
    module, _, last = name.rpartition(".")
    return CONNECTIONS.get(last.removeprefix("#")) if module else None


def tanhshrink(x: Any) -> Any:
    """Return `x - tanh(x)`."""
    return x - jnp.tanh(x)


def softshrink(x: Any) -> Any:
    """Return `x` moved by 0.5 towards zero."""
    return jnp.sign(x) * jnp.maximum(jnp.abs(x) - 0.5, 0)


def trelu(x: Any) -> Any:
    """Return `x` where it is greater than 1, and zeros."""
    return jnp.where(x > 1, x, 0)


def lisht(x: Any) -> Any:
    """Return `x * tanh(x)`."""
    return x * jnp.tanh(x)


def logcosh(x: Any) -> Any:
    """Return the logarithm of `cosh(x)`."""
    return x + jax.nn.softplus(-2 * x) - jnp.log(2.0).astype(x.dtype)


def quick_gelu(x: Any) -> Any:
    """Return `x * sigmoid(1.702 * x)`."""
    return x * jax.nn.sigmoid(1.702 * x)


def add(*xs: Any) -> Any:
    """Return the sum of the inputs."""
    return reduce(jnp.add, xs)


def multiply(*xs: Any) -> Any:
    """Return the product of the inputs."""
    return reduce(jnp.multiply, xs)


def maximum(*xs: Any) -> Any:
    """Return the elementwise maximum of the inputs."""
    return reduce(jnp.maximum, xs)


def minimum(*xs: Any) -> Any:
    """Return the elementwise minimum of the inputs."""
    return reduce(jnp.minimum, xs)


def concatenate_features(*xs: Any) -> Any:
    """Return the inputs one after another along their last axis."""
    return jnp.concatenate(xs, -1)


def concatenate_width(*xs: Any) -> Any:
    """Return images beside each other along their width, the first axis of Julia."""
    return jnp.concatenate(xs, -2)


def flatten_image(x: Any) -> Any:
    """Return the features of images in Julia's order; those of 3 axes are without channels."""
    return flatten_channels_first(x) if x.ndim > 3 else flatten(x)


def as_tuple(*xs: Any) -> Any:
    """Return the inputs as a tuple."""
    return xs


ACTIVATIONS: dict[str, Function] = {
    "identity": identity,
    **dict.fromkeys(("tanh", "tanh_fast"), jnp.tanh),
    **dict.fromkeys(("σ", "sigmoid", "sigmoid_fast"), jax.nn.sigmoid),
    **dict.fromkeys(("logσ", "logsigmoid"), jax.nn.log_sigmoid),
    **dict.fromkeys(("hardσ", "hardsigmoid"), jax.nn.hard_sigmoid),
    **dict.fromkeys(("gelu", "gelu_tanh"), jax.nn.gelu),
    "gelu_erf": partial(jax.nn.gelu, approximate=False),
    "gelu_sigmoid": quick_gelu,
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "leakyrelu": jax.nn.leaky_relu,
    "elu": jax.nn.elu,
    "celu": jax.nn.celu,
    "selu": jax.nn.selu,
    "swish": jax.nn.silu,
    "hardswish": jax.nn.hard_swish,
    "hardtanh": jax.nn.hard_tanh,
    "mish": jax.nn.mish,
    "lisht": lisht,
    "logcosh": logcosh,
    "softplus": jax.nn.softplus,
    "softsign": jax.nn.soft_sign,
    "softshrink": softshrink,
    "tanhshrink": tanhshrink,
    "trelu": trelu,
    "softmax": jax.nn.softmax,
    "logsoftmax": jax.nn.log_softmax,
    "GlobalMaxPool": global_max_pool,
    "GlobalMeanPool": global_mean_pool,
    **{name: getattr(jnp, name) for name in ("exp", "log", "sqrt", "abs", "sin", "cos", "sign")},
    "abs2": jnp.square,
}
CONNECTIONS: dict[str, Function] = {
    "+": add,
    "*": multiply,
    "-": jnp.subtract,
    "max": maximum,
    "min": minimum,
    "tuple": as_tuple,
    "vcat": concatenate_features,
    "cat_channels": concatenate_features,
}
