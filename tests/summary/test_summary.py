"""summary, and the printed form of layers."""

from __future__ import annotations

import io
from cProfile import Profile
from dataclasses import dataclass
from functools import partial
from typing import Any
from xml.etree import ElementTree

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from rich.console import Console

import jtree
from jtree import layers
from jtree._summary.layers import layers_text
from jtree._summary.sizes import value_notes

from ..same import calls
from ..zoo import ZOO, Linen, Net, Shared, abstract


@partial(jax.tree_util.register_dataclass, data_fields=["weight", "bias"], meta_fields=["name"])
@dataclass(repr=False)
class Dense:
    """A layer, for all that the text knows: its repr is one line."""

    weight: Any
    bias: Any
    name: str = ""

    def __repr__(self) -> str:
        n_in, n_out = self.weight.shape
        return f"Dense({n_in} => {n_out}{self.name})"


@partial(jax.tree_util.register_dataclass, data_fields=["scale", "mean"], meta_fields=[])
@dataclass(repr=False)
class Norm:
    scale: Any
    mean: Any

    def __repr__(self) -> str:
        return f"Norm({len(self.mean)})"


@jtree.trainable.register(Norm)
def _(node: Norm) -> dict[str, Any]:
    return {"scale": node.scale}


@partial(jax.tree_util.register_dataclass, data_fields=["layers"], meta_fields=[])
@dataclass
class Chain:
    layers: Any


@partial(jax.tree_util.register_dataclass, data_fields=["first", "rest"], meta_fields=[])
@dataclass
class Both:
    first: Any
    rest: Any


def dense(n_in: int, n_out: int, name: str = "") -> Dense:
    return Dense(jnp.ones((n_in, n_out)), jnp.ones(n_out), name)


def norm(n: int) -> Norm:
    return Norm(jnp.ones(n), jnp.zeros(n))


def lines(text: object) -> list[str]:
    return str(text).splitlines()


def rich_text(x: Any) -> str:
    console = Console(file=io.StringIO(), width=200, color_system=None)
    console.print(x)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


# summary


def test_a_summary_names_every_array_under_its_node() -> None:
    model = {"layer": {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}, "name": "net", "empty": []}
    assert lines(jtree.summary(model)) == [
        "path     shape   dtype    parameters     bytes  remarks",
        "(root)   dict                      9  36 bytes",
        "layer    dict                      9  36 bytes",
        "layer/b  (3,)    float32           3  12 bytes  (all zero)",
        "layer/w  (2, 3)  float32           6  24 bytes",
        "Total: 2 arrays, 9 parameters, 36 bytes.",
    ]


def test_what_is_not_trainable_counts_apart() -> None:
    model = {"norm": norm(64), "step": np.array(3)}
    assert lines(jtree.summary(model)) == [
        "path        shape  dtype     parameters      bytes  remarks",
        "(root)      dict            64, plus 65  520 bytes",
        "norm        Norm            64, plus 64  512 bytes",
        "norm/scale  (64,)  float32           64  256 bytes",
        "norm/mean   (64,)  float32           64  256 bytes  non-trainable, (all zero)",
        "step        ()     int64              1    8 bytes  non-trainable",
        "Total: 1 trainable array, 64 parameters, 256 bytes, "
        "plus 2 non-trainable arrays, 65 parameters, 264 bytes.",
    ]


def test_tied_leaves_are_counted_once_with_a_note() -> None:
    found = jtree.summary(Shared(nnx.Rngs(0)))
    assert found.total.trainable.parameters == jtree.count(Shared(nnx.Rngs(0)))
    assert str(found).endswith("; 3 tied leaves not counted again.")
    tied = {row.path: row.remarks[0] for row in found.rows if row.remarks and not row.type}
    assert tied["enc/bias"] == "tied to dec/bias"
    assert tied["head/kernel"] == "tied to again/0"
    row = next(line for line in lines(found) if line.startswith("enc/kernel"))
    assert row.split() == ["enc/kernel", "(3,", "3)", "float32", "tied", "to", "dec/kernel"]
    untied = jtree.summary(Shared(nnx.Rngs(0)), ties=())
    assert untied.total.trainable.parameters == 21 + 12 + 6
    assert "tied" not in str(untied)


