"""Weight initialisers with the signature of `jax.nn.initializers`: `init(key, shape, dtype)`.

Scaled by fan:  glorot_uniform, glorot_normal, kaiming_uniform, kaiming_normal, lecun_normal
Structured:     orthogonal, sparse_init, identity_init
Unscaled:       truncated_normal, ones32, zeros32, rand32, randn32
Helpers:        nfan, rng_from_array

Called with options only, each returns an `Initialiser` with these options. The last two axes of a
shape are in and out, as in JAX, Flax and Keras.
"""

from __future__ import annotations

import math
import secrets
import warnings
from collections.abc import Sequence
from functools import partial
from statistics import NormalDist
from typing import Any

import jax
import jax.numpy as jnp
from jax.nn import initializers
from jax.nn.initializers import variance_scaling

from ._arguments import check_integer
from ._errors import ArgumentError
from ._initialiser import Init, Initialiser, Shape, initialiser, renamed, scaled
from ._public import publish

__all__ = [
    "Init",
    "Initialiser",
    "glorot_normal",
    "glorot_uniform",
    "identity_init",
    "kaiming_normal",
    "kaiming_uniform",
    "lecun_normal",
    "nfan",
    "ones32",
    "orthogonal",
    "rand32",
    "randn32",
    "rng_from_array",
    "sparse_init",
    "truncated_normal",
    "zeros32",
]

glorot_uniform = scaled(
    "glorot_uniform",
    variance_scaling(1, "fan_avg", "uniform"),
    "an array drawn uniformly between -a and a, where a is gain * sqrt(6 / (fan_in + fan_out))",
    "Glorot and Bengio, Understanding the difficulty of training deep feedforward networks, 2010",
)
glorot_normal = scaled(
    "glorot_normal",
    variance_scaling(1, "fan_avg", "normal"),
    "a normal array, not truncated, of standard deviation gain * sqrt(2 / (fan_in + fan_out))",
    "Glorot and Bengio, Understanding the difficulty of training deep feedforward networks, 2010",
)
kaiming_uniform = scaled(
    "kaiming_uniform",
    variance_scaling(2, "fan_in", "uniform"),
    "an array drawn uniformly between -a and a, where a is gain * sqrt(3 / fan_in)",
    "He et al., Delving deep into rectifiers, 2015, doi:10.1109/ICCV.2015.123",
    scale=2,
)
kaiming_normal = scaled(
    "kaiming_normal",
    variance_scaling(2, "fan_in", "normal"),
    "a normal array, not truncated, of standard deviation gain / sqrt(fan_in)",
    "He et al., Delving deep into rectifiers, 2015, doi:10.1109/ICCV.2015.123",
    scale=2,
)
lecun_normal = scaled(
    "lecun_normal",
    variance_scaling(1, "fan_in", "truncated_normal"),
    "a normal array, truncated at two standard deviations, whose own is gain / sqrt(fan_in)",
    "LeCun et al., Efficient BackProp, 1998, doi:10.1007/3-540-49430-8_2",
)
ones32 = renamed("ones32", initializers.ones, "an array of ones", needs_key=False)
zeros32 = renamed("zeros32", initializers.zeros, "an array of zeros", needs_key=False)
rand32 = renamed("rand32", initializers.uniform(1), "an array drawn uniformly from [0, 1)")
randn32 = renamed("randn32", initializers.normal(1), "a standard normal array")


