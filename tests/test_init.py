"""The initialisers: distributions, shapes, and those that are equal to JAX's."""

from __future__ import annotations

import inspect
import math
import pickle
import warnings
from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.nn import initializers
from scipy import stats

import jtree
from jtree import init

KEY = jax.random.key(0)
SCALED = ["glorot_uniform", "glorot_normal", "kaiming_uniform", "kaiming_normal", "lecun_normal"]
RANDOM = [*SCALED, "truncated_normal", "orthogonal", "sparse_init", "rand32", "randn32"]
ALL = [*RANDOM, "identity_init", "ones32", "zeros32"]
SHAPES = [(100_000,), (300, 400), (400, 300), (3, 5, 90, 110), (2, 3, 4, 60, 70)]


def make(name: str) -> Any:
    """Return an initialiser that needs nothing but a key and a shape."""
    return getattr(init, name)(**({"sparsity": 0.5} if name == "sparse_init" else {}))


def check_moments(x: Any, law: Any, most: float = 6.0) -> None:
    """Check mean and variance of independent draws to `most` standard errors, and their range."""
    x = np.asarray(x, np.float64).ravel()
    mean, var, kurtosis = law.stats("mvk")
    assert abs(x.mean() - mean) < most * math.sqrt(var / x.size)
    spread = math.sqrt((kurtosis + 2) / x.size)  # of the variance, over the variance
    assert abs(x.var() / var - 1) < most * spread
    lo, hi = law.support()
    assert lo - 1e-6 <= x.min() <= x.max() <= hi + 1e-6
    # The distance of Kolmogorov and Smirnov: beyond this once in 10**9 draws of the right law.
    assert stats.kstest(x, law.cdf).statistic < math.sqrt(math.log(2e9) / 2 / x.size)


def law_of(name: str, shape: tuple[int, ...], gain: float) -> Any:
    fan_in, fan_out = init.nfan(shape)
    std = gain * math.sqrt(2 / (fan_in + fan_out) if "glorot" in name else 1 / fan_in)
    if "uniform" in name:
        bound = math.sqrt(3) * std
        return stats.uniform(-bound, 2 * bound)
    if name == "lecun_normal":
        return stats.truncnorm(-2, 2, scale=std / stats.truncnorm(-2, 2).std())
    return stats.norm(0, std)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", SCALED)
def test_scaled_draws_have_the_stated_law(name: str, shape: tuple[int, ...]) -> None:
    gain = math.sqrt(2) if "kaiming" in name else 1.0
    check_moments(getattr(init, name)(KEY, shape), law_of(name, shape, gain))
    check_moments(getattr(init, name)(KEY, shape, gain=3), law_of(name, shape, 3))


@pytest.mark.parametrize(
    ("mean", "std", "lo", "hi"),
    [
        *[(0.0, 1.0, -2.0, 2.0), (0, 1, -2, 3), (1, 2, -4.0, 5.0), (0.5, 0.1, 0.4, 2.0)],
        *[(6, 2, -100.0, 100), (-7.0, 10, -100, 100), (1.0, 0.01, -math.inf, math.inf)],
        (3.0, 1.0, 0.0, 2.0),
    ],
)
def test_truncated_normal_has_the_moments_of_scipy(
    mean: float, std: float, lo: float, hi: float
) -> None:
    x = init.truncated_normal(KEY, (100, 100, 40), mean=mean, std=std, lo=lo, hi=hi)
    law = stats.truncnorm((lo - mean) / std, (hi - mean) / std, mean, std)
    assert x.dtype == jnp.float32
    assert ((lo <= x) & (x <= hi)).all()
    check_moments(x, law)
    assert abs(x.min() - law.ppf(1 / x.size)) < 0.5 * std
    assert abs(x.max() - law.ppf(1 - 1 / x.size)) < 0.5 * std


