"""What every layer is: a frozen dataclass, a pytree, and two ways to be called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial, singledispatch
from typing import Any, TypeAlias, TypeVar

import jax
from jax.tree_util import GetAttrKey, register_pytree_with_keys, register_static

from .._errors import ArgumentError, ModelError
from .._summary.layers import layers_text
from .._tree.leaves import isabstract, isarray
from .._tree.nodes import NodeKind, declare_kind

Activation: TypeAlias = Callable[[Any], Any]
Init: TypeAlias = Callable[[Any, tuple[int, ...]], Any]
T = TypeVar("T")
L = TypeVar("L", bound="Layer")


def identity(x: T, /) -> T:
    """Return the input: the activation of a layer without one."""
    return x


class Layer:
    """The base of the layers: text, and copies with other fields."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self._arguments())})"

    def __str__(self) -> str:
        return layers_text(self)

    def _arguments(self) -> list[str]:
        return []


declare_kind(Layer, NodeKind(all_fields=True))


def layer(*data: str) -> Callable[[type[L]], type[L]]:
    """Return a decorator: a frozen dataclass, a pytree whose children are the fields `data`.

    The other fields are static: compared by value, part of the structure. `register_dataclass`
    would build a node by calling its class with its fields, but a layer's class is called with
    sizes.
    """

    def decorate(cls: type[L]) -> type[L]:
        made = dataclass(frozen=True, init=False, repr=False, eq=False)(cls)
        meta = tuple(field.name for field in fields(made) if field.name not in data)  # type: ignore[arg-type]
        register_pytree_with_keys(
            made,
            lambda x: (
                tuple((GetAttrKey(name), getattr(x, name)) for name in data),
                _values(x, meta),
            ),
            partial(_unflatten, made, data, meta),
            flatten_func=lambda x: (_values(x, data), _values(x, meta)),
        )
        return made

    return decorate


def _values(x: object, names: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(getattr(x, name) for name in names)


def _unflatten(
    cls: type[L], data: tuple[str, ...], meta: tuple[str, ...], aux: Any, children: Any
) -> L:
    found = dict(zip(data, children, strict=True))
    if "bias" in found and _was_false(found["bias"], found["weight"]):
        found["bias"] = False
    return build(cls, **found, **dict(zip(meta, aux, strict=True)))


def _was_false(bias: Any, weight: Any) -> bool:
    """Tell whether `jit` or `eval_shape` made an array of `bias=False`; masks are boolean too."""
    flag = isarray(bias) and (bias.shape, bias.dtype.name) == ((), "bool")
    return flag and isarray(weight) and weight.dtype.name != "bool"


def build(cls: type[L], /, **values: Any) -> L:
    """Return a layer with these fields."""
    return fill(object.__new__(cls), **values)


def fill(x: L, /, **values: Any) -> L:
    """Set the fields of a layer that is being made."""
    for name, value in values.items():
        object.__setattr__(x, name, value)
    return x


def replace(x: L, /, **changes: Any) -> L:
    """Return a layer like this one with other values in some fields."""
    return build(type(x), **(vars(x) | changes))


@register_static
class Function:
    """A function among layers: it keeps its place, and is part of the structure, no leaf.

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
        return named(self.function)


declare_kind(Function, NodeKind(box=True))


def wrap(owner: str, x: Any) -> Any:
    """Return a layer as it is, and a function, which JAX does not open, as a `Function`."""
    if not callable(x) or (isinstance(x, type) and issubclass(x, Layer)):
        raise ArgumentError(
            f"{owner} expects layers and functions, found {type(x).__name__}: {x!r}; "
            "give layers one by one"
        )
    return Function(x) if jax.tree_util.all_leaves([x]) else x


def unwrap(x: Any) -> Any:
    """Return the function in a `Function`, and anything else as it is."""
    return x.function if isinstance(x, Function) else x


def named(function: Any) -> str:
    """Return what a function is called, on one line."""
    if isinstance(function, partial):
        return f"partial({getattr(function.func, '__name__', function.func)!s})"
    return str(getattr(function, "__name__", None) or one_line(function))


def one_line(x: Any) -> str:
    """Return a repr on one line, which those of other frameworks may not be."""
    return " ".join(repr(x).split())


def activated(activation: Any) -> list[str]:
    """Return an activation as an argument to print, unless it is the default."""
    return [] if activation is identity else [named(activation)]


def options(found: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    """Return those options that have no default value, as arguments to print."""
    return [f"{name}={x!r}" for name, x in found.items() if x != defaults[name]]


def initialised(init: Init, key: Any, shape: tuple[int, ...]) -> Any:
    """Return an array of this shape; an abstract one where a key is needed and none was given."""
    try:
        return init(key, shape)
    except TypeError:
        if key is not None:
            raise
    return jax.eval_shape(lambda: init(jax.random.key(0), shape))


def bias_of(owner: str, bias: Any, weight: Any) -> Any:
    """Return the bias that belongs to a weight: zeros for True, False for False and None."""
    shape = weight.shape[-1:]
    if bias is None or bias is False:
        return False
    if bias is True and isabstract(weight):
        return jax.ShapeDtypeStruct(shape, weight.dtype)
    if bias is True:
        return jax.numpy.zeros(shape, weight.dtype)
    found = bias if isarray(bias) else jax.numpy.asarray(bias)
    if tuple(found.shape) != tuple(shape):
        raise ArgumentError(f"{owner} expects a bias of shape {shape}, found {found.shape}")
    return found


def plus(y: Any, bias: Any) -> Any:
    """Add a bias, unless it is absent."""
    return y if bias is False or bias is None else y + bias


def check_input(x: Layer, fits: bool, expected: str, found: Any) -> None:
    """Refuse an input of the wrong shape; say which layer, what it expected, what it found."""
    if not fits:
        what = f"an input of shape {tuple(found.shape)}" if isarray(found) else repr(found)
        raise ModelError(f"{x!r} expects {expected}, found {what}")


def check_numbers(x: Layer, weight: Any) -> None:
    """Refuse to compute with a layer that was made without a key."""
    if isabstract(weight):
        raise ModelError(
            f"{x!r} has shapes but no numbers; make it with key=jax.random.key(0), load numbers "
            "into it with jtree.loadmodel, or ask for shapes with jtree.outputsize"
        )


@singledispatch
def train(x: Any, inputs: Any, key: Any) -> tuple[Any, Any]:  # noqa: ARG001
    """Return the output in training and the layer after it: the layer's own call, by default."""
    return x(inputs), x


def keys(key: Any, number: int) -> list[Any]:
    """Return as many keys as there are layers, or None for each of them."""
    if key is None or not number:
        return [None] * number
    return list(jax.random.split(key, number))