def test_every_number_adds_up_at_the_root() -> None:
    for make in ZOO.values():
        found = jtree.summary(make())
        if found.rows and found.rows[0].type:
            assert found.rows[0].sizes == found.total
        assert found.total.trainable.parameters == jtree.count(make())


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("look", [lambda x: x, abstract], ids=["concrete", "abstract"])
def test_every_kind_of_model_has_a_summary_in_three_forms(name: str, look: Any) -> None:
    model = look(ZOO[name]())
    found = jtree.summary(model)
    assert repr(found) == str(found)
    assert "Total: " in str(found)
    table = rich_text(found)
    page = ElementTree.fromstring(found._repr_html_())
    cells = ["".join(cell.itertext()) for row in page.findall("tr") for cell in row]
    for path in jtree.trainables(model):
        assert (path or "(root)") in str(found)
        assert (path or "(root)") in table
        assert (path or "(root)") in cells
    assert len(page.findall("tr")) == 1 + len(found.rows)


def test_boxes_add_nothing_and_linen_and_nnx_are_named() -> None:
    variables = Linen().init(jax.random.key(0), jnp.ones((1, 2)))
    paths = [row.path for row in jtree.summary(variables).rows]
    assert "params/Dense_0/kernel" in paths
    assert len(paths) == len(set(paths))
    types = {row.path: row.type for row in jtree.summary(Net(nnx.Rngs(0))).rows}
    assert (types[""], types["conv"], types["layers/0"]) == ("Net", "Conv", "Linear")
    boxed = nn.Partitioned(jnp.ones(2), names=(None,))
    assert [row.path for row in jtree.summary(boxed).rows] == [""]


def test_abstract_models_deleted_arrays_and_tracers_have_no_values_to_read() -> None:
    model = {"w": jnp.zeros(2), "n": jnp.full(2, jnp.nan)}
    assert "(all zero)" not in str(jtree.summary(abstract(model)))
    model["w"].delete()
    assert next(row for row in jtree.summary(model).rows if row.path == "w").remarks == (
        "(deleted)",
    )
    seen = []
    jax.jit(lambda m: seen.append(jtree.summary(m)))({"w": jnp.zeros(2)})
    assert seen[0].rows[-1].remarks == ()
    huge = {"w": jax.ShapeDtypeStruct((10**6, 10**6), jnp.bfloat16)}
    assert lines(jtree.summary(huge))[-1] == (
        "Total: 1 array, 1_000_000_000_000 parameters, 1.819 TiB."
    )


DTYPES = [jnp.float32, jnp.float16, jnp.bfloat16, jnp.float8_e5m2, jnp.complex64]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [3, 2**16 + 1])  # read by NumPy, and by a jitted function
def test_remarks_on_values(dtype: Any, size: int) -> None:
    def remarks(*values: float) -> tuple[str, ...]:
        x = jnp.zeros(size, jnp.float32).at[: len(values)].set(jnp.array(values)).astype(dtype)
        return jtree.summary(x).rows[0].remarks

    assert remarks(0.0, -0.0) == ("(all zero)",)
    assert remarks(1.0) == remarks(-1.0, 1.0) == ()
    assert remarks(jnp.nan, jnp.inf) == ("(some NaN)",)
    assert remarks(jnp.inf) == remarks(-jnp.inf) == ("(some Inf)",)


def test_remarks_on_imaginary_parts_and_numpy_arrays() -> None:
    odd = [jnp.array([complex(0, np.inf)]), np.array([np.nan]), np.zeros(2, ">f4")]
    some = [(f.zero, f.nan, f.inf) for f in value_notes(odd) if f]
    assert some == [(False, False, True), (False, True, False), (True, False, False)]
    assert (
        value_notes([jnp.arange(0), jnp.zeros((0, 2)), jax.random.key(0), jnp.arange(3)])
        == [None] * 4
    )


def test_reading_values_is_not_an_error_under_debug_nans() -> None:
    x = jnp.full(2**16 + 1, jnp.nan, jnp.bfloat16)
    with jax.debug_nans(True), jax.disable_jit():
        assert jtree.summary(x).rows[0].remarks == ("(some NaN)",)