def test_wide_limits_bring_no_outliers() -> None:
    """The error function is 1 in float32 long before the limits, and its inverse infinite there."""
    draw = jax.jit(lambda key: init.truncated_normal(key, (1 << 20,), lo=-1e6, hi=1e6))
    for seed in range(32):  # a lowest uniform in about 2**23: four would be seen in 2**25
        x = draw(jax.random.key(seed))
        assert abs(x).max() < 6


def test_truncated_normal_says_where_it_is_coarse() -> None:
    with pytest.warns(UserWarning, match=r"^truncated_normal: the mean 0 is more than two") as seen:
        init.truncated_normal(KEY, (2,), mean=0, lo=3, hi=4)
    assert seen[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        init.truncated_normal(KEY, (2,), mean=0, lo=2, hi=4)


def test_plain_draws_have_the_stated_law() -> None:
    check_moments(init.rand32(KEY, (400, 500)), stats.uniform())
    check_moments(init.randn32(KEY, (400, 500)), stats.norm())
    assert init.ones32(None, (2, 3)).tolist() == [[1] * 3] * 2
    assert init.zeros32(KEY, (2,), jnp.int8).tolist() == [0, 0]


SAME = {
    "glorot_uniform": initializers.glorot_uniform(),
    "kaiming_uniform": initializers.he_uniform(),
    "lecun_normal": initializers.lecun_normal(),
    "truncated_normal": initializers.truncated_normal(1.0),
    "orthogonal": initializers.orthogonal(),
    "rand32": initializers.uniform(1.0),
    "randn32": initializers.normal(1.0),
    "ones32": initializers.ones,
    "zeros32": initializers.zeros,
}


HALF = [(name, dtype) for name in SAME for dtype in (jnp.float16, jnp.bfloat16)]


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, jnp.float32) for name in SAME] + [x for x in HALF if x[0] != "orthogonal"],
)
def test_these_are_equal_to_those_of_jax(name: str, dtype: Any) -> None:
    for shape in [(20, 30), (3, 3, 8, 4)]:
        ours = getattr(init, name)(KEY, shape, dtype)
        assert ours.dtype == dtype
        assert (ours == SAME[name](KEY, shape, dtype)).all()


def test_these_are_variance_scaling_without_truncation() -> None:
    """JAX's glorot_normal and he_normal are truncated, the original's are not."""
    for name, scale, mode in [("glorot_normal", 1, "fan_avg"), ("kaiming_normal", 2, "fan_in")]:
        ours = getattr(init, name)(KEY, (300, 400))
        assert (ours == initializers.variance_scaling(scale, mode, "normal")(KEY, (300, 400))).all()
        theirs = {"fan_avg": initializers.glorot_normal(), "fan_in": initializers.he_normal()}[mode]
        assert abs(ours).max() > 1.5 * abs(theirs(KEY, (300, 400))).max()


def test_gain_and_std_are_the_options_of_jax() -> None:
    ours = init.orthogonal(KEY, (6, 4), gain=2)
    assert (ours == initializers.orthogonal(2)(KEY, (6, 4))).all()
    ours = init.truncated_normal(KEY, (50,), std=0.5, lo=-0.25, hi=1)
    assert (ours == initializers.truncated_normal(0.5, lower=-0.5, upper=2.0)(KEY, (50,))).all()


