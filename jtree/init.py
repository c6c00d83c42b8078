"""Weight initialisers with the signature of `jax.nn.initializers`: `init(key, shape, dtype)`.

By the fans:     glorot_uniform, glorot_normal, kaiming_uniform, kaiming_normal, lecun_normal
By structure:    orthogonal, sparse_init, identity_init
Plain:           truncated_normal, ones32, zeros32, rand32, randn32
Beside them:     nfan, rng_from_array

Called with options alone, each returns an `Initialiser` that remembers them. The last two axes of a
shape are in and out, as in JAX, Flax and Keras.
"""

from __future__ import annotations

import functools
import inspect
import math
import secrets
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal, Protocol, cast, overload

import jax
import jax.numpy as jnp
from jax.nn import initializers
from jax.typing import DTypeLike

from ._errors import ArgumentError, ArgumentTypeError, did_you_mean

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

Shape = tuple[int, ...]


class Init(Protocol):
    """What every function here can be called with: a key and a shape, or options alone."""

    @overload
    def __call__(self, /, **options: Any) -> Initialiser: ...
    @overload
    def __call__(
        self, key: Any, shape: Sequence[int], dtype: DTypeLike | None = None, /, **options: Any
    ) -> jax.Array: ...


@dataclass(frozen=True, repr=False)
class Initialiser:
    """An initialiser with its options, which a call may override. It can be hashed and pickled.

    Attributes:
      init: the function of `jtree.init` that draws.
      options: (name, value) pairs, sorted by name.

    Example:
      >>> from jtree import init
      >>> twice = init.identity_init(gain=2)
      >>> twice
      identity_init(gain=2)
      >>> twice(None, (2, 2)).tolist(), twice(None, (1, 1), jnp.float16, gain=3)
      ([[2.0, 0.0], [0.0, 2.0]], Array([[3.]], dtype=float16))
    """

    init: Callable[..., Any]
    options: tuple[tuple[str, Any], ...] = ()

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Return an array, given `(key, shape)` or `(key, shape, dtype)`; else an initialiser."""
        return self.init(*args, **(dict(self.options) | options))

    def __repr__(self) -> str:
        name = getattr(self.init, "__name__", repr(self.init))
        return f"{name}({', '.join(f'{option}={value!r}' for option, value in self.options)})"


def _initialiser(draw: Callable[..., jax.Array], *, keyless: bool = False) -> Init:
    """Return `draw` with its arguments checked, which without a key and a shape is remembered."""
    parameters = inspect.signature(draw).parameters.values()
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]

    @functools.wraps(draw)
    def init(
        key: Any = None, shape: Any = None, dtype: DTypeLike | None = None, **options: Any
    ) -> jax.Array | Initialiser:
        for name in options:
            _check_option(draw.__name__, name, known)
        if key is None and shape is None and dtype is None:
            return Initialiser(init, tuple(sorted(options.items())))
        _check_call(draw.__name__, key, shape, keyless)
        dtype = jnp.dtype(jnp.float32 if dtype is None else dtype)
        if not keyless and not jnp.issubdtype(dtype, jnp.inexact):
            raise ArgumentError(f"dtype: expected a floating or complex dtype, found {dtype}")
        return draw(key, tuple(shape), dtype, **options)

    return cast("Init", init)


def _check_option(function: str, option: str, known: Sequence[str]) -> None:
    if option not in known:
        raise ArgumentTypeError(
            f"{function}: expected options among {list(known)}, found {option!r}"
            f"{did_you_mean(option, known)}"
        )


def _check_call(function: str, key: Any, shape: Any, keyless: bool) -> None:
    if shape is None or (key is None and not keyless):
        missing = "shape" if shape is None else "key"
        raise ArgumentTypeError(
            f"{function}: expected a key and a shape, found no {missing}; write "
            f"{function}(jax.random.key(0), (2, 3)), or give options alone for an initialiser"
        )
    if not isinstance(shape, Sequence):
        raise ArgumentTypeError(f"shape: expected a tuple of ints, found {shape!r}")


_fixed = functools.partial(_initialiser, keyless=True)


@_initialiser
def glorot_uniform(key: Any, shape: Shape, dtype: Any, *, gain: float = 1.0) -> jax.Array:
    """Return numbers drawn uniformly up to `gain * sqrt(6 / (fan_in + fan_out))`, either side of 0.

    With `gain=1` and two dimensions or more, it is `jax.nn.initializers.glorot_uniform`.

    Args:
      key: a PRNG key.
      shape: the last two axes are in and out; see `nfan` for fewer.
      dtype: floating or complex, by default float32.
      gain: a factor.

    Example:
      >>> from jtree import init
      >>> float(abs(init.glorot_uniform(jax.random.key(0), (100, 100))).max()) < 0.1733
      True

    Source: Glorot and Bengio, Understanding the difficulty of training deep feedforward neural
    networks, 2010.
    """
    return _scaled(key, shape, dtype, 1.0, "fan_avg", "uniform", gain)


@_initialiser
def glorot_normal(key: Any, shape: Shape, dtype: Any, *, gain: float = 1.0) -> jax.Array:
    """Return normal numbers of standard deviation `gain * sqrt(2 / (fan_in + fan_out))`.

    These are not truncated, those of `jax.nn.initializers.glorot_normal` are.

    Args:
      key: a PRNG key.
      shape: the last two axes are in and out; see `nfan` for fewer.
      dtype: floating or complex, by default float32.
      gain: a factor.

    Example:
      >>> from jtree import init
      >>> round(float(init.glorot_normal(jax.random.key(0), (1000, 1000)).std()), 3)
      0.032

    Source: as for `glorot_uniform`.
    """
    return _scaled(key, shape, dtype, 1.0, "fan_avg", "normal", gain)


@_initialiser
def kaiming_uniform(key: Any, shape: Shape, dtype: Any, *, gain: float = math.sqrt(2)) -> jax.Array:
    """Return numbers drawn uniformly up to `gain * sqrt(3 / fan_in)`, either side of 0.

    With the default gain and two dimensions or more, it is `jax.nn.initializers.he_uniform`.

    Args:
      key: a PRNG key.
      shape: the last two axes are in and out; see `nfan` for fewer.
      dtype: floating or complex, by default float32.
      gain: a factor, by default sqrt(2), which suits relu.

    Example:
      >>> from jtree import init
      >>> float(abs(init.kaiming_uniform(jax.random.key(0), (100, 10))).max()) < 0.245
      True

    Source: He et al., Delving deep into rectifiers, 2015, doi:10.1109/ICCV.2015.123.
    """
    return _scaled(key, shape, dtype, 2.0, "fan_in", "uniform", gain)


@_initialiser
def kaiming_normal(key: Any, shape: Shape, dtype: Any, *, gain: float = math.sqrt(2)) -> jax.Array:
    """Return normal numbers of standard deviation `gain / sqrt(fan_in)`.

    These are not truncated, those of `jax.nn.initializers.he_normal` are.

    Args:
      key: a PRNG key.
      shape: the last two axes are in and out; see `nfan` for fewer.
      dtype: floating or complex, by default float32.
      gain: a factor, by default sqrt(2), which suits relu.

    Example:
      >>> from jtree import init
      >>> round(float(init.kaiming_normal(jax.random.key(0), (1000, 1000)).std()), 3)
      0.045

    Source: as for `kaiming_uniform`.
    """
    return _scaled(key, shape, dtype, 2.0, "fan_in", "normal", gain)


@_initialiser
def lecun_normal(key: Any, shape: Shape, dtype: Any, *, gain: float = 1.0) -> jax.Array:
    """Return truncated normal numbers of standard deviation `gain / sqrt(fan_in)`.

    They are cut at two standard deviations of the normal before that, and scaled so that what is
    left has the standard deviation stated. With `gain=1` and two dimensions or more, it is
    `jax.nn.initializers.lecun_normal`.

    Args:
      key: a PRNG key.
      shape: the last two axes are in and out; see `nfan` for fewer.
      dtype: floating or complex, by default float32.
      gain: a factor.

    Example:
      >>> from jtree import init
      >>> round(float(init.lecun_normal(jax.random.key(0), (1000, 1000)).std()), 3)
      0.032

    Source: LeCun et al., Efficient BackProp, 1998, doi:10.1007/3-540-49430-8_2.
    """
    return _scaled(key, shape, dtype, 1.0, "fan_in", "truncated_normal", gain)


def _scaled(
    key: Any,
    shape: Shape,
    dtype: Any,
    scale: float,
    mode: Literal["fan_in", "fan_avg"],
    distribution: Literal["uniform", "normal", "truncated_normal"],
    gain: float,
) -> jax.Array:
    if not math.prod(shape):
        return jnp.zeros(shape, dtype)  # a fan may be zero
    matrix = (1,) * (2 - len(shape)) + shape  # JAX knows no fans below two dimensions
    drawn = initializers.variance_scaling(scale, mode, distribution)(key, matrix, dtype)
    # The gain is a factor and no part of `scale`: its square may not fit in a small dtype.
    return (drawn * jnp.asarray(gain / math.sqrt(scale), dtype)).reshape(shape)


@_initialiser
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
    """Return numbers of the normal distribution N(mean, std), those outside [lo, hi] left out.

    With `mean=0`, it is `jax.nn.initializers.truncated_normal` of `std` between `lo / std` and
    `hi / std`.

    Args:
      key: a PRNG key.
      shape: of any number of axes.
      dtype: floating, by default float32.
      mean: of the normal, before it is truncated.
      std: its standard deviation.
      lo: the least number.
      hi: the greatest number.

    Returns:
      An array. There is a warning where the mean is more than two standard deviations outside the
      limits: the numbers are then from a coarse grid.

    Raises:
      ArgumentError: `lo` is not less than `hi`, or `std` is not positive.

    Example:
      >>> from jtree import init
      >>> round(float(init.truncated_normal(jax.random.key(0), (1000, 1000)).std()), 2)
      0.88

    Source: `truncated_normal` of Flux.jl.
    """
    _check_limits(mean, std, lo, hi)
    # Beyond `far` the dtype's error function is one, and its inverse infinite.
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
            f"outside [{lo}, {hi}], so the numbers are from a coarse grid",
            stacklevel=4,
        )


@_initialiser
def orthogonal(key: Any, shape: Shape, dtype: Any, *, gain: float = 1.0) -> jax.Array:
    """Return a matrix with orthonormal columns, or rows if these are fewer, times `gain`.

    More than two dimensions are those of a matrix with all axes but the last flattened. It is
    `jax.nn.initializers.orthogonal(gain)`; half precision is computed in float32.

    Args:
      key: a PRNG key.
      shape: of two axes or more.
      dtype: floating or complex, by default float32.
      gain: a factor.

    Raises:
      ArgumentError: the shape has less than two axes.

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
    wide = jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype  # LAPACK has no half precision
    return initializers.orthogonal(gain)(key, shape, wide).astype(dtype)


