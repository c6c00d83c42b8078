"""Resuming: `load` restores every leaf, and leaves static fields alone."""

from __future__ import annotations

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx
from flax.training.train_state import TrainState
from orbax.checkpoint import v1

import jtree

from ..same import same
from ..zoo import ZOO, Affine, Net


def refused(path: Any, into: Any, **options: Any) -> str:
    assert jtree.diff(into, path)
    with pytest.raises(jtree.LoadError) as info:
        jtree.load(path, into, **options)
    return str(info.value).removeprefix("nothing was loaded: ")


def resumed(path: Any, saved: Any, into: Any) -> Any:
    jtree.save(path, saved, overwrite=True)
    assert not jtree.diff(into, path)
    return jtree.load(path, into)


@pytest.mark.parametrize("name", sorted(set(ZOO) - {"gradients", "no_pytree"}))
def test_a_model_comes_back_into_itself(name: str, tmp_path: Any) -> None:
    model = ZOO[name]()
    jtree.save(tmp_path / "model", model)
    assert not jtree.diff(model, tmp_path / "model")
    assert same(jtree.load(tmp_path / "model", model), model)


VALUES = [
    (5, 0),
    (2.5, 0.0),
    (1 + 2j, 0j),
    (True, False),
    (False, True),
    ("adam", "sgd"),
    ("", "sgd"),
    (b"x", b""),
    (0, 7),
    (2**80, 0),
    (np.float32(2), np.float32(0)),
]


@pytest.mark.parametrize(("saved", "fresh"), VALUES)
def test_a_leaf_of_any_basic_type_is_restored(saved: Any, fresh: Any, tmp_path: Any) -> None:
    path = tmp_path / "run"
    loaded = resumed(path, {"x": saved, "w": jnp.ones(2)}, {"x": fresh, "w": jnp.zeros(2)})
    assert type(loaded["x"]) is type(saved)
    assert loaded["x"] == saved
    assert loaded["w"].tolist() == [1, 1]


ARRAYS = [
    (5, np.int32(5), jnp.int32(0)),
    (2.5, np.float32(2.5), jnp.float32(0)),
    (2.5, ml_dtypes.bfloat16(2.5), jnp.bfloat16(0)),
    (1 + 2j, np.complex64(1 + 2j), jnp.complex64(0)),
    (True, np.bool_(True), jnp.asarray(False)),
]


@pytest.mark.parametrize(("number", "scalar", "array"), ARRAYS)
def test_a_number_and_a_0d_array_take_each_other(
    number: Any, scalar: Any, array: Any, tmp_path: Any
) -> None:
    path, zero = tmp_path / "run", type(number)(0)
    loaded = resumed(path, {"x": jnp.asarray(scalar)}, {"x": zero})["x"]
    assert (type(loaded), loaded) == (type(number), number)
    for into in (array, jax.eval_shape(lambda: array)):
        loaded = resumed(path, {"x": number}, {"x": into})["x"]
        assert isinstance(loaded, jax.Array)
        assert (loaded.dtype, loaded.item()) == (array.dtype, number)
    loaded = resumed(path, {"x": number}, {"x": np.asarray(array)[()]})["x"]
    assert type(loaded) is type(np.asarray(array)[()])
    assert loaded == number


MISMATCHES = [
    (5, 0.0, "5", "0.0", "; this leaf takes a floating-point number or a 0-d array of that kind"),
    (0.5, 0, "0.5", "0", "; this leaf takes an integer or a 0-d array of that kind"),
    (True, 0, "True", "0", "; this leaf takes an integer or a 0-d array of that kind"),
    (1, True, "1", "True", "; this leaf takes a bool or a 0-d array of that kind"),
    ("a", 0, "'a'", "0", "; this leaf takes an integer or a 0-d array of that kind"),
    (1, "a", "1", "'a'", ""),
    (np.ones(2), 0.5, "float64[2]", "0.5", ""),
    (0.5, None, "0.5", "None", ""),
    (None, 0.5, "None", "0.5", '; to keep it use none="keep"'),
]


