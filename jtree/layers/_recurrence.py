"""The base of recurrent layers, which call a cell for each step in time."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from .._errors import ArgumentError
from .._tree.leaves import isarray
from .._tree.nodes import NodeKind, declare_kind
from ._layer import Layer, check_input


class Recurrent(Layer):
    """The base of the recurrent layers."""

    cell: Any
    cell_type: type[Layer] = Layer

    def __call__(self, x: Any, /, state: Any = None) -> Any:
        """Return the output of every step, of shape (..., time, n_out).

        Args:
          x: an input of shape (..., time, n_in).
          state: the state before the first step, by default zeros.
        """
        return self.scan(x, state)[0]

    def scan(self, x: Any, /, state: Any = None) -> tuple[Any, Any]:
        """Return the output of every step, and the state after the last one.

        Args:
          x: an input of shape (..., time, n_in).
          state: the state before the first step, by default zeros.
        """
        check_input(self, isarray(x) and x.ndim > 1, "an input of shape (..., time, features)", x)
        state = self.cell.check(x, state, batch=x.shape[:-2])
        steps = jnp.moveaxis(self.cell.project(x), -2, 0)
        state, y = jax.lax.scan(lambda s, p: self.cell.step(p, s)[::-1], state, steps)
        return jnp.moveaxis(y, 0, -2), state

    def _validate(self) -> None:
        if not isinstance(self.cell, self.cell_type):
            raise ArgumentError(
                f"{type(self).__name__} expects cell to be of type {self.cell_type.__name__}, "
                f"found {self.cell!r}"
            )

    def _arguments(self) -> list[str]:
        return self.cell._arguments() if isinstance(self.cell, Layer) else [repr(self.cell)]


declare_kind(Recurrent, NodeKind(all_fields=True, one_line=True))
