"""What all plots share: figures, matplotlib, messages."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

import jtree
from jtree.plot import hessian, landscape, parameters, spectrum

from .figures import DIRECTION, FLAT, RE, matrix, quadratic


def plots() -> dict[str, Callable[[], Figure]]:
    return {
        "hessian": lambda: hessian(matrix(), re=RE),
        "spectrum": lambda: spectrum(np.arange(9.0)),
        "landscape": lambda: landscape(quadratic, FLAT, RE, DIRECTION),
        "parameters": lambda: parameters(FLAT, RE),
    }


@pytest.mark.parametrize("name", plots())
def test_a_figure_displays_itself_pickles_and_is_reproducible(name: str) -> None:
    figure = plots()[name]()
    assert isinstance(figure, Figure)
    shown = figure._repr_png_()
    assert shown.startswith(b"\x89PNG")
    assert shown == plots()[name]()._repr_png_()
    assert len(pickle.loads(pickle.dumps(figure)).axes) == len(figure.axes)


def test_pyplot_is_never_imported(run_python: Callable[..., str]) -> None:
    out = run_python("""
        import sys, jax.numpy as jnp, jtree
        flat, re = jtree.destructure({"a": jnp.ones(3), "b": jnp.zeros(2)})
        print("matplotlib" in sys.modules)
        jtree.plot.hessian(jnp.eye(5), re=re)
        jtree.plot.spectrum(flat)
        jtree.plot.parameters(flat, re)
        jtree.plot.landscape(jnp.sum, flat, re, flat)
        jtree.plot.landscape(jnp.sum, flat, re, jnp.eye(5)[:2])
        print("matplotlib.pyplot" in sys.modules)
    """)
    assert out == "False\nFalse\n"


@pytest.mark.parametrize("name", plots())
def test_without_matplotlib(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # type: ignore[arg-type]
    with pytest.raises(jtree.ExtraError) as caught:
        plots()[name]()
    assert str(caught.value) == (
        'jtree.plot needs matplotlib, which is not installed; run: pip install "jtree[plot]"'
    )


COMPLEX = FLAT.astype(np.complex64)

ERRORS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (
        lambda: hessian(np.ones((2, 3))),
        jtree.ArgumentError,
        "matrix: expected a square array, found shape (2, 3)",
    ),
    (
        lambda: hessian(matrix(8), re=RE),
        jtree.ArgumentError,
        "matrix: expected shape (9, 9), one row for each parameter of Restructure(dict, ..., 9), "
        "found (8, 8)",
    ),
    (
        lambda: hessian(1j * matrix(), re=RE),
        jtree.ArgumentTypeError,
        "matrix: expected a real array, found complex128; plot its .real, .imag or abs",
    ),
    (
        lambda: hessian(np.ones((0, 0))),
        jtree.ArgumentError,
        "matrix: expected at least one row, found shape (0, 0)",
    ),
    (
        lambda: spectrum(np.ones(3) * 1j),
        jtree.ArgumentTypeError,
        "eigenvalues: expected real values, found complex128; use numpy.linalg.eigvalsh for a "
        "symmetric matrix",
    ),
    (
        lambda: spectrum(np.ones(0)),
        jtree.ArgumentError,
        "eigenvalues: expected at least one, found none",
    ),
    (
        lambda: spectrum(np.ones(3), np.ones(2)),
        jtree.ArgumentError,
        "weights: expected one for each of 3 eigenvalues, found 2",
    ),
    (
        lambda: spectrum(np.array([1.0, np.nan])),
        jtree.ArgumentError,
        "eigenvalues: expected finite values, found NaN or infinity",
    ),
    (
        lambda: spectrum({}),
        jtree.ArgumentError,
        "eigenvalues: expected at least one spectrum, found an empty dict",
    ),
    (
        lambda: spectrum({"a": np.ones(2)}, np.ones(2)),
        jtree.ArgumentError,
        "weights: in a dict, pass each spectrum as a pair (nodes, weights)",
    ),
    (
        lambda: landscape(quadratic, FLAT, RE, jnp.ones(8)),
        jtree.VectorError,
        "directions: expected shape (9,) or (2, 9), found (8,)",
    ),
    (
        lambda: landscape(quadratic, FLAT, RE, jnp.ones((3, 9))),
        jtree.ArgumentError,
        "directions: expected one or two, found 3",
    ),
    (
        lambda: landscape(quadratic, FLAT, RE, DIRECTION, scale="layer"),  # type: ignore[arg-type]
        jtree.ArgumentError,
        "scale: expected 'filter', 'norm' or 'none', found 'layer'",
    ),
    (
        lambda: landscape(lambda v: v[0] / 0.0, FLAT * 0.0, RE, DIRECTION),
        jtree.ArgumentError,
        "loss: expected finite values, found none at the 101 points around flat",
    ),
    (
        lambda: landscape(lambda v: v, FLAT, RE, DIRECTION),
        jtree.ArgumentTypeError,
        "loss: expected a real scalar, found float32[9]",
    ),
    (
        lambda: landscape(quadratic, COMPLEX, RE, DIRECTION),
        jtree.ArgumentTypeError,
        "flat: expected a floating-point vector, found complex64",
    ),
    (
        lambda: parameters(FLAT[:8], RE),
        jtree.VectorError,
        "expected a vector of 9 elements, found one of 8",
    ),
    (
        lambda: parameters(COMPLEX, RE),
        jtree.ArgumentTypeError,
        "flat: expected a real vector, found complex64; plot its .real, .imag or abs",
    ),
    (
        lambda: parameters(jnp.zeros(0), jtree.destructure({})[1]),
        jtree.ArgumentError,
        "re: expected at least one parameter, found Restructure(dict, ..., 0)",
    ),
]


@pytest.mark.parametrize(("call", "kind", "message"), ERRORS)
def test_messages(call: Callable[[], Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert str(caught.value) == message