def test_sharding_is_shown_where_it_is_over_more_than_one_device(run_python: Any) -> None:
    out = run_python(
        """
        import jax, jax.numpy as jnp, jtree
        from jax.sharding import NamedSharding, PartitionSpec as P
        types = (jax.sharding.AxisType.Auto,) * 2
        mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=types)
        x = jax.device_put(jnp.zeros((4, 2)), NamedSharding(mesh, P("data", None)))
        y = jax.ShapeDtypeStruct((4,), jnp.float32, sharding=NamedSharding(mesh, P()))
        print(jtree.summary({"x": x, "y": y, "z": jnp.ones(1)}))
        z = jax.device_put(jnp.zeros(2**17, jnp.bfloat16), jax.devices()[3])
        with jax.set_mesh(mesh):
            print(jtree.summary(z))
        """,
        JAX_NUM_CPU_DEVICES="4",
    )
    assert "P('data', None) over data=2, model=2  (all zero)" in out
    assert "P() over data=2, model=2\n" in out
    assert "(131072,)  bfloat16     131_072  256.000 KiB\n" in out
    assert "sharding" not in str(jtree.summary({"z": jnp.ones(1)}))


def test_max_depth_ends_in_nodes_that_stand_for_what_is_below() -> None:
    model = Net(nnx.Rngs(0))
    paths = [row.path for row in jtree.summary(model, max_depth=1).rows]
    assert paths[:2] == ["", "conv"]
    assert all("/" not in path for path in paths)
    assert len(jtree.summary(model, max_depth=0).rows) == 1
    assert jtree.summary(model, max_depth=1).total == jtree.summary(model).total
    with pytest.raises(ValueError, match=r"^max_depth: expected None, 0 or more, found -1$"):
        jtree.summary(model, max_depth=-1)


def test_text_of_paths_is_never_markup() -> None:
    found = jtree.summary({"<b>[red]&": jnp.ones(1)})
    assert "&lt;b&gt;[red]&amp;" in found._repr_html_()
    assert "<b>[red]&" in rich_text(found)


def test_a_summary_changes_nothing_and_does_ten_times_the_work_for_ten_times_the_arrays() -> None:
    model = [jnp.ones((n % 7 + 1, n % 11 + 1)) for n in range(1000)]
    before = list(model)
    jtree.summary(model)  # compiles
    with Profile() as few:
        jtree.summary(model[:100])
    with Profile() as many:
        jtree.summary(model)
    assert calls(many) < 11 * calls(few)
    assert all(x is y for x, y in zip(model, before, strict=True))


# layers_text


def test_a_layer_on_its_own_is_one_line() -> None:
    assert layers_text(dense(2, 3)) == "Dense(2 => 3)       # 9 parameters"
    assert layers_text(norm(64)) == "Norm(64)            # 64 parameters, plus 64 non-trainable"
    assert layers_text(jnp.tanh) == "tanh"
    assert layers_text(dense(1, 1, ", " + "x" * 30)).endswith("x)  # 2 parameters")


def test_a_chain_is_opened_and_its_comments_are_in_one_column() -> None:
    model = Chain((dense(2, 1, ", tanh"), dense(1, 1)))
    assert lines(layers_text(model)) == [
        "Chain(",
        "  Dense(2 => 1, tanh),                  # 3 parameters",
        "  Dense(1 => 1),                        # 2 parameters",
        ")                   # Total: 4 arrays, 5 parameters, 20 bytes.",
    ]


def test_the_layers_of_jtree_print_as_in_the_original() -> None:
    key = jax.random.key(0)
    ones = partial(jnp.full, fill_value=1.0)
    first = layers.Dense.from_arrays(ones((2, 1)), ones(1), jnp.tanh)
    model = layers.Chain(first, layers.Dense.from_arrays(ones((1, 1)), ones(1)))
    assert repr(model) == "Chain(Dense(2 => 1, tanh), Dense(1 => 1))"
    assert str(model).splitlines() == [
        "Chain(",
        "  Dense(2 => 1, tanh),                  # 3 parameters",
        "  Dense(1 => 1),                        # 2 parameters",
        ")                   # Total: 4 arrays, 5 parameters, 20 bytes.",
    ]
    inner = layers.Chain(layers.Dense(784, 64, key=key), layers.BatchNorm(64, jax.nn.relu))
    assert str(layers.Chain(inner, layers.Dense(64, 10, key=key))).splitlines() == [
        "Chain(",
        "  Chain(",
        "    Dense(784 => 64),                   # 50_240 parameters",
        "    BatchNorm(64, relu),                # 128 parameters, plus 128",
        "  ),",
        "  Dense(64 => 10),                      # 650 parameters",
        ")         # Total: 6 trainable arrays, 51_018 parameters, 199.289 KiB,",
        "          # plus 2 non-trainable, 128 parameters, 512 bytes.",
    ]


