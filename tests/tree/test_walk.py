"""The walk: paths, ties, cycles, and what a node's `trainable` may return."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

import jtree
from jtree._tree.paths import matches

from ..same import same
from ..zoo import Affine, Net, Pair


def paths(model: Any) -> list[str]:
    return [slot.path for slot in jtree.walk(model).slots]


def test_boxes_add_nothing_to_a_path() -> None:
    model = Net(nnx.Rngs(0))
    found = paths(model)
    assert "conv/kernel" in found
    assert "layers/0/bias" in found
    assert not any("value" in path or "_pytree" in path for path in found)


def test_named_tuples_and_keyless_nodes_have_paths() -> None:
    assert paths(Pair(left=1, right=[2])) == ["left", "right/0"]
    assert paths(jax.tree_util.Partial(jnp.add, 1, k=2)) == ["0/0", "1/k"]
    assert paths(jnp.ones(1)) == [""]


def test_rebuild_keeps_types_and_none() -> None:
    model = {"a": Pair(None, (1,)), "b": [Affine(1, 2)]}
    walked = jtree.walk(model)
    again = walked.rebuild([x.value for x in walked.slots])
    assert same(model, again)
    assert again is not model


def test_two_leaves_with_one_path_are_refused() -> None:
    with pytest.raises(jtree.ModelError) as info:
        jtree.destructure({"a/b": jnp.ones(1), "a": {"b": jnp.ones(2)}})
    assert str(info.value) == (
        "a/b: ['a']['b'] and ['a/b'] have the same path; rename one of the keys"
    )


def test_dict_keys_of_mixed_types_are_refused() -> None:
    with pytest.raises(ValueError, match="keys that sort") as info:
        jtree.destructure({"net": {1: jnp.ones(1), "a": jnp.ones(1)}})
    assert str(info.value) == (
        "net: expected dict keys that sort, found keys of the types int, str; "
        "use keys of one type that can be compared, such as str"
    )


def test_a_model_that_contains_itself_is_refused_by_path() -> None:
    inner: list[Any] = [jnp.ones(1)]
    model = {"a": {"b": inner}}
    inner.append(model["a"])
    with pytest.raises(ValueError, match="contains itself") as info:
        jtree.destructure(model)
    assert str(info.value) == (
        "a/b/1: the model contains itself: this is the dict at a; "
        "replace it with an object that does not refer back"
    )
    module = Net(nnx.Rngs(0))
    module.parent = module
    with pytest.raises(ValueError, match=r"^parent: the model contains itself: this is the Net at"):
        jtree.state(module)


def test_an_object_that_is_not_a_pytree_is_a_leaf() -> None:
    thing = object()
    flat, re = jtree.destructure({"thing": thing})
    assert flat.size == 0
    assert re(flat)["thing"] is thing
    with pytest.raises(ValueError, match="matches no parameter: the model has none"):
        jtree.destructure({"thing": thing}, where="**")
    with pytest.raises(jtree.ModelError, match=r"^\(root\): expected a model, found an object; "):
        jtree.destructure(thing)


def test_an_error_inside_a_tree_gains_its_path() -> None:
    class Broken:
        pass

    def fail(_: Any) -> Any:
        raise ZeroDivisionError

    jax.tree_util.register_pytree_node(Broken, fail, lambda _, xs: xs)
    with pytest.raises(ZeroDivisionError) as info:
        jtree.destructure({"a": [Broken()]})
    assert info.value.__notes__ == ["while flattening the Broken at a/0"]


# --- trainable -----------------------------------------------------------------------------------


def layer(function: Any) -> Any:
    """Return a fresh type of layer with this function for its `trainable`."""

    @partial(jax.tree_util.register_dataclass, data_fields=["weight", "scale"], meta_fields=[])
    @dataclass
    class Layer:
        weight: Any
        scale: Any

    jtree.trainable.register(Layer)(function)
    return Layer(jnp.ones(2), {"x": jnp.ones(1)})


def test_trainable_narrows_the_parameters_of_a_type() -> None:
    model = [layer(lambda node: {"weight": node.weight}), layer(lambda _: {})]
    flat, re = jtree.destructure(model)
    assert re.paths == ("0/weight",)
    assert list(jtree.trainables(model)) == ["0/weight"]
    assert jtree.destructure(model, which="all")[0].size == 6
    assert re(flat * 3)[0].scale["x"] is model[0].scale["x"]


def test_a_parents_trainable_rules_over_its_children() -> None:
    outer = layer(lambda node: {"scale": node.scale})
    outer.scale = layer(lambda node: {"scale": node.scale})
    assert list(jtree.trainables(outer)) == ["scale/scale/x"]


BAD = [
    (
        lambda node: {"wieght": node.weight},
        "(root): trainable(Layer) must return children of the node, but it returned 'wieght'; "
        "the children are ['weight', 'scale']; did you mean weight?",
    ),
    (
        lambda node: [node.weight],
        "(root): trainable(Layer) must return a dict, a subset of jtree.children(node), "
        "but it returned list",
    ),
    (
        lambda node: {"weight": node.weight * 2},
        "(root): trainable(Layer) must return the children themselves, but it returned another "
        "object for 'weight'; return {name: jtree.children(node)[name]}",
    ),
]


@pytest.mark.parametrize(("function", "message"), BAD)
def test_a_trainable_that_returns_something_else_is_refused(function: Any, message: str) -> None:
    with pytest.raises(ValueError, match="trainable") as info:
        jtree.destructure(layer(function))
    assert str(info.value) == message


def test_of_nnx_variables_only_parameters_are_trainable() -> None:
    assert jtree.trainable(nnx.BatchStat(jnp.ones(1))) == {}
    assert list(jtree.trainable(nnx.Param(jnp.ones(1)))) == ["value"]


# --- devices, in a process of its own since their number is fixed at the start --------------------


def test_arrays_on_two_devices_are_refused_and_named(run_python: Any) -> None:
    out = run_python(
        """
        import jax, jax.numpy as jnp, jtree
        one, two = jax.devices()
        model = {"a": jax.device_put(jnp.ones(2), one), "b": jax.device_put(jnp.ones(2), two)}
        try:
            jtree.destructure(model)
        except ValueError as error:
            print(error)
        loaded = jtree.loadmodel({"a": model["b"]}, {"a": jnp.zeros(2)})
        print(loaded["a"].devices() == {two}, loaded["a"].committed)
        """,
        JAX_NUM_CPU_DEVICES="2",
    )
    assert out == (
        "arrays are on different devices: a on cpu:0, b on cpu:1; "
        "move the model with jax.device_put\nTrue True\n"
    )


# --- globs ---------------------------------------------------------------------------------------

STEP = st.text("ab*?[]-.", min_size=1, max_size=3)


@given(st.lists(STEP, min_size=1, max_size=4))
def test_a_path_matches_itself_and_stars(steps: list[str]) -> None:
    path = "/".join(steps)
    assert matches(path, path)
    assert matches("**", path)
    assert matches("/".join("*" for _ in steps), path)
    assert matches("**/" + "*", path)
    assert not matches("/".join("*" for _ in [*steps, 0]), path)


CASES = [
    ("layers/**", "layers/0/weight", True),
    ("layers/**", "layers", True),
    ("layers/**", "layers2/0", False),
    ("**/bias", "bias", True),
    ("**/bias", "a/b/bias", True),
    ("**/bias", "a/nobias", False),
    ("a/**/b", "a/b", True),
    ("a/**/b", "a/x/y/b", True),
    ("a/**/**/b", "a/x/b", True),
    ("**/**/b", "b", True),
    ("layers/?/weight", "layers/1/weight", True),
    ("layers/?/weight", "layers/10/weight", False),
    ("layers/[0-2]/*", "layers/1/weight", True),
    ("layers/[!0-2]/*", "layers/1/weight", False),
    ("a.b", "aXb", False),
    ("", "", True),
]


@pytest.mark.parametrize(("glob", "path", "expected"), CASES)
def test_globs(glob: str, path: str, expected: bool) -> None:
    assert matches(glob, path) is expected