def test_the_examples_of_the_original() -> None:
    def most(name: str, *shape: int) -> float:
        x = getattr(init, name)(KEY, shape)
        assert abs(float(x.min() + x.max())) < 0.01  # the range is symmetric
        return float(x.max())

    assert most("glorot_uniform", 10, 100) == pytest.approx(0.233, abs=0.002)
    assert most("glorot_uniform", 100, 10) == pytest.approx(0.233, abs=0.002)
    assert most("glorot_uniform", 100, 100) == pytest.approx(0.173, abs=0.001)
    # Its shapes are (out, in), ours (in, out).
    assert most("kaiming_uniform", 10, 100) == pytest.approx(0.774, abs=0.006)
    assert most("kaiming_uniform", 100, 10) == pytest.approx(0.244, abs=0.002)
    assert most("kaiming_uniform", 100, 100) == pytest.approx(0.245, abs=0.001)

    def std(name: str, *shape: int, **options: float) -> float:
        return float(getattr(init, name)(KEY, shape, **options).std())

    error = 6 / math.sqrt(2 * 10_000)  # six standard errors of a standard deviation
    for shape in [(10, 1000), (1000, 10)]:
        assert std("glorot_normal", *shape) == pytest.approx(0.0445, rel=error)
    assert std("glorot_normal", 1000, 1000) == pytest.approx(0.032, abs=0.0005)
    assert std("glorot_normal", 10, 1000, gain=100) == pytest.approx(4.45, rel=error)
    assert std("kaiming_normal", 1000, 10) == pytest.approx(0.0447, rel=error)
    assert std("kaiming_normal", 10, 1000) == pytest.approx(0.447, rel=error)
    assert std("kaiming_normal", 1000, 1000) == pytest.approx(0.045, abs=0.0005)
    assert std("lecun_normal", 1000, 10) == pytest.approx(0.0316, rel=error)
    assert std("lecun_normal", 10, 1000) == pytest.approx(0.316, rel=error)
    assert std("lecun_normal", 1000, 1000) == pytest.approx(0.032, abs=0.0005)
    x = init.truncated_normal(KEY, (10**6,))
    assert (round(float(x.min()), 3), round(float(x.max()), 3)) == (-2, 2)
    assert round(std("truncated_normal", 10**6, lo=-100, hi=100), 2) == 1


def test_nfan() -> None:
    assert init.nfan() == init.nfan(()) == (1, 1)
    assert init.nfan(100) == init.nfan((100,)) == (1, 100)
    assert init.nfan(10, 20) == init.nfan((10, 20)) == init.nfan([10, 20]) == (10, 20)
    assert init.nfan(2, 30, 40) == (2 * 30, 2 * 40)
    assert init.nfan((3, 3, 2, 10)) == (18, 90)
    assert init.nfan(2, 3, 4, 50, 60) == (24 * 50, 24 * 60)
    assert init.nfan(jnp.ones((4, 5)).shape) == init.nfan(*np.array([4, 5])) == (4, 5)


@pytest.mark.parametrize(("rows", "cols"), [(5, 3), (3, 5), (4, 4)])
def test_orthogonal_is_orthogonal(rows: int, cols: int) -> None:
    w = init.orthogonal(KEY, (rows, cols), gain=2) / 2
    least = w @ w.T if rows < cols else w.T @ w
    assert jnp.allclose(least, jnp.eye(min(rows, cols)), atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 2, 5), (3, 3, 2, 4)], ids=str)
def test_orthogonal_flattens_all_axes_but_the_last(shape: tuple[int, ...]) -> None:
    w = init.orthogonal(KEY, shape).reshape(-1, shape[-1])
    least = w @ w.T if w.shape[0] < w.shape[1] else w.T @ w
    assert jnp.allclose(least, jnp.eye(len(least)), atol=1e-5)


def test_orthogonal_in_half_precision_and_of_vectors() -> None:
    w = init.orthogonal(KEY, (8, 4), jnp.bfloat16)
    assert w.dtype == jnp.bfloat16
    assert jnp.allclose((w.T @ w).astype(jnp.float32), jnp.eye(4), atol=0.05)
    assert init.orthogonal(KEY, (0, 4)).shape == (0, 4)
    with pytest.raises(jtree.ArgumentError) as error:
        init.orthogonal(KEY, (3,))
    assert str(error.value) == "shape: orthogonal expects two axes or more, found (3,)"


