"""Objects that JAX does not open: an error where they hold arrays, and where they are the model."""

from __future__ import annotations

import functools
import types
from collections import ChainMap, UserDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtree


@dataclass
class Unregistered:
    weight: Any


class Plain:
    def __init__(self, weight: Any) -> None:
        self.weight = weight


class Slots:
    __slots__ = ("weight",)

    def __init__(self, weight: Any) -> None:
        self.weight = weight


CALLS: list[Callable[[Any], Any]] = [
    jtree.destructure,
    jtree.count,
    jtree.trainables,
    jtree.state,
]
OTHERS: dict[str, Callable[[Any], Any]] = {
    "f16": jtree.f16,
    "summary": jtree.summary,
    "diff": lambda x: jtree.diff(x, {}),
    "loadmodel": lambda x: jtree.loadmodel(x, {}),
}
A = jnp.ones(2)
OBJECTS = np.array([None, None])
OBJECTS[0] = {"w": A}
HIDDEN = [
    (Plain(A), "a tests.Plain", "register Plain with jax.tree_util.register_pytree_node"),
    (Plain([{"deep": A}]), "a tests.Plain", "register Plain with jax.tree_util"),
    (Slots(A), "a tests.Slots", "register Slots with jax.tree_util.register_pytree_node"),
    (Unregistered(A), "a tests.Unregistered", "register Unregistered with jax.tree_util.register_"),
    (deque([A]), "a collections.deque", "convert it with list(x)"),
    (UserDict(w=A), "a collections.UserDict", "convert it with dict(x)"),
    (ChainMap({"w": A}), "a collections.ChainMap", "convert it with dict(x)"),
    (types.MappingProxyType({"w": A}), "a mappingproxy", "convert it with dict(x)"),
    (types.SimpleNamespace(w=A), "a types.SimpleNamespace", "convert it with vars(x)"),
    (functools.partial(jnp.add, A), "a functools.partial", "use jax.tree_util.Partial"),
    pytest.param(
        {"w": A}.values(),
        "a dict_values",
        "convert it with list(x)",
        marks=pytest.mark.filterwarnings("ignore:Python iterable type"),
    ),
    (OBJECTS, "object[2]", "convert it with x.tolist()"),
    (np.poly1d([1.0, 2.0]), "a numpy.poly1d", "register poly1d with jax.tree_util.register_"),
]


@pytest.mark.parametrize("call", [*CALLS, *OTHERS.values()])
@pytest.mark.parametrize(
    "hidden", [deque([*range(5000), A]), Plain({str(i): i for i in range(5000)} | {"w": A})]
)
def test_arrays_after_thousands_of_other_values_are_an_error(call: Any, hidden: Any) -> None:
    with pytest.raises(jtree.ModelError, match=r"^a: JAX does not open"):
        call({"a": hidden, "w": A})


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("hidden", "name", "remedy"), HIDDEN)
def test_arrays_that_jax_does_not_see_are_an_error(
    call: Any, hidden: Any, name: str, remedy: str, tmp_path: Any
) -> None:
    check_refused(call, hidden, name, remedy, tmp_path)