@pytest.mark.parametrize(("saved", "fresh", "found", "expected", "hint"), MISMATCHES)
def test_another_kind_is_a_mismatch(
    saved: Any, fresh: Any, found: str, expected: str, hint: str, tmp_path: Any
) -> None:
    jtree.save(tmp_path / "run", {"x": saved, "w": jnp.ones(2)})
    into = {"x": fresh, "w": jnp.zeros(2)}
    assert refused(tmp_path / "run", into) == (
        f"1 mismatch\n  x: expected {expected}, found {found}{hint}"
    )


def test_an_integer_that_does_not_fit_a_0d_array_is_a_mismatch(tmp_path: Any) -> None:
    jtree.save(tmp_path / "run", {"x": 2**40, "y": 2**80, "z": 300})
    into = {"x": jnp.int32(0), "y": jnp.int32(0), "z": np.int8(0)}
    assert refused(tmp_path / "run", into) == (
        "3 mismatches\n"
        "  x: expected int32[], found int64[]; not every integer in it fits\n"
        f"  y: expected int32[], found {2**80}; this integer does not fit\n"
        "  z: expected int8[], found 300; not every integer in it fits"
    )


def test_a_number_that_the_checkpoint_lacks_is_a_mismatch(tmp_path: Any) -> None:
    jtree.save(tmp_path / "run", {"w": jnp.ones(2)})
    into = {"w": jnp.zeros(2), "step": 0, "bias": False, "best": None, "f": jnp.tanh}
    assert refused(tmp_path / "run", into) == "1 mismatch\n  step: expected 0, found nothing"
    assert jtree.load(tmp_path / "run", into, strict=False)["w"].tolist() == [1, 1]
    jtree.save(tmp_path / "run.safetensors", {"w": jnp.ones(2)})
    assert jtree.load(tmp_path / "run.safetensors", into)["step"] == 0


def test_static_fields_and_functions_are_left_alone(tmp_path: Any) -> None:
    path = tmp_path / "model"
    saved = Affine(jnp.ones(2), False, activation=jnp.sin, size=5, name="saved")
    loaded = resumed(path, saved, Affine(jnp.zeros(2), False, activation=jnp.cos, name="fresh"))
    assert (loaded.activation, loaded.size, loaded.name) == (jnp.cos, 3, "fresh")


def test_where_and_strict_hold_for_numbers_too(tmp_path: Any) -> None:
    path = tmp_path / "run"
    jtree.save(path, {"a": {"x": 1, "w": jnp.ones(1)}, "b": {"x": 2}})
    into = {"a": {"x": 0, "w": jnp.zeros(1)}, "b": {"x": 0}}
    assert jtree.load(path, into, where="a/**")["b"] == {"x": 0}
    assert jtree.load(path, into, where="a/**")["a"]["x"] == 1
    into = {"a": {"x": "text", "w": jnp.zeros(1)}, "b": {"x": 0}}
    loaded = jtree.load(path, into, strict=False)
    assert (loaded["a"]["x"], loaded["b"]["x"]) == ("text", 2)


def test_loadmodel_copies_numbers_only_if_it_is_told_to() -> None:
    dst, src = {"w": jnp.zeros(2), "rate": 0.1}, {"w": jnp.ones(2), "rate": 0.2}
    assert jtree.loadmodel(dst, src)["rate"] == 0.1
    assert jtree.loadmodel(dst, src, scalars=True)["rate"] == 0.2
    assert jtree.diff(dst, src).config == {"rate": (0.1, 0.2)}
    assert not jtree.diff(dst, {"w": jnp.ones(2), "rate": 1})
    assert jtree.diff(dst, {"w": jnp.ones(2), "rate": 1}, scalars=True).kind == {
        "rate": ("0.1", "1")
    }


