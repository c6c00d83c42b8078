"""The base of all layers: a frozen dataclass that is a pytree."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial, singledispatch
from typing import Any, TypeAlias, TypeVar

import jax
from jax.tree_util import GetAttrKey, register_pytree_with_keys, register_static

from .._arguments import check_callable, check_key
from .._errors import ArgumentError, ModelError
from .._summary.layers import layers_text
from .._tree.leaves import isabstract, isarray
from .._tree.nodes import NodeKind, declare_kind
from ._fields import FieldsBase, accept_fields, build

Activation: TypeAlias = Callable[[Any], Any]
InitFunction: TypeAlias = Callable[[Any, tuple[int, ...]], Any]
T = TypeVar("T")
L = TypeVar("L", bound="Layer")


def identity(x: T, /) -> T:
    """Return the input: the default activation."""
    return x


class Layer(FieldsBase):
    """The base class of layers."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self._arguments())})"

    def __str__(self) -> str:
        return layers_text(self)

    def _arguments(self) -> list[str]:
        return []


declare_kind(Layer, NodeKind(all_fields=True))


def layer(*data: str) -> Callable[[type[L]], type[L]]:
    """Return a decorator that makes a frozen dataclass a pytree.

    The fields `data` are its children. The others are static: they are compared by value and are
    part of the structure. `jax.tree_util.register_dataclass` would not do, since it rebuilds a
    node by calling the class with its fields, and the class of a layer is called with sizes. It is
    called with fields by `dataclasses.replace` only, which validates them.
    """

    def decorate(cls: type[L]) -> type[L]:
        cls = dataclass(frozen=True, init=False, repr=False, eq=False)(cls)
        accept_fields(cls)
        meta = tuple(field.name for field in fields(cls) if field.name not in data)  # type: ignore[arg-type]
        register_pytree_with_keys(
            cls,
            lambda x: (
                tuple((GetAttrKey(name), getattr(x, name)) for name in data),
                _values(x, meta),
            ),
            partial(_unflatten, cls, data, meta),
            flatten_func=lambda x: (_values(x, data), _values(x, meta)),
        )
        return cls

    return decorate


def _values(x: object, names: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(getattr(x, name) for name in names)


def _unflatten(
    cls: type[L], data: tuple[str, ...], meta: tuple[str, ...], aux: Any, children: Any
) -> L:
    values = dict(zip(data, children, strict=True))
    if "bias" in values and _was_false(values["bias"], values[data[0]]):
        values["bias"] = False
    return build(cls, **values, **dict(zip(meta, aux, strict=True)))


def _was_false(bias: Any, weight: Any) -> bool:
    """Return whether `jit` or `eval_shape` made an array of `bias=False`; masks are boolean too."""
    flag = isarray(bias) and (bias.shape, bias.dtype.name) == ((), "bool")
    return flag and isarray(weight) and weight.dtype.name != "bool"


@register_static
class Function:
    """A function among layers. It has a path, and is part of the structure rather than a leaf.

    It is equal to the function, and prints as its name.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __eq__(self, other: object) -> bool:
        return bool(self.function == unwrap(other))

    def __hash__(self) -> int:
        return hash(self.function)

    def __repr__(self) -> str:
        return function_name(self.function)


declare_kind(Function, NodeKind(box=True))


def wrap(owner: str, x: Any) -> Any:
    """Return a layer unchanged, and a function, which JAX would treat as a leaf, as `Function`."""
    if not callable(x) or (isinstance(x, type) and issubclass(x, Layer)):
        raise ArgumentError(
            f"{owner} expects layers and functions, found {type(x).__name__}: {x!r}; "
            "pass the layers as separate arguments"
        )
    return Function(x) if jax.tree_util.all_leaves([x]) else x


def unwrap(x: Any) -> Any:
    """Return the function in a `Function`, and anything else unchanged."""
    return x.function if isinstance(x, Function) else x


def function_name(function: Any) -> str:
    """Return the name of a function on one line."""
    if isinstance(function, partial):
        return f"partial({getattr(function.func, '__name__', function.func)!s})"
    return str(getattr(function, "__name__", None) or one_line(function))


def one_line(x: Any) -> str:
    """Return the repr of an object on one line; other frameworks print several."""
    return " ".join(repr(x).split())


def activation_argument(activation: Any) -> list[str]:
    """Return an activation as an argument to print, unless it is the default."""
    return [] if activation is identity else [function_name(activation)]


def changed_arguments(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    """Return the keyword arguments to print, which are those that differ from their defaults."""
    return [f"{name}={x!r}" for name, x in values.items() if x != defaults[name]]


def initialise(init: InitFunction, key: Any, shape: tuple[int, ...]) -> Any:
    """Return `init(key, shape)`, or an abstract array if it needs a key and none was given."""
    check_callable("init", init)
    try:
        return init(key, shape)
    except TypeError:
        if key is not None:
            raise
    return jax.eval_shape(lambda: init(jax.random.key(0), shape))


def add_bias(y: Any, bias: Any) -> Any:
    """Return an output with its bias added, unless that is absent."""
    return y if bias is False or bias is None else y + bias


def check_input(x: Layer, fits: bool, expected: str, found: Any) -> None:
    """Raise an error for an input of the wrong shape."""
    if not fits:
        text = f"an input of shape {tuple(found.shape)}" if isarray(found) else repr(found)
        raise ModelError(f"{x!r} expects {expected}, found {text}")


def check_concrete(x: Layer, weight: Any) -> None:
    """Raise an error for a layer that was created without a key."""
    if isabstract(weight):
        raise ModelError(
            f"{x!r} is abstract: it has shapes but no values; create it with "
            "key=jax.random.key(0), load values with jtree.loadmodel, or compute shapes with "
            "jtree.outputsize"
        )


@singledispatch
def train(x: Any, inputs: Any, key: Any) -> tuple[Any, Any]:  # noqa: ARG001
    """Return the output of a layer in training, and the layer afterwards.

    By default this is the output of an ordinary call, and the same layer.
    """
    return x(inputs), x


def split_key(key: Any, count: int) -> list[Any]:
    """Return one key for each of `count` layers, or None for each of them."""
    if key is None or not count:
        return [None] * count
    return list(jax.random.split(check_key("key", key), count))
