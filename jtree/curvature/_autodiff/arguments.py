"""What operators are given: vectors, paths, and libraries that are installed or not."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..._errors import ExtraError, VectorError, VectorTypeError
from ..._tree.leaves import describe, isarray, isnumber
from ..._tree.paths import Where, select
from ..._vector.restructure import Restructure
from .call import automatic


def checked_vector(op: Any, v: Any, size: int | None = None) -> jax.Array:
    """Return a vector, or a matrix of columns, that an operator can be multiplied with."""
    size = op.size if size is None else size
    if not isarray(v) or not isnumber(v.dtype):
        raise VectorTypeError(f"expected a vector of {size} numbers, found {describe(v)}")
    if jnp.issubdtype(v.dtype, jnp.complexfloating):
        raise VectorTypeError(f"expected real numbers, found {describe(v)}")
    if v.ndim not in (1, 2) or v.shape[0] != size:
        turned = v.ndim == 2 and v.shape[1] == size
        hint = "; vectors are columns: transpose it" if turned else ""
        raise VectorError(
            f"expected a vector of {size} numbers or a matrix of {size} rows, "
            f"found {describe(v)}{hint}"
        )
    found: jax.Array = automatic(jnp.asarray(v, op.dtype))
    return found


def chosen(re: Restructure, where: Where) -> tuple[int, ...]:
    """Return the numbers of the parameters that `where` selects, tied places included."""
    by_path, layout = re.layout.by_path, re.layout
    places = [
        (path, jax.ShapeDtypeStruct(layout.shapes[k], layout.dtypes[k]))
        for path, k in by_path.items()
    ]
    flags = select(where, places)
    return tuple(sorted({k for k, flag in zip(by_path.values(), flags, strict=True) if flag}))


def places(re: Restructure, where: Where) -> np.ndarray[Any, Any]:
    """Return where in the vector the parameters are that `where` selects."""
    starts = np.cumsum([0, *re.layout.sizes])
    return np.concatenate([np.arange(starts[k], starts[k + 1]) for k in chosen(re, where)])


def extra(name: str) -> Any:
    """Import a library that is needed for this only."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ExtraError(
            f'this needs {name.split(".")[0]}; install it with: pip install "jtree[curvature]"'
        ) from error
