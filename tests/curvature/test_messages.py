"""The error messages of curvature, in full."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jtree
from jtree import curvature as C  # noqa: N812
from jtree.curvature._autodiff import memory

from .problems import (
    KEY,
    X,
    Y,
    cross_entropy,
    diagonal_operator,
    empty,
    quadratic,
    square,
)

V = np.linspace(-1, 1, 3, dtype=np.float32)
W = np.linspace(-1, 1, 6, dtype=np.float32)


def linear(v: jax.Array, x: jax.Array) -> jax.Array:
    return x @ v


def logits(v: jax.Array, x: jax.Array) -> jax.Array:
    return x @ v.reshape(3, 2)


def empirical(y: Any, apply: Any = logits, flat: Any = W, **options: Any) -> C.Operator:
    return C.fisher(apply, flat, X.astype("f4"), y, kind="empirical", **options)


def fisher(apply: Any = logits, flat: Any = W, **options: Any) -> C.Operator:
    return C.fisher(apply, flat, X.astype("f4"), **options)


class Resuming:
    """A stream that goes on where it stopped."""

    def __init__(self) -> None:
        self.rest = iter([X[:3], X[3:]])

    def __iter__(self) -> Iterator[Any]:
        return self.rest


def two_shapes(x: Any) -> C.Operator:
    return quadratic(jnp.ones(len(x)))


def no_convergence() -> Any:
    return C.solve(diagonal_operator([1.0, 2.0, 3.0]), V, method="cg", maxiter=1)


Case = tuple[Callable[[], Any], type[Exception], str]

VECTORS: list[Case] = [
    (
        lambda: C.hessian(jnp.sum, V.astype(np.complex64)),
        jtree.VectorTypeError,
        "flat: expected a real vector, found complex64[3]; the second derivative of a real "
        "function of complex parameters is not complex-linear: use their real and imaginary "
        "parts as parameters",
    ),
    (
        lambda: C.hessian(jnp.sum, np.arange(3)),
        jtree.VectorTypeError,
        "flat: expected a floating-point vector, found int64[3]; jtree.destructure(model) returns "
        "the vector of a model",
    ),
    (
        lambda: C.hessian(jnp.sum, V[None]),
        jtree.VectorError,
        "flat: expected a vector, found float32[1, 3]",
    ),
    (
        lambda: C.hessian(jnp.sum, V, re=jtree.destructure(jnp.ones(2))[1]),
        jtree.ArgumentError,
        "re: expected labels for 3 parameters, found Restructure(Array, ..., 2); pass the second "
        "result of the destructure that returned flat",
    ),
    (
        lambda: quadratic(V).mv([1.0]),
        jtree.VectorTypeError,
        "expected a vector of 3 elements, found a list",
    ),
    (
        lambda: quadratic(V) @ V.astype(np.complex64),
        jtree.VectorTypeError,
        "expected a real vector, found complex64[3]",
    ),
    (
        lambda: quadratic(V) @ V[:2],
        jtree.VectorError,
        "expected a vector of 3 elements or a matrix of 3 rows, found float32[2]",
    ),
    (
        lambda: quadratic(V) @ np.ones((2, 3), np.float32),
        jtree.VectorError,
        "expected a vector of 3 elements or a matrix of 3 rows, found float32[2, 3]; transpose it",
    ),
]

FUNCTIONS: list[Case] = [
    (
        lambda: C.hessian(3, V),
        jtree.ArgumentTypeError,
        "expected a function, found 3",
    ),
    (
        lambda: C.hessian(square, V).block("w"),
        jtree.ArgumentError,
        "block: the operator has no labels; pass the second result of destructure, as in "
        "hessian(loss, flat, x, y, re=re)",
    ),
    (
        lambda: C.hessian(lambda v: v, V),
        jtree.ArgumentError,
        "<lambda>: expected a loss that returns one real scalar, found float32[3]; return a mean "
        "or a sum, without auxiliary results",
    ),
    (
        lambda: C.hessian(lambda v: (v.sum(), v), V),
        jtree.ArgumentError,
        "<lambda>: expected a loss that returns one real scalar, found float32[], float32[3]; "
        "return a mean or a sum, without auxiliary results",
    ),
    (
        lambda: C.hessian(lambda _: None, V),
        jtree.ArgumentError,
        "<lambda>: expected a loss that returns one real scalar, found none; return a mean or a "
        "sum, without auxiliary results",
    ),
    (
        lambda: C.ggn(linear, jnp.subtract, V, X.astype("f4"), np.float32(0)),
        jtree.ArgumentError,
        "subtract: expected a loss(outputs, y) that returns one real scalar, found "
        "ShapeDtypeStruct(shape=(7,), dtype=float32); return a mean or a sum, without auxiliary "
        "results",
    ),
    (
        lambda: C.ggn(lambda v, _: v, jnp.vdot, V, X.astype("f4"), V),
        jtree.ArgumentError,
        "<lambda>: expected floating-point outputs with the 7 examples of x along their first "
        "axis, found float32[3]",
    ),
    (
        lambda: C.jacobian(lambda *_: (), V, X),
        jtree.ArgumentError,
        "<lambda>: expected one floating-point array of outputs, found none",
    ),
    (
        lambda: C.jacobian(lambda _, x: x, V, X.astype("f4")),
        jtree.ArgumentError,
        "<lambda>: the outputs do not depend on the vector, so the Jacobian is zero; build the "
        "model from the vector inside the function, with re(flat) (with eqx.combine, pass the new "
        "parameters first)",
    ),
    (
        lambda: C.jacobian(linear, V, X.astype("f4")) @ C.jacobian(linear, V, X.astype("f4")),
        jtree.VectorError,
        "@: expected a linear map with 3 rows, found Jacobian(linear, 7 x 3, float32)",
    ),
    (
        lambda: quadratic(V) + quadratic(V[:2]),
        jtree.VectorError,
        "expected operators of one size, found [2, 3]",
    ),
    (
        lambda: quadratic(V).damped("a"),
        jtree.ArgumentTypeError,
        "damping: expected a scalar, found 'a'",
    ),
]

FISHER: list[Case] = [
    (
        lambda: fisher(linear, V),
        jtree.ArgumentError,
        "likelihood='categorical': expected logits of shape (N, ..., classes), found (7,); for one "
        "logit per example use likelihood='bernoulli'",
    ),
    (
        lambda: fisher(lambda v, x: linear(v, x)[:, None], V),
        jtree.ArgumentError,
        "likelihood='categorical': expected logits of shape (N, ..., classes), found (7, 1); for "
        "one logit per example use likelihood='bernoulli'",
    ),
    (
        lambda: fisher(
            lambda v, x: {"mean": v[0] * x, "log_sigma": v[1] * x}, V, likelihood="gaussian"
        ),
        jtree.ArgumentError,  # the arrays of a dict come in the order of its keys
        "likelihood='gaussian': expected one array of outputs, found arrays of shapes (7, 3), "
        "(7, 3); only 'gaussian' takes a pair, a tuple of means and log standard deviations",
    ),
    (
        lambda: fisher(kind="mc"),
        jtree.ArgumentError,
        "kind='mc' samples labels; pass key=jax.random.key(0)",
    ),
    (
        lambda: fisher(kind="empirical"),
        jtree.ArgumentError,
        "kind='empirical' uses the labels of the data; pass y=",
    ),
    (
        lambda: fisher(likelihood="poisson"),
        jtree.ArgumentError,
        "likelihood: expected 'categorical', 'bernoulli', 'gaussian', found 'poisson'",
    ),
    (
        lambda: fisher(kind="exakt"),
        jtree.ArgumentError,
        "kind: expected 'exact', 'mc' or 'empirical', found 'exakt'",
    ),
    (
        lambda: fisher(kind="mc", key=KEY, samples=0),
        jtree.ArgumentError,
        "samples: expected 1 or more, found 0",
    ),
    (
        lambda: fisher(lambda v, _: v.sum()),
        jtree.ArgumentError,
        "<lambda>: expected floating-point outputs with the 7 examples of x along their first "
        "axis, found float32[]",
    ),
    (
        lambda: empirical(Y - 1),
        jtree.ArgumentError,
        "y: expected classes from 0 to 1, found values from -1 to 1; leave out examples without a "
        "class",
    ),
    (
        lambda: empirical(Y[:5]),
        jtree.ArgumentError,
        "y: expected shape (7, 2) or (7,) for outputs of shape (7, 2), found (5,)",
    ),
    (
        lambda: empirical(np.array(["a"] * 7)),
        jtree.ArgumentTypeError,
        "y: expected a numeric array, found <U1[7]",
    ),
]

BATCHES: list[Case] = [
    (
        lambda: C.batched([X], two_shapes, reduction="max"),
        jtree.ArgumentError,
        "reduction: expected 'mean' or 'sum', found 'max'",
    ),
    (
        lambda: C.batched([X], 3),
        jtree.ArgumentTypeError,
        "make: expected a function from a batch to an operator, found 3",
    ),
    (
        lambda: C.batched(3, two_shapes),
        jtree.ArgumentTypeError,
        "batches: expected an iterable, found 3",
    ),
    (
        lambda: C.batched(iter([X]), two_shapes),
        jtree.ArgumentTypeError,
        "batches: expected an iterable that can be read repeatedly, found a list_iterator, which "
        "can be read only once; pass list(...) of it, or a data loader",
    ),
    (
        lambda: C.batched(Resuming(), two_shapes),
        jtree.ArgumentTypeError,
        "batches: expected an iterable that can be read repeatedly, found a Resuming, which can "
        "be read only once; pass list(...) of it, or a data loader",
    ),
    (
        lambda: C.batched([], two_shapes),
        jtree.ArgumentError,
        "batches: expected one or more, found none",
    ),
    (
        lambda: C.batched([X], len),
        jtree.ArgumentTypeError,
        "make: expected an operator, found 7",
    ),
    (
        lambda: C.batched([X], two_shapes),
        jtree.ArgumentError,
        "batched: a mean weights batches by their numbers of examples, which this operator's "
        "arrays do not tell; pass size=lambda batch: ..., or reduction='sum'",
    ),
    (
        lambda: C.batched([X, X[:3]], two_shapes, size=len).dense(),
        jtree.ArgumentError,
        "make: expected operators of one shape, found Hessian(square, 3 x 3, float32)",
    ),
    (
        lambda: jax.jit(lambda v: C.batched([X], two_shapes, size=len) @ v)(np.ones(7, "f4")),
        jtree.ArgumentError,
        "a batched operator reads its data in every product, so it cannot be compiled; multiply "
        "with it outside of jit, or build the operator of one batch inside",
    ),
]

ALGORITHMS: list[Case] = [
    (
        lambda: quadratic(V).dense(0),
        jtree.ArgumentError,
        "chunk: expected 1 or more, found 0",
    ),
    (
        lambda: quadratic(V).dense("all"),
        jtree.ArgumentTypeError,
        "chunk: expected an integer or 'auto', found 'all'",
    ),
    (
        lambda: quadratic(V).dense(memory=30),
        jtree.ArgumentError,
        "the matrix of 3 x 3 float32 takes 36 bytes, but memory= allows 30 bytes; use products, "
        "diagonal(op) or eigsh(op), or a part: op.restrict(...), op.block(...)",
    ),
    (
        lambda: C.diagonal(quadratic(V), "hutchinson"),
        jtree.ArgumentError,
        "method='hutchinson' samples vectors; pass key=jax.random.key(0)",
    ),
    (
        lambda: C.trace(quadratic(V), "xdiag", key=KEY),
        jtree.ArgumentError,
        "method: expected one of 'exact', 'hutchinson', 'xtrace', found 'xdiag'",
    ),
    (
        lambda: C.eigsh(quadratic(V), 4),
        jtree.ArgumentError,
        "k: expected 1 to 3, found 4",
    ),
    (
        lambda: C.eigsh(quadratic(V), 1.0),
        jtree.ArgumentTypeError,
        "k: expected an integer, found 1.0",
    ),
    (
        lambda: C.eigsh(quadratic(V), 1, maxiter=0),
        jtree.ArgumentError,
        "maxiter: expected 1 or more, found 0",
    ),
    (
        lambda: C.eigsh(empty(), 1),
        jtree.ArgumentError,
        "eigsh: expected an operator with at least one row, found 0 x 0",
    ),
    (
        lambda: C.eigsh(quadratic(V), which="SM"),
        jtree.ArgumentError,
        "which: expected 'LM', 'LA' or 'SA', found 'SM'",
    ),
    (
        lambda: C.norm(quadratic(V), 1),
        jtree.ArgumentError,
        "ord: expected 2 or 'fro', found 1",
    ),
    (
        lambda: C.cond(empty()),
        jtree.ArgumentError,
        "cond: expected an operator with at least one row, found 0 x 0",
    ),
    (
        lambda: C.inertia(diagonal_operator([np.nan])),
        jtree.CurvatureError,
        "inertia: the operator has values that are not finite, in 1 of 1 rows; "
        "check the loss and its gradient at this point",
    ),
    (
        lambda: C.spectrum(empty(), key=KEY),
        jtree.ArgumentError,
        "spectrum: expected an operator with at least one row, found 0 x 0",
    ),
    (
        lambda: C.spectrum(quadratic(V), key=None),
        jtree.ArgumentError,
        "spectrum samples vectors; pass key=jax.random.key(0)",
    ),
    (
        lambda: C.spectrum(quadratic(V), key=KEY, steps=0),
        jtree.ArgumentError,
        "spectrum: expected samples and steps of 1 or more, found 10 and 0",
    ),
]

SYSTEMS: list[Case] = [
    (
        lambda: C.solve(quadratic(V), V, method="lu"),
        jtree.ArgumentError,
        "method: expected one of auto, cg, minres, cholesky, found 'lu'",
    ),
    (
        lambda: C.solve(quadratic(V), np.eye(2, dtype="f4")),
        jtree.VectorError,
        "expected a vector of 3 elements or a matrix of 3 rows, found float32[2, 2]",
    ),
    (
        lambda: C.solve(-quadratic(V), V, method="cg"),
        jtree.CurvatureError,
        "cg: the operator is not positive definite: step 1 has curvature -2; add a larger "
        "damping=, use method='minres', or a ggn",
    ),
    (
        lambda: C.solve(-quadratic(V), V, method="cholesky"),
        jtree.CurvatureError,
        "cholesky: the operator is not positive definite: its smallest eigenvalue is -2; add a "
        "larger damping=, use method='minres', or a ggn",
    ),
    (
        lambda: C.solve(diagonal_operator([1.0, 2.0, 0.0]), np.ones(3, "f4")),
        jtree.CurvatureError,
        "auto: the operator is singular to rounding; add damping=",
    ),
    (
        no_convergence,
        jtree.CurvatureError,
        "cg: no convergence: after 1 products the relative residual is 0.5, but tol is 6.4e-06; "
        "add damping=, pass a preconditioner=, or a larger tol=",
    ),
    (
        lambda: C.solve(quadratic(V), V, method="cg", preconditioner=3),
        jtree.ArgumentTypeError,
        "preconditioner: expected a function or a vector, found 3",
    ),
    (
        lambda: C.solve(quadratic(V), V, method="cg", preconditioner=np.eye(3)),
        jtree.VectorError,
        "preconditioner: expected a function or a vector of 3 elements, found float64[3, 3]",
    ),
    (
        lambda: C.solve(quadratic(V), V, method="cg", preconditioner=lambda r: r[:1]),
        jtree.VectorError,
        "preconditioner: expected a function that returns a vector of 3 elements, found float32[1]",
    ),
    (
        lambda: C.newton(3),
        jtree.ArgumentTypeError,
        "loss: expected a function, found 3",
    ),
    (
        lambda: C.newton(square, damping=-1),
        jtree.ArgumentError,
        "damping: expected 0 or more, found -1",
    ),
    (
        lambda: C.newton(square, maxiter=0),
        jtree.ArgumentError,
        "maxiter: expected 1 or more, found 0",
    ),
    (
        lambda: C.newton(square).update(V[:2], C.newton(square).init(V), V),
        jtree.VectorError,
        "newton: expected a gradient of 3 elements, found float32[2]",
    ),
    (
        lambda: C.newton(square).update(V, C.newton(square).init(V)),
        jtree.ArgumentTypeError,
        "newton: pass the parameters, as in update(g, state, params)",
    ),
]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [*VECTORS, *FUNCTIONS, *FISHER, *BATCHES, *ALGORITHMS, *SYSTEMS],
)
def test_messages(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    assert str(caught.value) == message


def test_minres_without_a_solution() -> None:
    with pytest.raises(jtree.CurvatureError, match=r"^minres: no convergence: after \d+ products"):
        C.solve(diagonal_operator([1.0, 2.0, 0.0]), np.ones(3, "f4"), method="minres")


def test_batches_that_are_gone_in_the_next_pass() -> None:
    batches = [X]
    op = C.batched(batches, two_shapes, size=len)
    batches.clear()
    with pytest.raises(jtree.ArgumentError) as caught:
        op @ np.ones(7, "f4")
    assert str(caught.value) == "batches: expected one or more, found none in this pass"


def test_a_matrix_that_does_not_fit_into_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_free_bytes", lambda: 30)
    with pytest.raises(jtree.ArgumentError) as caught:
        quadratic(V).dense()
    assert str(caught.value) == (
        "the matrix of 3 x 3 float32 takes 36 bytes, but only 30 bytes are free; use products, "
        "diagonal(op) or eigsh(op), or a part: op.restrict(...), op.block(...)"
    )


def test_a_jacobian_that_does_not_fit_into_the_free_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "_free_bytes", lambda: 30)
    with pytest.raises(jtree.ArgumentError) as caught:
        C.jacobian(linear, V, X.astype("f4")).dense()
    assert str(caught.value) == (
        "the matrix of 7 x 3 float32 takes 84 bytes, but only 30 bytes are free; use products"
    )


def test_operators_without_labels() -> None:
    jacobian = C.jacobian(linear, V, X.astype("f4"))
    for op in (quadratic(V), jacobian @ jacobian.T):
        for method, call in {"restrict": op.restrict, "mv_tree": op.mv_tree}.items():
            with pytest.raises(jtree.ArgumentError) as caught:
                call("w")
            assert str(caught.value) == (
                f"{method}: the operator has no labels; pass the second result of destructure, as "
                "in hessian(loss, flat, x, y, re=re)"
            )


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jitted"])
def test_parameters_combined_in_the_wrong_order(wrap: Callable[[Any], Any]) -> None:
    model = eqx.nn.Linear(2, 1, key=KEY)
    flat, re = jtree.destructure(model)

    @wrap
    def wrong(v: jax.Array) -> jax.Array:
        return (eqx.combine(model, re(v)).weight ** 2).sum()

    with pytest.raises(jtree.ArgumentError) as caught:
        C.hessian(wrong, flat)
    assert str(caught.value) == (
        "wrong: the loss does not depend on its first argument, so its Hessian is zero; build the "
        "model from the vector inside the loss, with re(flat) (with eqx.combine, pass the new "
        "parameters first)"
    )


def test_outputs_that_do_not_depend_on_the_vector() -> None:
    with pytest.raises(jtree.ArgumentError) as caught:
        C.ggn(lambda _, x: x, lambda o, _: o.sum(), V, X.astype("f4"), 0)
    assert str(caught.value) == (
        "<lambda>: the outputs do not depend on the vector, so the matrix is zero; build the model "
        "from the vector inside the function, with re(flat) (with eqx.combine, pass the new "
        "parameters first)"
    )


@pytest.mark.parametrize("make", [C.hessian, C.ggn])
def test_learning_rates_among_the_parameters(make: Any) -> None:
    state = {"params": jnp.ones((3, 3)), "hyperparams": {"rate": jnp.array(0.1)}}
    flat, re = jtree.destructure(state)
    apply = lambda v, x: x @ re(v)["params"]  # noqa: E731
    loss = lambda v, x, y: cross_entropy(apply(v, x), y)  # noqa: E731
    x = X.astype("f4")
    args = (loss, flat, x, Y) if make is C.hessian else (apply, cross_entropy, flat, x, Y)
    with pytest.raises(jtree.ArgumentError) as caught:
        make(*args, re=re)
    assert str(caught.value) == (
        "hyperparams/rate: <lambda> does not depend on this scalar; if it is a learning rate or a "
        'step counter, leave it out of the vector: destructure(state, where="params/**")'
    )


def test_batch_norm_in_training_mode() -> None:
    model = nnx.BatchNorm(3, rngs=nnx.Rngs(0))
    flat, _ = jtree.destructure(model)
    x = X.astype(np.float32)
    with pytest.raises(jtree.ModelError) as caught:
        C.hessian(lambda v: (model(x) * v[:3]).sum(), flat)
    assert str(caught.value) == (
        "the function changes an NNX variable that was created outside of it, as BatchNorm does "
        "with its statistics in training mode and Dropout with its counter; call model.eval() "
        "before destructure, and rebuild the model inside with re(flat)"
    )


def test_a_library_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lineax", None)
    with pytest.raises(jtree.ExtraError) as caught:
        quadratic(V).as_lineax()
    assert str(caught.value) == (
        'jtree.curvature needs lineax, which is not installed; run: pip install "jtree[curvature]"'
    )
