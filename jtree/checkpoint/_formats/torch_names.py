"""The names that a pickle of PyTorch may use, and what each becomes. Nothing is imported.

There are three kinds of names: those that build tensors and containers; classes of which an inert
object is kept, so that the tensors beside it can be read; and all others, which are refused.
"""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from .limits import MAX_RANK
from .torch_machine import GlobalName, InertObject, fill

_NUMPY = {
    **{name: name for name in ("uint8", "uint16", "uint32", "uint64", "bool")},
    **{name: name for name in ("int8", "int16", "int32", "int64")},
    **{name: name for name in ("float16", "float32", "float64", "complex64", "complex128")},
    "half": "float16",
    "float": "float32",
    "double": "float64",
    "cfloat": "complex64",
    "short": "int16",
    "int": "int32",
    "long": "int64",
    "cdouble": "complex128",
}
_ML = ("bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")
DTYPES = {
    **{f"torch.{name}": np.dtype(x) for name, x in _NUMPY.items()},
    **{f"torch.{name}": np.dtype(getattr(ml_dtypes, name)) for name in (*_ML, "float8_e8m0fnu")},
}
_STORAGES = {
    "Double": "float64",
    "Float": "float32",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
    "ComplexFloat": "complex64",
    "ComplexDouble": "complex128",
}
STORAGES = {
    **{f"torch.{name}Storage": DTYPES[f"torch.{x}"] for name, x in _STORAGES.items()},
    **{f"torch.cuda.{name}Storage": DTYPES[f"torch.{x}"] for name, x in _STORAGES.items()},
    "torch.storage.UntypedStorage": np.dtype(np.uint8),
}
_HARMLESS = {  # of the standard library
    *("collections.OrderedDict", "collections.defaultdict", "collections.Counter"),
    *("collections.deque", "argparse.Namespace", "types.SimpleNamespace", "uuid.UUID"),
    *("datetime.datetime", "datetime.date", "datetime.timedelta", "datetime.timezone"),
    *("pathlib.PosixPath", "pathlib.WindowsPath", "pathlib.PurePosixPath", "pathlib.Path"),
    *("decimal.Decimal", "fractions.Fraction", "enum.Enum", "enum.IntEnum", "_codecs.encode"),
    *("copyreg._reconstructor", "copy_reg._reconstructor"),
    *(f"pathlib._local.{name}" for name in ("PosixPath", "WindowsPath")),
    *(
        f"{module}.{name}"
        for module in ("builtins", "__builtin__")
        for name in (
            *("object", "set", "frozenset", "list", "dict", "tuple", "int", "float", "complex"),
            *("bool", "str", "bytes", "bytearray", "slice", "range", "unicode", "long"),
        )
    ),
}
_INERT_CALLS = {
    *("torch.device", "torch.serialization._get_layout", "numpy.dtype"),
    *(
        f"numpy.{core}.{name}"
        for core in ("core", "_core")
        for name in ("multiarray.scalar", "multiarray._reconstruct", "numeric._frombuffer")
    ),
}
_EMPTY_DICTS = {"collections.defaultdict", "collections.Counter"}
_PYTHON_2 = {"__builtin__", "commands", "copy_reg", "cPickle", "exceptions", "popen2", "UserDict"}
_OTHER_TENSORS = {
    "_rebuild_sparse_tensor": "a sparse tensor; save its .to_dense()",
    "_rebuild_qtensor": "a quantised tensor; save its .dequantize()",
    "_rebuild_nested_tensor": "a nested tensor; save its .to_padded_tensor(0)",
    "_rebuild_meta_tensor_no_storage": "a tensor on the meta device, which has no values",
    "_rebuild_wrapper_subclass": "a tensor subclass without values of its own",
}


class TensorStorage(NamedTuple):
    """The values of tensors: an entry of the archive."""

    key: str
    dtype: Any
    size: int  # elements


class Tensor(NamedTuple):
    """A tensor without its values."""

    storage: TensorStorage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: Any
    conj: bool = False
    neg: bool = False


