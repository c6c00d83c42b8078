"""The curvature of each layer."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtree
from jtree import curvature as C  # noqa: N812
from jtree._text import render

from .problems import KEY, close, network_ggn, network_hessian, operator, weighted
from .test_blocks import LAYERS, OPERATORS

pytestmark = pytest.mark.usefixtures("double")


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATORS)
def test_traces_and_largest_eigenvalues_of_blocks(name: str) -> None:
    op = OPERATORS[name]()
    layers = C.layerwise(op)
    assert layers.paths == tuple(LAYERS)
    assert layers.parameters == (16, 15)
    for glob, trace, largest in zip(LAYERS, layers.traces, layers.largest, strict=True):
        block = np.asarray(op.block(glob))
        close(trace, np.trace(block))
        close(largest, np.linalg.eigvalsh(block)[-1])
    close(layers.traces.sum(), C.trace(op).value)


@pytest.mark.slow
def test_rows_for_globs_and_for_each_parameter() -> None:
    op = network_hessian()
    each = C.layerwise(op, op.re.paths)
    assert [row.path for row in each.rows] == list(op.re.paths)
    both = C.layerwise(op, ["**", "layer1/w"])
    close(both.rows[0].trace.value, C.trace(op).value)
    assert both.rows[1].parameters == 12


@pytest.mark.slow
def test_estimated_traces_of_layers_have_errors() -> None:
    op = network_ggn()
    layers = C.layerwise(op, method="hutchinson", key=KEY, samples=50)
    exact = C.layerwise(op)
    assert bool((layers.errors > 0).all())
    assert bool((abs(layers.traces - exact.traces) < 5 * layers.errors).all())
    assert "±" in repr(layers)


@pytest.mark.slow
def test_a_table_of_layers_within_jit() -> None:
    jitted = jax.jit(lambda op: C.layerwise(op, progress=False))(network_ggn())
    close(jitted.largest, C.layerwise(network_ggn()).largest)


def labeled(*values: float) -> C.Operator:
    flat, re = jtree.destructure({"a": jnp.zeros(2), "b": {"w": jnp.zeros(1), "v": jnp.zeros(1)}})
    return C.hessian(weighted, flat, jnp.array(values), re=re)


def test_the_printed_table() -> None:
    layers = C.layerwise(labeled(1.0, 2.0, -3.0, 1500.0))
    assert repr(layers).splitlines() == [
        "path  parameters  trace  mean eigenvalue  largest eigenvalue",
        "a              2      3              1.5                   2",
        "b/*            2   1497            748.5                1500",
    ]
    assert "largest eigenvalue" in render(layers)
    assert "2 layers" in render(layers)


def test_layers_without_parameters() -> None:
    flat, re = jtree.destructure({"f": jnp.tanh})
    layers = C.layerwise(C.hessian(lambda v: (v**2).sum(), flat, re=re))
    assert layers.rows == ()
    assert layers.traces.shape == (0,)
    flat, re = jtree.destructure({"a": jnp.zeros((0, 2)), "b": jnp.ones(2)})
    layers = C.layerwise(C.hessian(lambda v: (v**2).sum(), flat, re=re))
    close(layers.traces, [0, 4])
    close(layers.largest, [np.nan, 2])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: C.layerwise(operator(np.eye(2))), "layerwise: the operator has no labels; "),
        (lambda: C.layerwise(network_ggn(), "zzz"), "'zzz' matches no parameter"),
        (lambda: C.layerwise(network_ggn(), []), "where: expected at least one glob, found none"),
        (lambda: C.layerwise(network_ggn(), method="xtrace"), "method='xtrace' samples vectors; "),
        (lambda: C.layerwise(labeled(1.0, 1.0, 1.0, np.nan)), "diagonal: the operator has values "),
        (lambda: C.layerwise(np.eye(2)), "layerwise: expected an operator, found float64[2, 2]; "),
    ],
)
def test_errors_of_layers(call: Any, message: str) -> None:
    with pytest.raises(jtree.JtreeError) as error:
        call()
    assert str(error.value).startswith(message)
