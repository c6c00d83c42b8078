"""Training and inference as pure functions."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import jax

from .._arguments import check_callable
from .._errors import ArgumentError
from ._fields import replace
from ._layer import Layer, train

Mode: TypeAlias = bool | Literal["auto"] | None


def forward(model: Any, /, *inputs: Any, key: Any = None) -> tuple[Any, Any]:
    """Return the output of a model in training, and the updated model.

    `Dropout` drops, and `BatchNorm` normalises by the statistics of the batch. The returned model
    has updated running statistics and is otherwise the same. Each layer gets its own key, split
    from `key`. A function or a module that is not a jtree layer is simply called.

    Args:
      model: a layer, or any function.
      *inputs: one input, or several, which are passed as one tuple.
      key: a PRNG key, which `Dropout` requires.

    Returns:
      A tuple `(output, model)`. The model has the same structure.

    Raises:
      ModelError: an input has the wrong shape, or there is a `Dropout` but no key.

    Example:
      >>> model = jtree.layers.BatchNorm(1)
      >>> y, after = forward(model, jnp.array([[1.0], [3.0]]))
      >>> y.ravel().round(3).tolist(), after.mu.round(3).tolist(), model.mu.tolist()
      ([-1.0, 1.0], [0.20000000298023224], [0.0])

    Source: the behaviour of Flux.jl inside `gradient`, made explicit.
    """
    check_callable("model", model)
    return train(model, inputs[0] if len(inputs) == 1 else inputs, key)


def trainmode(model: Any, /, mode: Mode = True) -> Any:
    """Return a model in which `BatchNorm` and `Dropout` are active, however it is called.

    Args:
      model: any pytree that contains jtree layers.
      mode: True for active, False for inactive, None or `"auto"` for active in `forward` only.

    Returns:
      A new model.

    Raises:
      ArgumentError: the mode is not one of these.

    Example:
      >>> trainmode(jtree.layers.Dropout(0.3))
      Dropout(0.3, active=True)
      >>> trainmode(_, "auto")
      Dropout(0.3)

    Source: `trainmode!` of Flux.jl.
    """
    return _activated(model, _check_mode(mode))


def testmode(model: Any, /, mode: Mode = True) -> Any:  # noqa: PT028
    """Return a model in which `BatchNorm` and `Dropout` are inactive, however it is called.

    Args:
      model: any pytree that contains jtree layers.
      mode: True for inactive, False for active, None or `"auto"` for active in `forward` only.

    Returns:
      A new model.

    Raises:
      ArgumentError: the mode is not one of these.

    Example:
      >>> testmode(jtree.layers.Dropout(0.3))
      Dropout(0.3, active=False)

    Source: `testmode!` of Flux.jl.
    """
    inactive = _check_mode(mode)
    return _activated(model, None if inactive is None else not inactive)


testmode.__test__ = False  # type: ignore[attr-defined]  # or pytest would collect it


def _check_mode(mode: Any) -> bool | None:
    """Return a mode as a bool, or None for `"auto"`."""
    if mode is None or (isinstance(mode, str) and mode == "auto"):
        return None
    number = isinstance(mode, int) and mode in (0, 1)
    if not number and type(mode).__name__ not in ("bool", "bool_"):
        raise ArgumentError(f"mode: expected True, False, None or 'auto', found {mode!r}")
    return bool(mode)


def _activated(model: Any, active: bool | None) -> Any:
    """Return a model whose layers with a mode have this one."""

    def change(x: Any) -> Any:
        return replace(x, active=active) if _has_mode(x) else x

    return jax.tree.map(change, model, is_leaf=_has_mode)


def _has_mode(x: Any) -> bool:
    return isinstance(x, Layer) and hasattr(x, "active")
