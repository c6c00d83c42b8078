"""The machinery of `jtree.init`: initialisers that keep options, and those that JAX has already."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast, overload

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ._arguments import check_dtype, check_integers, check_key, check_number
from ._errors import ArgumentError, ArgumentTypeError, did_you_mean

Shape = tuple[int, ...]


class Init(Protocol):
    """The type of an initialiser: a function of a key and a shape, or of options only."""

    @overload
    def __call__(
        self, key: Any, shape: Sequence[int], dtype: DTypeLike | None = None, **options: Any
    ) -> jax.Array: ...
    @overload
    def __call__(self, **options: Any) -> Initialiser: ...


@dataclass(frozen=True, repr=False)
class Initialiser:
    """An initialiser with options, which a call may override. It can be hashed and pickled.

    Attributes:
      init: a function of `jtree.init`.
      options: (name, value) pairs, sorted by name.

    Example:
      >>> from jtree import init
      >>> twice = init.identity_init(gain=2)
      >>> twice
      identity_init(gain=2)
      >>> twice(None, (2, 2)).tolist(), twice(None, (1, 1), jnp.float16, gain=3)
      ([[2.0, 0.0], [0.0, 2.0]], Array([[3.]], dtype=float16))
    """

    init: Callable[..., Any]
    options: tuple[tuple[str, Any], ...] = ()

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Return an array for `(key, shape)` or `(key, shape, dtype)`, or else an initialiser."""
        if len(args) > 3:
            raise ArgumentTypeError(
                f"expected a key, a shape and a dtype, found {len(args)} arguments"
            )
        return self.init(*args, **(dict(self.options) | options))

    def __repr__(self) -> str:
        name = getattr(self.init, "__name__", repr(self.init))
        return f"{name}({', '.join(f'{option}={value!r}' for option, value in self.options)})"


def initialiser(draw: Callable[..., jax.Array], *, needs_key: bool = True) -> Init:
    """Return `draw` with a check of its arguments, which returns an `Initialiser` for options."""
    parameters = inspect.signature(draw).parameters.values()
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]

    @functools.wraps(draw)
    def init(
        key: Any = None, shape: Any = None, dtype: DTypeLike | None = None, **options: Any
    ) -> jax.Array | Initialiser:
        for name in options:
            _check_option(draw.__name__, name, known)
        if key is None and shape is None and dtype is None:
            return Initialiser(init, tuple(sorted(options.items())))
        _check_call(draw.__name__, key, shape, needs_key)
        dtype = check_dtype("dtype", jnp.float32 if dtype is None else dtype)
        for name, value in options.items():
            _check_value(name, value)
        if needs_key and not jnp.issubdtype(dtype, jnp.inexact):
            raise ArgumentError(f"dtype: expected a floating or complex dtype, found {dtype}")
        return draw(key, check_integers("shape", shape, least=0), dtype, **options)

    return cast("Init", init)


def _check_option(function: str, option: str, known: Sequence[str]) -> None:
    if option not in known:
        raise ArgumentTypeError(
            f"{function}: expected options among {list(known)}, found {option!r}"
            f"{did_you_mean(option, known)}"
        )


def _check_call(function: str, key: Any, shape: Any, needs_key: bool) -> None:
    if shape is None or (key is None and needs_key):
        missing = "shape" if shape is None else "key"
        raise ArgumentTypeError(
            f"{function}: expected a key and a shape, found no {missing}; write "
            f"{function}(jax.random.key(0), (2, 3)), or pass only options for an initialiser"
        )
    if not isinstance(shape, Sequence) or isinstance(shape, str | bytes):
        raise ArgumentTypeError(f"shape: expected a tuple of ints, found {shape!r}")
    if needs_key:
        check_key("key", key)


def _check_value(option: str, value: Any) -> None:
    """Refuse an option that is neither a number nor one for each axis."""
    for x in value if isinstance(value, list | tuple) and option == "shift" else [value]:
        check_number(option, x)


_DOC = """Return {text}.

    Args:
      key: a PRNG key.
      shape: any shape{axes}.
      dtype: {dtypes}, by default float32.{gain}

    Example:
      >>> from jtree import init
      >>> init.{name}(jax.random.key(0), (3, 4)).shape
      (3, 4)

    Source: {source}.
    """


def scaled(name: str, initializer: Any, text: str, source: str, *, scale: float = 1.0) -> Init:
    """Return an initialiser of JAX with the option `gain`, for shapes of any number of axes.

    Args:
      name: its name in `jtree.init`.
      initializer: an initializer of JAX, which draws with a gain of `sqrt(scale)`.
      text: what it returns.
      source: the paper.
      scale: the square of the default gain.
    """
    default = math.sqrt(scale)

    def draw(key: Any, shape: Shape, dtype: Any, *, gain: float = default) -> jax.Array:
        if not math.prod(shape):
            return jnp.zeros(shape, dtype)  # a fan may be zero
        matrix = (1,) * (2 - len(shape)) + shape  # JAX defines fans for two axes or more
        # JAX takes the square of the gain, which may overflow in half precision.
        factor = jnp.asarray(gain / default, dtype)
        array: jax.Array = initializer(key, matrix, dtype) * factor
        return array.reshape(shape)

    gain = f"\n      gain: a factor, by default {'1' if scale == 1 else 'sqrt(2), for relu'}."
    axes = "; of two axes or more, the last two are in and out, see `nfan`"
    dtypes = "a floating or complex dtype"
    doc = _DOC.format(name=name, text=text, source=source, gain=gain, axes=axes, dtypes=dtypes)
    return _named(draw, name, doc)


def renamed(name: str, initializer: Any, text: str, *, needs_key: bool = True) -> Init:
    """Return an initialiser of JAX under another name."""

    def draw(key: Any, shape: Shape, dtype: Any) -> jax.Array:
        return initializer(key, shape, dtype)  # type: ignore[no-any-return]

    dtypes = "a floating or complex dtype" if needs_key else "any dtype"
    source = f"`{name}` of Flux.jl"
    doc = _DOC.format(name=name, text=text, source=source, gain="", axes="", dtypes=dtypes)
    return _named(draw, name, doc, needs_key=needs_key)


def _named(draw: Any, name: str, doc: str, *, needs_key: bool = True) -> Init:
    draw.__name__ = draw.__qualname__ = name
    draw.__doc__ = doc
    return initialiser(draw, needs_key=needs_key)