class TorchNames:
    """The names of PyTorch: the policy of a pickle machine."""

    def __init__(self) -> None:
        self.storages: dict[str, TensorStorage] = {}

    def name(self, name: str) -> GlobalName:
        """Return a name as a value; refuse those of Python itself that are not known to be safe."""
        module = name.partition(".")[0]
        if (module in sys.stdlib_module_names or module in _PYTHON_2) and name not in _HARMLESS:
            raise ValueError(_refusal("names", name))
        return GlobalName(name)

    def call(self, name: str, args: tuple[Any, ...]) -> Any:
        """Return the result of calling a name: a tensor, a dict or an inert object."""
        if name in _BUILDERS:
            return _BUILDERS[name](*args)
        if name in _EMPTY_DICTS:
            return {}
        if name == "torch._tensor._rebuild_from_type_v2":
            function, _, inner, *_ = args
            if not function.name.startswith("torch._utils."):
                raise ValueError(_refusal("calls", function.name))
            return self.call(function.name, inner)
        if name.endswith("._reconstructor"):
            return InertObject(args[0].name)
        last = name.rpartition(".")[2]
        if name.startswith("torch._utils.") and last in _OTHER_TENSORS:
            raise ValueError(f"it holds {_OTHER_TENSORS[last]}")
        if name in _HARMLESS | _INERT_CALLS or last.lstrip("_")[:1].isupper():
            return InertObject(name)
        raise ValueError(_refusal("calls", name))

    def load(self, identity: Any) -> TensorStorage:
        """Return the storage that a persistent id stands for."""
        kind, cls, key, _, count, *_ = identity
        if kind != "storage" or not isinstance(cls, GlobalName) or cls.name not in STORAGES:
            raise ValueError(f"unknown storage type {_show(cls)}")
        if not isinstance(key, str) or type(count) is not int or count < 0:
            raise ValueError("invalid storage: expected a name and a size")
        storage = TensorStorage(key, STORAGES[cls.name], count)
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError(f"two storages {key!r:.80} differ in dtype or size")
        return storage


def _refusal(verb: str, name: str) -> str:
    return (
        f"its pickle {verb} {name:.80}, which does not belong in a file of tensors; nothing was "
        "run. If you trust the file, load it in PyTorch and save its state_dict only"
    )


def _tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, _grad: Any = 0, _hooks: Any = 0,
    metadata: Any = None, dtype: Any = None,
) -> Tensor:  # fmt: skip
    if not isinstance(storage, TensorStorage):
        raise ValueError("invalid tensor: it lacks a storage")
    shape, strides = _sizes(shape), _sizes(strides)
    _sizes((offset,))
    if len(shape) != len(strides):
        raise ValueError(f"invalid tensor: shape {_show(shape)} with strides {_show(strides)}")
    steps = zip(shape, strides, strict=True)
    strides = tuple(x if n > 1 and 0 not in shape else 0 for n, x in steps)
    flags = metadata if isinstance(metadata, dict) else {}
    known = DTYPES.get(dtype.name) if isinstance(dtype, GlobalName) else storage.dtype
    if known is None:
        raise ValueError(f"tensors of {dtype.name:.80} are not supported; convert them in PyTorch")
    conj, neg = bool(flags.get("conj")), bool(flags.get("neg"))
    return Tensor(storage, offset, shape, strides, known, conj, neg)


def _sizes(x: Any) -> tuple[int, ...]:
    """Return an offset, a shape or strides, checked."""
    isshort = isinstance(x, tuple | list) and len(x) <= MAX_RANK
    if not isshort or any(type(n) is not int or not 0 <= n < 2**62 for n in x):
        raise ValueError(f"invalid tensor: offset, shape or strides {_show(x)}")
    return tuple(x)


def _show(x: Any) -> str:
    """Return a value as text, cut off: the whole of it may never end."""
    return f"{reprlib.repr(getattr(x, 'name', x)):.80}"


def _tensor_v3(
    storage: Any, offset: Any, shape: Any, strides: Any, _grad: Any, _hooks: Any, dtype: Any,
    metadata: Any = None,
) -> Tensor:  # fmt: skip
    return _tensor(storage, offset, shape, strides, metadata=metadata, dtype=dtype)


def _parameter(data: Any, *_: Any) -> Any:
    if not isinstance(data, Tensor | InertObject):
        raise ValueError("invalid parameter: it lacks a tensor")
    return data


def _ordered(pairs: Any = (), *_: Any) -> dict[Any, Any]:
    items: dict[Any, Any] = {}
    fill(items, pairs)
    return items


def _complex(real: Any = 0.0, imaginary: Any = 0.0) -> complex:
    if not (type(real) in (int, float) and type(imaginary) in (int, float)):
        raise ValueError("invalid complex number: expected two real numbers")
    return complex(real, imaginary)


_BUILDERS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered,
    "torch.Size": lambda x=(): _sizes(x),
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "builtins.complex": _complex,
    "__builtin__.complex": _complex,
}