@pytest.mark.parametrize(
    ("shape", "sparsity"),
    [
        *[((100, 100), 0.25), ((100, 400), 0.75), ((10, 11), 0.9), ((10, 10), 1 / 5)],
        *[((7, 3), 0.5), ((7, 3), 1e-9), ((30, 4), 0), ((30, 4), 1), ((30, 4), 1.1), ((9, 2), -1)],
    ],
)
def test_every_column_has_as_many_zeros(shape: tuple[int, int], sparsity: float) -> None:
    w = init.sparse_init(KEY, shape, sparsity=sparsity)
    expected = math.ceil(min(max(sparsity, 0), 1) * shape[0])
    assert ((w == 0).sum(axis=0) == expected).all()


def test_zeros_are_anywhere_and_the_others_normal() -> None:
    w = np.asarray(init.sparse_init(KEY, (40, 20_000), sparsity=0.3, std=0.1))
    check_moments(w[w != 0], stats.norm(0, 0.1))
    share, columns = 12 / 40, w.shape[1]
    rows = (w == 0).mean(axis=1)  # each row is zero in a binomial number of columns
    assert abs(rows - share).max() < 6 * math.sqrt(share * (1 - share) / columns)
    both = ((w[0] == 0) & (w[1] == 0)).mean()  # and columns do not share their places
    expected = share * 11 / 39
    assert abs(both - expected) < 6 * math.sqrt(expected * (1 - expected) / columns)


def test_sparse_init_is_for_matrices() -> None:
    for shape in [(3,), (3, 3, 3)]:
        with pytest.raises(jtree.ArgumentError) as error:
            init.sparse_init(KEY, shape, sparsity=0.1)
        assert str(error.value) == f"shape: sparse_init expects two axes, found {shape}"


def test_identity_init_by_its_values() -> None:
    assert init.identity_init(None, (3, 3), gain=3).tolist() == [[3, 0, 0], [0, 3, 0], [0, 0, 3]]
    assert init.identity_init(KEY, (3, 5)).tolist() == jnp.eye(3, 5).tolist()
    assert init.identity_init(None, (4,), shift=1).tolist() == [0] * 4
    assert not init.identity_init(None, (3, 2), shift=1)[0].any()
    w = init.identity_init(None, (3, 3, 2), gain=100)
    assert w[1].tolist() == [[100, 0], [0, 100], [0, 0]]
    assert not w[jnp.array([0, 2])].any()
    assert not init.identity_init(None, (1, 1, 3, 4))[..., -1].any()
    assert not init.identity_init(None, (2, 1, 3, 3))[-1].any()
    assert not init.identity_init(None, (1, 2, 3, 3))[:, -1].any()


@pytest.mark.parametrize("shift", [1, -2, (1,), (0, 1), (1, 2, 3), (0, -1, 2, 1)], ids=str)
def test_shift_rolls_axis_by_axis(shift: Any) -> None:
    shape = (3, 4, 5, 6)
    expected = init.identity_init(None, shape)
    for axis, by in enumerate((shift,) if isinstance(shift, int) else shift):
        expected = jnp.roll(expected, by, axis)
    assert (init.identity_init(None, shape, shift=shift) == expected).all()


def test_more_shifts_than_axes_are_refused() -> None:
    with pytest.raises(jtree.ArgumentError) as error:
        init.identity_init(None, (2, 2), shift=(0, 0, 1))
    assert str(error.value) == "shift: expected at most 2 numbers, found (0, 0, 1)"


def conv(x: jax.Array, w: jax.Array) -> jax.Array:
    space = "DHW"[3 - (x.ndim - 2) :]
    layout = (f"N{space}C", f"{space}IO", f"N{space}C")
    ones = (1,) * len(space)
    return jax.lax.conv_general_dilated(x, w, ones, "SAME", dimension_numbers=layout)


@pytest.mark.parametrize("window", [(1,), (2,), (3,), (4,), (1, 3), (2, 2), (3, 5), (3, 5, 7)])
def test_a_convolution_with_it_is_the_identity(window: tuple[int, ...]) -> None:
    x = jax.random.normal(KEY, (2, *(size + 3 for size in window), 3))
    assert (conv(x, init.identity_init(None, (*window, 3, 3))) == x).all()
    assert (conv(x, init.identity_init(None, (*window, 3, 3), gain=4)) == 4 * x).all()


