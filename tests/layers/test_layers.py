"""The reference layers: outputs in training and in inference, and invalid inputs."""

from __future__ import annotations

import copy
import pickle
from functools import partial
from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jtree
from jtree.layers import (
    BatchNorm,
    Chain,
    Conv,
    Dense,
    Dropout,
    MaxPool,
    MeanPool,
    Parallel,
    SkipConnection,
    flatten,
    forward,
    testmode,
    trainmode,
)

from ..same import close, same

KEY = jax.random.key(0)
relu = jax.nn.relu


def network() -> Chain:
    return Chain(Dense(2, 3, key=KEY), relu, BatchNorm(3), Dropout(0.5), Dense(3, 1, key=KEY))


def rows(*shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(7), shape)


def test_a_chain_calls_its_layers_in_turn() -> None:
    model, x = Chain(Dense(10, 5, jnp.tanh, key=KEY), Dense(5, 2, key=KEY)), rows(32, 10)
    close(model(x), model[1](model[0](x)))
    named = Chain(enc=Chain(flatten, Dense(10, 5, jnp.tanh, key=KEY)), dec=Dense(5, 2, key=KEY))
    close(named(x), named["dec"](named["enc"](x)))
    assert Chain()(5) == 5
    assert Chain(lambda x: x)(1, 2) == (1, 2)


def test_a_chain_is_indexed_by_position_name_and_slices() -> None:
    model = network()
    assert (len(model), model[1], model[-1]) == (5, relu, model.layers[4])
    assert [type(x) for x in model[2:]] == [BatchNorm, Dropout, Dense]
    assert list(model)[1] is relu
    named = Chain(z=relu, a=Dense(2, 1, key=KEY))
    assert (named["z"], named[0], named[1:].keys()) == (relu, relu, ["a"])
    with pytest.raises(KeyError, match=r"has no layer 'b'; its layers are \['z', 'a'\]"):
        named["b"]


def test_names_keep_their_order_under_jit_and_in_states() -> None:
    model = Chain(z=Dense(2, 3, key=KEY), a=Dense(3, 1, key=KEY))
    again = jax.jit(lambda m: m)(model)
    assert again.keys() == list(jtree.state(again)["layers"]) == ["z", "a"]
    assert again(rows(4, 2)).shape == (4, 1)


def test_functions_have_an_index_and_are_not_leaves() -> None:
    model = network()
    assert list(jtree.trainables(model))[-1] == "layers/4/bias"
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(model))
    state = jtree.state(model)
    assert isinstance(state["layers"], tuple)
    assert state["layers"][1] == ()
    assert state["layers"][0]["activation"] == ()
    other = Chain(Dense(2, 3, key=KEY), jnp.tanh, Dense(3, 1, key=KEY))
    assert len(jtree.state(other)["layers"]) == 3
    assert relu not in jtree.modules(model)
    assert len(jtree.modules(model)) == 6


def test_a_model_can_be_jitted_and_passed_through_jit() -> None:
    model, x = network(), rows(4, 2)
    close(jax.jit(model)(x), model(x))
    traces = []
    apply = jax.jit(lambda m, x: (traces.append(1), m(x))[1])
    close(apply(model, x), model(x))
    apply(network(), x)
    assert len(traces) == 1


@pytest.mark.parametrize("make", [partial(Dense, 2, 3, key=KEY), partial(Conv, 1, 2, 3)])
def test_no_bias_stays_no_bias_through_jit(make: Any) -> None:
    layer = make(bias=False)
    assert jax.eval_shape(lambda: layer).bias is False
    model = Dense(2, 3, key=KEY, bias=False)
    done = jax.jit(lambda m: m)(model)
    assert done.bias is False
    assert same(done, model)
    seen = []
    jax.jit(lambda m: seen.append(m.bias))(model)
    assert seen == [False]
    masks = jax.tree.map(lambda x: jnp.any(jnp.asarray(x) == 0), Dense(2, 3, key=KEY))
    assert isinstance(masks.bias, jax.Array)


