"""Leaves that JAX does not open: those that hold arrays, and those that cannot be stored."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import functools
import itertools
import numbers
import os
import types
from collections import UserList, UserString, deque
from collections.abc import Collection, ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._errors import ModelError
from . import paths as _path
from .frameworks import loaded
from .leaves import BASIC, check_alive, describe, isarray, isnumber
from .walk import Walk

_FUNCTIONS = (type, types.FunctionType, types.BuiltinFunctionType, types.MethodType, np.ufunc)
_SEQUENCES = (list, tuple, set, frozenset, deque, UserList, KeysView, ValuesView, ItemsView)
_LIBRARIES = ("jax", "jaxlib")  # none of their types hides the arrays of a model
_HEAP_TYPE = 1 << 9  # the flag of classes that are written in Python
_MOST_OBJECTS = 100_000  # that are searched for arrays, for each leaf, besides basic values
_MOST_COMPUTED = 1000  # values of a mapping that may read or compute each of them
_PLAIN: set[type] = {*BASIC}  # types of leaves that hide nothing, whatever they hold


def check_opened(walked: Walk) -> Walk:
    """Return a walk; raise an error unless JAX opens all of it.

    Raises:
      ModelError: arrays in a leaf, or a root that is not a container, an array or a basic value.
    """
    check_leaves(walked)
    root = walked.values[0] if isinstance(walked.structure.root, int) else None
    if not (isarray(root) or isinstance(root, (*BASIC, np.generic))):
        raise ModelError(_wrong_root(root))
    return walked


def check_leaves(walked: Walk, *, tensors: bool = False) -> Walk:
    """Return a walk; raise an error if arrays are in an object that JAX does not open.

    Args:
      walked: the walk.
      tensors: whether tensors of other libraries are let pass as leaves.
    """
    for path, x in zip(walked.structure.paths, walked.values, strict=True):
        if type(x) in _PLAIN or _isplain(x) or (tensors and _has_values(x)):
            continue
        check_alive(path, x)
        if holds_arrays(x):
            raise ModelError(
                f"{_path.show(path)}: JAX does not open {describe_opaque(x)}, so the arrays in it "
                f"would be left out; {remedy(x)}"
            )
    return walked


def unstorable(walked: Walk) -> dict[str, Any]:
    """Return the leaves that cannot be stored, by path: not arrays, basic values or functions.

    Subclasses of basic types are among them, since their type would be lost.
    """
    leaves = zip(walked.structure.paths, walked.values, strict=True)
    return {path: x for path, x in leaves if type(x) not in BASIC and not _is_storable(x)}


def holds_arrays(x: Any) -> bool:
    """Return whether an object is an array or a tensor, or holds one, however deep."""
    pending, seen = [x], dict[int, Any]()
    while pending and len(seen) < _MOST_OBJECTS:
        y = pending.pop()
        if id(y) not in seen:
            seen[id(y)] = y
            if _has_values(y):
                return True
            pending += _contents(y)
    return False


def ismasked(x: object) -> bool:
    """Return whether `x` is an array of NumPy with a mask, which only NumPy knows of."""
    return isinstance(x, np.ma.MaskedArray)


def describe_opaque(x: Any) -> str:
    """Return an object in words, by its type: `a torch.Tensor`.

    >>> describe_opaque({1}), describe_opaque(deque())
    ('a set', 'a collections.deque')
    """
    if isarray(x):
        return f"a masked {describe(x)}" if ismasked(x) else describe(x)
    cls, module = type(x), type(x).__module__
    name = cls.__qualname__.rpartition(">.")[2]
    if module not in ("builtins", "__main__"):
        name = f"{module.partition('.')[0]}.{name}"
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _isplain(x: Any) -> bool:
    """Return whether a leaf is an array, a basic value or a function, or a type of JAX itself."""
    if isarray(x):
        return bool(x.dtype != object)
    cls = type(x)
    plain = isinstance(x, (*BASIC, np.generic, *_FUNCTIONS)) or _from_library(cls)
    plain = plain and not isinstance(x, jax.Ref)
    if plain:
        _PLAIN.add(cls)
    return plain


def _from_library(cls: type) -> bool:
    return cls.__module__.partition(".")[0] in _LIBRARIES


def _is_storable(x: Any) -> bool:
    if isinstance(x, np.generic):
        return isnumber(x.dtype)
    if isarray(x):
        key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        return (isnumber(x.dtype) or key) and not ismasked(x)
    if isinstance(x, _FUNCTIONS):
        return True
    if isinstance(x, BASIC):
        return False  # a subclass, whose type would be lost
    return _is_stateless(x) or (callable(x) and not holds_arrays(x))


def _is_stateless(x: Any) -> bool:
    """Return whether an object has nothing but its identity, such as a placeholder."""
    in_python = all(cls is object or cls.__flags__ & _HEAP_TYPE for cls in type(x).__mro__)
    return bool(in_python) and not getattr(x, "__dict__", True)


def _has_values(x: Any) -> bool:
    """Return whether an object is an array of JAX or NumPy, or a tensor of another library."""
    if isarray(x):
        return bool(x.dtype != object)
    array = hasattr(type(x), "__array__") or hasattr(type(x), "__dlpack__")
    return array and hasattr(x, "shape") and hasattr(x, "dtype") and not isinstance(x, np.generic)


def _contents(x: Any) -> Iterator[Any]:
    """Yield what an object holds one level down."""
    if isinstance(x, (*BASIC, *_FUNCTIONS, types.ModuleType)) or _from_library(type(x)):
        return
    try:
        parts: list[Iterable[Any]] = [vars(x).values()] if hasattr(x, "__dict__") else []
        slots = [name for cls in type(x).__mro__ for name in getattr(cls, "__slots__", ())]
        parts.append(getattr(x, name) for name in slots if hasattr(x, name))
        if isinstance(x, Mapping):
            limit = None if isinstance(x, dict | types.MappingProxyType) else _MOST_COMPUTED
            parts.append(itertools.islice(x.values(), limit))
        if isinstance(x, _SEQUENCES):
            parts.append(x)
        if isarray(x):
            parts.append(np.ravel(x))
        if isinstance(x, functools.partial):
            parts += [x.args, x.keywords.values()]
        values = [y for part in parts for y in part if type(y) not in BASIC]
    except Exception:  # from the code of the object itself
        return
    yield from values


def remedy(x: Any) -> str:
    """Return what to do with a leaf that JAX does not open."""
    if _isa(x, "flax.linen", "Module"):
        return "pass its variables, which module.init(key, ...) returns"
    if _isa(x, "torch.nn", "Module"):
        return "pass {name: x.numpy() for name, x in module.state_dict().items()}"
    if _isa(x, "torch", "Tensor"):
        return "convert it with x.detach().cpu().numpy()"
    if _has_values(x):
        return "convert it with numpy.asarray(x)"
    if isarray(x):
        return "convert it with x.tolist()"
    if isinstance(x, functools.partial):
        return "use jax.tree_util.Partial"
    if isinstance(x, Mapping):
        return "convert it with dict(x)"
    if isinstance(x, _SEQUENCES):
        return "convert it with list(x)"
    if isinstance(x, types.SimpleNamespace):
        return "convert it with vars(x)"
    if dataclasses.is_dataclass(x):
        return f"register {type(x).__name__} with jax.tree_util.register_dataclass"
    return f"register {type(x).__name__} with jax.tree_util.register_pytree_node"


def basic_remedy(x: Any) -> str:
    """Return how to convert a leaf without arrays to a value that can be stored.

    >>> basic_remedy({1}), basic_remedy(datetime.date(2000, 1, 1))
    ('convert it with list(x)', 'convert it with x.isoformat()')
    """
    for types_, text in _CONVERSIONS:
        if isinstance(x, types_):
            return f"convert it with {text}"
    if dataclasses.is_dataclass(x):
        return "convert it with dataclasses.asdict(x)"
    return "convert it to an array or a basic value"


_CONVERSIONS: tuple[tuple[Any, str], ...] = (
    (enum.Enum, "x.value"),
    (str, "str(x)"),
    (np.datetime64 | np.timedelta64, "str(x)"),
    (np.dtype, "x.name"),
    (int, "int(x)"),
    (float, "float(x)"),
    (complex, "complex(x)"),
    (bytes | bytearray | memoryview, "bytes(x)"),
    (numbers.Real | decimal.Decimal, "float(x) or str(x)"),
    (datetime.date | datetime.time, "x.isoformat()"),
    (datetime.timedelta, "x.total_seconds()"),
    (os.PathLike, "str(x)"),
    (np.random.Generator, "x.bit_generator.state"),
    (np.random.RandomState, "x.get_state(legacy=False)"),
    (types.SimpleNamespace, "vars(x)"),
    (Mapping, "dict(x)"),
    (UserString, "str(x)"),
    (Collection, "list(x)"),
)


def _isa(x: Any, module: str, name: str) -> bool:
    cls = loaded(module, name)
    return cls is not None and isinstance(x, cls)


def _wrong_root(x: Any) -> str:
    name = getattr(x, "__name__", type(x).__name__)
    if isinstance(x, type):
        return f"(root): expected a model, found the class {name}; pass an instance of it"
    if callable(x) and _isplain(x):
        return f"(root): expected a model, found the function {name}; pass the model itself"
    return f"(root): expected a model, found {describe_opaque(x)}; {remedy(x)}"
