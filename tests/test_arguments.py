"""Arguments of the wrong type: every public function raises an error of jtree."""

from __future__ import annotations

import inspect
import os
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtree
from jtree import callbacks, curvature, init, layers, migrate, plot

from .migrate.flux import Random, write_bson

ARRAYS = [np.ones(3), jnp.arange(2), jnp.ones(()), jax.ShapeDtypeStruct((2,), jnp.float32)]
WRONG = [None, "zzz", [], [1], object(), 2.5, -1, *ARRAYS, jax.random.key(0)]
MODULES = {
    "": jtree,
    "callbacks": callbacks,
    "curvature": curvature,
    "init": init,
    "layers": layers,
    "migrate": migrate,
}
KEY = jax.random.key(0)
X, V = jnp.ones((1, 2)), jnp.ones(2)


class Call(NamedTuple):
    """A call that works, of which one argument after another is replaced."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any] = {}  # noqa: RUF012 (never changed)


def loss(flat: Any, *_: Any) -> Any:
    return jnp.sum(flat**2)


def outputs(flat: Any, _: Any) -> Any:
    return flat[None]


def hessian(_: Any = None) -> curvature.Operator:
    return curvature.hessian(loss, V)


@cache
def operator() -> curvature.Operator:
    flat, re = jtree.destructure({"a": V[:1], "b": V[1:]})
    return curvature.hessian(loss, flat, re=re)


@cache
def calls() -> dict[str, Call]:
    """Return a call of every public function, in a directory with the files that they read."""
    base = {"w": jnp.ones(2)}
    dense = layers.Dense(2, 2, key=KEY)
    source = {"w": np.ones((2, 2)), "a.0.w": np.ones(2), "a.1.w": np.ones(2)}
    weights = {"weight": np.ones((2, 2)), "bias": np.ones(2)}
    linen = pytest.importorskip("flax.linen").Dense(2)
    jtree.save("checkpoint", base)
    jtree.save("a.safetensors", {"w": np.ones(2)})
    migrate.rules_to_toml([migrate.drop("w")], "rules.toml")
    write_bson("model.bson", model=Random().dense(2, 3))
    one = "children count destructure f16 bf16 f32 isnumeric modules state summary trainable"
    table = {name: Call((base,)) for name in f"{one} trainables walk".split()}
    table |= {
        "diff": Call((base, base)),
        "loadmodel": Call((base, base)),
        "load": Call(("checkpoint", base)),
        "open": Call(("checkpoint",)),
        "save": Call(("new.npz", base), {"overwrite": True}),
        "save_async": Call(("new", base), {"overwrite": True}),
        "verify": Call(("checkpoint",)),
        "outputsize": Call((dense, (1, 2))),
        "layers.outputsize": Call((dense, (1, 2))),
        "callbacks.early_stopping": Call((loss, 2)),
        "callbacks.patience": Call((loss, 2)),
        "callbacks.plateau": Call((loss, 2)),
        "callbacks.throttle": Call((loss, 2.0)),
        "callbacks.train": Call((lambda m, _: m, base, [1])),
        "curvature.batched": Call(([X, X], hessian), {"size": np.size}),
        "curvature.block_diagonal": Call((operator(),)),
        "curvature.cond": Call((operator(),)),
        "curvature.diagonal": Call((operator(), "hutchinson"), {"key": KEY, "samples": 2}),
        "curvature.eigsh": Call((operator(), 1)),
        "curvature.fisher": Call((outputs, V, X), {"kind": "mc", "key": KEY}),
        "curvature.ggn": Call((outputs, loss, V, X, X)),
        "curvature.hessian": Call((loss, V)),
        "curvature.hvp": Call((loss, V, V)),
        "curvature.inertia": Call((operator(),)),
        "curvature.inverse": Call((operator(), 1.0), {"method": "cg"}),
        "curvature.layerwise": Call((operator(),), {"method": "hutchinson", "key": KEY}),
        "curvature.nystrom": Call((operator(), 1)),
        "curvature.jacobian": Call((outputs, V, X)),
        "curvature.newton": Call((loss,), {"curvature": curvature.hessian}),
        "curvature.norm": Call((operator(),)),
        "curvature.solve": Call((operator(), V), {"method": "cg"}),
        "curvature.spectrum": Call((operator(),), {"key": KEY, "samples": 2}),
        "curvature.trace": Call((operator(), "hutchinson"), {"key": KEY, "samples": 2}),
        "init.nfan": Call((2, 2)),
        "init.sparse_init": Call((KEY, (2, 2), jnp.float32), {"sparsity": 0.5}),
        "layers.BatchNorm": Call((2,)),
        "layers.Chain": Call((dense,)),
        "layers.Conv": Call(((3, 3), 1, 2), {"key": KEY}),
        "layers.Dense": Call((2, 2), {"key": KEY}),
        "layers.Dropout": Call((0.5,)),
        "layers.ConvTranspose": Call((3, 1, 2), {"key": KEY}),
        "layers.Embedding": Call((3, 2), {"key": KEY}),
        "layers.GRU": Call((3, 2), {"key": KEY}),
        "layers.GRUCell": Call((3, 2), {"key": KEY, "hidden_bias": True}),
        "layers.AdaptiveMaxPool": Call(((2, 2),)),
        "layers.AdaptiveMeanPool": Call(((2, 2),)),
        "layers.GRUv3": Call((3, 2), {"key": KEY}),
        "layers.GRUv3Cell": Call((3, 2), {"key": KEY}),
        "layers.InstanceNorm": Call((2,)),
        "layers.Recur": Call((layers.RNNCell(3, 2, key=KEY),)),
        "layers.flatten_channels_first": Call((X,)),
        "layers.global_max_pool": Call((X[None],)),
        "layers.global_mean_pool": Call((X[None],)),
        "layers.GroupNorm": Call((4, 2)),
        "layers.LSTM": Call((3, 2), {"key": KEY}),
        "layers.LSTMCell": Call((3, 2), {"key": KEY}),
        "layers.LayerNorm": Call((3,)),
        "layers.MultiHeadAttention": Call((4, 4, 4), {"heads": 2, "key": KEY}),
        "layers.RNN": Call((3, 2), {"key": KEY}),
        "layers.RNNCell": Call((3, 2), {"key": KEY}),
        "layers.Scale": Call((3,)),
        "layers.MaxPool": Call(((2, 2),)),
        "layers.MeanPool": Call(((2, 2),)),
        "layers.Parallel": Call((jnp.add, dense)),
        "layers.SkipConnection": Call((dense, jnp.add)),
        "layers.flatten": Call((X,)),
        "layers.forward": Call((dense, X)),
        "layers.testmode": Call((dense,)),
        "layers.trainmode": Call((dense,)),
        "migrate.apply": Call(([migrate.rename("w", "v")], source)),
        "migrate.plan": Call(([migrate.rename("w", "v")], source)),
        "migrate.rename": Call(("w", "v")),
        "migrate.drop": Call(("w",)),
        "migrate.tie": Call(("w", "v")),
        "migrate.cast": Call(("w", "float32")),
        "migrate.scale": Call(("w", 2.0)),
        "migrate.fill": Call(("v", (2,)), {"dtype": "float32"}),
        "migrate.transpose": Call(("w",)),
        "migrate.take": Call(("w", [0])),
        "migrate.flip": Call(("w", 0)),
        "migrate.reshape": Call(("w", (4,))),
        "migrate.stack": Call(("a.#.w", "a.w")),
        "migrate.unstack": Call(("w", "w.#")),
        "migrate.split": Call(("w", ("x", "y"))),
        "migrate.concatenate": Call((("a.0.w", "a.1.w"), "ww")),
        "migrate.convert": Call((dense, weights)),
        "migrate.convert_file": Call(("a.safetensors", "b.safetensors")),
        "migrate.rules_from_toml": Call(("rules.toml",)),
        "migrate.rules_to_toml": Call(([],)),
        "migrate.linen": Call((linen, linen.init(KEY, X), X)),
        "migrate.transposed_padding": Call(((3, 3),)),
        "migrate.flattened": Call(("a",), {"shape": (2, 2, 2)}),
        "migrate.unflattened": Call(("a",), {"shape": (2, 2, 2)}),
        "migrate.defaults": Call(("a",)),
        "migrate.from_flux_vector": Call((dense, jnp.ones(6))),
        "migrate.to_flux_vector": Call((dense,)),
        "from_flux": Call(("model.bson",)),
        "migrate.as_base": Call(("a",)),
    }
    three = Call((KEY, (2, 2), jnp.float32))
    others = {"Init", "Initialiser", "nfan", "rng_from_array", "sparse_init"}
    return table | {f"init.{name}": three for name in set(init.__all__) - others}


# Classes whose instances functions return, functions without arguments, and any object at all.
WITHOUT = {"identity", "rng_from_array", "skip", "stop", "f64", "Init", "Initialiser"} | {
    *("Checkpoint", "Diff", "Restructure", "Saving", "Slot", "Summary", "Walk", "Manager"),
    *("ConvertedLayer", "FileReport", "Setting", "Migrated", "Plan", "Report", "Rule"),
    *("EarlyStopping", "Patience", "Plateau", "Throttled", "Trigger"),
    *("Batched", "Combination", "Eigenpairs", "Estimate", "GaussNewton", "Hessian", "Inertia"),
    *("Jacobian", "Kernel", "LinearMap", "NewtonState", "Operator", "Product", "Spectrum", "Sum"),
    *("BlockDiagonal", "Inverse", "LayerCurvature", "Layerwise", "Nystrom", "SymmetricProduct"),
}


def names() -> Iterator[str]:
    for prefix, module in MODULES.items():
        for name in module.__all__:
            x = getattr(module, name)
            error = isinstance(x, type) and issubclass(x, BaseException)
            if not error and not inspect.ismodule(x) and name not in WITHOUT:
                yield f"{prefix}.{name}" if prefix else name


@pytest.fixture(scope="module", autouse=True)
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("arguments"))
    calls.cache_clear()
    yield
    os.chdir(before)


def run(function: Any, args: list[Any], kwargs: dict[str, Any]) -> None:
    result = function(*args, **kwargs)
    if isinstance(result, jtree.Saving):
        result.result()
    elif isinstance(result, init.Initialiser):
        result(KEY, (2, 2))
    elif isinstance(result, migrate.FileReport):
        path = Path(result.path)
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def mistakes(function: Any, call: Call) -> Iterator[tuple[str, list[Any], dict[str, Any]]]:
    """Yield the name of each parameter, and the call with each wrong value for it."""
    run(function, list(call.args), dict(call.kwargs))
    for position, p in enumerate(inspect.signature(function).parameters.values()):
        for wrong in WRONG if p.kind is not p.VAR_KEYWORD else ():
            if p.kind is p.VAR_POSITIONAL:
                yield p.name, [*call.args, wrong], dict(call.kwargs)
            elif position < len(call.args) or p.kind is p.POSITIONAL_ONLY:
                args = [*call.args[:position], wrong, *call.args[position + 1 :]]
                yield p.name, args, dict(call.kwargs)
            else:
                yield p.name, list(call.args), dict(call.kwargs) | {p.name: wrong}


def raw_errors(function: Any, call: Call) -> list[str]:
    """Return the errors of other libraries that a function raises."""
    raw = []
    for name, args, kwargs in mistakes(function, call):
        try:
            run(function, args, kwargs)
        except jtree.JtreeError:
            pass
        except Exception as error:
            raw.append(f"{name}: {type(error).__name__}: {error}")
    return raw


def find(name: str) -> Any:
    module, _, function = name.rpartition(".")
    return getattr(MODULES[module], function)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(names()))
def test_a_wrong_argument_raises_an_error_of_jtree(name: str) -> None:
    assert not raw_errors(find(name), calls()[name])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["hessian", "landscape", "layerwise", "parameters", "spectrum"])
def test_a_wrong_argument_of_a_plot_raises_an_error_of_jtree(name: str) -> None:
    flat, re = jtree.destructure({"w": jnp.ones(2)})
    table = {
        "hessian": Call((np.eye(2),), {"re": re}),
        "landscape": Call((loss, flat, re, np.eye(2)), {"points": 3}),
        "layerwise": Call((curvature.layerwise(operator()),)),
        "parameters": Call((flat, re)),
        "spectrum": Call((np.arange(3.0),)),
    }
    assert not raw_errors(getattr(plot, name), table[name])


@cache
def methods() -> dict[str, tuple[Any, Call]]:
    """Return the methods with arguments of operators and results, with a call of each."""
    op = operator()
    jacobian = curvature.jacobian(outputs, V, X)
    blocks = curvature.block_diagonal(op)
    opt, spectrum = curvature.newton(loss), curvature.spectrum(op, key=KEY, samples=2)
    products = ("mv", "matvec", "rmatvec", "matmat", "rmatmat", "__matmul__", "__rmatmul__")
    maps = {"operator": op, "jacobian": jacobian, "product": op @ op.damped(1), "sum": op + op @ op}
    table = {f"{m}.{x}": (getattr(maps[m], x), Call((V,))) for m in maps for x in products}
    for x in ("__add__", "__radd__", "__sub__", "__rsub__"):
        table |= {f"{m}.{x}": (getattr(maps[m], x), Call((maps[m],))) for m in maps}
    for x in ("__mul__", "__rmul__", "__truediv__"):
        table |= {f"{m}.{x}": (getattr(maps[m], x), Call((2.0,))) for m in maps}
    return table | {
        "operator.__call__": (op.__call__, Call((V,))),
        "operator.block": (op.block, Call(("a", "b"))),
        "operator.damped": (op.damped, Call((1.0,))),
        "operator.dense": (op.dense, Call((2,))),
        "operator.labeled": (hessian().labeled, Call((op.re,))),
        "operator.mv_tree": (op.mv_tree, Call((op.re(V),))),
        "operator.restrict": (op.restrict, Call(("a",))),
        "newton.update": (opt.update, Call((V, opt.init(V), V))),
        "spectrum.cdf": (spectrum.cdf, Call((V,))),
        "spectrum.density": (spectrum.density, Call((V,))),
        "spectrum.grid": (spectrum.grid, Call(())),
        "spectrum.moment": (spectrum.moment, Call((2,))),
        "spectrum.trace": (spectrum.trace, Call((jnp.exp,))),
        "blocks.solve": (blocks.solve, Call((V,), {"damping": 1.0})),
        "blocks.logdet": (blocks.logdet, Call((1.0,))),
        "blocks.sample": (blocks.sample, Call((2,), {"key": KEY, "damping": 1.0})),
        "blocks.as_preconditioner": (blocks.as_preconditioner, Call((1.0,))),
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "owner", ["operator", "jacobian", "product", "sum", "newton", "spectrum", "blocks"]
)
def test_a_wrong_argument_of_a_method_raises_an_error_of_jtree(owner: str) -> None:
    table = {name: x for name, x in methods().items() if name.partition(".")[0] == owner}
    raw = {name: raw_errors(method, call) for name, (method, call) in table.items()}
    assert table
    assert not {name: errors for name, errors in raw.items() if errors}


MESSAGES: dict[str, Any] = {
    "overwrite: expected True or False, found ndarray": lambda: jtree.save(
        "x", {}, overwrite=np.ones(2)
    ),
    "strict: expected True or False, found 'no'": lambda: jtree.loadmodel({}, {}, strict="no"),
    "none: expected 'error', 'zero' or 'keep', found ndarray": lambda: jtree.diff(
        {}, {}, none=np.ones(2)
    ),
    "metadata: expected a dict, found list": lambda: jtree.save("x.npz", {}, metadata=[1]),
    "save_policy: expected a policy of Orbax, with a method should_save, found ndarray": lambda: (
        jtree.Manager("x", save_policy=np.ones(2))
    ),
    "filter: expected a function, found 3": lambda: jtree.diff({}, {}, filter=3),
    "max_depth: expected an integer, found 'a'": lambda: jtree.summary({}, max_depth="a"),
    "model: expected a function, found None": lambda: jtree.outputsize(None, (1,)),
    "dtype: expected a dtype such as jnp.float32 or 'bfloat16', found 3": lambda: init.zeros32(
        None, (2,), 3
    ),
    "key: expected a key such as jax.random.key(0), found 3": lambda: init.randn32(3, (2,)),
    "gain: expected a number, found None": lambda: init.orthogonal(KEY, (2, 2), gain=None),
    "shape: expected at least 0, found -1": lambda: init.nfan(-1),
    "rules: expected a sequence of rules, found None": lambda: migrate.apply(None, {}),
    "hints: expected a sequence of hints, found 3": lambda: migrate.convert({}, {}, hints=3),
    "toml: expected a path as str or pathlib.Path, found list": lambda: migrate.rules_from_toml([]),
    "window: expected a tuple of integers, found None": lambda: migrate.transposed_padding(None),
    "patience: expected an integer, found None": lambda: callbacks.patience(loss, None),
    "re: expected the Restructure from flat, re = jtree.destructure(model), found 3": lambda: (
        plot.hessian(np.eye(2), re=3)
    ),
}


@pytest.mark.parametrize("message", MESSAGES)
def test_the_message_names_the_argument_what_is_expected_and_what_is_found(message: str) -> None:
    with pytest.raises(jtree.ArgumentError) as error:
        MESSAGES[message]()
    assert str(error.value) == message
