"""Layers made of layers: one after another, side by side, and around."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .._errors import ArgumentError, ModelError, PathError, did_you_mean
from ._layer import Layer, fill, keys, layer, one_line, replace, train, unwrap, wrap


class _Several(Layer):
    """What `Chain` and `Parallel` have in common: layers by position or by name."""

    layers: Any  # a tuple, or a dict that keeps its order under JAX

    @property
    def _values(self) -> list[Any]:
        named = isinstance(self.layers, Mapping)
        return list(self.layers.values() if named else self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Any]:
        return iter(map(unwrap, self._values))

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return replace(self, layers=_slice(self.layers, place))
        if isinstance(place, int):
            return unwrap(self._values[place])
        if place not in self.keys():
            near = did_you_mean(str(place), map(str, self.keys()))
            raise PathError(f"{self!r} has the layers {self.keys()}, found {place!r}{near}")
        return unwrap(self.layers[place])

    def keys(self) -> list[Any]:
        """Return the names of the layers, or their positions."""
        return list(self.layers if isinstance(self.layers, Mapping) else range(len(self)))

    def _arguments(self) -> list[str]:
        if isinstance(self.layers, Mapping):
            return [f"{name}={one_line(x)}" for name, x in self.layers.items()]
        return [one_line(x) for x in self.layers]

    def _trained(self, inputs: list[Any], key: Any) -> tuple[list[Any], Any]:
        """Return what each layer makes of its input, and the layers after it."""
        places = zip(self._values, inputs, keys(key, len(inputs)), strict=True)
        done = [train(x, given, own) for x, given, own in places]
        return [y for y, _ in done], _like(self.layers, [x for _, x in done])


@layer("layers")
class Chain(_Several):
    """Layers and functions, called one after another.

    Several inputs are handed on as one tuple. A chain can be indexed by position, by name and by
    slices.

    Args:
      layers: layers and functions, in order; functions are no leaves, but keep their place.
      named: the same by name, instead.

    Raises:
      ArgumentError: layers with and without names, or something that cannot be called.

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
        fill(self, layers=_collect("Chain", layers, named))

    def __call__(self, *inputs: Any) -> Any:
        """Return what the last layer makes of what those before it made."""
        x = _one(self, inputs)
        for step in self._values:
            x = step(x)
        return x


@train.register(Chain)
def _(x: Chain, inputs: Any, key: Any) -> tuple[Any, Chain]:
    layers, values = [], x._values
    for step, own in zip(values, keys(key, len(values)), strict=True):
        inputs, after = train(step, inputs, own)
        layers.append(after)
    return inputs, replace(x, layers=_like(x.layers, layers))


@layer("combine", "layers")
class Parallel(_Several):
    """Layers side by side, whose outputs a function combines.

    One input goes to every layer; of several inputs, arguments or one tuple, each goes to its own
    layer. A single layer gets every one of several inputs.

    Args:
      combine: a function of as many arguments as there are outputs.
      layers: layers and functions.
      named: the same by name, instead.

    Raises:
      ArgumentError: no layers, or layers with and without names.

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
        fill(self, combine=wrap("Parallel", combine), layers=_collect("Parallel", layers, named))

    def __call__(self, *inputs: Any) -> Any:
        """Return the layers' outputs, combined."""
        steps, given = self._spread(inputs)
        return self.combine(*(step(x) for step, x in zip(steps, given, strict=True)))

    def _spread(self, inputs: tuple[Any, ...]) -> tuple[list[Any], list[Any]]:
        """Return layers and their inputs in pairs."""
        given = inputs[0] if len(inputs) == 1 and isinstance(inputs[0], tuple) else inputs
        steps = self._values
        if len(steps) == 1 and given:
            return steps * len(given), list(given)
        if len(given) not in (1, len(steps)):
            raise ModelError(
                f"{self!r} expects one input or {len(steps)} inputs, found {len(given)}"
            )
        return steps, list(given) * (len(steps) if len(given) == 1 else 1)

    def _arguments(self) -> list[str]:
        return [repr(self.combine), *super()._arguments()]


@train.register(Parallel)
def _(x: Parallel, inputs: Any, key: Any) -> tuple[Any, Parallel]:
    steps, given = x._spread((inputs,))
    if len(steps) != len(x):
        return _train_single(x, given, key)
    outputs, layers = x._trained(given, key)
    return x.combine(*outputs), replace(x, layers=layers)


def _train_single(x: Parallel, inputs: list[Any], key: Any) -> tuple[Any, Parallel]:
    """Train the one layer on every input in turn."""
    outputs, step = [], x._values[0]
    for given, own in zip(inputs, keys(key, len(inputs)), strict=True):
        y, step = train(step, given, own)
        outputs.append(y)
    return x.combine(*outputs), replace(x, layers=_like(x.layers, [step]))


@layer("layer", "combine")
class SkipConnection(Layer):
    """A layer whose output is combined with its input: `combine(layer(x), x)`.

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
        owner = "SkipConnection"
        fill(self, layer=wrap(owner, layer), combine=wrap(owner, combine))

    def __call__(self, *inputs: Any) -> Any:
        """Return the layer's output combined with its input."""
        x = _one(self, inputs)
        return self.combine(self.layer(x), x)

    def _arguments(self) -> list[str]:
        return [one_line(self.layer), one_line(self.combine)]


@train.register(SkipConnection)
def _(x: SkipConnection, inputs: Any, key: Any) -> tuple[Any, SkipConnection]:
    y, after = train(x.layer, inputs, key)
    return x.combine(y, inputs), replace(x, layer=after)


def _collect(owner: str, layers: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Return a tuple of layers, or a dict; JAX would sort a plain one."""
    if layers and named:
        raise ArgumentError(
            f"{owner} expects layers by position or by name, found both: {len(layers)} without "
            f"a name, and {', '.join(named)}"
        )
    if named:
        return OrderedDict((name, wrap(owner, x)) for name, x in named.items())
    return tuple(wrap(owner, x) for x in layers)


def _slice(layers: Any, place: slice) -> Any:
    if isinstance(layers, Mapping):
        return OrderedDict(list(layers.items())[place])
    return layers[place]


def _like(layers: Any, values: list[Any]) -> Any:
    """Return other layers in a container like this one."""
    if isinstance(layers, Mapping):
        return OrderedDict(zip(layers, values, strict=True))
    return tuple(values)


def _one(x: Layer, inputs: tuple[Any, ...]) -> Any:
    """Return the only input, or several as one tuple."""
    if not inputs:
        raise ModelError(f"{x!r} expects an input, found none")
    return inputs[0] if len(inputs) == 1 else inputs