@pytest.mark.parametrize("bias", [True, False])
def test_an_ensemble_is_created_and_called_by_vmap(bias: bool) -> None:
    keys = jax.random.split(KEY, 5)
    many = jax.vmap(lambda key: Dense(2, 3, key=key, bias=bias))(keys)
    y = jax.vmap(lambda m, x: m(x), in_axes=(0, None))(many, rows(4, 2))
    close(y[1], Dense(2, 3, key=keys[1], bias=bias)(rows(4, 2)))


def test_gradients_nested_and_flat_agree() -> None:
    model, x = Chain(Dense(2, 3, jnp.tanh, key=KEY), BatchNorm(3), Dense(3, 1, key=KEY)), rows(5, 2)
    nested = jax.grad(lambda m: (m(x) ** 2).sum())(model)
    flat, re = jtree.destructure(model)
    close(jax.grad(lambda v: (re(v)(x) ** 2).sum())(flat), re.ravel_grad(nested))


def test_modules_of_the_originals_example() -> None:
    model = Chain(
        Chain(Dense(784, 64, key=KEY), BatchNorm(64, relu)), Dense(64, 10, key=jax.random.key(1))
    )
    names = [type(x).__name__ for x in jtree.modules(model)]
    assert names == ["Chain", "tuple", "Chain", "tuple", "Dense", "BatchNorm", "Dense"]

    def l2(m: Any) -> Any:
        return sum((x.weight**2).sum() for x in jtree.modules(m) if isinstance(x, Dense))

    grads = jax.jit(jax.grad(l2))(model)
    close(grads[1].weight, 2 * model[1].weight)
    assert not grads[0][1].gamma.any()


def test_parallel_takes_one_input_or_one_for_each_layer() -> None:
    model = Parallel(lambda x, y: x - y, lambda x: 10 * x, lambda x: x)
    assert model(3) == 27
    assert model(3, 1) == model((3, 1)) == Chain(model)(3, 1) == 29
    assert Parallel(lambda *ys: ys, lambda x: x + 1)(1, 2, 3) == (2, 3, 4)
    assert Parallel(lambda **_: 0, a=relu)["a"] is relu
    with pytest.raises(jtree.ModelError, match="expects one input or 2 inputs, found 3"):
        model(1, 2, 3)
    with pytest.raises(jtree.ArgumentError, match="expects at least one layer"):
        Parallel(jnp.add)


def test_a_skip_connection_combines_output_and_input() -> None:
    layer = Dense(3, 3, key=KEY)
    model, x = SkipConnection(layer, lambda y, x: jnp.concatenate([y, x], -1)), rows(2, 3)
    close(model(x), jnp.concatenate([layer(x), x], -1))
    assert list(jtree.trainables(model)) == ["layer/weight", "layer/bias"]
    assert jtree.state(model)["combine"] == ()


def test_dense_is_a_product_a_sum_and_an_activation() -> None:
    layer, x = Dense(3, 2, jnp.tanh, key=KEY), rows(4, 5, 3)
    close(layer(x), np.tanh(np.asarray(x) @ np.asarray(layer.weight)), rtol=1e-4)
    given = Dense.from_arrays(np.ones((2, 1), np.float32), jnp.array([3.0]))
    assert given(jnp.ones(2)).tolist() == [5]
    assert Dense.from_arrays(jnp.ones((2, 1))).bias.tolist() == [0]
    assert Dense(2, 3, key=KEY, bias=jnp.ones(3)).bias.tolist() == [1, 1, 1]
    with pytest.raises(jtree.ArgumentError, match=r"expects a bias of shape \(1,\), found \(2,\)"):
        Dense.from_arrays(jnp.ones((2, 1)), jnp.ones(2))
    with pytest.raises(jtree.ArgumentError, match=r"\(n_in, n_out\), found shape \(2,\)"):
        Dense.from_arrays(jnp.ones(2))


