"""The laws, over every kind of model in the zoo."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtree

from .same import close, same
from .zoo import ZOO, Opaque, abstract

MODELS = sorted(ZOO)


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> Any:
    return ZOO[request.param]()


@pytest.mark.parametrize("which", ["trainable", "all"])
def test_re_of_flat_is_the_model(model: Any, which: Any) -> None:
    flat, re = jtree.destructure(model, which=which)
    assert flat.ndim == 1
    assert flat.size == re.size == len(re)
    assert same(re(flat), as_jax(model, re))


def as_jax(model: Any, re: jtree.Restructure) -> Any:
    """Parameters come back as JAX's arrays, whatever they were."""
    walked = jtree.walk(model)
    values = [
        jnp.asarray(slot.value)
        if slot.path in re.layout.by_path and isinstance(slot.value, np.ndarray)
        else slot.value
        for slot in walked.slots
    ]
    return walked.rebuild(values)


def test_trainable_elements_are_counted(model: Any) -> None:
    flat, re = jtree.destructure(model)
    assert jtree.count(model) == flat.size
    assert tuple(jtree.trainables(model)) == re.paths


def test_re_of_zeros_has_zero_parameters(model: Any) -> None:
    _, re = jtree.destructure(model)
    zeroed = jtree.trainables(re(jnp.zeros(len(re), re.dtype)))
    assert tuple(zeroed) == re.paths
    assert not any(np.asarray(x, np.complex64).any() for x in zeroed.values())


def test_ravel_of_re_is_the_vector(model: Any) -> None:
    _, re = jtree.destructure(model)
    v = (jnp.arange(len(re)) % 8).astype(re.dtype)
    close(re.ravel(re(v)).astype(jnp.complex64), v.astype(jnp.complex64))


def test_walking_does_not_change_the_model(model: Any) -> None:
    before = copy.deepcopy([slot.value for slot in jtree.walk(model).slots if small(slot.value)])
    objects = [slot.value for slot in jtree.walk(model).slots]
    flat, re = jtree.destructure(model)
    re(flat * 2)
    jtree.state(model)
    jtree.loadmodel(model, model)
    after = jtree.walk(model).slots
    assert all(a is slot.value for a, slot in zip(objects, after, strict=True))
    kept = [slot.value for slot in after if small(slot.value)]
    assert same(before, kept)


def small(x: Any) -> bool:
    return isinstance(x, jax.Array | np.ndarray | int | float | str)


def test_eager_and_jitted_results_agree(model: Any) -> None:
    _, re = jtree.destructure(model)
    v = jnp.arange(len(re)).astype(re.dtype)

    def arrays(re: jtree.Restructure, v: jax.Array) -> Any:
        slots = jtree.walk(re(v)).slots
        return {s.path: s.value for s in slots if isinstance(s.value, jax.Array | np.ndarray)}

    eager = {k: x for k, x in arrays(re, v).items() if returnable(x)}
    jitted = jax.jit(lambda re, v: {k: arrays(re, v)[k] for k in eager})(re, v)
    assert same({k: jnp.asarray(x) for k, x in eager.items()}, jitted)


def returnable(x: Any) -> bool:
    """`jit` returns neither float0 nor NumPy's other order of bytes."""
    numpy = isinstance(x, np.ndarray)
    return not numpy or (x.dtype.isnative and x.dtype != jax.dtypes.float0)


def test_destructure_inside_jit_gives_the_same_vector(model: Any) -> None:
    arrays = jtree.trainables(model)
    inside = jax.jit(lambda xs: jtree.destructure(xs)[0])(arrays)
    assert same(inside, jtree.destructure(dict(sorted(arrays.items())))[0])


def test_flat_and_nested_gradients_agree(model: Any) -> None:
    flat, re = jtree.destructure(model)
    if not len(re) or jnp.iscomplexobj(flat):
        pytest.skip("nothing to differentiate, or complex: see test_flat")
    parameters = jtree.trainables(model)

    def loss(arrays: Any) -> Any:
        cubes = {path: (x.astype(jnp.float32) ** 3).sum() for path, x in arrays.items()}
        return sum(cubes[path] * (i + 1.0) for i, path in enumerate(re.paths))

    nested = jax.grad(loss)({k: jnp.asarray(x) for k, x in parameters.items()})
    expected = re.ravel_grad(nested)
    close(jax.grad(lambda v: loss(jtree.trainables(re(v))))(flat), expected, rtol=2e-2)