def test_branches_of_an_inception_block_are_the_identity_together() -> None:
    x = jax.random.normal(KEY, (2, 9, 9, 7))
    parts = [((1, 3, 7, 2), 0), ((3, 5, 7, 3), -2), ((5, 7, 7, 2), -5)]
    weights = [init.identity_init(None, shape, shift=(0, 0, -by, 0)) for shape, by in parts]
    assert (jnp.concatenate([conv(x, w) for w in weights], axis=-1) == x).all()


@pytest.mark.parametrize("name", ALL)
def test_every_initialiser_has_one_signature(name: str) -> None:
    made = make(name)
    assert isinstance(made, init.Initialiser)
    x = made(KEY, (3, 4))
    assert (x.shape, x.dtype) == ((3, 4), jnp.float32)
    assert made(KEY, [3, 4], None).dtype == jnp.float32
    assert made(KEY, (3, 4), jnp.bfloat16).dtype == jnp.bfloat16
    assert made(key=KEY, shape=(3, 4), dtype="float16").dtype == jnp.float16
    assert jnp.allclose(jax.jit(made, static_argnums=1)(KEY, (3, 4)), x, rtol=1e-6)
    assert (made()(KEY, (3, 4)) == x).all()
    other = made(jax.random.key(1), (3, 4))
    assert bool((x == other).all()) == (name not in RANDOM)
    signature = inspect.signature(getattr(init, name))
    assert list(signature.parameters)[:3] == ["key", "shape", "dtype"]


@pytest.mark.parametrize("name", [x for x in ALL if x != "sparse_init"])
def test_every_shape_is_valid(name: str) -> None:
    shapes: list[tuple[int, ...]] = [(3, 4, 5), (0, 3), (3, 0), (2, 0, 3)]
    shapes += [(), (3,), (0,)] if name != "orthogonal" else []
    for shape in shapes:
        assert make(name)(KEY, shape).shape == shape


@pytest.mark.parametrize("name", [*SCALED, "randn32", "orthogonal", "sparse_init"])
def test_complex_arrays_are_drawn_too(name: str) -> None:
    x = make(name)(KEY, (30, 40), jnp.complex64)
    assert x.dtype == jnp.complex64
    assert x.imag.any()


def test_options_are_remembered_and_overridden() -> None:
    for name in ("kaiming_uniform", "kaiming_normal"):
        partial = getattr(init, name)(gain=1e9)
        assert partial(KEY, (8, 8)).max() > 1e9 / 2
        assert partial(KEY, (8, 8), gain=1).max() < 1e9 / 2
        assert partial(gain=1)(KEY, (8, 8)).max() < 1e9 / 2
    sparse = init.sparse_init(sparsity=1)
    assert sparse(KEY, (8, 8)).max() == 0
    assert sparse(KEY, (8, 8), sparsity=0).max() > 0


def test_a_gain_fits_wherever_its_values_do() -> None:
    x = init.glorot_uniform(KEY, (1000, 1000), jnp.float16, gain=1e-3)
    assert (x != 0).mean() > 0.9
    assert jnp.isfinite(init.glorot_uniform(KEY, (8, 8), gain=1e30)).all()
    traced = jax.jit(lambda gain: init.glorot_normal(KEY, (2, 3), gain=gain))
    assert jnp.allclose(traced(2.0), init.glorot_normal(KEY, (2, 3), gain=2))


@pytest.mark.parametrize("name", ALL)
def test_an_initialiser_is_a_value(name: str) -> None:
    made = make(name)
    assert made == make(name)
    assert hash(made) == hash(make(name))
    assert pickle.loads(pickle.dumps(made)) == made


