"""Nodes: their children, their paths, and the fields that are not children."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import jtree

from ..zoo import Affine


def test_a_function_in_a_list_of_layers_keeps_its_index() -> None:
    rngs = nnx.Rngs(0)
    model = nnx.Sequential(nnx.Linear(2, 2, rngs=rngs), nnx.relu, nnx.Linear(2, 2, rngs=rngs))
    assert [x[:8] for x in jtree.trainables(model)] == ["layers/0"] * 2 + ["layers/2"] * 2
    assert jtree.state(model)["layers"][1] == ()
    other = nnx.Sequential(nnx.Linear(2, 2, rngs=rngs), nnx.Linear(2, 2, rngs=rngs), nnx.relu)
    assert jtree.diff(model, other).missing == ("layers/2/bias", "layers/2/kernel")
    for source in (nnx.state(model), nnx.to_pure_dict(nnx.state(model)), jtree.state(model)):
        assert not jtree.diff(model, source)


def test_a_configuration_may_hold_what_a_model_may_not() -> None:
    cyclic: list[Any] = []
    cyclic.append(cyclic)
    for config in ({1: 2, "a": 3}, {"a/b": 1, "a": {"b": 2}}, cyclic):
        assert "name" not in jtree.state(Affine(jnp.ones(1), None, name=config))  # type: ignore[arg-type]


def test_two_nodes_with_one_path_are_refused() -> None:
    with pytest.raises(jtree.ModelError, match=r"a/b: .* have the same path"):
        jtree.modules({"a/b": [1], "a": {"b": {"z": 2}}})
    with pytest.raises(jtree.ModelError, match=r"a/b: .* have the same path"):
        jtree.modules({"a/b": 1, "a": {"b": {"z": 2}}})
    assert jtree.state({"": 1}) == {"": 1}


def test_children_created_by_each_flatten_may_be_trainable() -> None:
    @jax.tree_util.register_pytree_node_class
    @dataclass
    class Fresh:
        w: Any

        def tree_flatten(self) -> Any:
            return ({"inner": self.w},), None

        @classmethod
        def tree_unflatten(cls, _: None, children: Any) -> Any:
            return cls(children[0]["inner"])

    jtree.trainable.register(Fresh)(jtree.children)
    assert list(jtree.trainables(Fresh(jnp.ones(1)))) == ["0/inner"]


def test_an_int_key_and_attributes_that_begin_with_an_underscore() -> None:
    class Module(nnx.Module):
        def __init__(self) -> None:
            self._size = 3
            self.w = nnx.Param(jnp.ones(1))

    assert jtree.state(Module())["_size"] == 3
