"""trainables, count, modules, children, isnumeric, and the casts."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jtree

from ..zoo import Affine, Net, Pair, Shared


def test_isnumeric() -> None:
    yes = [jnp.ones(1), np.ones(1, complex), jnp.ones(1, jnp.float8_e5m2), jnp.zeros((0,))]
    yes += [jax.ShapeDtypeStruct((1,), jnp.float16)]
    no = [jnp.arange(2), np.array([True]), jax.random.key(0), 1.0, 1j, np.float32(1), None, "x"]
    no += [np.zeros(1, jax.dtypes.float0), jax.ShapeDtypeStruct((1,), jnp.int8), np.array(["x"])]
    assert all(map(jtree.isnumeric, yes))
    assert not any(map(jtree.isnumeric, no))
    assert jax.jit(lambda x: x + float(jtree.isnumeric(x)))(jnp.zeros(1)).tolist() == [1]


def test_children_are_one_level_down_by_name() -> None:
    w, b = jnp.ones(2), jnp.ones(3)
    assert jtree.children(Affine(w, b)) == {"weight": w, "bias": b}
    assert jtree.children(Pair(1, 2)) == {"left": 1, "right": 2}
    assert jtree.children([w]) == {0: w}
    assert jtree.children(w) == jtree.children(None) == jtree.children("text") == {}
    assert list(jtree.children(nnx.Linear(1, 1, rngs=nnx.Rngs(0)))) == ["bias", "kernel"]


def test_trainables_are_differentiable_to_the_second_order() -> None:
    model = {"w": jnp.array([1.0, 2.0]), "s": jnp.array(3)}
    loss = lambda m: sum((x**2).sum() for x in jtree.trainables(m).values())  # noqa: E731
    grads = jax.grad(loss, allow_int=True)(model)
    assert grads["w"].tolist() == [2, 4]
    twice = jax.grad(lambda m: loss(jax.grad(loss)(m)))({"w": model["w"]})
    assert twice["w"].tolist() == [8, 16]


def test_count_counts_tied_parameters_once() -> None:
    assert jtree.count(Shared(nnx.Rngs(0))) == 21
    assert jtree.count(Shared(nnx.Rngs(0)), ties=()) == 21 + 12 + 6
    assert jtree.count({}) == 0


def test_modules_come_root_first_and_once() -> None:
    model = Shared(nnx.Rngs(0))
    pairs = jtree.modules(model, path=True)
    assert [path for path, _ in pairs] == ["", "again", "dec", "head"]
    assert jtree.modules(model)[2] is model.enc
    layer = {"w": jnp.ones(1), "pad": (1, 2), "scales": (jnp.ones(1), jnp.ones(2))}
    assert jtree.modules([layer, layer]) == [[layer, layer], layer]
    assert jtree.modules(jnp.ones(1)) == []


def test_l2_over_modules_is_differentiable_and_jits() -> None:
    model = {"a": {"weight": jnp.array([1.0, 2.0])}, "b": [{"weight": jnp.array([3.0])}]}

    def penalty(m: Any) -> Any:
        return sum((x["weight"] ** 2).sum() for x in jtree.modules(m) if "weight" in x)

    grads = jax.jit(jax.grad(penalty))(model)
    assert grads["a"]["weight"].tolist() == [2, 4]
    assert grads["b"][0]["weight"].tolist() == [6]


CASTS = [
    (jtree.f16, jnp.float16, jnp.complex64),
    (jtree.bf16, jnp.bfloat16, jnp.complex64),
    (jtree.f32, jnp.float32, jnp.complex64),
]


@pytest.mark.parametrize(("cast", "floating", "complex_"), CASTS)
def test_casts_convert_floating_arrays_only(cast: Any, floating: Any, complex_: Any) -> None:
    model = {
        "w": jnp.ones(2, jnp.float8_e4m3fn),
        "n": np.ones(2),
        "z": np.ones(1, np.complex128),
        "i": jnp.arange(3),
        "f": 1.5,
        "s": jax.ShapeDtypeStruct((3,), jnp.float64),
    }
    done = cast(model)
    assert done["w"].dtype == done["n"].dtype == done["s"].dtype == floating
    assert done["z"].dtype == complex_
    assert isinstance(done["n"], np.ndarray)
    assert done["i"] is model["i"]
    assert done["f"] == 1.5
    assert model["w"].dtype == jnp.float8_e4m3fn


def test_casts_keep_sharing_and_return_the_model_where_nothing_changes() -> None:
    model = Shared(nnx.Rngs(0))
    assert jtree.f32(model) is model
    half = jtree.bf16(model)
    assert half.enc is half.dec
    assert half.enc.kernel[...].dtype == jnp.bfloat16
    assert model.enc.kernel[...].dtype == jnp.float32


def test_f64_needs_x64_and_says_so() -> None:
    with pytest.raises(ValueError, match=r'call jax.config.update\("jax_enable_x64", True\)'):
        jtree.f64({"w": jnp.ones(2)})
    with jax.enable_x64(True):
        done = jtree.f64({"w": jnp.ones(2, jnp.float32), "z": jnp.ones(1, jnp.complex64)})
        assert (done["w"].dtype, done["z"].dtype) == (jnp.float64, jnp.complex128)


def test_running_statistics_are_cast_and_not_trainable() -> None:
    half = jtree.f16(Net(nnx.Rngs(0)))
    assert half.norm.mean[...].dtype == jnp.float16
    assert "norm/mean" not in jtree.trainables(half)
