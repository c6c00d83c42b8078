"""Tensors of PyTorch as NumPy arrays of every dtype that NumPy can have, others refused by name."""

from __future__ import annotations

import sys
from typing import Any

import ml_dtypes

from ..._errors import ArgumentError
from ..._tree.frameworks import loaded

# NumPy has these dtypes from ml_dtypes, and PyTorch exports only integers of their width.
_VIEWS = {
    "bfloat16": "int16",
    "float8_e4m3fn": "uint8",
    "float8_e5m2": "uint8",
    "float8_e4m3fnuz": "uint8",
    "float8_e5m2fnuz": "uint8",
    "float8_e8m0fnu": "uint8",
}


def read_tensor(name: str, x: Any) -> Any:
    """Return a tensor of PyTorch as a NumPy array.

    Args:
      name: the name of the tensor in the source, for errors.
      x: the tensor.

    Raises:
      ArgumentError: the tensor has no values, is sparse or quantised, or NumPy lacks its dtype.
    """
    _check_dense(name, x)
    x = x.detach().cpu().resolve_conj().resolve_neg()
    dtype = str(x.dtype).removeprefix("torch.")
    torch = sys.modules["torch"]
    if dtype == "complex32":
        return x.to(torch.complex64).numpy()
    if dtype in _VIEWS:
        view = x.contiguous().view(getattr(torch, _VIEWS[dtype]))
        return view.numpy().view(getattr(ml_dtypes, dtype))
    try:
        return x.numpy()
    except TypeError as error:
        raise _unreadable(
            name, f"a tensor of {dtype}, which NumPy lacks; unpack or cast it first"
        ) from error


def _is_instance(x: Any, module: str, name: str) -> bool:
    cls = loaded(module, name)
    return cls is not None and isinstance(x, cls)


def _check_dense(name: str, x: Any) -> None:
    """Refuse a tensor that has no values, or whose values are not those of a dense array."""
    if _is_instance(x, "torch.nn.parameter", "UninitializedTensorMixin"):
        raise _unreadable(
            name, "an uninitialised tensor of a lazy module; call the module on an input first"
        )
    if x.is_meta:
        raise _unreadable(
            name,
            "a tensor on the meta device, which has no values; load the weights into the module "
            "first, or create it without torch.device('meta')",
        )
    if x.is_quantized:
        raise _unreadable(
            name,
            "a quantised tensor; pass its values, which are .dequantize(), or convert the module "
            "from before its quantisation",
        )
    if x.layout is not sys.modules["torch"].strided:
        layout = str(x.layout).removeprefix("torch.")
        raise _unreadable(name, f"a tensor of layout {layout}; pass its values as .to_dense()")


def check_readable(name: str, x: Any) -> None:
    """Refuse an entry of the state dict of a module that is not an array, as of quantised ones."""
    if not hasattr(x, "shape"):
        raise _unreadable(
            name,
            f"{type(x).__name__} in the state of the module, as quantised modules have; convert "
            "the module from before its quantisation",
        )


def _unreadable(name: str, description: str) -> ArgumentError:
    return ArgumentError(f"source: {name}: expected a dense tensor, found {description}")
