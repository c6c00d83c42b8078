"""Models of jtree's layers from files that hold whole models of Flux."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..._arguments import unexpected
from ..._errors import ModelError, PathError, did_you_mean
from ..._state.sources import open_tree, resolve
from ..._tree import paths
from .._convert.flux_source import check_fields, flux_nodes, flux_type, rename_fields
from .._layouts.flux import type_name
from .build import BUILDERS, Builder

FORMATS = ("BSON", "JLD2")


def from_flux(
    path: str | Path,
    fields: Mapping[str, Sequence[str]] | None = None,
    *,
    functions: Mapping[str, Callable[..., Any]] | None = None,
    model: str | None = None,
) -> Any:
    """Return a model of `jtree.layers` that computes what a whole model of Flux.jl computes.

    The file holds layers and not only their weights, as `@save "model.bson" model` and
    `jldsave("model.jld2"; model)` write them: types, activations, strides and paddings. For files
    of weights, such as `Flux.state(model)`, or models with other structs, build the model in JAX
    and use `jtree.migrate.convert(model, path, layout="flux")`.

    Arrays keep their values and dtypes. Axes are in JAX's order: inputs (features, batch) of Flux
    become (batch, features), sequences (features, time, batch) become (batch, time, features), and
    images (width, height, channels, batch) become (batch, height, width, channels). Ids of an
    `Embedding` count from 0 and not from 1.

    Args:
      path: a file of BSON.jl or JLD2.jl.
      fields: the names of the fields of further structs, by type, such as
        `{"TwoTower": ("query", "key")}`.
      functions: functions or layers that stand for those that the file does not tell, such as
        anonymous functions of Julia, by path or by the name in the file.
      model: the path of the model in the file, or of a part of it. By default it is the only one.

    Returns:
      A `Chain`, or another layer if the model is one.

    Raises:
      CheckpointError: the file cannot be read.
      ModelError: the file holds no whole model or several, or what a struct computes is unknown.

    Example:
      >>> model = jtree.from_flux("model.bson")  # doctest: +SKIP
      >>> model  # doctest: +SKIP
      Chain(Dense(10 => 5, relu), Dense(5 => 2), softmax)

    Source: the layers of Flux.jl 0.4 to 0.16, https://fluxml.ai/Flux.jl.
    """
    fields = check_fields(fields)
    if functions is not None and not isinstance(functions, Mapping):
        raise unexpected("functions", "a dict from paths or names to functions", functions)
    source = resolve(path)
    if getattr(source, "format", None) not in FORMATS:
        raise unexpected("from_flux: path", "a file of BSON.jl or JLD2.jl", path)
    tree, types = open_tree(source), source.types
    nodes = dict(flux_nodes(tree))
    names = {rename_fields(x, types, fields) if fields else x: x for x in nodes}
    where = _find_model(types, nodes) if model is None else _check_path(model, names)
    return Builder(types, functions or {}).build(where, nodes[where])


def _check_path(model: str, names: Mapping[str, str]) -> str:
    if not isinstance(model, str):
        raise unexpected("model", "a path in the file", model)
    if model not in names:
        raise PathError(f"model: the file has nothing at {model!r}{did_you_mean(model, names)}")
    return names[model]


def _find_model(types: Mapping[str, str], nodes: Mapping[str, Any]) -> str:
    """Return the path of the only model in a file."""
    known = BUILDERS.keys()
    tops = [x for x in nodes if "/" not in x and type_name(types.get(x)) in known]
    if len(tops) == 1:
        return tops[0]
    if tops:
        raise ModelError(
            f"the file holds {len(tops)} models: {', '.join(map(paths.show, tops))}; choose one "
            f"with model={tops[0]!r}"
        )
    below = [x for x in nodes if type_name(types.get(x)) in known]
    if below:
        above = next((x for x in paths.ancestors(below[0]) if x in types), "")
        raise ModelError(
            f"{paths.show(above)}: {types.get(above, 'a collection')} is not a layer of Flux, so "
            "what it computes is unknown; build the model and pass it to "
            'jtree.migrate.convert(model, path, layout="flux"), or choose a part of it with '
            f"model={below[0]!r}"
        )
    state = any(flux_type(x, node, types) in known for x, node in nodes.items())
    what = "the state of a model, without its types and activations" if state else "no model"
    raise ModelError(
        f"the file holds {what}; build the model and pass it to "
        'jtree.migrate.convert(model, path, layout="flux")'
    )