@initialiser
def truncated_normal(
    key: Any,
    shape: Shape,
    dtype: Any,
    *,
    mean: float = 0.0,
    std: float = 1.0,
    lo: float = -2.0,
    hi: float = 2.0,
) -> jax.Array:
    """Return a normal array that is truncated to [lo, hi].

    With `mean=0` it is equal to `jax.nn.initializers.truncated_normal`.

    Args:
      key: a PRNG key.
      shape: any shape.
      dtype: a floating dtype, by default float32.
      mean: the mean before truncation.
      std: the standard deviation before truncation.
      lo: the lower limit.
      hi: the upper limit.

    Raises:
      ArgumentError: `lo` is not less than `hi`, or `std` is not positive.
      UserWarning: the mean is more than two standard deviations outside the limits, so that the
        values are quantised coarsely.

    Example:
      >>> from jtree import init
      >>> round(float(init.truncated_normal(jax.random.key(0), (1000, 1000)).std()), 2)
      0.88

    Source: `truncated_normal` of Flux.jl.
    """
    _check_limits(mean, std, lo, hi)
    # Beyond `far`, the error function is 1 in this dtype, and its inverse is infinite.
    far = -NormalDist().inv_cdf(float(jnp.finfo(dtype).eps) / 4)
    lower, upper = max((lo - mean) / std, -far), min((hi - mean) / std, far)
    drawn = initializers.truncated_normal(std, dtype, lower, upper)(key, shape, dtype)
    return jnp.clip(drawn + jnp.asarray(mean, dtype), lo, hi)


def _check_limits(mean: float, std: float, lo: float, hi: float) -> None:
    if not std > 0:
        raise ArgumentError(f"std: expected a positive number, found {std}")
    if not lo < hi:
        raise ArgumentError(f"lo and hi: expected lo < hi, found {lo} and {hi}")
    if not lo - 2 * std <= mean <= hi + 2 * std:
        warnings.warn(
            f"truncated_normal: the mean {mean} is more than two standard deviations of {std} "
            f"outside [{lo}, {hi}], so the values are quantised coarsely",
            stacklevel=4,
        )


@initialiser
def orthogonal(key: Any, shape: Shape, dtype: Any, *, gain: float = 1.0) -> jax.Array:
    """Return `gain` times a matrix with orthonormal columns, or rows if there are fewer of them.

    All axes but the last are treated as one. Half precision is computed in float32.

    Args:
      key: a PRNG key.
      shape: a shape of two axes or more.
      dtype: a floating or complex dtype, by default float32.
      gain: a factor.

    Raises:
      ArgumentError: the shape has fewer than two axes.

    Example:
      >>> from jtree import init
      >>> w = init.orthogonal(jax.random.key(0), (5, 7))
      >>> bool(jnp.allclose(w @ w.T, jnp.eye(5), atol=1e-5))
      True

    Source: Saxe, McClelland and Ganguli, Exact solutions to the nonlinear dynamics of learning in
    deep linear neural networks, 2014, arXiv:1312.6120.
    """
    if len(shape) < 2:
        raise ArgumentError(f"shape: orthogonal expects two axes or more, found {shape}")
    single = jnp.finfo(dtype).bits < 32  # LAPACK has no half precision
    initializer = initializers.orthogonal(gain)
    return initializer(key, shape, jnp.float32 if single else dtype).astype(dtype)


@initialiser
def sparse_init(
    key: Any, shape: Shape, dtype: Any, *, sparsity: float, std: float = 0.01
) -> jax.Array:
    """Return a normal matrix in which every column has the same number of zeros.

    Args:
      key: a PRNG key.
      shape: `(rows, cols)`, which are in and out for a dense kernel.
      dtype: a floating or complex dtype, by default float32.
      sparsity: the fraction of zeros, clipped to [0, 1]: each column has
        `ceil(sparsity * rows)` of them.
      std: the standard deviation of the other elements, none of which is zero.

    Raises:
      ArgumentError: the shape does not have two axes.

    Example:
      >>> from jtree import init
      >>> w = init.sparse_init(jax.random.key(0), (10, 3), sparsity=0.25)
      >>> (w == 0).sum(axis=0).tolist()
      [3, 3, 3]

    Source: Martens, Deep learning via Hessian-free optimization, ICML 2010.
    """
    if len(shape) != 2:
        raise ArgumentError(f"shape: sparse_init expects two axes, found {shape}")
    rows = jnp.arange(shape[0])[:, None]
    zero = jnp.broadcast_to(rows < math.ceil(min(max(sparsity, 0), 1) * shape[0]), shape)
    value_key, zero_key = jax.random.split(key)
    drawn = initializers.normal(std)(value_key, shape, dtype)
    drawn = jnp.where(drawn == 0, jnp.asarray(std, dtype), drawn)  # one draw in 2**23 is zero
    zero = jax.random.permutation(zero_key, zero, axis=0, independent=True)
    return jnp.where(zero, jnp.zeros((), dtype), drawn)