CONVOLUTIONS = [
    {},
    {"stride": 2, "pad": 1},
    {"stride": (1, 2), "pad": (0, 2)},
    {"pad": ((1, 0), (2, 1))},
    {"pad": "SAME", "dilation": 2},
    {"pad": "VALID", "groups": 2},
]


@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
def test_a_convolution_is_that_of_flax(options: Any) -> None:
    layer, x = Conv((3, 2), 4, 6, key=KEY, **options), rows(2, 8, 9, 4)
    names = {"stride": "strides", "pad": "padding", "dilation": "kernel_dilation"}
    theirs = {names.get(k, "feature_group_count"): v for k, v in options.items()}
    flax = nn.Conv(6, (3, 2), **{"padding": 0} | theirs)
    variables = {"params": {"kernel": layer.weight, "bias": layer.bias}}
    close(layer(x), flax.apply(variables, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_convolutions_and_pools_have_one_two_or_three_axes(axes: int) -> None:
    layer = Conv((3,) * axes, 2, 4, key=KEY, stride=2, pad=1)
    x = rows(1, *(8,) * axes, 2)
    assert layer.weight.shape == (*(3,) * axes, 2, 4)
    assert layer(x).shape == (1, *(4,) * axes, 4)
    assert MaxPool((2,) * axes)(x).shape == (1, *(4,) * axes, 2)
    assert MeanPool((2,) * axes, stride=1, pad="SAME")(x).shape == x.shape


@pytest.mark.parametrize(("ours", "theirs"), [(MaxPool, nn.max_pool), (MeanPool, nn.avg_pool)])
def test_pools_and_their_gradients_are_those_of_flax(ours: Any, theirs: Any) -> None:
    x, options = rows(2, 7, 8, 3), {"strides": (2, 1), "padding": ((1, 1), (1, 1))}
    layer = ours((3, 2), stride=(2, 1), pad=1)
    weights = rows(*layer(x).shape)
    found = jax.value_and_grad(lambda x: (layer(x) * weights).sum())(x)
    with jax.numpy_dtype_promotion("standard"):  # Flax divides by an integer array
        expected = jax.value_and_grad(lambda x: (theirs(x, (3, 2), **options) * weights).sum())(x)
    jax.tree.map(lambda a, b: close(a, b, atol=1e-4), found, expected)


def test_the_maximum_of_integers_is_an_integer() -> None:
    assert MaxPool((2,))(jnp.array([[[-3], [-2]]])).tolist() == [[[-2]]]
    assert (MaxPool((2, 2)).window, MaxPool((2, 2)).stride) == ((2, 2), (2, 2))


def test_flatten_keeps_the_batch() -> None:
    assert flatten(jnp.ones((10, 5, 5, 3))).shape == (10, 75)
    assert flatten(jnp.ones((0, 5))).shape == (0, 5)


def test_batchnorm_is_that_of_flax_in_training_and_inference() -> None:
    x = 3 * rows(4, 5, 5, 2) + 1
    layer = BatchNorm(2)
    theirs = nn.BatchNorm(momentum=0.9, epsilon=1e-5)
    variables = theirs.init(KEY, x, use_running_average=False)
    expected, moved = theirs.apply(variables, x, use_running_average=False, mutable=["batch_stats"])
    y, after = forward(layer, x)
    close(y, expected, rtol=1e-3, atol=1e-4)
    close(after.mu, moved["batch_stats"]["mean"])
    unbiased = x.reshape(-1, 2).var(0, ddof=1)  # Flax moves towards the biased variance
    close(after.sigma2, 0.9 + 0.1 * unbiased)
    close(after(x), (x - after.mu) / jnp.sqrt(after.sigma2 + 1e-5), rtol=1e-4)
    assert (layer.mu.tolist(), layer.sigma2.tolist()) == ([0, 0], [1, 1])


def test_batchnorm_without_parameters_or_statistics() -> None:
    layer, x = BatchNorm(2, relu, affine=False, track_stats=False), rows(6, 2)
    assert jtree.trainables(layer) == {}
    y, after = forward(layer, x)
    close(y, layer(x))
    close(layer(x), relu((x - x.mean(0)) / jnp.sqrt(x.var(0) + 1e-5)), rtol=1e-4)
    assert after is layer


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_batchnorm_of_half_precision_computes_in_single(dtype: Any) -> None:
    layer = jtree.f16(BatchNorm(1)) if dtype == jnp.float16 else jtree.bf16(BatchNorm(1))
    y, after = forward(layer, jnp.full((4096, 1), 300, dtype))
    assert y.dtype == after.mu.dtype == after.sigma2.dtype == dtype
    assert (y.max(), after.mu[0]) == (0, 30)


def test_batchnorm_keeps_the_precision_of_its_input() -> None:
    layer = jtree.f16(BatchNorm(1, affine=False))
    x = jnp.array([[70000.0]])  # more than float16 can hold
    close(layer(x), x, rtol=1e-4)


def test_running_statistics_are_not_parameters_and_have_no_gradient() -> None:
    assert list(jtree.trainables(BatchNorm(2))) == ["beta", "gamma"]
    x = rows(4, 2)
    grads = jax.grad(lambda x: forward(BatchNorm(2), x)[1].mu.sum())(x)
    assert not grads.any()


def test_dropout_zeroes_by_chance_and_keeps_the_mean() -> None:
    x = jnp.ones((100, 1000))
    y, _ = forward(Dropout(0.4), x, key=KEY)
    zeros = float((y == 0).mean())
    assert abs(zeros - 0.4) < 6 * (0.4 * 0.6 / x.size) ** 0.5
    close(np.unique(y), [0, 1 / 0.6])
    assert Dropout(0.4)(x) is x
    assert not forward(Dropout(1), x, key=KEY)[0].any()
    assert forward(Dropout(0), x)[0] is x


def test_dropout_chooses_along_its_axes_only() -> None:
    y, _ = forward(Dropout(0.5, dims=-1), jnp.ones((4, 5, 64)), key=KEY)
    assert all((y == y[0, 0]).ravel().tolist())
    assert 0 < (y[0, 0] == 0).sum() < 64
    with pytest.raises(jtree.ModelError, match=r"expects axes \(3,\), found an input of shape"):
        forward(Dropout(0.5, dims=3), jnp.ones((2, 2)), key=KEY)
    with pytest.raises(jtree.ArgumentError, match=r"between 0 and 1, found 1\.5"):
        Dropout(1.5)


def test_forward_trains_and_changes_nothing() -> None:
    model, x = network(), rows(16, 2)
    before = copy.deepcopy(model)
    y, after = forward(model, x, key=KEY)
    again, _ = jax.jit(lambda m, x, key: forward(m, x, key=key))(model, x, KEY)
    close(y, again)
    assert same(model, before)
    assert jax.tree.structure(after) == jax.tree.structure(model)
    assert not same(after[2].mu, model[2].mu)
    assert same(after[4], model[4])
    other, _ = forward(model, x, key=jax.random.key(1))
    assert (y != other).any()


def test_forward_gives_every_layer_a_key_of_its_own_wherever_it_is() -> None:
    x = jnp.ones((8, 64))
    pair = Parallel(lambda *ys: ys, Dropout(0.5), SkipConnection(Dropout(0.5), lambda y, _: y))
    (one, two), after = forward(Chain(pair=pair), x, key=KEY)
    assert (one != two).any()
    assert same(after, Chain(pair=pair))
    norm = Parallel(jnp.add, BatchNorm(64))
    _, after = forward(norm, x, x, key=KEY)
    close(after[0].mu, 1 - 0.9**2 * jnp.ones(64))


def test_modes_override_how_a_model_is_called() -> None:
    model, x = network(), rows(16, 2)
    test, train = testmode(model), trainmode(model)
    assert [m[3].active for m in (model, test, train)] == [None, False, True]
    assert [testmode(train, mode)[2].active for mode in (False, None, "auto")] == [True, None, None]
    assert [testmode(train, mode)[2].active for mode in (1, np.True_, np.False_)] == [
        False,
        False,
        True,
    ]
    y, after = forward(test, x)
    close(y, model(x))
    assert same(after, test)
    close(train[:3](x), forward(model[:3], x)[0])
    with pytest.raises(jtree.ModelError, match=r"Dropout\(0.5, active=True\) needs a PRNG key"):
        train(x)
    with pytest.raises(jtree.ArgumentError, match="mode: expected True, False, None or 'auto'"):
        trainmode(model, "train")  # type: ignore[arg-type]
    assert trainmode({"a": [Dropout(0.1), 3]})["a"][0].active


def test_states_hold_modes_and_options() -> None:
    state = jtree.state(trainmode(network()))["layers"]
    assert state[3] == {"p": 0.5, "dims": (), "active": True}
    found = {k: x for k, x in state[2].items() if not isinstance(x, jax.Array)}
    assert found == {
        "activation": (),
        "channels": 3,
        "affine": True,
        "track_stats": True,
        "eps": 1e-5,
        "momentum": 0.1,
        "active": True,
    }
    assert jtree.state(MaxPool((2, 3))) == {"window": (2, 3), "stride": (2, 3), "pad": (0, 0)}


def test_loading_follows_the_original() -> None:
    one, two = jax.random.split(KEY)
    small, large = Chain(Dense(2, 3, key=one)), Chain(Dense(2, 3, key=two), Dropout(0.2))
    assert same(jtree.loadmodel(small, large)[0], large[0])
    kept = lambda x: not isinstance(x, Dropout)  # noqa: E731
    src = Chain(Dropout(0.1), Dense(2, 3, key=two))
    assert same(jtree.loadmodel(small, src, filter=kept)[0], src[1])
    without = Chain(Dense(2, 3, key=two, bias=False))
    biased = Chain(Dense(2, 3, key=one, bias=jnp.ones(3)))
    assert not jtree.loadmodel(biased, without)[0].bias.any()
    assert jtree.loadmodel(without, small)[0].bias is False
    with pytest.raises(jtree.LoadError, match="not all zero"):
        jtree.loadmodel(without, biased)


REPRS = {
    "Chain(Dense(2 => 3, tanh))": lambda: Chain(Dense(2, 3, jnp.tanh)),
    "Chain(a=Dense(2 => 3, bias=False), b=relu)": lambda: Chain(a=Dense(2, 3, bias=False), b=relu),
    "Conv((3, 3), 3 => 16)": lambda: Conv((3, 3), 3, 16),
    "Conv((2, 3), 4 => 6, relu, pad=6, stride=7, groups=2)": lambda: Conv(
        (2, 3), 4, 6, relu, pad=6, stride=7, groups=2
    ),
    "MaxPool((2, 2))": lambda: MaxPool((2, 2)),
    "MeanPool((5,), pad=((1, 2),), stride=2)": lambda: MeanPool(5, pad=((1, 2),), stride=2),
    "BatchNorm(64, relu)": lambda: BatchNorm(64, relu),
    "BatchNorm(2, affine=False, active=True)": lambda: BatchNorm(2, affine=False, active=True),
    "Dropout(0.2)": lambda: Dropout(0.2),
    "Dropout(0.3, dims=(1,), active=False)": lambda: testmode(Dropout(0.3, dims=1)),
    "Parallel(add, relu, flatten)": lambda: Parallel(jnp.add, relu, flatten),
    "Chain(partial(add), <lambda>)": lambda: Chain(partial(jnp.add, 1), lambda x: x),
    "SkipConnection(Dense(2 => 2), multiply)": lambda: SkipConnection(Dense(2, 2), jnp.multiply),
}


@pytest.mark.parametrize("text", REPRS)
def test_a_repr_is_one_line(text: str) -> None:
    model = REPRS[text]()
    assert repr(model) == text
    assert text.split("(")[0] in str(model)


WRONG = {
    "Dense(10 => 4) expects 10 input features, found an input of shape (2, 5)": (
        lambda: Dense(10, 4, key=KEY),
        (2, 5),
    ),
    "Conv((3, 3), 3 => 16) expects 3 input channels, found an input of shape (10, 10, 7, 64)": (
        lambda: Conv((3, 3), 3, 16, key=KEY),
        (10, 10, 7, 64),
    ),
    "Conv((3,), 3 => 16) expects an input of 3 dimensions, (batch, space, channels), found an "
    "input of shape (10, 3)": (lambda: Conv((3,), 3, 16, key=KEY), (10, 3)),
    "MaxPool((2, 2)) expects an input of 4 dimensions, (batch, space, space, channels), found an "
    "input of shape (4, 4, 3)": (lambda: MaxPool((2, 2)), (4, 4, 3)),
    "BatchNorm(3) expects 3 input channels, found an input of shape (32, 5)": (
        lambda: BatchNorm(3),
        (32, 5),
    ),
}


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_input_says_which_layer_and_what_it_expected(text: str) -> None:
    make, shape = WRONG[text]
    layer = make()
    for call in (layer, jax.jit(layer), lambda x: forward(layer, x)):
        with pytest.raises(jtree.ModelError) as raised:
            call(jnp.ones(shape))
        assert str(raised.value) == text


def test_wrong_options_are_refused() -> None:
    with pytest.raises(jtree.ArgumentError, match="stride to be a positive number, or 2 of them"):
        Conv((3, 3), 1, 1, stride=(1, 2, 3))
    with pytest.raises(jtree.ArgumentError, match="1 numbers or pairs, found 'full'"):
        MaxPool((3,), pad="full")  # type: ignore[arg-type]
    with pytest.raises(jtree.ArgumentError, match="divisible by groups=2"):
        Conv((3, 3), 3, 4, groups=2)
    with pytest.raises(jtree.ArgumentError, match="Chain expects layers and functions, found list"):
        Chain([relu])
    with pytest.raises(jtree.ArgumentError, match="expects layers and functions, found type"):
        Chain(Dense)
    with pytest.raises(jtree.ArgumentError, match="found both: 1 without a name, and a"):
        Chain(relu, a=relu)


def test_without_a_key_a_layer_is_abstract() -> None:
    layer = Dense(2, 3)
    assert isinstance(layer.weight, jax.ShapeDtypeStruct)
    assert jtree.count(layer) == 9
    with pytest.raises(
        jtree.ModelError, match=r"Dense\(2 => 3\) is abstract: it has shapes but no values"
    ):
        layer(jnp.ones(2))
    assert same(jtree.loadmodel(layer, Dense(2, 3, key=KEY)), Dense(2, 3, key=KEY))
    ones = Dense(2, 3, init=lambda _, shape: jnp.ones(shape))
    assert ones(jnp.ones(2)).tolist() == [2, 2, 2]


def test_modules_of_other_frameworks_are_layers_too() -> None:
    theirs = nnx.Linear(3, 1, rngs=nnx.Rngs(0))
    model, x = Chain(jax.vmap(eqx.nn.Linear(2, 3, key=KEY)), theirs), rows(4, 2)
    assert model(x).shape == (4, 1)
    assert list(jtree.trainables(Chain(eqx.nn.Linear(2, 3, key=KEY)))) == [
        "layers/0/weight",
        "layers/0/bias",
    ]
    y, _ = forward(model, x)
    close(y, model(x))


def test_models_are_copied_and_pickled() -> None:
    model = Chain(Dense(2, 3, a_function, key=KEY), flatten, BatchNorm(3), a_function)
    assert same(pickle.loads(pickle.dumps(model)), model)
    assert same(copy.deepcopy(model), model)
    with pytest.raises(AttributeError):
        model.layers = ()  # type: ignore[misc]


def a_function(x: Any) -> Any:
    return x
