"""The vector that `Flux.destructure` makes of a model, and a model from such a vector."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

import jtree

from ..._arguments import check_iterable
from ..._errors import VectorError, VectorTypeError
from ..._text import plural
from ..._tree.leaves import isarray
from .._convert.flux_state import FluxArray
from .._convert.hints import Hint
from .._convert.to_flux import flux_arrays
from .arrays import as_array


def to_flux_vector(model: Any, /, *, hints: Iterable[Hint] = ()) -> Any:
    """Return the vector that `Flux.destructure` makes of the same model in Julia.

    The trainable arrays of all layers lie one after another, in the order of the layers and in
    that of Flux's fields: a weight before its bias, and a shift before its scale in a norm. Each is
    column-major in Flux's order of axes. A parameter at several places is there once.

    Layers are in the order in which the model defines them, which has to be that of the struct in
    Julia. An `RNN` is one of Flux 0.15 and newer, `Recur` one of Flux 0.14 and older.

    Args:
      model: a model of `jtree.layers`, an NNX or Equinox module, or `migrate.linen(...)`.
      hints: `migrate.flattened` and `migrate.unflattened` for dense layers beside an image, whose
        features Flux orders differently.

    Returns:
      An array of one axis.

    Raises:
      ModelError: the model has layers or parameters that Flux lacks.

    Example:
      >>> from jtree import migrate
      >>> model = jtree.layers.Dense.from_arrays(jnp.array([[1.0, 2.0], [3.0, 4.0]]))
      >>> migrate.to_flux_vector(model).tolist()
      [1.0, 2.0, 3.0, 4.0, 0.0, 0.0]

    Source: `destructure` of Optimisers.jl and Flux.jl.
    """
    hints = check_iterable("hints", hints, "a sequence of hints")
    arrays = [x.array.reshape(-1, order="F") for x in _trained(flux_arrays(model, hints))]
    return as_array(np.concatenate(arrays) if arrays else np.zeros(0, np.float32))


def from_flux_vector(model: Any, vector: Any, /, *, hints: Iterable[Hint] = ()) -> Any:
    """Return a model with the values of a vector from `Flux.destructure`.

    The order of the vector is that of `to_flux_vector`. Running statistics, which such a vector
    lacks, stay those of the model.

    Args:
      model: a model like the one in Julia, which may be abstract; see `to_flux_vector`.
      vector: an array of one axis, or the list of arrays that `Flux.params` is.
      hints: `migrate.flattened` and `migrate.unflattened`; see `to_flux_vector`.

    Returns:
      The model, with its own dtypes, devices and shardings, or linen's variables.

    Raises:
      VectorError: the vector has another length than the model needs, or an array another shape.
      ModelError: the model has layers or parameters that Flux lacks.

    Example:
      >>> from jtree import migrate
      >>> model = jtree.layers.Dense(2, 1, key=jax.random.key(0))
      >>> migrate.from_flux_vector(model, jnp.array([1.0, 2.0, 3.0])).bias
      Array([3.], dtype=float32)

    Source: `destructure` of Optimisers.jl and Flux.jl.
    """
    hints = list(check_iterable("hints", hints, "a sequence of hints"))
    arrays = flux_arrays(model, ())
    trained = list(_trained(arrays))
    if isinstance(vector, list | tuple):
        vector = _concatenate(vector, trained)
    values = _check_vector(vector, sum(x.array.size for x in trained))
    ends = np.cumsum([x.array.size for x in trained])[:-1]
    blocks = dict(zip((x.tie for x in trained), np.split(values, ends), strict=True))
    source = {
        x.name: blocks[x.tie].reshape(x.array.shape, order="F") if x.trained else x.array
        for x in arrays
    }
    return jtree.migrate.convert(model, _without_padding(source), layout="flux", hints=hints)[0]


def _trained(arrays: list[FluxArray]) -> Iterator[FluxArray]:
    """Yield the arrays that are trained, each parameter once."""
    seen: set[int] = set()
    for x in arrays:
        if x.trained and x.tie not in seen:
            seen.add(x.tie)
            yield x


def _concatenate(arrays: Sequence[Any], trained: Sequence[FluxArray]) -> Any:
    """Return the vector of a list of arrays, each of which has to be as in the model."""
    shapes = [tuple(x.shape) if isarray(x) else repr(x) for x in arrays]
    expected = [x.array.shape for x in trained]
    pairs = zip(expected, shapes, strict=False)
    first = next((n for n, (x, y) in enumerate(pairs) if x != y), None)
    if first is not None:
        raise VectorError(
            f"vector: expected an array of shape {expected[first]} for {trained[first].name} at "
            f"index {first}, found {shapes[first]}"
        )
    if len(shapes) != len(expected):
        raise VectorError(f"vector: expected {plural(len(expected), 'array')}, found {len(shapes)}")
    return np.concatenate([np.asarray(x).reshape(-1, order="F") for x in arrays])


def _check_vector(vector: Any, size: int) -> Any:
    if not isarray(vector):
        raise VectorTypeError(
            f"vector: expected an array of one axis, found {type(vector).__name__}"
        )
    if vector.ndim != 1 or vector.size != size:
        raise VectorError(
            f"vector: expected {plural(size, 'element')} in one axis, found shape "
            f"{tuple(vector.shape)}"
        )
    return np.asarray(vector)


def _without_padding(source: dict[str, Any]) -> dict[str, Any]:
    """Return arrays without the block of a GRUv3 that Flux does not use."""
    heads = {name.removesuffix("Wh_h̃") for name in source if name.endswith("Wh_h̃")}
    cut = {f"{head}Wh": source[f"{head}Wh"][: 2 * source[f"{head}Wh"].shape[1]] for head in heads}
    return source | cut
