"""Recurrent layers: a cell that is called for each step in time."""

from __future__ import annotations

from typing import Any

import jax

from ..init import glorot_uniform
from ._cells import GRUCell, LSTMCell, RNNCell
from ._fields import set_fields
from ._layer import Activation, InitFunction, layer
from ._recurrence import Recurrent


@layer("cell")
class RNN(Recurrent):
    """A simple recurrent layer: an `RNNCell` along the axis of time, which is the second to last.

    Args:
      n_in: the number of input features.
      n_out: the number of output features.
      activation: a function of the sum in each step.
      key: a PRNG key for the initialisers. Without a key the layer is abstract.
      bias: True for zeros, an array of shape (n_out,), or False for none; see `Dense`.
      init: an initialiser of `weight_ih`.
      init_recurrent: an initialiser of `weight_hh`.

    Example:
      >>> layer = RNN(3, 2, key=jax.random.key(0))
      >>> layer, layer(jnp.ones((5, 10, 3))).shape
      (RNN(3 => 2), (5, 10, 2))
      >>> y, state = layer.scan(jnp.ones((5, 10, 3)))
      >>> state.shape
      (5, 2)

    Source: `RNN` of Flux.jl.
    """

    cell: Any
    cell_type = RNNCell

    def __init__(
        self,
        n_in: int,
        n_out: int,
        activation: Activation = jax.lax.tanh,
        *,
        key: Any = None,
        bias: Any = True,
        init: InitFunction = glorot_uniform,
        init_recurrent: InitFunction = glorot_uniform,
    ) -> None:
        options = {"key": key, "bias": bias, "init": init, "init_recurrent": init_recurrent}
        set_fields(self, cell=RNNCell(n_in, n_out, activation, **options))


@layer("cell")
class LSTM(Recurrent):
    """A long short-term memory: an `LSTMCell` along the axis of time, which is the second to last.

    Args:
      n_in: the number of input features.
      n_out: the number of output features.
      key: a PRNG key for the initialisers. Without a key the layer is abstract.
      bias: True for zeros, an array of shape (4 * n_out,), or False for none; see `Dense`.
      init: an initialiser of `weight_ih`.
      init_recurrent: an initialiser of `weight_hh`.

    Example:
      >>> layer = LSTM(3, 2, key=jax.random.key(0))
      >>> layer, layer(jnp.ones((5, 10, 3))).shape
      (LSTM(3 => 2), (5, 10, 2))
      >>> y, (h, c) = layer.scan(jnp.ones((5, 10, 3)))
      >>> list(jtree.trainables(layer))
      ['cell/weight_ih', 'cell/weight_hh', 'cell/bias']

    Source: `LSTM` of Flux.jl.
    """

    cell: Any
    cell_type = LSTMCell

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
        set_fields(self, cell=LSTMCell(n_in, n_out, **options))


@layer("cell")
class GRU(Recurrent):
    """A gated recurrent unit: a `GRUCell` along the axis of time, which is the second to last.

    Args:
      n_in: the number of input features.
      n_out: the number of output features.
      key: a PRNG key for the initialisers. Without a key the layer is abstract.
      bias: True for zeros, an array of shape (3 * n_out,), or False for none; see `Dense`.
      hidden_bias: whether to learn `bias_n`; see `GRUCell`.
      init: an initialiser of `weight_ih`.
      init_recurrent: an initialiser of `weight_hh`.

    Example:
      >>> layer = GRU(3, 2, key=jax.random.key(0), hidden_bias=True)
      >>> layer, layer(jnp.ones((5, 10, 3))).shape
      (GRU(3 => 2, hidden_bias=True), (5, 10, 2))

    Source: `GRU` of Flux.jl.
    """

    cell: Any
    cell_type = GRUCell

    def __init__(
        self,
        n_in: int,
        n_out: int,
        *,
        key: Any = None,
        bias: Any = True,
        hidden_bias: bool = False,
        init: InitFunction = glorot_uniform,
        init_recurrent: InitFunction = glorot_uniform,
    ) -> None:
        options = {"key": key, "bias": bias, "init": init, "init_recurrent": init_recurrent}
        set_fields(self, cell=GRUCell(n_in, n_out, hidden_bias=hidden_bias, **options))
