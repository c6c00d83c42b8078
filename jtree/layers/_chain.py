"""Layers of layers: in sequence, in parallel, and with a skip connection."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .._errors import ArgumentError, ModelError, PathError, did_you_mean
from ._fields import replace, set_fields
from ._layer import Layer, layer, one_line, split_key, train, unwrap, wrap


class _Container(Layer):
    """The base of `Chain` and `Parallel`: layers by position or by name."""

    layers: Any  # a tuple, or an OrderedDict, whose order JAX keeps

    @property
    def _values(self) -> list[Any]:
        named = isinstance(self.layers, Mapping)
        return list(self.layers.values() if named else self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Any]:
        return iter(map(unwrap, self._values))

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            return replace(self, layers=_slice(self.layers, key))
        if isinstance(key, int):
            return unwrap(self._values[key])
        if key not in self.keys():
            near = did_you_mean(str(key), map(str, self.keys()))
            raise PathError(f"{self!r} has no layer {key!r}; its layers are {self.keys()}{near}")
        return unwrap(self.layers[key])

    def _validate(self) -> None:
        owner, layers = type(self).__name__, self.layers
        if isinstance(layers, Mapping):
            set_fields(self, layers=_collect(owner, (), dict(layers)))
        else:
            several = tuple(layers) if isinstance(layers, tuple | list) else (layers,)
            set_fields(self, layers=_collect(owner, several, {}))

    def keys(self) -> list[Any]:
        """Return the names of the layers, or their indices."""
        return list(self.layers if isinstance(self.layers, Mapping) else range(len(self)))

    def _arguments(self) -> list[str]:
        if isinstance(self.layers, Mapping):
            return [f"{name}={one_line(x)}" for name, x in self.layers.items()]
        return [one_line(x) for x in self.layers]


@layer("layers")
class Chain(_Container):
    """Layers and functions in sequence: each is called with the output of the one before it.

    Several inputs are passed to the first layer as one tuple. A chain can be indexed by position,
    by name and by slices.

    Args:
      *layers: layers and functions, in order. Functions have an index but are not leaves.
      **named: the same by name, instead of by position.

    Raises:
      ArgumentError: some layers have names and others do not, or an argument is not callable.

    Example:
      >>> model = Chain(enc=jtree.layers.Dense(3, 2, key=jax.random.key(0)), act=jnp.tanh)
      >>> model
      Chain(enc=Dense(3 => 2), act=tanh)
      >>> model(jnp.ones((5, 3))).shape, model["enc"], model[1:]
      ((5, 2), Dense(3 => 2), Chain(act=tanh))
      >>> Chain(lambda x: x**2, lambda x: x + 1)(5)
      26

    Source: `Chain` of Flux.jl.
    """

    layers: Any

    def __init__(self, *layers: Any, **named: Any) -> None:
        set_fields(self, layers=_collect("Chain", layers, named))

    def _takes_fields(self, arguments: Mapping[str, Any]) -> bool:
        """Return whether `layers` is a field, and not the name of a layer."""
        isfield = isinstance(arguments.get("layers"), tuple | list | Mapping)
        return isfield and super()._takes_fields(arguments)

    def __call__(self, *inputs: Any) -> Any:
        """Return the output of the last layer."""
        x = _single_input(self, inputs)
        for step in self._values:
            x = step(x)
        return x


@train.register(Chain)
def _(x: Chain, inputs: Any, key: Any) -> tuple[Any, Chain]:
    layers, values = [], x._values
    for step, step_key in zip(values, split_key(key, len(values)), strict=True):
        inputs, after = train(step, inputs, step_key)
        layers.append(after)
    return inputs, replace(x, layers=_like(x.layers, layers))


@layer("combine", "layers")
class Parallel(_Container):
    """Layers in parallel, whose outputs a function combines.

    A single input is passed to every layer. Of several inputs, given as arguments or as one tuple,
    each is passed to its own layer, and a single layer is called with each of them in turn.

    Args:
      combine: a function with one argument per output.
      *layers: layers and functions.
      **named: the same by name, instead of by position.

    Raises:
      ArgumentError: there are no layers, or some layers have names and others do not.

    Example:
      >>> from jtree.layers import Dense
      >>> one, two = Dense(3, 2, key=jax.random.key(0)), Dense(4, 2, key=jax.random.key(1))
      >>> model = Parallel(jnp.add, one, two)
      >>> model(jnp.ones((5, 3)), jnp.ones((5, 4))).shape
      (5, 2)
      >>> Parallel(lambda *ys: ys, lambda x: x + 1, lambda x: x * 2)(5)
      (6, 10)

    Source: `Parallel` of Flux.jl.
    """

    combine: Any
    layers: Any

    def __init__(self, combine: Callable[..., Any], /, *layers: Any, **named: Any) -> None:
        if not layers and not named:
            raise ArgumentError(
                "Parallel expects at least one layer after the function, found none"
            )
        layers = _collect("Parallel", layers, named)
        set_fields(self, combine=wrap("Parallel", combine), layers=layers)

    def _validate(self) -> None:
        super()._validate()
        set_fields(self, combine=wrap("Parallel", self.combine))
        if not self.layers:
            raise ArgumentError(
                "Parallel expects at least one layer after the function, found none"
            )

    def __call__(self, *inputs: Any) -> Any:
        """Return the combined outputs of the layers."""
        return self.combine(*(step(x) for step, x in self._pair(inputs)))

    def _pair(self, inputs: tuple[Any, ...]) -> list[tuple[Any, Any]]:
        """Return each layer with its input."""
        values = inputs[0] if len(inputs) == 1 and isinstance(inputs[0], tuple) else inputs
        steps = self._values
        if len(steps) == 1 and values:
            return [(steps[0], x) for x in values]
        if len(values) == 1:
            return [(step, values[0]) for step in steps]
        if len(values) != len(steps):
            raise ModelError(
                f"{self!r} expects one input or {len(steps)} inputs, found {len(values)}"
            )
        return list(zip(steps, values, strict=True))

    def _arguments(self) -> list[str]:
        return [repr(self.combine), *super()._arguments()]


@train.register(Parallel)
def _(x: Parallel, inputs: Any, key: Any) -> tuple[Any, Parallel]:
    outputs, layers = [], x._values
    pairs = x._pair((inputs,))
    for i, ((_, value), step_key) in enumerate(zip(pairs, split_key(key, len(pairs)), strict=True)):
        index = min(i, len(layers) - 1)  # a single layer is trained on every input in turn
        y, layers[index] = train(layers[index], value, step_key)
        outputs.append(y)
    return x.combine(*outputs), replace(x, layers=_like(x.layers, layers))


@layer("layer", "combine")
class SkipConnection(Layer):
    """A layer with a skip connection: `combine(layer(x), x)`.

    Args:
      layer: a layer or a function.
      combine: a function of the output and the input.

    Example:
      >>> SkipConnection(lambda x: 10 * x, lambda y, x: y + x)(3)
      33

    Source: `SkipConnection` of Flux.jl.
    """

    layer: Any
    combine: Any

    def __init__(self, layer: Any, combine: Callable[[Any, Any], Any]) -> None:
        set_fields(self, layer=layer, combine=combine)._validate()

    def _validate(self) -> None:
        owner = "SkipConnection"
        set_fields(self, layer=wrap(owner, self.layer), combine=wrap(owner, self.combine))

    def __call__(self, *inputs: Any) -> Any:
        """Return the output of the layer, combined with the input."""
        x = _single_input(self, inputs)
        return self.combine(self.layer(x), x)

    def _arguments(self) -> list[str]:
        return [one_line(self.layer), one_line(self.combine)]


@train.register(SkipConnection)
def _(x: SkipConnection, inputs: Any, key: Any) -> tuple[Any, SkipConnection]:
    y, after = train(x.layer, inputs, key)
    return x.combine(y, inputs), replace(x, layer=after)


def _collect(owner: str, layers: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Return layers as a tuple or an OrderedDict; JAX would sort a plain dict."""
    if layers and named:
        raise ArgumentError(
            f"{owner} expects layers by position or by name, found both: {len(layers)} without "
            f"a name, and {', '.join(named)}"
        )
    if named:
        return OrderedDict((name, wrap(owner, x)) for name, x in named.items())
    return tuple(wrap(owner, x) for x in layers)


def _slice(layers: Any, key: slice) -> Any:
    if isinstance(layers, Mapping):
        return OrderedDict(list(layers.items())[key])
    return layers[key]


def _like(layers: Any, values: list[Any]) -> Any:
    """Return layers in the same container as others."""
    if isinstance(layers, Mapping):
        return OrderedDict(zip(layers, values, strict=True))
    return tuple(values)


def _single_input(x: Layer, inputs: tuple[Any, ...]) -> Any:
    """Return a single input, or several as one tuple."""
    if not inputs:
        raise ModelError(f"{x!r} expects an input, found none")
    return inputs[0] if len(inputs) == 1 else inputs
