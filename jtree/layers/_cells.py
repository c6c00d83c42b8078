"""The cells of recurrent layers: one step in time."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from .._arguments import check_flag, check_integer, check_integers
from .._tree.leaves import isarray
from ..init import glorot_uniform
from ._fields import check_array, check_function, check_present, make_bias, set_fields, split_shape
from ._layer import (
    Activation,
    InitFunction,
    Layer,
    check_concrete,
    check_input,
    function_name,
    initialise,
    layer,
    split_key,
)


class Cell(Layer):
    """The base of the cells: `cell(x, state)` returns an output and the next state."""

    weight_ih: Any
    weight_hh: Any
    bias: Any
    gates = 1  # the number of blocks of columns of each weight
    pair = False  # whether the state is a pair (h, c) instead of one array

    def __call__(self, x: Any, /, state: Any = None) -> tuple[Any, Any]:
        """Return the output, of shape (..., n_out), and the state after one step.

        Args:
          x: an input of shape (..., n_in).
          state: the state before, by default zeros.
        """
        state = self.check(x, state, batch=x.shape[:-1] if isarray(x) else ())
        return self.step(self.project(x), state)

    def check(self, x: Any, state: Any, *, batch: tuple[int, ...]) -> Any:
        """Return the state as arrays, and raise an error if it or the input does not fit."""
        check_concrete(self, self.weight_ih)
        n_in, n_out = self.weight_ih.shape[-2], self.weight_hh.shape[-2]
        fits = isarray(x) and x.ndim > 0 and x.shape[-1] == n_in
        check_input(self, fits, f"{n_in} input features", x)
        shape, dtype = (*batch, n_out), self._dtype(x)
        arrays = state if self.pair else (state,)
        if state is None:
            arrays = (jnp.zeros(shape, dtype),) * (2 if self.pair else 1)
        count = len(arrays) if isinstance(arrays, tuple | list) else 0
        check_input(self, count == (2 if self.pair else 1), "a state (h, c)", state)
        for array in arrays:
            fits = isarray(array) and tuple(array.shape) in (shape, (n_out,))
            check_input(self, fits, f"a state of shape {shape}", array)
        h, *c = (jnp.broadcast_to(jnp.asarray(array, dtype), shape) for array in arrays)
        return (h, *c) if self.pair else h

    def project(self, x: Any) -> Any:
        """Return what an input, of one step or of many, adds to the gates."""
        dtype = self._dtype(x)
        y = jnp.asarray(x, dtype) @ self.weight_ih.astype(dtype)
        return y if self.bias is False or self.bias is None else y + self.bias.astype(dtype)

    def step(self, projected: Any, state: Any) -> tuple[Any, Any]:
        """Return the output and the next state for a projected input."""
        raise NotImplementedError

    def _recur(self, h: Any) -> Any:
        return h @ self.weight_hh.astype(h.dtype)

    def _dtype(self, x: Any) -> Any:
        return jnp.result_type(x, self.weight_ih)

    def _set(
        self,
        n_in: int,
        n_out: int,
        key: Any,
        bias: Any,
        init: InitFunction,
        init_recurrent: InitFunction,
        **fields: Any,
    ) -> None:
        check_integers(type(self).__name__, (n_in, n_out), least=0)
        columns, (one, two) = self.gates * n_out, split_key(key, 2)
        set_fields(
            self,
            weight_ih=initialise(init, one, (n_in, columns)),
            weight_hh=initialise(init_recurrent, two, (n_out, columns)),
            bias=bias,
            **fields,
        )._validate()

    def _validate(self) -> None:
        stack, (n_in, _) = split_shape(type(self), "weight_ih", self.weight_ih, 2)
        _, (n_out, _) = split_shape(type(self), "weight_hh", self.weight_hh, 2)
        owner, columns = f"{type(self).__name__}({n_in} => {n_out})", self.gates * n_out
        check_array(owner, "weight_ih", self.weight_ih, (*stack, n_in, columns))
        check_array(owner, "weight_hh", self.weight_hh, (*stack, n_out, columns))
        set_fields(self, bias=make_bias(owner, self.bias, self.weight_ih, (*stack, columns)))

    def _arguments(self) -> list[str]:
        n_in = getattr(self.weight_ih, "shape", "??")[-2]
        n_out = getattr(self.weight_hh, "shape", "??")[-2]
        return [f"{n_in} => {n_out}", *(["bias=False"] if self.bias is False else [])]


@layer("weight_ih", "weight_hh", "bias")
class RNNCell(Cell):
    """One step of a simple recurrent layer: `h = activation(x @ weight_ih + h @ weight_hh + bias)`.

    Args:
      n_in: the number of input features.
      n_out: the number of output features.
      activation: a function of the sum.
      key: a PRNG key for the initialisers. Without a key the layer is abstract.
      bias: True for zeros, an array of shape (n_out,), or False for none; see `Dense`.
      init: an initialiser of `weight_ih`.
      init_recurrent: an initialiser of `weight_hh`.

    Example:
      >>> cell = RNNCell(3, 2, key=jax.random.key(0))
      >>> y, state = cell(jnp.ones((5, 3)))
      >>> y, state = cell(jnp.ones((5, 3)), state)
      >>> cell, y.shape, state.shape
      (RNNCell(3 => 2), (5, 2), (5, 2))

    Source: `RNNCell` of Flux.jl.
    """

    weight_ih: Any  # (n_in, n_out)
    weight_hh: Any  # (n_out, n_out)
    bias: Any  # (n_out,), or False
    activation: Activation

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
        self._set(n_in, n_out, key, bias, init, init_recurrent, activation=activation)

    def _validate(self) -> None:
        check_function("RNNCell", "activation", self.activation)
        super()._validate()

    def step(self, projected: Any, state: Any) -> tuple[Any, Any]:
        """Return the output and the next state, which are the same array."""
        h = self.activation(projected + self._recur(state))
        return h, h

    def _arguments(self) -> list[str]:
        sizes, *absent = super()._arguments()
        name = function_name(self.activation)
        shown = [] if name == "tanh" else [name]
        return [sizes, *shown, *absent]


@layer("weight_ih", "weight_hh", "bias")
class LSTMCell(Cell):
    """One step of a long short-term memory (LSTM), whose state is a pair `(h, c)`.

    The columns of the weights are four blocks, in the order input gate `i`, forget gate `f`,
    candidate `g`, output gate `o`, as in PyTorch and Flux.jl:

        i, f, g, o = split(x @ weight_ih + h @ weight_hh + bias, 4)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h = sigmoid(o) * tanh(c)

    Args:
      n_in: the number of input features.
      n_out: the number of output features.
      key: a PRNG key for the initialisers. Without a key the layer is abstract.
      bias: True for zeros, an array of shape (4 * n_out,), or False for none; see `Dense`.
      init: an initialiser of `weight_ih`.
      init_recurrent: an initialiser of `weight_hh`.

    Example:
      >>> cell = LSTMCell(3, 2, key=jax.random.key(0))
      >>> y, (h, c) = cell(jnp.ones((5, 3)))
      >>> cell, cell.weight_ih.shape, y.shape, c.shape
      (LSTMCell(3 => 2), (3, 8), (5, 2), (5, 2))

    Source: Hochreiter and Schmidhuber, 1997, doi:10.1162/neco.1997.9.8.1735; `LSTMCell` of Flux.jl.
    """

    weight_ih: Any  # (n_in, 4 * n_out)
    weight_hh: Any  # (n_out, 4 * n_out)
    bias: Any  # (4 * n_out,), or False
    gates = 4
    pair = True

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
        self._set(n_in, n_out, key, bias, init, init_recurrent)

    def step(self, projected: Any, state: Any) -> tuple[Any, Any]:
        """Return the output `h` and the next state `(h, c)`."""
        h, c = state
        i, f, g, o = jnp.split(projected + self._recur(h), 4, -1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return h, (h, c)


@layer("weight_ih", "weight_hh", "bias", "bias_n")
class GRUCell(Cell):
    """One step of a gated recurrent unit (GRU).

    The columns of the weights are three blocks, in the order reset gate `r`, update gate `z`,
    candidate `n`, as in PyTorch and Flux.jl:

        r = sigmoid(x_r + h_r)
        z = sigmoid(x_z + h_z)
        n = tanh(x_n + r * (h_n + bias_n))
        h = (1 - z) * n + z * h

    where `x_r, x_z, x_n = split(x @ weight_ih + bias, 3)` and
    `h_r, h_z, h_n = split(h @ weight_hh, 3)`.

    Args:
      n_in: the number of input features.
      n_out: the number of output features.
      key: a PRNG key for the initialisers. Without a key the layer is abstract.
      bias: True for zeros, an array of shape (3 * n_out,), or False for none; see `Dense`.
      hidden_bias: whether to learn `bias_n`, as PyTorch, linen and Equinox do. If False it is None,
        as in NNX and Flux.jl.
      init: an initialiser of `weight_ih`.
      init_recurrent: an initialiser of `weight_hh`.

    Example:
      >>> cell = GRUCell(3, 2, key=jax.random.key(0))
      >>> y, state = cell(jnp.ones((5, 3)))
      >>> cell, cell.weight_ih.shape, y.shape, state.shape
      (GRUCell(3 => 2), (3, 6), (5, 2), (5, 2))

    Source: Cho et al., 2014, https://arxiv.org/abs/1406.1078v1; `GRUCell` of Flux.jl.
    """

    weight_ih: Any  # (n_in, 3 * n_out)
    weight_hh: Any  # (n_out, 3 * n_out)
    bias: Any  # (3 * n_out,), or False
    bias_n: Any  # (n_out,), or None
    gates = 3

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
        check_integer("GRUCell", n_out, least=0)
        bias_n = jnp.zeros(n_out, jnp.float32) if check_flag("hidden_bias", hidden_bias) else None
        self._set(n_in, n_out, key, bias, init, init_recurrent, bias_n=bias_n)

    def _validate(self) -> None:
        super()._validate()
        n_out = self.weight_hh.shape[-2]
        if self.bias_n is not None:
            check_present(f"{self!r}", "bias_n", self.bias_n, (n_out,))

    def step(self, projected: Any, state: Any) -> tuple[Any, Any]:
        """Return the output and the next state, which are the same array."""
        x_r, x_z, x_n = jnp.split(projected, 3, -1)
        h_r, h_z, h_n = jnp.split(self._recur(state), 3, -1)
        r, z = jax.nn.sigmoid(x_r + h_r), jax.nn.sigmoid(x_z + h_z)
        h_n = h_n if self.bias_n is None else h_n + self.bias_n.astype(h_n.dtype)
        h = (1 - z) * jnp.tanh(x_n + r * h_n) + z * state
        return h, h

    def _arguments(self) -> list[str]:
        return [*super()._arguments(), *([] if self.bias_n is None else ["hidden_bias=True"])]
