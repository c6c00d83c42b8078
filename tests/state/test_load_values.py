"""loadmodel: values that fit or do not, under tracing, into abstract and tied leaves."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jtree

from ..same import same
from ..zoo import Shared


def test_a_key_cannot_be_zeroed() -> None:
    for source, options in (({"k": None}, {"none": "zero"}), ({"k": False}, {})):
        with pytest.raises(jtree.LoadError, match=r"an array of key<fry> cannot be set to zero"):
            jtree.loadmodel({"k": jax.random.key(0)}, source, **options)


def test_integers_too_large_for_float16_do_not_fit() -> None:
    with pytest.raises(jtree.LoadError, match="not every integer in it fits"):
        jtree.loadmodel({"p": jnp.zeros(1, jnp.float16)}, {"p": np.array([70000])})


def test_casts_that_overflow_are_infinite_without_a_warning() -> None:
    huge = {"p": np.array([1e30])}  # which loadmodel refuses
    assert np.isinf(jtree.f16(huge)["p"][0])
    _, re = jtree.destructure({"w": jnp.ones(1, jnp.float16)})
    assert np.isinf(re(np.array([70000]))["w"][0])
    assert np.isinf(re(np.array([1e300]))["w"][0])
    double = {"p": jax.ShapeDtypeStruct((1,), np.dtype("float64"))}
    assert jtree.loadmodel(double, {"p": np.array([0.5])})["p"].dtype == jnp.float32


def test_abstract_models_obey_the_laws_too() -> None:
    model = {"w": jax.ShapeDtypeStruct((2,), jnp.float32)}
    assert same(jtree.loadmodel(model, jtree.state(model)), model)
    _, re = jtree.destructure(model)
    assert re.ravel_grad(model).shape == (2,)
    with pytest.raises(jtree.LoadError, match="the destination is abstract"):
        jtree.loadmodel(model, {"w": None}, none="keep")


def test_loading_under_tracing_into_numpy_and_into_tied_leaves() -> None:
    load = jax.jit(lambda src: jtree.loadmodel({"a": np.zeros(2, np.float32)}, src))
    assert load({"a": jnp.ones(2)})["a"].tolist() == [1, 1]
    tied = jax.jit(lambda a, b: jtree.loadmodel(a, b, ties=[("a", "b")]))
    ones = {"a": jnp.ones(2), "b": jnp.ones(2)}
    with pytest.raises(jtree.LoadError, match="values that cannot be compared yet at a and b"):
        tied(ones, ones)


def test_a_tied_destination_is_content_with_one_source() -> None:
    model = Shared(nnx.Rngs(0))
    loaded = jtree.loadmodel(model, nnx.state(Shared(nnx.Rngs(1))))
    assert loaded.enc is loaded.dec
    assert not same(loaded.enc.kernel[...], model.enc.kernel[...])


def test_weak_types_are_those_of_the_destination() -> None:
    weak = jnp.asarray(1.0)
    assert weak.weak_type
    assert not jtree.loadmodel({"x": jnp.ones(())}, {"x": weak})["x"].weak_type


def test_false_above_a_branch_is_named() -> None:
    with pytest.raises(jtree.LoadError) as info:
        jtree.loadmodel({"l": {"w": jnp.ones(1)}}, {"l": False})
    assert str(info.value).endswith(
        "l/w: expected float32[1], found False at l; False stands for a single absent parameter"
    )


def test_four_bit_integers_are_compared() -> None:
    source = {"x": np.array([-3], jnp.int4)}
    assert jtree.diff({"x": jnp.zeros(1, jnp.uint8)}, source)
    assert jtree.loadmodel({"x": jnp.zeros(1, jnp.int8)}, source)["x"].tolist() == [-3]