@_initialiser
def sparse_init(
    key: Any, shape: Shape, dtype: Any, *, sparsity: float, std: float = 0.01
) -> jax.Array:
    """Return normal numbers of standard deviation `std` with as many zeros in every column.

    Args:
      key: a PRNG key.
      shape: `(rows, cols)`, which for a dense kernel are in and out.
      dtype: floating or complex, by default float32.
      sparsity: the part that is zero, clipped to [0, 1]: `ceil(sparsity * rows)` in each column.
      std: the standard deviation of the others, none of which is zero.

    Raises:
      ArgumentError: the shape has not two axes.

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
    for_numbers, for_places = jax.random.split(key)
    drawn = initializers.normal(std)(for_numbers, shape, dtype)
    drawn = jnp.where(drawn == 0, jnp.asarray(std, dtype), drawn)  # a draw in 2**23 is zero
    zero = jax.random.permutation(for_places, zero, axis=0, independent=True)
    return jnp.where(zero, jnp.zeros((), dtype), drawn)


@_fixed
def identity_init(
    key: Any,  # noqa: ARG001
    shape: Shape,
    dtype: Any,
    *,
    gain: float = 1.0,
    shift: int | tuple[int, ...] = 0,
) -> jax.Array:
    """Return what maps an input to itself: an identity matrix, or a kernel of its centre taps.

    A convolution with stride 1 and `padding="SAME"` is then the identity. Where in and out differ,
    what is over is dropped or zero. One axis or none is a bias: zeros.

    Args:
      key: not used, and may be None.
      shape: the last two axes are in and out.
      dtype: by default float32.
      gain: what is there instead of 1.
      shift: how far to roll, as in `jnp.roll`: the first axis, or one number for each of the first
        axes.

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


