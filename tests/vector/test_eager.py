"""The fast path: the same bits as the traced path, and views that are safe."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtree
from jtree._vector import eager as _eager

from ..same import same
from ..zoo import ZOO


def both(model: Any, monkeypatch: pytest.MonkeyPatch, **options: Any) -> list[Any]:
    """Return what destructure and re give, with the fast path and without."""
    found = []
    for fast in (True, False):
        with monkeypatch.context() as patch:
            if not fast:
                patch.setattr(_eager, "isplain", lambda _: False)
            flat, re = jtree.destructure(model, **options)
            vectors = (flat, flat * 3, np.arange(len(re)), np.linspace(-1e9, 1e9, len(re)))
            found.append([flat, *[re(v) for v in vectors], re(flat, restore_dtype=False)])
    return found


@pytest.mark.parametrize("name", sorted(ZOO))
def test_both_paths_give_the_same_bits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ZOO[name]()
    fast, slow = both(model, monkeypatch, which="all")
    assert same(fast[0], slow[0])
    for a, b in zip(fast[1:], slow[1:], strict=True):
        assert same(jtree.trainables(a), jtree.trainables(b))
        assert [x.weak_type for x in arrays(a)] == [x.weak_type for x in arrays(b)]
        assert [x.committed for x in arrays(a)] == [x.committed for x in arrays(b)]


def arrays(model: Any) -> list[jax.Array]:
    return [x for x in jtree.trainables(model).values() if isinstance(x, jax.Array)]


DTYPES = [
    *(jnp.float16, jnp.bfloat16, jnp.float8_e5m2, jnp.complex64),
    # What is too large is NaN, which XLA forgets where it compiles quickly.
    pytest.param(jnp.float8_e4m3fn, marks=pytest.mark.slow),
]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_number_is_converted_alike(dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    edges = np.array([0, -0.0, 1e-40, -1e-45, 6e-8, 448, 65504, 1e30, np.inf, np.nan], np.float32)
    numbers = np.concatenate([edges, np.random.default_rng(0).normal(size=6000).astype(np.float32)])
    model = {"a": jnp.asarray(numbers).astype(dtype), "b": jnp.asarray(numbers)}
    fast, slow = both(model, monkeypatch)
    for a, b in zip(fast, slow, strict=True):
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
            assert x.dtype == y.dtype
            wide = [np.asarray(array).astype(np.complex128) for array in (x, y)]
            np.testing.assert_array_equal(*wide)


def test_large_aligned_leaves_are_views_and_the_others_copies() -> None:
    model = {"a": jnp.ones(16 * 400), "b": jnp.ones((16, 100)), "c": jnp.ones(5), "d": jnp.ones(9)}
    flat, re = jtree.destructure(model)
    start = flat.unsafe_buffer_pointer()
    places = {k: x.unsafe_buffer_pointer() - start for k, x in re(flat).items()}
    assert (places["a"], places["b"]) == (0, 4 * 6400)
    assert not 0 <= places["d"] < flat.nbytes


def large() -> tuple[Any, jax.Array, jtree.Restructure]:
    model = {"a": jnp.arange(6400.0), "b": jnp.ones((64, 100)), "c": jnp.zeros((0, 3))}
    return model, *jtree.destructure(model)


DONATE = jax.jit(lambda x: jax.tree.map(lambda y: y * 0 - 1, x), donate_argnums=0)


def test_donating_or_deleting_the_vector_leaves_its_views_alone() -> None:
    for take in (DONATE, lambda x: x.delete()):
        _, flat, re = large()
        rebuilt = re(flat)
        take(flat)
        assert rebuilt["a"].tolist() == list(range(6400))


def test_donating_or_deleting_a_view_leaves_the_vector_alone() -> None:
    for take in (DONATE, lambda m: [x.delete() for x in m.values()]):
        _, flat, re = large()
        expected = np.array(flat)
        take(re(flat))
        np.testing.assert_array_equal(np.asarray(flat), expected)
        assert re(flat)["b"].sum() == 6400


def test_donating_or_deleting_the_model_leaves_the_vector_alone() -> None:
    for take in (DONATE, lambda m: [x.delete() for x in m.values()]):
        model, flat, _ = large()
        take(model)
        assert flat[:3].tolist() == [0, 1, 2]


def test_a_view_outlives_the_vector() -> None:
    _, flat, re = large()
    rebuilt = re(flat)
    del flat
    junk = [jnp.full(12800, -1.0) for _ in range(20)]
    assert rebuilt["a"].tolist() == list(range(6400))
    assert len(junk) == 20


def test_numpy_arrays_are_copied_on_both_ways() -> None:
    array = np.ones(6400, np.float32)
    flat, re = jtree.destructure({"w": array, "b": np.ones(6400, np.float32)})
    array[:] = 5
    assert flat.sum() == 12800
    vector = np.ones(12800, np.float32)
    rebuilt = re(vector)
    vector[:] = 5
    assert rebuilt["w"].sum() == 6400


def test_committed_arrays_stay_committed(run_python: Any) -> None:
    out = run_python(
        """
        import jax, jax.numpy as jnp, jtree
        two = jax.devices()[1]
        here = {"a": jnp.ones(64), "b": jnp.ones(6400)}
        there = jax.device_put(here, two)
        for model in (here, there):
            flat, re = jtree.destructure(model)
            leaves = [flat, *re(flat).values()]
            print({(str(x.devices()), x.committed) for x in leaves})
        with jax.default_device(two):
            flat, re = jtree.destructure({"a": jnp.ones(64), "b": jnp.ones(6400)})
            print({(str(x.devices()), x.committed) for x in [flat, *re(flat).values()]})
        """,
        JAX_NUM_CPU_DEVICES="2",
    )
    assert out.splitlines() == [
        "{('{CpuDevice(id=0)}', False)}",
        "{('{CpuDevice(id=1)}', True)}",
        "{('{CpuDevice(id=1)}', False)}",
    ]


def test_sharded_arrays_take_the_traced_path(run_python: Any) -> None:
    out = run_python(
        """
        import jax, jax.numpy as jnp, jtree, numpy as np
        from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
        mesh = jax.make_mesh((4,), ("x",), axis_types=(AxisType.Auto,))
        model = {"a": jax.device_put(jnp.arange(64.0), NamedSharding(mesh, P("x"))),
                 "b": jax.device_put(jnp.ones((8, 4)), NamedSharding(mesh, P("x", None)))}
        flat, re = jtree.destructure(model)
        again = re(flat)
        print(len(flat.devices()), all((again[k] == model[k]).all() for k in model))
        """,
        JAX_NUM_CPU_DEVICES="4",
    )
    assert out == "4 True\n"


def test_other_memory_kinds_take_the_traced_path() -> None:
    device = jax.devices()[0]
    kinds = [memory.kind for memory in device.addressable_memories()]
    other = [kind for kind in kinds if kind != device.default_memory().kind]
    if not other:
        pytest.skip("this device has one kind of memory")
    sharding = jax.sharding.SingleDeviceSharding(device, memory_kind=other[0])
    assert not _eager.isplain([jax.device_put(jnp.ones(3), sharding)])


def test_tracers_are_not_plain_and_constants_inside_jit_are_right() -> None:
    flat, re = jtree.destructure({"w": jnp.arange(6400.0), "b": jnp.ones(3)})
    assert jax.jit(lambda: re(flat)["w"].sum())() == jnp.arange(6400.0).sum()
    seen = []
    jax.jit(lambda v: seen.append(_eager.isplain([v])))(flat)
    assert seen == [False]


def test_without_the_private_function_the_public_one_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, flat, re = large()
    expected = re(flat)
    for broken in (None, type("Pxla", (), {"batched_device_put": lambda: None})):
        monkeypatch.setattr(_eager, "_private", broken)
        assert same(re(flat), expected)


def test_the_way_of_other_devices_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    half = jnp.linspace(-3, 3, 6400).astype(jnp.bfloat16)
    model = {"a": half, "b": jnp.ones((64, 100)), "z": jnp.ones(2, jnp.complex64), "n": np.ones(3)}
    flat, re = jtree.destructure(model)
    expected = re(flat)
    monkeypatch.setattr(_eager, "on_cpu", lambda _: False)
    other, other_re = jtree.destructure(model)
    assert same(other, flat)
    assert same(other_re(flat), expected)


def test_a_structure_is_worked_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from jtree._tree import walk as _walk

    model = {"w": jnp.ones(2), "once": [jnp.ones(1), None]}
    first = jtree.destructure(model)[1]
    monkeypatch.setattr(_walk, "_walk_uncached", None)
    second = jtree.destructure({"w": jnp.zeros(2), "once": [jnp.zeros(1), None]})[1]
    assert second.layout is first.layout


def test_a_trainable_registered_later_is_used() -> None:
    class Late:
        def __init__(self, a: Any, b: Any) -> None:
            self.a, self.b = a, b

    jax.tree_util.register_pytree_with_keys(
        Late,
        lambda x: (
            ((jax.tree_util.GetAttrKey("a"), x.a), (jax.tree_util.GetAttrKey("b"), x.b)),
            None,
        ),
        lambda _, xs: Late(*xs),
    )
    model = Late(jnp.ones(1), jnp.ones(1))
    assert list(jtree.trainables(model)) == ["a", "b"]
    jtree.trainable.register(Late)(lambda x: {"b": x.b})
    assert list(jtree.trainables(model)) == ["b"]


def test_static_fields_that_compare_equal_are_not_confused() -> None:
    from ..zoo import Affine

    for size in (0, False, 0.0):
        flat, re = jtree.destructure(Affine(jnp.ones(1), None, size=size))  # type: ignore[arg-type]
        assert type(re(flat).size) is type(size)