@partial(initialiser, needs_key=False)
def identity_init(
    key: Any,  # noqa: ARG001
    shape: Shape,
    dtype: Any,
    *,
    gain: float = 1.0,
    shift: int | tuple[int, ...] = 0,
) -> jax.Array:
    """Return the kernel of an identity map: an identity matrix, at the centre of the window.

    A convolution with stride 1 and `padding="SAME"` is then the identity. If in and out differ, the
    extra channels are dropped or zero. A shape of fewer than two axes is a bias, which is zero.

    Args:
      key: not used; it may be None.
      shape: any shape; the last two axes are in and out.
      dtype: any dtype, by default float32.
      gain: the value of the elements that are not zero.
      shift: the shift of `jnp.roll`, one int for the first axis or one for each of the first axes.

    Raises:
      ArgumentError: there are more shifts than axes.

    Example:
      >>> from jtree import init
      >>> init.identity_init(None, (2, 3), shift=(0, 1)).tolist()
      [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]

    Source: `identity_init` of Flux.jl.
    """
    shifts = tuple(shift) if isinstance(shift, Sequence) else (shift,)
    if len(shape) < 2:
        return jnp.zeros(shape, dtype)
    if len(shifts) > len(shape):
        raise ArgumentError(f"shift: expected at most {len(shape)} numbers, found {shifts}")
    centre = tuple((size - 1) // 2 for size in shape[:-2])
    eye = jnp.eye(shape[-2], shape[-1], dtype=dtype) * jnp.asarray(gain, dtype)
    weight = jnp.zeros(shape, dtype).at[centre].set(eye)
    return jnp.roll(weight, shifts, axis=tuple(range(len(shifts))))


def nfan(*shape: int | Sequence[int]) -> tuple[int, int]:
    """Return the fan-in and the fan-out of a kernel.

    Args:
      *shape: the shape of the kernel, `(in, out)` or `(*window, in, out)`, as a tuple or as
        separate ints. A shape of one axis counts as `(1, n)`.

    Returns:
      A tuple `(fan_in, fan_out)`: the number of inputs per output, and of outputs per input.

    Example:
      >>> from jtree import init
      >>> init.nfan((10, 20)), init.nfan((3, 3, 2, 10)), init.nfan(100), init.nfan()
      ((10, 20), (18, 90), (1, 100), (1, 1))

    Source: `nfan` of Flux.jl.
    """
    parts = [part if isinstance(part, Sequence) else [part] for part in shape]
    sizes = [check_integer("shape", size, least=0) for part in parts for size in part]
    *window, n_in, n_out = [1, 1, *sizes]
    return math.prod(window) * n_in, math.prod(window) * n_out


def rng_from_array(x: Any = None) -> jax.Array:
    """Return a new PRNG key from the randomness of the operating system, on the device of `x`.

    Write `jax.random.key(0)` for reproducible values. Under `jit` the key is a constant.

    Args:
      x: an array on one device. For anything else the key is on the default device.

    Example:
      >>> from jtree import init
      >>> init.rng_from_array(jnp.ones(2)).shape
      ()

    Source: `rng_from_array` of Flux.jl.
    """
    key = jax.random.fold_in(jax.random.key(secrets.randbits(32)), secrets.randbits(32))
    concrete = isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer)
    devices = x.devices() if concrete else ()
    return jax.device_put(key, *devices) if len(devices) == 1 else key


publish(globals())
