"""Matching of layers: stacks beside numbers, containers, projections, ties in files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jtree
from jtree import migrate

from ..same import normal, same
from .models import Holder, assert_equal, linear, randomised, refusal, stacked


def stages(number: int) -> dict[str, Any]:
    """Return a state dict of PyTorch with two stages of blocks."""
    names = [f"stages.{i}.{j}" for i in range(2) for j in range(number)]
    return {f"{x}.weight": normal(4, 4) for x in names} | {f"{x}.bias": normal(4) for x in names}


def test_stacks_in_a_list_are_matched_by_their_lengths() -> None:
    source = stages(3)
    model = Holder(stages=nnx.List([stacked(3), stacked(3)]))
    model, _ = migrate.convert(model, source)
    for i in range(2):
        expected = [source[f"stages.{i}.{j}.weight"].T for j in range(3)]
        np.testing.assert_array_equal(model.stages[i].kernel[...], expected)
    rows = [nnx.List([linear() for _ in range(3)]) for _ in range(2)]
    back, _ = migrate.convert(Holder(stages=nnx.List(rows)), model, layout="nnx")
    for i in range(2):
        for j in range(3):
            np.testing.assert_array_equal(
                back.stages[i][j].kernel[...], source[f"stages.{i}.{j}.weight"].T
            )


def test_ambiguous_stacks_are_refused() -> None:
    source = stages(2)
    model = Holder(stages=nnx.List([stacked(2), stacked(2)]))
    assert refusal(model, source) == (
        "nothing was loaded: 2 mismatches\n"
        "  stages/0: expected one match in the source, found stages.0.0 to stages.1.0 "
        "or stages.0.0 to stages.0.1; choose one with rules such as "
        "migrate.stack('stages.0.#.*', 'stages.0.*')\n"
        "  stages/1: expected one match in the source, found stages.0.1 to stages.1.1 "
        "or stages.1.0 to stages.1.1; choose one with rules such as "
        "migrate.stack('stages.1.#.*', 'stages.1.*')"
    )
    rules = [migrate.stack(f"stages.{n}.#.*", f"stages.{n}.*") for n in range(2)]
    model, _ = migrate.convert(model, source, rules=rules)
    expected = [source[f"stages.1.{j}.weight"].T for j in range(2)]
    np.testing.assert_array_equal(model.stages[1].kernel[...], expected)
    rows = nnx.List([nnx.List([linear(), linear()]) for _ in range(2)])
    assert refusal(Holder(stages=rows), model, layout="nnx") == (
        "nothing was loaded: 2 mismatches\n"
        "  stages/0/1: expected one match in the source, found layer 0 of stages/1 or layer 1 of "
        "stages/0; choose one with rules such as migrate.unstack('stages/0/**', 'stages/0/#/**')\n"
        "  stages/1/0: expected one match in the source, found layer 1 of stages/0 or layer 0 of "
        "stages/1; choose one with rules such as migrate.unstack('stages/1/**', 'stages/1/#/**')"
    )
    rule = migrate.unstack("stages/*/*", "stages/*/#/*")
    back, _ = migrate.convert(Holder(stages=rows), model, layout="nnx", rules=[rule])
    np.testing.assert_array_equal(back.stages[1][0].kernel[...], expected[0])


def test_shapes_tell_which_number_is_that_of_a_stack() -> None:
    """Of two blocks of two layers, only layers of one shape can be stacked."""
    shapes = {0: (8, 4), 1: (4, 8)}
    source = {f"blocks.{i}.{j}.weight": normal(*shapes[j]) for i in range(2) for j in range(2)}
    source |= {f"blocks.{i}.{j}.bias": normal(shapes[j][0]) for i in range(2) for j in range(2)}

    @nnx.split_rngs(splits=2)
    @nnx.vmap
    def create(rngs: nnx.Rngs) -> nnx.Sequential:
        return nnx.Sequential(nnx.Linear(4, 8, rngs=rngs), nnx.Linear(8, 4, rngs=rngs))

    model, _ = migrate.convert(Holder(blocks=create(nnx.Rngs(0))), source)
    expected = [source[f"blocks.{i}.1.weight"].T for i in range(2)]
    np.testing.assert_array_equal(model.blocks.layers[1].kernel[...], expected)


class Block(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.norm = nnx.LayerNorm(4, rngs=rngs)
        self.fc = nnx.Linear(4, 4, rngs=rngs)
        self.gain = nnx.Param(jnp.ones(4))

    def __call__(self, x: Any) -> Any:
        return x + self.gain * jnp.tanh(self.fc(self.norm(x)))


class Unrolled(nnx.Module):
    def __init__(self, rngs: nnx.Rngs, count: int = 12) -> None:
        self.layers = nnx.List([Block(rngs) for _ in range(count)])

    def __call__(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return x


class Stacked(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        @nnx.split_rngs(splits=12)
        @nnx.vmap(in_axes=(0,), out_axes=0)
        def build(rngs: nnx.Rngs) -> Block:
            return Block(rngs)

        self.layers = build(rngs)

    def __call__(self, x: Any) -> Any:
        @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
        def forward(block: Block, x: Any) -> Any:
            return block(x)

        return forward(self.layers, x)


class Scanned(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        block = nn.scan(LinenBlock, {"params": 0}, split_rngs={"params": True}, length=12)
        return block(name="layers")(x, None)[0]


class LinenBlock(nn.Module):
    @nn.compact
    def __call__(self, x: Any, _: Any) -> Any:
        gain = self.param("gain", nn.initializers.ones, (4,))
        return x + gain * jnp.tanh(nn.Dense(4, name="fc")(nn.LayerNorm(name="norm")(x))), None


def test_twelve_blocks_become_one_stack_and_back() -> None:
    x = jnp.asarray(normal(3, 4))
    model = randomised(Unrolled(nnx.Rngs(0)))
    expected = model(x)
    stack, report = migrate.convert(Stacked(nnx.Rngs(1)), model, layout="nnx")
    np.testing.assert_allclose(stack(x), expected, rtol=1e-5)
    assert report.layers[0].notes == ("12 layers stacked",)
    target = migrate.linen(Scanned(), None, x)
    variables, _ = migrate.convert(target, model, layout="nnx")
    np.testing.assert_allclose(Scanned().apply(variables, x), expected, rtol=1e-5)
    again, _ = migrate.convert(target, stack, layout="nnx")
    assert_equal(again, variables)
    for source, layout in ((stack, "nnx"), (variables, "linen")):
        back, _ = migrate.convert(Unrolled(nnx.Rngs(2)), source, layout=layout)
        assert_equal(back, model)


def test_a_stack_of_another_length_is_refused() -> None:
    stack = Stacked(nnx.Rngs(0))
    lines = refusal(Unrolled(nnx.Rngs(0), 3), stack, layout="nnx").splitlines()
    assert lines[0] == "nothing was loaded: 5 mismatches"
    assert lines[1] == (
        "  layers/fc/bias: expected a stack of 3 layers, found float32[12, 4]; give the model 12 "
        "layers, or split the stack with migrate.unstack and drop the others"
    )
    assert refusal(Unrolled(nnx.Rngs(0), 13), stack, layout="nnx").splitlines()[1] == (
        "  layers/12/fc/bias: expected float32[4], found no layers/fc/bias in the source; for "
        "zeros, add migrate.defaults('layers/12/fc/bias') to hints"
    )
    assert refusal(stack, Unrolled(nnx.Rngs(0), 11), layout="nnx").splitlines()[1] == (
        "  layers/fc/bias: expected float32[12, 4], found no layers/11/fc/bias in the source; for "
        "zeros, add migrate.defaults('layers/fc/bias') to hints"
    )
    assert refusal(stack, Unrolled(nnx.Rngs(0), 13), layout="nnx").splitlines()[1] == (
        "  layers/12/fc/bias: expected nothing, found float32[4], which no layer of the model "
        "takes; rename it, or add migrate.drop('layers/12/fc/bias') to rules"
    )


class Listed(nn.Module):
    def setup(self) -> None:
        self.blocks = [nn.Sequential([nn.Dense(4), nn.relu, nn.Dense(4)]) for _ in range(2)]

    def __call__(self, x: Any) -> Any:
        for block in self.blocks:
            x = block(x)
        return x


def test_a_sequential_of_the_source_may_be_a_list_in_the_model() -> None:
    """And the reverse, where the two share only some of the containers."""
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


def projections(names: str) -> dict[str, Any]:
    """Return the weights of attention whose projections are layers of these names."""
    weights = {f"attn.{x}.weight": normal(4, 4) for x in names.split()}
    return weights | {f"attn.{x}.bias": normal(4) for x in names.split()}


def attention() -> Holder:
    return Holder(attn=nnx.MultiHeadAttention(2, 4, decode=False, rngs=nnx.Rngs(0)))


def test_projections_of_attention_may_have_the_names_of_the_model() -> None:
    source = projections("query key value out")
    model, _ = migrate.convert(attention(), source)
    for name in ("query", "key", "value", "out"):
        kernel = getattr(model.attn, name).kernel[...].reshape(4, 4)
        np.testing.assert_array_equal(kernel, source[f"attn.{name}.weight"].T)


def test_two_arrays_for_one_kernel_are_refused() -> None:
    """Only biases of cells add up."""
    source = projections("q_proj k_proj v_proj out_proj")
    source |= {"attn.in_proj_weight": normal(12, 4)}
    assert refusal(attention(), source).splitlines()[1] == (
        "  attn: expected one array for its query kernel, found attn.in_proj_weight and "
        "attn.q_proj.weight; drop or rename one of them with a rule"
    )


def test_ties_recorded_in_safetensors_are_restored(tmp_path: Path) -> None:
    """`save_model` keeps one name of tied weights, here not that of the embedding."""
    safetensors = pytest.importorskip("safetensors.torch")
    torch = pytest.importorskip("torch")
    module = torch.nn.ModuleDict({"wte": torch.nn.Embedding(5, 4), "head": torch.nn.Linear(4, 5)})
    module["head"].weight = module["wte"].weight
    safetensors.save_model(module, str(tmp_path / "tied.safetensors"))
    checkpoint = jtree.open(tmp_path / "tied.safetensors")
    assert set(checkpoint) == {"head.weight", "head.bias"}
    head = nnx.Linear(4, 5, rngs=nnx.Rngs(0))
    model = Holder(wte=nnx.Embed(5, 4, rngs=nnx.Rngs(0)), head=head)
    model, _ = migrate.convert(model, checkpoint)
    np.testing.assert_array_equal(model.wte.embedding[...], module["wte"].weight.detach())
    np.testing.assert_array_equal(model.head.kernel[...], module["wte"].weight.detach().T)


def test_an_optional_array_that_is_shared_needs_one_source() -> None:
    """It is not kept at the path that the source lacks."""
    shared = nnx.Variable(jnp.arange(3))
    source = {"a": np.array([4, 5, 6], np.int32), "fc.weight": normal(4, 4), "fc.bias": normal(4)}
    model, report = migrate.convert(Holder(a=shared, b=shared, fc=linear()), source)
    assert model.a is model.b
    assert model.b[...].tolist() == [4, 5, 6]
    assert report.kept == ()
    model, report = migrate.convert(model, {x: y for x, y in source.items() if x != "a"})
    assert model.b[...].tolist() == [4, 5, 6]
    assert report.kept == ("a", "b")
