"""Which array goes where: names that may mean two things, stacks beside numbers, ties in files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jtree
from jtree import LoadError, ModelError, migrate
from jtree._state.load import compare_walks
from jtree._tree.walk import walk

from ..same import close_to_scale as close
from ..same import normal, same

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("seeded_torch")


def linear(n: int = 4, m: int = 4) -> nnx.Linear:
    return nnx.Linear(n, m, rngs=nnx.Rngs(0))


def stacked(number: int) -> nnx.Linear:
    @nnx.split_rngs(splits=number)
    @nnx.vmap
    def create(rngs: nnx.Rngs) -> nnx.Linear:
        return nnx.Linear(4, 4, rngs=rngs)

    return create(nnx.Rngs(0))


class Holder(nnx.Module):
    """A model with these attributes."""

    def __init__(self, **attributes: Any) -> None:
        for name, x in attributes.items():
            setattr(self, name, x)


def stages(number: int) -> dict[str, Any]:
    """Return two stages of blocks, as PyTorch names them."""
    names = [f"stages.{i}.{j}" for i in range(2) for j in range(number)]
    return {f"{x}.weight": normal(4, 4) for x in names} | {f"{x}.bias": normal(4) for x in names}


def test_two_arrays_of_one_name_in_the_model_are_refused() -> None:
    """One of them would keep its first numbers without a word."""
    model = Holder(conv_1=linear(2, 2), conv=nnx.List([linear(2, 2), linear(2, 2)]))
    source = {f"conv.{n}.weight": normal(2, 2) for n in range(2)}
    source |= {f"conv.{n}.bias": normal(2) for n in range(2)}
    message = "conv/1/bias and conv_1/bias: expected two names, found conv/1/bias for both"
    with pytest.raises(ModelError, match=message):
        migrate.convert(model, source)

    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            statistic = self.variable("batch_stats", "mean", jnp.ones, (2,))
            return x * self.param("mean", nn.initializers.zeros, (2,)) + statistic.value

    target = migrate.linen(Twice(), None, normal(1, 2))
    with pytest.raises(ModelError, match="batch_stats/mean and params/mean"):
        migrate.convert(target, {"mean": np.ones(2, np.float32)})


def test_stacks_in_a_list_take_the_numbers_that_their_lengths_fit() -> None:
    source = stages(3)
    model = Holder(stages=nnx.List([stacked(3), stacked(3)]))
    found, _ = migrate.convert(model, source)
    for i in range(2):
        expected = [source[f"stages.{i}.{j}.weight"].T for j in range(3)]
        np.testing.assert_array_equal(found.stages[i].kernel[...], expected)
    rows = [nnx.List([linear() for _ in range(3)]) for _ in range(2)]
    back, _ = migrate.convert(Holder(stages=nnx.List(rows)), found, layout="nnx")
    for i in range(2):
        for j in range(3):
            np.testing.assert_array_equal(
                back.stages[i][j].kernel[...], source[f"stages.{i}.{j}.weight"].T
            )


def test_stacks_that_may_be_numbered_in_two_ways_are_refused() -> None:
    source = stages(2)
    model = Holder(stages=nnx.List([stacked(2), stacked(2)]))
    with pytest.raises(LoadError) as caught:
        migrate.convert(model, source)
    assert str(caught.value) == (
        "nothing was loaded: 2 mismatches\n"
        "  stages/0: expected one match in the source, found stages.0.0 to stages.1.0 "
        "or stages.0.0 to stages.0.1; choose one with rules such as "
        "migrate.stack('stages.0.#.*', 'stages.0.*')\n"
        "  stages/1: expected one match in the source, found stages.0.1 to stages.1.1 "
        "or stages.1.0 to stages.1.1; choose one with rules such as "
        "migrate.stack('stages.1.#.*', 'stages.1.*')"
    )
    rules = [migrate.stack(f"stages.{n}.#.*", f"stages.{n}.*") for n in range(2)]
    found, _ = migrate.convert(model, source, rules=rules)
    expected = [source[f"stages.1.{j}.weight"].T for j in range(2)]
    np.testing.assert_array_equal(found.stages[1].kernel[...], expected)
    rows = nnx.List([nnx.List([linear(), linear()]) for _ in range(2)])
    message = "found layer 1 of stages/0 or layer 0 of stages/1; choose one with rules such as "
    with pytest.raises(LoadError, match=message):
        migrate.convert(Holder(stages=rows), found, layout="nnx")
    rule = migrate.unstack("stages/*/*", "stages/*/#/*")
    back, _ = migrate.convert(Holder(stages=rows), found, layout="nnx", rules=[rule])
    np.testing.assert_array_equal(back.stages[1][0].kernel[...], expected[0])


def test_a_stack_of_blocks_in_a_row_is_told_by_shapes() -> None:
    """Two blocks of two layers: only layers of one shape can be stacked."""
    shapes = {0: (8, 4), 1: (4, 8)}
    source = {f"blocks.{i}.{j}.weight": normal(*shapes[j]) for i in range(2) for j in range(2)}
    source |= {f"blocks.{i}.{j}.bias": normal(shapes[j][0]) for i in range(2) for j in range(2)}

    @nnx.split_rngs(splits=2)
    @nnx.vmap
    def create(rngs: nnx.Rngs) -> nnx.Sequential:
        return nnx.Sequential(nnx.Linear(4, 8, rngs=rngs), nnx.Linear(8, 4, rngs=rngs))

    found, _ = migrate.convert(Holder(blocks=create(nnx.Rngs(0))), source)
    expected = [source[f"blocks.{i}.1.weight"].T for i in range(2)]
    np.testing.assert_array_equal(found.blocks.layers[1].kernel[...], expected)


class Listed(nn.Module):
    def setup(self) -> None:
        self.blocks = [nn.Sequential([nn.Dense(4), nn.relu, nn.Dense(4)]) for _ in range(2)]

    def __call__(self, x: Any) -> Any:
        for block in self.blocks:
            x = block(x)
        return x


def test_a_sequential_of_the_source_may_be_a_list_in_the_model() -> None:
    """And the other way, where only some containers are those of both."""
    blocks = [nnx.Sequential(linear(), nnx.relu, linear()) for _ in range(2)]
    model, x = Holder(blocks=nnx.Sequential(*blocks)), normal(2, 4)
    variables, _ = migrate.convert(migrate.linen(Listed(), None, x), model, layout="nnx")
    expected = model.blocks(x)
    np.testing.assert_array_equal(Listed().apply(variables, x), expected)
    empty = Holder(blocks=nnx.Sequential(*(nnx.clone(block) for block in blocks)))
    empty = jax.tree.map(jnp.zeros_like, empty)
    back, _ = migrate.convert(empty, variables, layout="linen")
    assert same(nnx.state(back), nnx.state(model))
    renamed, _ = migrate.convert(
        Holder(rows=nnx.List(list(empty.blocks.layers))),
        model,
        layout="nnx",
        rename={"blocks.0": "rows/0", "blocks.layers.1": "rows/1"},
    )
    np.testing.assert_array_equal(
        renamed.rows[1].layers[2].kernel[...], blocks[1].layers[2].kernel[...]
    )


def test_a_name_whose_parts_are_all_renamed_otherwise_is_not_unused() -> None:
    source = {"encoder.layer.0.dense.weight": normal(4, 4), "encoder.layer.0.dense.bias": normal(4)}
    names = {"encoder.layer": "layers", "encoder.layer.*.dense": "fc/*"}
    model, _ = migrate.convert(Holder(fc=nnx.List([linear()])), source, rename=names)
    close(model.fc[0].kernel[...], source["encoder.layer.0.dense.weight"].T)


def projections(names: str) -> dict[str, Any]:
    found = {f"attn.{x}.weight": normal(4, 4) for x in names.split()}
    return found | {f"attn.{x}.bias": normal(4) for x in names.split()}


def attention() -> Holder:
    return Holder(attn=nnx.MultiHeadAttention(2, 4, decode=False, rngs=nnx.Rngs(0)))


def test_projections_of_attention_by_the_names_of_the_model() -> None:
    source = projections("query key value out")
    model, _ = migrate.convert(attention(), source)
    for name in ("query", "key", "value", "out"):
        kernel = getattr(model.attn, name).kernel[...].reshape(4, 4)
        np.testing.assert_array_equal(kernel, source[f"attn.{name}.weight"].T)


def test_a_kernel_that_is_there_in_two_ways_is_refused() -> None:
    """Two kernels were added, as the two biases of an LSTM are."""
    source = projections("q_proj k_proj v_proj out_proj")
    source |= {"attn.in_proj_weight": normal(12, 4)}
    with pytest.raises(LoadError) as caught:
        migrate.convert(attention(), source)
    assert str(caught.value).splitlines()[1] == (
        "  attn: expected one array for its query kernel, found attn.in_proj_weight and "
        "attn.q_proj.weight; drop or rename one of them with a rule"
    )


def test_safetensors_name_the_ties_that_they_leave_out(tmp_path: Path) -> None:
    """`save_model` keeps one name of tied weights, and not the embedding's."""
    safetensors = pytest.importorskip("safetensors.torch")
    module = torch.nn.ModuleDict({"wte": torch.nn.Embedding(5, 4), "head": torch.nn.Linear(4, 5)})
    module["head"].weight = module["wte"].weight
    safetensors.save_model(module, str(tmp_path / "tied.safetensors"))
    opened = jtree.open(tmp_path / "tied.safetensors")
    assert set(opened) == {"head.weight", "head.bias"}
    head = nnx.Linear(4, 5, rngs=nnx.Rngs(0))
    model, _ = migrate.convert(Holder(wte=nnx.Embed(5, 4, rngs=nnx.Rngs(0)), head=head), opened)
    np.testing.assert_array_equal(model.wte.embedding[...], module["wte"].weight)
    np.testing.assert_array_equal(model.head.kernel[...], module["wte"].weight.T)


def test_a_conversion_walks_the_model_once_and_compares_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other walks are of the source and of the new values."""
    walked: list[Any] = []
    compared: list[Any] = []

    def counted(function: Any, calls: list[Any]) -> Any:
        def call(x: Any, *args: Any, **options: Any) -> Any:
            calls.append(x)
            return function(x, *args, **options)

        return call

    replacements = {walk: counted(walk, walked), compare_walks: counted(compare_walks, compared)}
    for name, module in list(sys.modules.items()):
        if name.startswith("jtree."):
            for function, replacement in replacements.items():
                if getattr(module, function.__name__, None) is function:
                    monkeypatch.setattr(module, function.__name__, replacement)
    model = Holder(fc=linear(), wte=nnx.Embed(5, 4, rngs=nnx.Rngs(0)))
    source = {"fc.weight": normal(4, 4), "fc.bias": normal(4), "wte.weight": normal(5, 4)}
    migrate.convert(model, source)
    assert sum(x is model for x in walked) == 1
    assert len(walked) == 3
    assert len(compared) == 1