@_fixed
def ones32(key: Any, shape: Shape, dtype: Any) -> jax.Array:
    """Return ones, of float32 unless told otherwise: `jax.nn.initializers.ones`.

    >>> from jtree import init
    >>> init.ones32(None, (2,))
    Array([1., 1.], dtype=float32)
    """
    return initializers.ones(key, shape, dtype)


@_fixed
def zeros32(key: Any, shape: Shape, dtype: Any) -> jax.Array:
    """Return zeros, of float32 unless told otherwise: `jax.nn.initializers.zeros`.

    >>> from jtree import init
    >>> init.zeros32(None, (2,))
    Array([0., 0.], dtype=float32)
    """
    return initializers.zeros(key, shape, dtype)


@_initialiser
def rand32(key: Any, shape: Shape, dtype: Any) -> jax.Array:
    """Return numbers drawn uniformly from [0, 1): `jax.nn.initializers.uniform(1)`.

    >>> from jtree import init
    >>> init.rand32(jax.random.key(0), (2, 3)).shape
    (2, 3)
    """
    return initializers.uniform(1.0)(key, shape, dtype)


@_initialiser
def randn32(key: Any, shape: Shape, dtype: Any) -> jax.Array:
    """Return numbers of the standard normal distribution: `jax.nn.initializers.normal(1)`.

    >>> from jtree import init
    >>> init.randn32(jax.random.key(0), (2, 3)).shape
    (2, 3)
    """
    return initializers.normal(1.0)(key, shape, dtype)


