"""Layers of jtree from the structs of a whole model of Flux."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jtree import layers

from ..._errors import JtreeError, ModelError
from ..._tree import paths
from ..._tree.leaves import isarray
from .._convert.flux_source import initial_states, is_complete, old_variance
from .._layouts.flux import (
    FLUX_TYPES,
    conv_groups,
    epsilon,
    last_axes,
    layer_norm_epsilon,
    padding,
    spatial,
    type_name,
)
from .._layouts.transforms import to_canonical
from .arrays import as_array
from .functions import CONNECTIONS, concatenate_width, find_connection, find_function, flatten_image


class Struct(NamedTuple):
    """A struct of a file: its path, its type in Flux, and its fields by name."""

    path: str
    name: str
    fields: Mapping[str, Any]

    def at(self, field: str) -> str:
        """Return the path of a field."""
        return paths.join([*filter(None, [self.path]), field])


class Builder:
    """Builds layers, and follows the order of axes of the data that passes through them.

    Flux has features first, and images as (width, height, channels, batch). Here both have their
    features last, so what `flatten` and `vcat` do depends on which of them they are called with.
    """

    def __init__(
        self, types: Mapping[str, str], functions: Mapping[str, Callable[..., Any]]
    ) -> None:
        self.types = types
        self.functions = functions
        self.order = ""  # "image" after a convolution, "features" after a dense layer
        self.attended = False  # whether the last layer returns weights beside its output in Julia

    def build(self, path: str, node: Any) -> Any:
        """Return the layer or the function at a path."""
        julia_type = self.types.get(path, "")
        name = type_name(julia_type)
        given = self._given(path)
        if given is not None:
            return given
        if julia_type == "Base.first" and self.attended:
            return layers.identity
        self.attended = False
        if name in BUILDERS and isinstance(node, Mapping) and is_complete(name, node):
            layer = self._build_layer(Struct(path, name, node))
            self.attended = name == "MultiHeadAttention"
            return layer
        if name.startswith("Global"):
            self.order = "image"
        if julia_type == "Base.ComposedFunction" and isinstance(node, Mapping):
            struct = Struct(path, "", node)
            return layers.Chain(*(self.build(struct.at(x), node[x]) for x in ("inner", "outer")))
        if julia_type.endswith(".flatten"):
            return self._flatten()
        return self.function(path)

    def _build_layer(self, struct: Struct) -> Any:
        try:
            return BUILDERS[struct.name](self, struct)
        except JtreeError:
            raise
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"{paths.show(struct.path)}: the fields of this {struct.name} are not those of "
                f"Flux: {error!r:.200}"
            ) from error

    def function(self, path: str) -> Callable[..., Any]:
        """Return the function at a path."""
        name = self.types.get(path, "")
        function = self._given(path) or find_function(name)
        if function is None:
            raise self._unknown(path)
        if self.order == "image" and name.endswith("softmax"):
            raise ModelError(
                f"{paths.show(path)}: a softmax over the width of an image, the first axis in "
                f"Julia; pass functions={{{path!r}: a function}}"
            )
        return function

    def connection(self, path: str) -> Callable[..., Any]:
        """Return the function at a path that combines the outputs of layers."""
        broadcast = next((x for x in (f"{path}/f", f"{path}/0") if x in self.types), path)
        name = self.types.get(broadcast, "")
        function = self._given(path) or find_connection(name)
        if function is None:
            raise self._unknown(path)
        return concatenate_width if self.order == "image" and name.endswith("vcat") else function

    def activation(self, struct: Struct, field: str = "σ") -> Callable[..., Any]:
        """Return the activation of a layer, which versions without the field lack."""
        return self.function(struct.at(field)) if field in struct.fields else layers.identity

    def arrays(self, struct: Struct) -> dict[str, Any]:
        """Return the arrays of a layer by their canonical names; a bias may be False."""
        known, fields = FLUX_TYPES[struct.name], struct.fields
        stored = {
            spec.key_path: np.asarray(fields[spec.path])
            for spec in known.spec
            if isarray(fields.get(spec.path))
        }
        canonical = to_canonical(known.spec, stored, {})
        return {"bias": False} | {name: as_array(x) for name, x in canonical.items()}

    def children(self, struct: Struct) -> tuple[list[Any], dict[str, Any]]:
        """Return the layers of a container, by position or by name."""
        below, node = struct.at("layers"), struct.fields["layers"]
        named = isinstance(node, Mapping) and below not in self.types
        start, built = self.order, {}
        items = node.items() if named else enumerate(node if isinstance(node, tuple | list) else ())
        for key, child in items:
            self.order = self.order if struct.name == "Chain" else start
            built[str(key)] = self.build(f"{below}/{key}", child)
        if not built and node != () and node != []:
            return [self.build(below, node)], {}
        return ([], built) if named else ([*built.values()], {})

    def _flatten(self) -> Callable[..., Any]:
        order, self.order = self.order, "features"
        functions = {"image": layers.flatten_channels_first, "features": layers.flatten}
        return functions.get(order, flatten_image)

    def _given(self, path: str) -> Callable[..., Any] | None:
        name = self.types.get(path, "")
        return self.functions.get(path, self.functions.get(name) if name else None)

    def _unknown(self, path: str) -> ModelError:
        name = self.types.get(path)
        text = f"what {name} computes is unknown" if name else "the file does not tell its function"
        return ModelError(
            f"{paths.show(path)}: {text}; pass functions={{{path!r}: a function or a layer}}, or "
            'build the model and pass it to jtree.migrate.convert(model, path, layout="flux")'
        )


def _layer(name: str, /, **fields: Any) -> Any:
    """Return a layer of jtree with these fields."""
    return getattr(layers, name)(**fields)


def _chain(builder: Builder, x: Struct) -> Any:
    children, named = builder.children(x)
    return layers.Chain(*children, **named)


def _parallel(builder: Builder, x: Struct) -> Any:
    maxout = x.name == "Maxout"
    combine = CONNECTIONS["max"] if maxout else builder.connection(x.at("connection"))
    children, named = builder.children(x)
    return layers.Parallel(combine, *children, **named)


def _skip_connection(builder: Builder, x: Struct) -> Any:
    layer = builder.build(x.at("layers"), x.fields["layers"])
    return layers.SkipConnection(layer, builder.connection(x.at("connection")))


def _dense(builder: Builder, x: Struct) -> Any:
    arrays, builder.order = builder.arrays(x), "features"
    return _layer(
        "Dense", weight=arrays["kernel"], bias=arrays["bias"], activation=builder.activation(x)
    )


def _conv(builder: Builder, x: Struct) -> Any:
    arrays, fields = builder.arrays(x), x.fields
    dims = arrays["kernel"].ndim - 2
    builder.order = "image"
    options = {
        "weight": arrays["kernel"],
        "bias": arrays["bias"],
        "activation": builder.activation(x),
        "stride": spatial(fields, "stride", 1),
        "pad": padding(fields.get("pad", 0), dims),
        "dilation": spatial(fields, "dilation", 1),
        "groups": conv_groups(x.name, fields),
    }
    if x.name == "ConvTranspose":
        return _layer("ConvTranspose", **options, outpad=spatial(fields, "outpad", 0))
    return _layer("Conv", **options)


def _pool(builder: Builder, x: Struct) -> Any:
    window = _reversed(x.fields["k"])
    builder.order = "image"
    return getattr(layers, x.name)(
        window,
        stride=_reversed(x.fields["stride"]),
        pad=padding(x.fields["pad"], len(window)),
    )


def _adaptive_pool(builder: Builder, x: Struct) -> Any:
    builder.order = "image"
    return getattr(layers, x.name)(_reversed(x.fields["out"]))


def _reversed(sizes: Any) -> tuple[int, ...]:
    return tuple(int(n) for n in reversed(sizes))


def _norm(builder: Builder, x: Struct) -> Any:
    """Return a batch or instance norm, whose scale, shift and statistics may be absent."""
    arrays, fields = builder.arrays(x), x.fields
    if x.name == "BatchNorm" and (variance := old_variance(fields)) is not None:
        arrays["var"] = as_array(variance)
    size = next((a.shape[0] for a in arrays.values() if isarray(a)), fields.get("chs", 0))
    builder.order = "image" if x.name == "InstanceNorm" else builder.order
    affine, tracked = "scale" in arrays, "mean" in arrays
    return _layer(
        x.name,
        beta=arrays["bias"] if affine else None,
        gamma=arrays.get("scale"),
        mu=arrays.get("mean"),
        sigma2=arrays.get("var"),
        activation=builder.activation(x, "λ"),
        channels=int(size),
        affine=affine,
        track_stats=tracked,
        eps=epsilon(fields),
        momentum=float(fields.get("momentum", 0.1)),
        active=fields["active"] if "affine" in fields else None,
    )


def _group_norm(builder: Builder, x: Struct) -> Any:
    arrays, fields = builder.arrays(x), x.fields
    if "mean" in arrays:
        raise ModelError(
            f"{paths.show(x.path)}: a GroupNorm with running statistics, which Flux 0.13 removed; "
            f"pass functions={{{x.path!r}: a layer}} that normalises by them"
        )
    builder.order = "image"
    affine = "scale" in arrays
    channels = arrays["scale"].shape[0] if affine else fields["chs"]
    return _layer(
        "GroupNorm",
        beta=arrays["bias"] if affine else None,
        gamma=arrays.get("scale"),
        activation=builder.activation(x, "λ"),
        channels=int(channels),
        groups=int(fields["G"]),
        affine=affine,
        eps=epsilon(fields),
    )


def _layer_norm(builder: Builder, x: Struct) -> Any:
    diag = x.fields.get("diag")
    scale: Any = None
    if isinstance(diag, Mapping) and {"scale", "α"} & diag.keys():
        scale = _scale(builder, Struct(x.at("diag"), "Scale", diag))
    if "size" in x.fields:
        flux_size = x.fields["size"]
        size = tuple(int(flux_size[n]) for n in _axes(builder, len(flux_size)))
    else:
        size = scale.scale.shape
    if scale is not None:
        scale = _layer("Scale", scale=scale.scale, bias=scale.bias, activation=layers.identity)
    return _layer(
        "LayerNorm",
        diag=scale,
        activation=builder.activation(x, "λ"),
        size=size,
        affine=scale is not None,
        eps=layer_norm_epsilon(x.fields),
    )


def _axes(builder: Builder, count: int) -> tuple[int, ...]:
    """Return the axes of features, or of an image without its batch, in the order of jtree."""
    return last_axes(count, image=count > 2 or (builder.order == "image" and count > 1))


def _scale(builder: Builder, x: Struct) -> Any:
    def features_last(name: str, old: str) -> Any:
        array = x.fields.get(name, x.fields.get(old, False))
        if not isarray(array):
            return False
        return as_array(np.asarray(array).transpose(_axes(builder, array.ndim)))

    return _layer(
        "Scale",
        scale=features_last("scale", "α"),
        bias=features_last("bias", "β"),
        activation=builder.activation(x),
    )


def _embedding(builder: Builder, x: Struct) -> Any:
    builder.order = "features"
    return _layer("Embedding", weight=builder.arrays(x)["table"])


def _dropout(_: Builder, x: Struct) -> Any:
    dims = x.fields.get("dims", ())
    if dims not in ((), None):
        raise ModelError(
            f"{paths.show(x.path)}: a Dropout along axes of Julia, dims={dims}; pass "
            f"functions={{{x.path!r}: jtree.layers.Dropout({x.fields['p']}, dims=...)}}"
        )
    return layers.Dropout(float(x.fields["p"]))


def _attention(builder: Builder, x: Struct) -> Any:
    builder.order = "features"
    names = ("q_proj", "k_proj", "v_proj", "out_proj")
    dropout = builder.build(x.at("attn_drop"), x.fields["attn_drop"])
    return _layer(
        "MultiHeadAttention",
        **{name: builder.build(x.at(name), x.fields[name]) for name in names},
        dropout=dropout if isinstance(dropout, layers.Dropout) else layers.Dropout(0.0),
        heads=int(x.fields["nheads"]),
        causal=False,
    )


def _cell(builder: Builder, x: Struct) -> Any:
    fields = x.fields
    wi, wh = np.asarray(fields["Wi"]).T, np.asarray(fields["Wh"]).T
    bias = fields.get("bias", fields.get("b", False))
    arrays = {
        "weight_ih": as_array(wi),
        "weight_hh": as_array(wh),
        "bias": as_array(bias) if isarray(bias) else False,
    }
    builder.order = "features"
    if x.name == "RNNCell":
        return _layer("RNNCell", **arrays, activation=builder.activation(x))
    if x.name == "GRUCell":
        return _layer("GRUCell", **arrays, bias_n=None)
    if x.name == "GRUv3Cell":  # Flux 0.15 and newer never use the third block
        arrays["weight_hh"] = as_array(wh[:, : 2 * wh.shape[0]])
        return _layer("GRUv3Cell", **arrays, weight_hn=as_array(np.asarray(fields["Wh_h̃"]).T))
    return _layer("LSTMCell", **arrays)


def _recurrent(builder: Builder, x: Struct) -> Any:
    node = x.fields["cell"]
    cell = builder.build(x.at("cell"), node)
    states = [as_array(state) for state in initial_states(node)]
    if states:
        return layers.Recur(cell=cell, state0=tuple(states) if len(states) > 1 else states[0])
    wrapper = _WRAPPERS.get(type(cell))
    return layers.Recur(cell) if wrapper is None else wrapper(cell=cell)


_WRAPPERS: dict[type[Any], Callable[..., Any]] = {
    layers.RNNCell: layers.RNN,
    layers.LSTMCell: layers.LSTM,
    layers.GRUCell: layers.GRU,
    layers.GRUv3Cell: layers.GRUv3,
}
BUILDERS: dict[str, Callable[[Builder, Struct], Any]] = {
    "Chain": _chain,
    **dict.fromkeys(("Parallel", "Maxout"), _parallel),
    "SkipConnection": _skip_connection,
    "Dense": _dense,
    **dict.fromkeys(("Conv", "CrossCor", "DepthwiseConv", "ConvTranspose"), _conv),
    **dict.fromkeys(("MaxPool", "MeanPool"), _pool),
    **dict.fromkeys(("AdaptiveMaxPool", "AdaptiveMeanPool"), _adaptive_pool),
    **dict.fromkeys(("BatchNorm", "InstanceNorm"), _norm),
    "GroupNorm": _group_norm,
    "LayerNorm": _layer_norm,
    **dict.fromkeys(("Scale", "Diagonal"), _scale),
    "Embedding": _embedding,
    "Dropout": _dropout,
    "MultiHeadAttention": _attention,
    **dict.fromkeys(("RNNCell", "LSTMCell", "GRUCell", "GRUv3Cell"), _cell),
    **dict.fromkeys(("Recur", "Recurrence", "RNN", "LSTM", "GRU", "GRUv3"), _recurrent),
}