def test_loading_a_models_own_state_changes_nothing(model: Any) -> None:
    assert same(jtree.loadmodel(model, jtree.state(model)), model)
    assert same(jtree.loadmodel(model, model), model)
    assert not jtree.diff(model, jtree.state(model))
    assert not jtree.diff(model, jtree.state(model)).config


def test_state_holds_basic_containers_and_leaves_only(model: Any) -> None:
    walked = jtree.walk(jtree.state(model))
    assert all(type(node) in (dict, list, tuple) for _, node in walked.nodes)
    basic = bool | int | float | complex | str | bytes | None | np.generic | np.ndarray | jax.Array
    assert all(isinstance(slot.value, basic) for slot in walked.slots)


def test_state_of_a_state_is_itself(model: Any) -> None:
    state = jtree.state(model)
    assert same(jtree.state(state), state)


def test_saved_and_loaded_it_is_the_state(model: Any, tmp_path: Any) -> None:
    if any(getattr(s.value, "dtype", None) == jax.dtypes.float0 for s in jtree.walk(model).slots):
        pytest.skip("float0 has no values to save")
    if any(isinstance(slot.value, Opaque) for slot in jtree.walk(model).slots):
        with pytest.raises(
            jtree.ModelError, match=r"^opaque: cannot save a tests.Opaque; convert it"
        ):
            jtree.save(tmp_path / "model", model)
        return
    jtree.save(tmp_path / "model", model)
    loaded, state = jtree.load(tmp_path / "model"), jtree.state(model)
    assert same(loaded, on_host(state))
    assert same(jtree.loadmodel(model, loaded), model)


def on_host(state: Any) -> Any:
    walked = jtree.walk(state)
    return walked.rebuild([host(slot.value) for slot in walked.slots])


def host(x: Any) -> Any:
    is_array = isinstance(x, jax.Array) and not jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return np.asarray(x) if is_array else x


def test_an_abstract_model_gives_an_abstract_vector(model: Any) -> None:
    flat, re = jtree.destructure(model)
    shape, abstract_re = jtree.destructure(abstract(model))
    assert re.paths == abstract_re.paths
    if len(re):
        assert (shape.shape, shape.dtype) == (flat.shape, flat.dtype)
        rebuilt = re(jax.ShapeDtypeStruct((len(re),), re.dtype))
        assert same(abstract(rebuilt), abstract(as_jax(model, re)))


def test_an_abstract_destination_takes_the_values(model: Any) -> None:
    loaded = jtree.loadmodel(abstract(model), model)
    arrays = [slot.value for slot in jtree.walk(loaded).slots]
    assert not any(isinstance(x, jax.ShapeDtypeStruct) for x in arrays)
    assert same(loaded, model)


def test_casting_back_and_forth(model: Any) -> None:
    widened = jtree.f32(model)
    assert jtree.f32(widened) is widened
    halves = {x.dtype for x in jtree.trainables(jtree.bf16(model)).values()}
    assert halves <= {jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.complex64)}
    assert [p for p, _ in jtree.modules(widened, path=True)] == [
        p for p, _ in jtree.modules(model, path=True)
    ]


def test_a_restructure_survives_a_pickle(model: Any) -> None:
    flat, re = jtree.destructure(model)
    try:
        pickle.dumps(model)
    except (pickle.PicklingError, TypeError, AttributeError):
        pytest.skip("the model itself cannot be pickled")
    copied = pickle.loads(pickle.dumps(re))
    assert copied.layout == re.layout
    assert same(copied(flat), re(flat))


def test_vmap_over_vectors_stacks_the_parameters(model: Any) -> None:
    _, re = jtree.destructure(model)
    batch = jnp.stack([jnp.zeros(len(re), re.dtype), jnp.ones(len(re), re.dtype)])
    stacked = jax.vmap(lambda v: jtree.trainables(re(v)))(batch)
    for path, shape in re.shapes.items():
        assert stacked[path].shape == (2, *shape)
        assert np.asarray(stacked[path][1], np.complex64).all()


def test_equal_layouts_are_equal_and_hash_alike(model: Any) -> None:
    (_, one), (_, two) = jtree.destructure(model), jtree.destructure(model)
    assert one == two
    assert hash(one) == hash(two)
    assert one.refresh(model) == one