@pytest.mark.parametrize("jitted", [False, True])
def test_a_train_state_resumes_from_a_jitted_one_and_the_reverse(
    jitted: bool, tmp_path: Any
) -> None:
    tx = optax.sgd(0.1, momentum=0.9)

    def fresh() -> TrainState:
        return TrainState.create(apply_fn=jnp.dot, params={"w": jnp.ones(2)}, tx=tx)

    grads = {"w": jnp.ones(2)}
    eager = fresh().apply_gradients(grads=grads)
    compiled = jax.jit(lambda s: s.apply_gradients(grads=grads))(fresh())
    saved, into = (compiled, fresh()) if jitted else (eager, jax.jit(lambda s: s)(fresh()))
    loaded = resumed(tmp_path / "run", saved, into)
    assert type(loaded.step) is type(into.step)
    assert loaded.step == 1
    assert same(loaded.opt_state, saved.opt_state)
    abstract = jax.eval_shape(fresh)
    assert resumed(tmp_path / "run", saved, abstract).step.item() == 1


def test_injected_hyperparameters_resume(tmp_path: Any) -> None:
    optimiser = optax.inject_hyperparams(partial(optax.sgd, momentum=0.9))(learning_rate=0.1)
    state = optimiser.init({"w": jnp.ones(2)})
    changed = state._replace(hyperparams=state.hyperparams | {"learning_rate": jnp.float32(0.025)})
    assert same(resumed(tmp_path / "run", changed, state), changed)
    python = state._replace(hyperparams=state.hyperparams | {"learning_rate": 0.025})
    loaded = resumed(tmp_path / "run", python, state).hyperparams["learning_rate"]
    assert loaded == jnp.float32(0.025)


