"""A recurrent layer that learns the state before its first step."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from .._errors import ArgumentError
from .._tree.leaves import isarray
from ._cells import Cell
from ._fields import check_array, set_fields
from ._layer import layer
from ._recurrence import Recurrent


@layer("cell", "state0")
class Recur(Recurrent):
    """A cell along the axis of time, with a parameter for the state before the first step.

    The recurrent layers of Flux.jl 0.14 and older learn this state; `RNN`, `LSTM` and `GRU` start
    from zeros.

    Args:
      cell: an `RNNCell`, `LSTMCell`, `GRUCell` or `GRUv3Cell`.
      state0: the state before the first step: an array of shape (n_out,), or a pair (h, c) of them
        for an `LSTMCell`. By default zeros.

    Raises:
      ArgumentError: `cell` is not a cell, or `state0` does not fit it.

    Example:
      >>> cell = jtree.layers.RNNCell(3, 2, key=jax.random.key(0))
      >>> layer = Recur(cell, jnp.ones(2))
      >>> layer, layer(jnp.ones((5, 10, 3))).shape
      (Recur(RNNCell(3 => 2)), (5, 10, 2))
      >>> list(jtree.trainables(layer))
      ['cell/weight_ih', 'cell/weight_hh', 'cell/bias', 'state0']

    Source: `Recur` of Flux.jl 0.14.
    """

    cell: Any
    state0: Any
    cell_type = Cell

    def __init__(self, cell: Any, state0: Any = None) -> None:
        set_fields(self, cell=cell, state0=state0)._validate()

    def _validate(self) -> None:
        cell = self.cell
        if not isinstance(cell, Cell):
            raise ArgumentError(f"Recur expects cell to be a cell, found {cell!r}")
        owner, shape = f"Recur({cell!r})", tuple(cell.weight_hh.shape[:-1])
        if self.state0 is None:
            zeros = jnp.zeros(shape, cell.weight_hh.dtype)
            set_fields(self, state0=(zeros, zeros) if cell.pair else zeros)
        states: Any = self.state0 if cell.pair else (self.state0,)
        if not isinstance(states, tuple) or len(states) != (2 if cell.pair else 1):
            text = f"shape {tuple(states.shape)}" if isarray(states) else repr(states)
            raise ArgumentError(f"{owner} expects state0 to be a pair (h, c), found {text}")
        for array in states:
            check_array(owner, "state0", array, shape)

    def scan(self, x: Any, /, state: Any = None) -> tuple[Any, Any]:
        """Return the output of every step, and the state after the last one.

        Args:
          x: an input of shape (..., time, n_in).
          state: the state before the first step, by default `state0`.
        """
        return super().scan(x, self.state0 if state is None else state)

    def _arguments(self) -> list[str]:
        return [repr(self.cell)]
