"""The fields of a layer: set during construction, replaced in a copy, and validated."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import wraps
from numbers import Real
from typing import Any, TypeVar

import jax

from .._errors import ArgumentError, ArgumentTypeError, did_you_mean
from .._tree.leaves import isabstract, isarray

T = TypeVar("T")


def build(cls: type[T], /, **values: Any) -> T:
    """Return a layer with these fields, without calling its class."""
    return set_fields(object.__new__(cls), **values)


def set_fields(x: T, /, **values: Any) -> T:
    """Set the fields of a frozen layer during its construction."""
    for name, value in values.items():
        object.__setattr__(x, name, value)
    return x


def replace(x: T, /, **changes: Any) -> T:
    """Return a copy of a layer with other values in some fields, which are not validated."""
    return build(type(x), **(vars(x) | changes))


class FieldsBase:
    """The part of a layer that `dataclasses.replace` and `copy.replace` need."""

    def __replace__(self, /, **changes: Any) -> Any:
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]

    def _takes_fields(self, arguments: Mapping[str, Any]) -> bool:
        """Return whether keyword arguments are the fields, and not those of the class."""
        return field_names(type(self)) <= arguments.keys()

    def _validate(self) -> None:
        """Raise an error for fields that do not fit, and normalise the others."""


def field_names(cls: Any) -> set[str]:
    """Return the names of the fields of a layer's class."""
    return {field.name for field in dataclasses.fields(cls)}


def accept_fields(cls: Any) -> None:
    """Make the class of a layer take its fields, too, as `dataclasses.replace` calls it."""
    init = cls.__init__

    @wraps(init)
    def construct(self: Any, /, *args: Any, **kwargs: Any) -> None:
        if args or not self._takes_fields(kwargs):
            init(self, *args, **kwargs)
        else:
            _check_names(cls, kwargs)
            set_fields(self, **kwargs)._validate()

    cls.__init__ = construct


def _check_names(cls: Any, values: Mapping[str, Any]) -> None:
    known = [field.name for field in dataclasses.fields(cls)]
    for name in values.keys() - set(known):
        raise ArgumentTypeError(
            f"{cls.__name__} has the fields {', '.join(known)}; found {name!r}"
            + did_you_mean(name, known)
        )


def check_function(owner: str, name: str, x: Any) -> None:
    """Raise an error for a field that is not a function."""
    if not callable(x):
        raise ArgumentError(f"{owner} expects {name} to be a function, found {x!r}")


def isprobability(x: Any) -> bool:
    """Return whether `x` is a number between 0 and 1."""
    return isinstance(x, Real) and bool(0 <= x <= 1)  # type: ignore[operator]


def check_array(owner: str, name: str, x: Any, shape: tuple[int, ...]) -> None:
    """Raise an error for a field that is not an array of this shape."""
    if not isarray(x) or tuple(x.shape) != shape:
        raise ArgumentError(
            f"{owner} expects {name} to be an array of shape {shape}, found {_text(x)}"
        )


def check_present(owner: str, name: str, x: Any, shape: tuple[int, ...] | None) -> None:
    """Raise an error for an array that should be None, or the reverse; stacks have more axes."""
    if shape is None and x is not None:
        raise ArgumentError(f"{owner} expects {name} to be None, found {_text(x)}")
    if shape is not None:
        stack = x.shape[: max(x.ndim - len(shape), 0)] if isarray(x) else ()
        check_array(owner, name, x, (*stack, *shape))


def split_shape(cls: type, name: str, x: Any, axes: int) -> tuple[Any, Any]:
    """Return the shape of a stack of weights, and that of one weight, which has so many axes."""
    if not isarray(x) or x.ndim < axes:
        raise ArgumentError(
            f"{cls.__name__} expects {name} to be an array of {axes} dimensions, found {_text(x)}"
        )
    shape = tuple(x.shape)
    return shape[: len(shape) - axes], shape[len(shape) - axes :]


def _text(x: Any) -> str:
    return f"shape {tuple(x.shape)}" if isarray(x) else repr(x)


def make_bias(owner: str, bias: Any, weight: Any, shape: tuple[int, ...]) -> Any:
    """Return a bias of this shape: zeros for True, and False for False and None."""
    if bias is None or bias is False:
        return False
    if isarray(bias) and bias.dtype.name == "bool" and weight.dtype.name != "bool":
        return bias  # `vmap` made an array of False
    if bias is True and isabstract(weight):
        return jax.ShapeDtypeStruct(shape, weight.dtype)
    if bias is True:
        return jax.numpy.zeros(shape, weight.dtype)
    array = bias if isarray(bias) else _as_array(owner, bias)
    if tuple(array.shape) != tuple(shape):
        raise ArgumentError(f"{owner} expects a bias of shape {shape}, found {array.shape}")
    return array


def _as_array(owner: str, bias: Any) -> jax.Array:
    try:
        return jax.numpy.asarray(bias)
    except (TypeError, ValueError):
        raise ArgumentError(
            f"{owner} expects bias to be an array, True or False, found {bias!r}"
        ) from None