@pytest.mark.parametrize("packed", [False, True])
def test_a_hyperparameter_that_the_dtype_of_the_model_rounds_is_logged(
    packed: bool, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    optimiser = optax.inject_hyperparams(optax.sgd)(learning_rate=0.1)
    state = optimiser.init({"w": jnp.ones(2)})
    jtree.save(tmp_path / "run", state, packed=packed)
    assert same(jtree.load(tmp_path / "run", state), state)
    assert "rounded" not in caplog.text
    narrow = optimiser.init({"w": jnp.ones(2, jnp.bfloat16)})
    path = "hyperparams/learning_rate"
    assert narrow.hyperparams["learning_rate"].dtype == jnp.bfloat16
    loaded = jtree.load(tmp_path / "run", narrow)
    assert loaded.hyperparams["learning_rate"].dtype == jnp.bfloat16
    assert caplog.messages == [
        f"rounded to the dtypes of the model: {path} from 0.1 (float32) to 0.100098 (bfloat16)"
    ]
    caplog.clear()
    jtree.save(tmp_path / "wide", {"rate": np.asarray(0.1), "n": np.ones(())})
    loaded = jtree.load(tmp_path / "wide", {"rate": jnp.float32(0), "n": jnp.bfloat16(0)})
    assert caplog.messages == [
        "rounded to the dtypes of the model: rate from 0.1 (float64) to 0.1 (float32)"
    ]


@pytest.mark.parametrize("abstract", [False, True])
@pytest.mark.parametrize(
    "weak", [jnp.asarray(0.5), jnp.asarray(3), jnp.full((3,), 0.5), jnp.asarray(2j)]
)
def test_a_weak_type_is_that_of_the_model(weak: jax.Array, abstract: bool, tmp_path: Any) -> None:
    strong = jax.lax.convert_element_type(weak, weak.dtype)
    for saved, like in ((weak, weak), (strong, weak), (weak, strong)):
        into = jax.eval_shape(lambda x=like: x) if abstract else like * 0
        assert into.weak_type == like.weak_type
        loaded = resumed(tmp_path / "run", {"x": saved}, {"x": into})["x"]
        assert (loaded.dtype, loaded.weak_type) == (like.dtype, like.weak_type)
        assert loaded.tolist() == weak.tolist()
        assert jtree.loadmodel({"x": into}, {"x": saved})["x"].weak_type == like.weak_type


class Scaled(eqx.Module):
    weight: jax.Array
    rate: float
    steps: int
    name: str = eqx.field(static=True)


def test_equinox_models_and_files_restore_their_numbers(tmp_path: Any) -> None:
    saved, fresh = Scaled(jnp.ones(2), 0.5, 7, "a"), Scaled(jnp.zeros(2), 0.0, 0, "b")
    loaded = resumed(tmp_path / "model", saved, fresh)
    assert (loaded.rate, loaded.steps, loaded.name) == (0.5, 7, "b")
    eqx.tree_serialise_leaves(tmp_path / "model.eqx", saved)
    loaded = jtree.load(tmp_path / "model.eqx", fresh)
    assert (loaded.rate, loaded.steps, loaded.name) == (0.5, 7, "b")
    assert (type(loaded.rate), type(loaded.steps)) == (float, int)


def test_an_nnx_state_that_orbax_wrote_comes_back_into_its_model(tmp_path: Any) -> None:
    model, fresh = Net(nnx.Rngs(0)), Net(nnx.Rngs(1))
    parameters = nnx.state(model, nnx.Param)
    ocp.PyTreeCheckpointer().save(tmp_path / "v0", parameters)
    v1.save(tmp_path / "v1", parameters)
    for path in (tmp_path / "v0", tmp_path / "v1"):
        assert not jtree.diff(nnx.state(fresh, nnx.Param), path)
        loaded = jtree.load(path, nnx.state(fresh, nnx.Param))
        assert same(loaded, parameters)
        kernel = jtree.load(path, fresh, where="**/kernel").conv.kernel
        assert same(kernel[...], model.conv.kernel[...])


def tied_layers(seed: int) -> Any:
    """Return an embedding and a head that share their weights, as in the docs of Equinox."""
    one, two = jax.random.split(jax.random.key(seed))
    layers = eqx.nn.Embedding(5, 3, key=one), eqx.nn.Linear(3, 5, key=two)
    return eqx.nn.Shared(layers, lambda x: x[1].weight, lambda x: x[0].weight)


SUFFIXES = ["", ".safetensors", ".npz", ".msgpack"]


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("suffix", [*SUFFIXES, ".eqx"])
def test_layers_that_equinox_shares_come_back(suffix: str, inside: bool, tmp_path: Any) -> None:
    saved, fresh = ([tied_layers(seed)] if inside else tied_layers(seed) for seed in (0, 1))
    path = tmp_path / f"model{suffix}"
    eqx.tree_serialise_leaves(path, saved) if suffix == ".eqx" else jtree.save(path, saved)
    assert not jtree.diff(fresh, path)
    abstract = eqx.filter_eval_shape(lambda: [tied_layers(1)] if inside else tied_layers(1))
    for into in (fresh, abstract):
        assert same(jtree.state(jtree.load(path, into)), jtree.state(saved))
    assert same(jtree.state(jtree.loadmodel(fresh, path)), jtree.state(saved))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_shared_layers_and_what_they_return_are_told_apart(suffix: str, tmp_path: Any) -> None:
    shared, fresh = tied_layers(0), tied_layers(1)
    inner, outer = tmp_path / f"shared{suffix}", tmp_path / f"called{suffix}"
    jtree.save(inner, shared)
    jtree.save(outer, shared())
    assert refused(inner, fresh()) == (
        "5 mismatches: the source is an eqx.nn.Shared, and the destination what it returns when it "
        "is called; load into the eqx.nn.Shared, and call it: jtree.load(path, shared)()"
    )
    assert same(jtree.load(inner, fresh)(), shared())
    assert refused(outer, fresh) == (
        "5 mismatches: the destination is an eqx.nn.Shared, and the source what it returns when it "
        "is called; load into that, and share again: "
        "eqx.nn.Shared(jtree.load(path, shared()), shared.where, shared.get)"
    )
    again = eqx.nn.Shared(jtree.load(outer, fresh()), shared.where, shared.get)
    assert same(jtree.state(again), jtree.state(shared))
