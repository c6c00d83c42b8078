"""One function per kind of model. Every law is tested on each of them."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import chex
import equinox as eqx
import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.tree_util import DictKey, GetAttrKey

import jtree
from jtree.layers import (
    GRU,
    LSTM,
    BatchNorm,
    Chain,
    Conv,
    Dense,
    Dropout,
    Embedding,
    GroupNorm,
    LayerNorm,
    MaxPool,
    MultiHeadAttention,
    Parallel,
    SkipConnection,
    flatten,
)

ZOO: dict[str, Callable[[], Any]] = {}
KEY = jax.random.key(0)


def kind(make: Callable[[], Any]) -> Callable[[], Any]:
    ZOO[make.__name__] = make
    return make


class Pair(NamedTuple):
    left: Any
    right: Any


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["weight", "bias"],
    meta_fields=["activation", "size", "name"],
)
@dataclass
class Affine:
    weight: Any
    bias: Any
    activation: Any = jnp.tanh
    size: int = 3
    name: str = "affine"


class Keyless:
    def __init__(self, scale: Any, shift: Any, tag: str) -> None:
        self.scale, self.shift, self.tag = scale, shift, tag


jax.tree_util.register_pytree_node(
    Keyless, lambda x: ((x.scale, x.shift), x.tag), lambda tag, xs: Keyless(*xs, tag)
)


@jax.tree_util.register_pytree_node_class
@dataclass
class KeylessDataclass:
    weight: Any
    rate: Any
    size: int = 3

    def tree_flatten(self) -> Any:
        return (self.weight, self.rate), self.size

    @classmethod
    def tree_unflatten(cls, size: int, children: Any) -> Any:
        return cls(*children, size)


class Keyed:
    def __init__(self, scale: Any, extra: Any) -> None:
        self.scale, self.extra = scale, extra


jax.tree_util.register_pytree_with_keys(
    Keyed,
    lambda x: (((GetAttrKey("scale"), x.scale), (DictKey("extra"), x.extra)), None),
    lambda _, xs: Keyed(*xs),
)


@flax.struct.dataclass
class Struct:
    kernel: Any
    steps: Any
    rate: float = flax.struct.field(pytree_node=False, default=0.1)


@chex.dataclass
class Chex:
    mean: Any
    scale: Any
    flag: bool = True


class Net(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(1, 2, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(2, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.layers = nnx.List([nnx.Linear(32, 4, rngs=rngs), nnx.Linear(4, 2, rngs=rngs)])
        self.activation = jax.nn.relu

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.drop(self.norm(self.conv(x))).reshape(x.shape[0], -1)
        for layer in self.layers:
            x = self.activation(layer(x))
        return x


class Shared(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.enc = nnx.Linear(3, 3, rngs=rngs)
        self.dec = self.enc
        self.head = nnx.Linear(3, 2, rngs=rngs)
        self.again = nnx.List([self.head.kernel, nnx.Param(jnp.ones(1))])

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(self.dec(jnp.tanh(self.enc(x)))) * self.again[1][...]


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        partitioned = nn.with_partitioning(nn.initializers.lecun_normal(), (None, None))
        x = nn.Dense(3, kernel_init=partitioned)(x)
        return nn.BatchNorm(use_running_average=not train)(x)


class Gated(eqx.Module):
    weight: jax.Array
    gate: Any
    label: str
    rate: float = eqx.field(static=True)


def arrays(*shapes: tuple[int, ...], dtype: Any = jnp.float32) -> list[jax.Array]:
    keys = jax.random.split(KEY, len(shapes))
    return [jax.random.normal(k, s, dtype) for k, s in zip(keys, shapes, strict=True)]


@kind
def nested_dict() -> Any:
    w, b = arrays((2, 3), (3,))
    return {"layer": {"w": w, "b": b}, "step": 7, "name": "net", "none": None}


@kind
def ordered_dict() -> Any:
    w, b = arrays((2,), (3,))
    return OrderedDict(z=w, a=defaultdict(list, k=b))


@kind
def integer_keys() -> Any:
    return {2: jnp.ones(2), 10: jnp.zeros((1, 2))}


@kind
def lists_and_tuples() -> Any:
    a, b, c = arrays((2,), (1, 2), ())
    return [a, (b, [c, ()], "text"), {}, 3.5]


@kind
def named_tuple() -> Any:
    a, b = arrays((2,), (3,))
    return Pair(left=Pair(a, None), right=[b, jnp.sin])


@kind
def registered_dataclass() -> Any:
    w, b = arrays((2, 3), (3,))
    return {"a": Affine(w, b), "b": Affine(w + 1, False, size=4)}


@kind
def node_without_keys() -> Any:
    a, b = arrays((2,), (2, 2))
    return Keyless(a, [b, Keyless(a * 2, 1, "in")], "out")


@kind
def dataclass_without_keys() -> Any:
    return {"layer": KeylessDataclass(jnp.ones(2), 1.5)}


@kind
def node_with_keys() -> Any:
    a, b = arrays((2,), (2, 2))
    return Keyed(a, {"x": b})


@kind
def flax_struct() -> Any:
    (k,) = arrays((2, 2))
    return Struct(kernel=k, steps=jnp.array(3))


@kind
def chex_dataclass() -> Any:
    a, b = arrays((2,), (2,))
    return Chex(mean=a, scale=b)


@kind
def nnx_network() -> Any:
    return Net(nnx.Rngs(0))


@kind
def nnx_shared() -> Any:
    return Shared(nnx.Rngs(0))


@kind
def nnx_state() -> Any:
    return nnx.state(Net(nnx.Rngs(0)))


@kind
def nnx_rngs() -> Any:
    return nnx.Rngs(0, params=1)


@kind
def nnx_functions_in_lists() -> Any:
    rngs = nnx.Rngs(0)
    return nnx.Sequential(nnx.Linear(2, 2, rngs=rngs), nnx.relu, nnx.Linear(2, 1, rngs=rngs))


@kind
def linen_variables() -> Any:
    return Linen().init(KEY, jnp.ones((1, 2)))


@kind
def linen_frozen() -> Any:
    return flax.core.freeze(Linen().init(KEY, jnp.ones((1, 2))))


@kind
def equinox_mlp() -> Any:
    return eqx.nn.MLP(2, 1, 4, 2, key=KEY)


@kind
def equinox_leaves() -> Any:
    (w,) = arrays((3,))
    return Gated(weight=w, gate=jax.nn.sigmoid, label="gate", rate=0.5)


@kind
def equinox_shared() -> Any:
    embedding, head = eqx.nn.Embedding(3, 2, key=KEY), eqx.nn.Linear(2, 3, key=KEY)
    return eqx.nn.Shared((embedding, head), lambda x: x[1].weight, lambda x: x[0].weight)


@kind
def layers_network() -> Any:
    one, two = jax.random.split(KEY)
    return Chain(
        Conv((3, 3), 1, 2, jax.nn.relu, key=one, pad="SAME"),
        BatchNorm(2, jnp.tanh),
        MaxPool((2, 2)),
        flatten,
        Dropout(0.5),
        Dense(8, 3, key=two, bias=False),
    )


def add(x: Any, y: Any) -> Any:
    return x + y


@kind
def layers_named() -> Any:
    one, two, three = jax.random.split(KEY, 3)
    both = Parallel(add, left=Dense(3, 2, key=one), right=Dense(3, 2, key=two))
    skip = SkipConnection(Dense(2, 2, key=three), add)
    norm = BatchNorm(2, affine=False, track_stats=False, active=False)
    return Chain(z=both, act=abs, skip=skip, a=norm)


@kind
def layers_of_sequences() -> Any:
    one, two, three, four = jax.random.split(KEY, 4)
    return Chain(
        Embedding(5, 4, key=one),
        LSTM(4, 3, key=two),
        GRU(3, 4, key=three, bias=False, hidden_bias=True),
        MultiHeadAttention(4, heads=2, key=four, dropout=0.1),
        LayerNorm(4),
        GroupNorm(4, 2, affine=False),
    )


@kind
def optax_state() -> Any:
    return optax.adamw(1e-3).init(nested_arrays())


@kind
def partial_function() -> Any:
    a, b = arrays((2,), (2,))
    return jax.tree_util.Partial(jnp.add, a, scale=b)


@kind
def bare_array() -> Any:
    return arrays((2, 3))[0]


@kind
def numpy_arrays() -> Any:
    return {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "i": np.arange(3)}


@kind
def mixed_dtypes() -> Any:
    return {
        "half": jnp.ones(2, jnp.float16),
        "brain": jnp.full(2, 3.0, jnp.bfloat16),
        "single": jnp.full((1, 2), 5.0, jnp.float32),
        "eight": jnp.array([0.5, 448.0], jnp.float8_e4m3fn),
    }


@kind
def complex_numbers() -> Any:
    return {"z": jnp.array([1.0 + 2.0j]), "x": jnp.array([3.0])}


@kind
def not_numeric() -> Any:
    return {
        "key": jax.random.key(1),
        "old_key": jax.random.PRNGKey(1),
        "big": jnp.array([2**31 + 1], jnp.uint32),
        "flags": np.array([True, False]),
        "w": jnp.ones(2),
        "float": 0.1,
        "complex": 1j,
        "scalar": np.float32(2),
        "rbg": jax.random.key(1, impl="rbg"),
        "big_endian": np.arange(3, dtype=">i4"),
    }


@kind
def empty() -> Any:
    return {"a": {}, "b": [], "c": None, "d": ()}


@kind
def zero_sized() -> Any:
    return {"a": jnp.zeros((0, 3)), "b": jnp.ones(2), "c": jnp.zeros(0)}


@kind
def one_object_twice() -> Any:
    zeros = jnp.zeros(2)
    return {"a": zeros, "b": zeros}


@kind
def gradients() -> Any:
    loss = lambda m: (m["w"] ** 2).sum()  # noqa: E731
    grads = jax.grad(loss, allow_int=True)({"w": jnp.ones(2), "i": jnp.arange(3)})
    return grads | {"n": None}


def nested_arrays() -> Any:
    w, b = arrays((2, 3), (3,))
    return {"w": w, "b": b}


@dataclass
class Opaque:
    """No pytree: JAX takes it for a leaf."""

    numbers: list[int] = field(default_factory=lambda: [1])


@kind
def no_pytree() -> Any:
    return {"opaque": Opaque(), "w": jnp.ones(1)}


def abstract(model: Any) -> Any:
    """Return the model with every array of JAX as a ShapeDtypeStruct, and its ties as they are."""
    walked = jtree.walk(model)
    return walked.rebuild([_abstract(slot.value) for slot in walked.slots])


def _abstract(x: Any) -> Any:
    return jax.ShapeDtypeStruct(x.shape, x.dtype) if isinstance(x, jax.Array) else x