@pytest.mark.parametrize("call", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize(("hidden", "name", "remedy"), HIDDEN)
def test_they_are_an_error_wherever_they_would_be_left_out(
    call: Any, hidden: Any, name: str, remedy: str
) -> None:
    with pytest.raises(jtree.ModelError) as info:
        call({"a": [hidden], "w": A})
    assert str(info.value).startswith(f"a/0: JAX does not open {name}, so the arrays in it would")
    assert remedy in str(info.value)


def test_a_source_of_arrays_that_jax_does_not_open_is_refused() -> None:
    for call in (jtree.diff, jtree.loadmodel):
        with pytest.raises(jtree.ModelError, match=r"^a: JAX does not open a collections.deque"):
            call({"w": A}, {"w": A, "a": deque([A])})


@pytest.mark.parametrize("call", [*CALLS, *OTHERS.values()])
def test_a_mutable_reference_is_an_error(call: Any) -> None:
    with pytest.raises(jtree.ModelError, match=r"^a: expected an array, found a mutable reference"):
        call({"a": jax.new_ref(A)})


def test_an_array_of_a_dtype_that_jax_lacks_is_an_error() -> None:
    for dtype, name in (("longdouble", "float64"), ("clongdouble", "complex128")):
        with pytest.raises(jtree.ModelError) as info:
            jtree.destructure({"a": np.ones(2, dtype)})
        assert str(info.value) == (
            f"a: JAX has no dtype {np.dtype(dtype)}; convert the array with x.astype({name!r})"
        )


def test_an_integer_that_python_does_not_write_is_described(tmp_path: Any) -> None:
    model = {"n": 10**5000}
    jtree.save(tmp_path / "model", model)
    assert jtree.load(tmp_path / "model", {"n": 0}) == model
    assert jtree.load(tmp_path / "model", model) == model
    assert jtree.diff(model, {"n": 3}).config == {"n": (10**5000, 3)}
    assert "an int of 16,610 bits" in str(jtree.diff(model, {"n": 3}))


def test_children_of_a_dict_that_does_not_sort_are_an_error() -> None:
    with pytest.raises(jtree.ModelError, match=r"^\(root\): expected dict keys that sort"):
        jtree.children({1: A, "a": A})


@pytest.mark.parametrize("call", CALLS)
def test_tensors_of_torch_are_an_error(call: Any, tmp_path: Any) -> None:
    torch = pytest.importorskip("torch")
    remedy = "convert it with x.detach().cpu().numpy()"
    check_refused(call, torch.ones(2), "a torch.Tensor", remedy, tmp_path)


def check_refused(call: Any, hidden: Any, name: str, remedy: str, tmp_path: Any) -> None:
    for model, path in ((hidden, "(root)"), ({"a": [hidden], "w": A}, "a/0")):
        with pytest.raises(jtree.ModelError) as info:
            call(model)
        assert str(info.value).startswith(
            f"{path}: JAX does not open {name}, so the arrays in it would be left out; {remedy}"
        )
        with pytest.raises(jtree.ModelError):
            jtree.save(tmp_path / "model", model)


ROOTS = [
    (Plain, "the class Plain; pass an instance of it"),
    (nn.Dense(3), "a flax.Dense; pass its variables, which module.init(key, ...) returns"),
    (CALLS[0], "the function destructure; pass the model itself"),
    (jnp.tanh, "the function tanh; pass the model itself"),
    (Plain(1), "a tests.Plain; register Plain with jax.tree_util.register_pytree_node"),
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("root", "found"), ROOTS)
def test_a_model_is_a_container_or_an_array(
    call: Any, root: Any, found: str, tmp_path: Any
) -> None:
    with pytest.raises(jtree.ModelError) as info:
        call(root)
    assert str(info.value) == f"(root): expected a model, found {found}"
    with pytest.raises(jtree.ModelError):
        jtree.save(tmp_path / "model", root)


def test_a_torch_module_is_an_error_with_its_state_dict() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(jtree.ModelError) as info:
        jtree.count(torch.nn.Linear(2, 2))
    assert str(info.value).endswith(
        "pass {name: x.numpy() for name, x in module.state_dict().items()}"
    )


def test_functions_types_and_basic_values_are_no_error() -> None:
    mesh = jax.make_mesh((1,), ("data",))
    model = {
        "f": jnp.tanh,
        "relu": jax.nn.relu,
        "module": nn.Dense(3),
        "type": Plain,
        "slope": functools.partial(jax.nn.leaky_relu, negative_slope=0.1),
        "name": "text",
        "plain": Plain(1),
        "mesh": mesh,
    }
    for tree in (model, {"f": jnp.tanh}, {}, None, 1.5, "text"):
        flat, _ = jtree.destructure(tree)
        assert (flat.shape, flat.dtype) == ((0,), jnp.float32)
        assert jtree.count(tree) == 0
        assert jtree.trainables(tree) == {}