def nfan(*shape: int | Sequence[int]) -> tuple[int, int]:
    """Return the fan-in and the fan-out of a kernel: how many inputs an output has, and vice versa.

    Args:
      *shape: the shape of a kernel, `(in, out)` or `(*window, in, out)`, as a tuple or as numbers.
        A vector counts as `(1, n)`.

    Returns:
      A tuple `(fan_in, fan_out)`.

    Example:
      >>> from jtree import init
      >>> init.nfan((10, 20)), init.nfan((3, 3, 2, 10)), init.nfan(100), init.nfan()
      ((10, 20), (18, 90), (1, 100), (1, 1))

    Source: `nfan` of Flux.jl.
    """
    sizes = [size for part in shape for size in (part if isinstance(part, Sequence) else [part])]
    *window, n_in, n_out = [1, 1, *sizes]
    return math.prod(window) * n_in, math.prod(window) * n_out


def rng_from_array(x: Any = None) -> jax.Array:
    """Return a new PRNG key, on the device of `x`, from the randomness of the operating system.

    Two calls return two keys; for numbers that can be had again, write `jax.random.key(0)`. Under
    `jit` the key is a constant, chosen when the function is traced.

    Args:
      x: an array on one device. For anything else the key is where JAX puts new arrays.

    Returns:
      A key as `jax.random.key` makes it.

    Example:
      >>> from jtree import init
      >>> init.rng_from_array(jnp.ones(2)).shape
      ()

    Source: `rng_from_array` of Flux.jl.
    """
    key = jax.random.fold_in(jax.random.key(secrets.randbits(32)), secrets.randbits(32))
    devices = x.devices() if isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer) else ()
    return jax.device_put(key, *devices) if len(devices) == 1 else key