def test_an_initialiser_prints_as_it_was_called() -> None:
    assert repr(init.glorot_uniform(gain=2)) == "glorot_uniform(gain=2)"
    assert repr(init.truncated_normal(std=3, lo=0)) == "truncated_normal(lo=0, std=3)"
    assert repr(init.ones32()) == "ones32()"
    assert init.glorot_uniform(gain=2) != init.glorot_uniform(gain=3)


def test_a_wrong_call_says_what_is_wrong() -> None:
    calls: dict[str, Any] = {
        "glorot_uniform: expected options among ['gain'], found 'gian'; did you mean gain?": (
            lambda: init.glorot_uniform(gian=2)
        ),
        "rand32: expected a key and a shape, found no shape; write rand32(jax.random.key(0), "
        "(2, 3)), or pass only options for an initialiser": lambda: init.rand32((2, 3)),
        "rand32: expected a key and a shape, found no key; write rand32(jax.random.key(0), "
        "(2, 3)), or pass only options for an initialiser": lambda: init.rand32(None, (2, 3)),
        "shape: expected a tuple of ints, found 3": lambda: init.rand32(KEY, 3),
        "dtype: expected a floating or complex dtype, found int32": (
            lambda: init.rand32(KEY, (3,), jnp.int32)
        ),
        "std: expected a positive number, found 0": (
            lambda: init.truncated_normal(KEY, (3,), std=0)
        ),
        "lo and hi: expected lo < hi, found 1 and 1": (
            lambda: init.truncated_normal(KEY, (3,), lo=1, hi=1)
        ),
    }
    for message, call in calls.items():
        with pytest.raises(jtree.ArgumentError) as error:
            call()
        assert str(error.value) == message


def test_flax_and_equinox_take_them_as_they_are() -> None:
    first = init.glorot_normal(gain=2)
    linear = nnx.Linear(3, 4, kernel_init=first, bias_init=init.ones32, rngs=nnx.Rngs(0))
    assert linear.kernel.shape == (3, 4)
    assert (linear.bias[...] == 1).all()
    kernel = nnx.Conv(3, 3, (3, 3), kernel_init=init.identity_init, rngs=nnx.Rngs(0))
    x = jax.random.normal(KEY, (1, 5, 5, 3))
    assert (kernel(x) == x).all()
    variables = nn.Dense(4, kernel_init=first).init(KEY, jnp.ones((1, 3)))
    assert variables["params"]["kernel"].shape == (3, 4)
    layer = eqx.nn.Linear(3, 4, key=KEY)
    layer = eqx.tree_at(lambda x: x.weight, layer, first(KEY, (3, 4)).T)
    assert layer(jnp.ones(3)).shape == (4,)


def test_rng_from_array_is_a_new_key_on_the_device_of_the_array() -> None:
    x = jax.device_put(jnp.ones(2), jax.devices()[-1])
    keys = [init.rng_from_array(x), init.rng_from_array(), init.rng_from_array(np.ones(2))]
    assert all(jnp.issubdtype(key.dtype, jax.dtypes.prng_key) for key in keys)
    assert keys[0].devices() == x.devices()
    bits = {np.asarray(jax.random.key_data(init.rng_from_array(x))).tobytes() for _ in range(50)}
    assert len(bits) == 50


def test_rng_from_array_is_not_differentiated() -> None:
    slope = jax.grad(lambda x: (jax.random.uniform(init.rng_from_array(x)) * x).sum())(jnp.ones(2))
    assert ((slope >= 0) & (slope < 1)).all()
    assert jax.jit(lambda x: jax.random.uniform(init.rng_from_array(x)))(jnp.ones(2)).shape == ()


def test_the_constants_of_a_gradient_are_constants() -> None:
    for name in ALL:
        slope = jax.grad(lambda x, name=name: (x * make(name)(KEY, (3, 4))).sum())(5.0)
        assert slope == make(name)(KEY, (3, 4)).sum()
