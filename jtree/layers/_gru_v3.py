"""The gated recurrent unit whose reset gate acts on the state before it is multiplied."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from .._arguments import check_integers
from ..init import glorot_uniform
from ._cells import Cell
from ._fields import check_array, make_bias, set_fields, split_shape
from ._layer import InitFunction, initialise, layer, split_key
from ._recurrence import Recurrent


@layer("weight_ih", "weight_hh", "bias", "weight_hn")
class GRUv3Cell(Cell):
    """One step of a gated recurrent unit as in the third version of its paper.

    The columns of `weight_ih` are three blocks, in the order reset gate `r`, update gate `z`,
    candidate `n`, those of `weight_hh` the first two of them:

        r = sigmoid(x_r + h_r)
        z = sigmoid(x_z + h_z)
        n = tanh(x_n + (r * h) @ weight_hn)
        h = (1 - z) * n + z * h

    where `x_r, x_z, x_n = split(x @ weight_ih + bias, 3)` and `h_r, h_z = split(h @ weight_hh, 2)`.
    Keras calls this `reset_after=False`. In `GRUCell` the reset gate acts on the product instead.

    Args:
      n_in: the number of input features.
      n_out: the number of output features.
      key: a PRNG key for the initialisers. Without a key the layer is abstract.
      bias: True for zeros, an array of shape (3 * n_out,), or False for none; see `Dense`.
      init: an initialiser of `weight_ih`.
      init_recurrent: an initialiser of `weight_hh` and `weight_hn`.

    Example:
      >>> cell = GRUv3Cell(3, 2, key=jax.random.key(0))
      >>> y, state = cell(jnp.ones((5, 3)))
      >>> cell, cell.weight_hh.shape, cell.weight_hn.shape, state.shape
      (GRUv3Cell(3 => 2), (2, 4), (2, 2), (5, 2))

    Source: Cho et al., 2014, https://arxiv.org/abs/1406.1078v3; `GRUv3Cell` of Flux.jl.
    """

    weight_ih: Any  # (n_in, 3 * n_out)
    weight_hh: Any  # (n_out, 2 * n_out)
    bias: Any  # (3 * n_out,), or False
    weight_hn: Any  # (n_out, n_out)
    gates = 3

    def __init__(
        self,
        n_in: int,
        n_out: int,
        *,
        key: Any = None,
        bias: Any = True,
        init: InitFunction = glorot_uniform,
        init_recurrent: InitFunction = glorot_uniform,
    ) -> None:
        n_in, n_out = check_integers("GRUv3Cell", (n_in, n_out), least=0)
        one, two, three = split_key(key, 3)
        set_fields(
            self,
            weight_ih=initialise(init, one, (n_in, 3 * n_out)),
            weight_hh=initialise(init_recurrent, two, (n_out, 2 * n_out)),
            bias=bias,
            weight_hn=initialise(init_recurrent, three, (n_out, n_out)),
        )._validate()

    def _validate(self) -> None:
        stack, (n_in, _) = split_shape(GRUv3Cell, "weight_ih", self.weight_ih, 2)
        _, (n_out, _) = split_shape(GRUv3Cell, "weight_hh", self.weight_hh, 2)
        owner = f"GRUv3Cell({n_in} => {n_out})"
        check_array(owner, "weight_ih", self.weight_ih, (*stack, n_in, 3 * n_out))
        check_array(owner, "weight_hn", self.weight_hn, (*stack, n_out, n_out))
        check_array(owner, "weight_hh", self.weight_hh, (*stack, n_out, 2 * n_out))
        bias = make_bias(owner, self.bias, self.weight_ih, (*stack, 3 * n_out))
        set_fields(self, bias=bias)

    def step(self, projected: Any, state: Any) -> tuple[Any, Any]:
        """Return the output and the next state, which are the same array."""
        x_r, x_z, x_n = jnp.split(projected, 3, -1)
        h_r, h_z = jnp.split(self._recur(state), 2, -1)
        r, z = jax.nn.sigmoid(x_r + h_r), jax.nn.sigmoid(x_z + h_z)
        candidate = jnp.tanh(x_n + (r * state) @ self.weight_hn.astype(state.dtype))
        h = (1 - z) * candidate + z * state
        return h, h


@layer("cell")
class GRUv3(Recurrent):
    """A gated recurrent unit: a `GRUv3Cell` along the axis of time, which is the second to last.

    Args:
      n_in: the number of input features.
      n_out: the number of output features.
      key: a PRNG key for the initialisers. Without a key the layer is abstract.
      bias: True for zeros, an array of shape (3 * n_out,), or False for none; see `Dense`.
      init: an initialiser of `weight_ih`.
      init_recurrent: an initialiser of `weight_hh` and `weight_hn`.

    Example:
      >>> layer = GRUv3(3, 2, key=jax.random.key(0))
      >>> layer, layer(jnp.ones((5, 10, 3))).shape
      (GRUv3(3 => 2), (5, 10, 2))

    Source: `GRUv3` of Flux.jl.
    """

    cell: Any
    cell_type = GRUv3Cell

    def __init__(
        self,
        n_in: int,
        n_out: int,
        *,
        key: Any = None,
        bias: Any = True,
        init: InitFunction = glorot_uniform,
        init_recurrent: InitFunction = glorot_uniform,
    ) -> None:
        options = {"key": key, "bias": bias, "init": init, "init_recurrent": init_recurrent}
        set_fields(self, cell=GRUv3Cell(n_in, n_out, **options))