def test_names_functions_and_containers_of_jtree_print_in_their_order() -> None:
    dense = layers.Dense(2, 2, key=jax.random.key(0))
    skip = layers.SkipConnection(layers.Chain(dense, jnp.tanh), jnp.add)
    both = layers.Parallel(jnp.multiply, b=dense, a=lambda x: x)
    assert str(layers.Chain(skip=skip, both=both, drop=layers.Dropout(0.5))).splitlines() == [
        "Chain(",
        "  skip=SkipConnection(",
        "    Chain(",
        "      Dense(2 => 2),                    # 6 parameters",
        "      tanh,",
        "    ),",
        "    add,",
        "  ),",
        "  both=Parallel(",
        "    multiply,",
        "    b=Dense(2 => 2),                    # 6 parameters",
        "    a=<lambda>,",
        "  ),",
        "  drop=Dropout(0.5),",
        ")                   # Total: 4 arrays, 12 parameters, 48 bytes.",
    ]


def test_a_layer_without_parameters_says_what_else_it_holds() -> None:
    plain = layers.BatchNorm(3, affine=False)
    assert str(plain) == "BatchNorm(3, affine=False)  # 0 parameters, plus 6 non-trainable"
    assert str(layers.Dropout(0.1)) == "Dropout(0.1)"
    assert str(layers.Chain(jnp.tanh)) == "Chain(tanh)"
    assert str(layers.Dense(2, 3, key=None)).endswith("# 9 parameters")


def test_chains_in_chains_and_what_is_not_trainable() -> None:
    model = Chain((Chain((dense(784, 64), norm(64))), jax.nn.relu, dense(64, 10)))
    assert lines(layers_text(model)) == [
        "Chain(",
        "  Chain(",
        "    Dense(784 => 64),                   # 50_240 parameters",
        "    Norm(64),                           # 64 parameters, plus 64",
        "  ),",
        "  relu,",
        "  Dense(64 => 10),                      # 650 parameters",
        ")         # Total: 5 trainable arrays, 50_954 parameters, 199.039 KiB,",
        "          # plus 1 non-trainable, 64 parameters, 256 bytes.",
    ]


def test_two_arrays_need_no_total() -> None:
    assert lines(layers_text(Chain((dense(2, 3), jnp.tanh)))) == [
        "Chain(",
        "  Dense(2 => 3),                        # 9 parameters",
        "  tanh,",
        ")",
    ]


def test_lists_dicts_arrays_and_nodes_of_users_are_opened() -> None:
    inner = Both([dense(2, 3), jnp.ones((3, 4))], {"x": dense(3, 4), "z": jnp.ones(3)})
    assert lines(layers_text(Chain((inner,)))) == [
        "Chain(",
        "  Both(",
        "    [",
        "      Dense(2 => 3),                    # 9 parameters",
        "      float32[3, 4],                    # 12 parameters",
        "    ],",
        "    x: Dense(3 => 4),                   # 16 parameters",
        "    z: float32[3],                      # 3 parameters",
        "  ),",
        ")                   # Total: 6 arrays, 40 parameters, 160 bytes.",
    ]


def test_remarks_are_on_the_lines_of_layers() -> None:
    model = Chain((Dense(jnp.zeros((1, 1)), jnp.zeros(1)), Dense(jnp.ones((1, 1)), jnp.ones(1))))
    assert lines(layers_text(model))[1].endswith("# 2 parameters  (all zero)")
    model.layers[1].bias = jnp.array([jnp.nan])
    assert lines(layers_text(model))[2].endswith("# 2 parameters  (some NaN)")
    assert "all zero" not in layers_text(abstract(model))
    half = Dense(jnp.zeros((1, 1)), jnp.ones(1))
    assert layers_text(half).endswith("# 2 parameters")


def test_tied_layers_are_counted_once_in_the_total() -> None:
    layer = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    assert lines(layers_text(Chain((layer, layer))))[-1] == (
        ")                   # Total: 2 arrays, 9 parameters, 36 bytes; "
        "2 tied leaves not counted again."
    )


def test_layers_of_other_packages_and_odd_functions_take_one_line() -> None:
    model = Chain((nnx.Linear(2, 3, rngs=nnx.Rngs(0)), partial(jnp.sum, axis=1)))
    text = layers_text(model)
    assert "  Linear(...),                          # 9 parameters" in text
    assert " at 0x" not in text


@pytest.mark.parametrize("name", ZOO)
def test_every_kind_of_model_has_a_text(name: str) -> None:
    assert layers_text(ZOO[name]())
    assert layers_text(abstract(ZOO[name]()))
