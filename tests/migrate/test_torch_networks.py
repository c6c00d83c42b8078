"""Networks of PyTorch, trained for a few steps, with equal outputs in NNX, linen and Equinox."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jtree
from jtree import migrate

from ..same import close_to_scale as close
from .models import assert_equal

torch = pytest.importorskip("torch")
F = torch.nn.functional
KEY = jax.random.key(0)
CHANNELS, CLASSES = 8, 5
SIZE, VOCABULARY, HEADS, DEPTH, LENGTH = 16, 11, 2, 3, 7


def trained(model: Any, *batch: Any) -> Any:
    """Return a model after a few steps, ready for inference."""
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    *inputs, targets = batch
    for _ in range(5):
        optimiser.zero_grad()
        F.cross_entropy(model(*inputs).flatten(0, -2), targets.flatten()).backward()
        optimiser.step()
    return model.eval()


def sources_of(model: Any, folder: Path) -> list[Any]:
    """Return a model, its arrays in memory, and its arrays in files of two formats."""
    state = model.state_dict()
    torch.save(state, folder / "model.pt")
    save_file = pytest.importorskip("safetensors.torch").save_file
    save_file({name: x.clone() for name, x in state.items()}, folder / "model.safetensors")
    files = [jtree.open(folder / name) for name in ("model.pt", "model.safetensors")]
    return [model, {name: x.numpy() for name, x in state.items()}, *files]


def converted(target: Any, sources: list[Any], **options: Any) -> tuple[Any, Any]:
    """Return the model that all sources become alike, and the report of the first."""
    (first, report), *others = [migrate.convert(target, x, **options) for x in sources]
    for other, _ in others:
        assert_equal(other, first)
    return first, report


class TorchBlock(torch.nn.Module):
    def __init__(self, n: int, m: int, stride: int) -> None:
        super().__init__()
        self.conv1 = torch.nn.Conv2d(n, m, 3, stride, 1, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(m)
        self.conv2 = torch.nn.Conv2d(m, m, 3, 1, 1, bias=False)
        self.bn2 = torch.nn.BatchNorm2d(m)
        self.downsample = torch.nn.Sequential(
            torch.nn.Conv2d(n, m, 1, stride, bias=False), torch.nn.BatchNorm2d(m)
        )

    def forward(self, x: Any) -> Any:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.downsample(x))


class TorchResNet(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, CHANNELS, 3, 1, 1)
        self.layer1 = torch.nn.Sequential(
            TorchBlock(CHANNELS, CHANNELS, 1), TorchBlock(CHANNELS, 2 * CHANNELS, 2)
        )
        self.classifier = torch.nn.Sequential(
            torch.nn.Linear(2 * CHANNELS * 16, 12), torch.nn.ReLU(), torch.nn.Linear(12, CLASSES)
        )

    def forward(self, x: Any) -> Any:
        return self.classifier(self.layer1(F.relu(self.stem(x))).flatten(1))


class NnxBlock(nnx.Module):
    def __init__(self, n: int, m: int, stride: int, rngs: nnx.Rngs) -> None:
        def conv(n: int, size: int, stride: int, pad: int) -> nnx.Conv:
            return nnx.Conv(n, m, (size, size), stride, padding=pad, use_bias=False, rngs=rngs)

        def norm() -> nnx.BatchNorm:
            return nnx.BatchNorm(m, momentum=0.9, use_running_average=True, rngs=rngs)

        self.conv1, self.bn1 = conv(n, 3, stride, 1), norm()
        self.conv2, self.bn2 = conv(m, 3, 1, 1), norm()
        self.downsample = nnx.Sequential(conv(n, 1, stride, 0), norm())

    def __call__(self, x: Any) -> Any:
        y = self.bn2(self.conv2(nnx.relu(self.bn1(self.conv1(x)))))
        return nnx.relu(y + self.downsample(x))


class NnxResNet(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.stem = nnx.Conv(3, CHANNELS, (3, 3), padding=1, rngs=rngs)
        self.layer1 = nnx.Sequential(
            NnxBlock(CHANNELS, CHANNELS, 1, rngs), NnxBlock(CHANNELS, 2 * CHANNELS, 2, rngs)
        )
        self.classifier = nnx.Sequential(
            nnx.Linear(2 * CHANNELS * 16, 12, rngs=rngs),
            nnx.relu,
            nnx.Linear(12, CLASSES, rngs=rngs),
        )

    def __call__(self, x: Any) -> Any:
        x = self.layer1(nnx.relu(self.stem(x)))
        return self.classifier(x.reshape(x.shape[0], -1))


class LinenBlock(nn.Module):
    m: int
    stride: int

    def setup(self) -> None:
        def conv(size: int, stride: int, pad: int) -> nn.Conv:
            return nn.Conv(self.m, (size, size), stride, padding=pad, use_bias=False)

        def norm() -> nn.BatchNorm:
            return nn.BatchNorm(momentum=0.9, use_running_average=True)

        self.conv1, self.bn1 = conv(3, self.stride, 1), norm()
        self.conv2, self.bn2 = conv(3, 1, 1), norm()
        self.downsample = nn.Sequential([conv(1, self.stride, 0), norm()])

    def __call__(self, x: Any) -> Any:
        y = self.bn2(self.conv2(nn.relu(self.bn1(self.conv1(x)))))
        return nn.relu(y + self.downsample(x))


class LinenResNet(nn.Module):
    def setup(self) -> None:
        self.stem = nn.Conv(CHANNELS, (3, 3), padding=1)
        self.layer1 = [LinenBlock(CHANNELS, 1), LinenBlock(2 * CHANNELS, 2)]
        self.classifier = nn.Sequential([nn.Dense(12), nn.relu, nn.Dense(CLASSES)])

    def __call__(self, x: Any) -> Any:
        x = nn.relu(self.stem(x))
        for block in self.layer1:
            x = block(x)
        return self.classifier(x.reshape(x.shape[0], -1))


class EqxBlock(eqx.Module):
    conv1: eqx.nn.Conv2d
    bn1: eqx.nn.BatchNorm
    conv2: eqx.nn.Conv2d
    bn2: eqx.nn.BatchNorm
    downsample: eqx.nn.Sequential

    def __init__(self, n: int, m: int, stride: int) -> None:
        def conv(n: int, size: int, stride: int, pad: int) -> Any:
            return eqx.nn.Conv2d(n, m, size, stride, pad, use_bias=False, key=KEY)

        def norm() -> Any:
            return eqx.nn.BatchNorm(m, "batch", momentum=0.9, mode="batch")

        self.conv1, self.bn1 = conv(n, 3, stride, 1), norm()
        self.conv2, self.bn2 = conv(m, 3, 1, 1), norm()
        self.downsample = eqx.nn.Sequential([conv(n, 1, stride, 0), norm()])

    def __call__(self, x: Any, state: Any) -> Any:
        y, state = self.bn1(self.conv1(x), state)
        y, state = self.bn2(self.conv2(jax.nn.relu(y)), state)
        skip, state = self.downsample(x, state)
        return jax.nn.relu(y + skip), state


class EqxResNet(eqx.Module):
    stem: eqx.nn.Conv2d
    layer1: list[EqxBlock]
    classifier: eqx.nn.Sequential

    def __init__(self) -> None:
        self.stem = eqx.nn.Conv2d(3, CHANNELS, 3, padding=1, key=KEY)
        self.layer1 = [EqxBlock(CHANNELS, CHANNELS, 1), EqxBlock(CHANNELS, 2 * CHANNELS, 2)]
        self.classifier = eqx.nn.Sequential(
            [
                eqx.nn.Linear(2 * CHANNELS * 16, 12, key=KEY),
                eqx.nn.Lambda(jax.nn.relu),
                eqx.nn.Linear(12, CLASSES, key=KEY),
            ]
        )

    def __call__(self, x: Any, state: Any) -> Any:
        x = jax.nn.relu(self.stem(x))
        for block in self.layer1:
            x, state = block(x, state)
        return self.classifier(x.ravel()), state


def test_a_resnet(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 3, 8, 8)
    model = trained(TorchResNet(), x, torch.arange(6) % CLASSES)
    expected = model(x).detach()
    images = jnp.asarray(x.permute(0, 2, 3, 1).numpy())
    hints = [migrate.flattened("classifier/0", shape=(2 * CHANNELS, 4, 4))]
    sources = sources_of(model, tmp_path)
    flax_model, report = converted(NnxResNet(nnx.Rngs(0)), sources, hints=hints)
    close(nnx.jit(lambda model, x: model(x))(flax_model, images), expected)
    assert not report.settings
    assert not report.warnings
    target = migrate.linen(LinenResNet(), None, images)
    variables, _ = converted(target, sources, hints=hints)
    close(jax.jit(LinenResNet().apply)(variables, images), expected)
    (eqx_model, state), _ = converted(eqx.nn.make_with_state(EqxResNet)(), sources)
    inference = eqx.nn.inference_mode(eqx_model)
    call = jax.vmap(inference, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
    close(call(jnp.asarray(x.numpy()), state)[0], expected)


class TorchLayer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ln_1 = torch.nn.LayerNorm(SIZE)
        self.attn = torch.nn.MultiheadAttention(SIZE, HEADS, batch_first=True)
        self.ln_2 = torch.nn.LayerNorm(SIZE)
        self.mlp = torch.nn.ModuleDict(
            {"c_fc": torch.nn.Linear(SIZE, 4 * SIZE), "c_proj": torch.nn.Linear(4 * SIZE, SIZE)}
        )

    def forward(self, x: Any) -> Any:
        mask = torch.nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, attn_mask=mask, need_weights=False)[0]
        return x + self.mlp["c_proj"](F.gelu(self.mlp["c_fc"](self.ln_2(x))))


class TorchGPT(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wte = torch.nn.Embedding(VOCABULARY, SIZE)
        self.wpe = torch.nn.Parameter(torch.randn(LENGTH, SIZE))
        self.h = torch.nn.ModuleList(TorchLayer() for _ in range(DEPTH))
        self.ln_f = torch.nn.LayerNorm(SIZE)
        self.lm_head = torch.nn.Linear(SIZE, VOCABULARY, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, tokens: Any) -> Any:
        x = self.wte(tokens) + self.wpe
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x))


class NnxLayer(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.ln_1 = nnx.LayerNorm(SIZE, epsilon=1e-5, rngs=rngs)
        self.attn = nnx.MultiHeadAttention(HEADS, SIZE, decode=False, rngs=rngs)
        self.ln_2 = nnx.LayerNorm(SIZE, epsilon=1e-5, rngs=rngs)
        self.mlp = nnx.Dict(
            c_fc=nnx.Linear(SIZE, 4 * SIZE, rngs=rngs), c_proj=nnx.Linear(4 * SIZE, SIZE, rngs=rngs)
        )

    def __call__(self, x: Any) -> Any:
        x = x + self.attn(self.ln_1(x), mask=nnx.make_causal_mask(x[..., 0]))
        y = jax.nn.gelu(self.mlp.c_fc(self.ln_2(x)), approximate=False)
        return x + self.mlp.c_proj(y)


class NnxGPT(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        @nnx.split_rngs(splits=DEPTH)
        @nnx.vmap(in_axes=(0,), out_axes=0)
        def build(rngs: nnx.Rngs) -> NnxLayer:
            return NnxLayer(rngs)

        self.wte = nnx.Embed(VOCABULARY, SIZE, rngs=rngs)
        self.wpe = nnx.Param(jnp.zeros((LENGTH, SIZE)))
        self.blocks = build(rngs)
        self.ln_f = nnx.LayerNorm(SIZE, epsilon=1e-5, rngs=rngs)

    def __call__(self, tokens: Any) -> Any:
        @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
        def forward(block: NnxLayer, x: Any) -> Any:
            return block(x)

        return self.wte.attend(self.ln_f(forward(self.blocks, self.wte(tokens) + self.wpe)))


class LinenLayer(nn.Module):
    @nn.compact
    def __call__(self, x: Any, _: Any = None) -> Any:
        mask = nn.make_causal_mask(x[..., 0])
        y = nn.LayerNorm(epsilon=1e-5, name="ln_1")(x)
        x = x + nn.MultiHeadDotProductAttention(HEADS, name="attn")(y, mask=mask)
        y = nn.Dense(4 * SIZE, name="c_fc")(nn.LayerNorm(epsilon=1e-5, name="ln_2")(x))
        return x + nn.Dense(SIZE, name="c_proj")(nn.gelu(y, approximate=False)), None


class LinenGPT(nn.Module):
    def setup(self) -> None:
        self.wte = nn.Embed(VOCABULARY, SIZE)
        self.wpe = self.param("wpe", nn.initializers.zeros, (LENGTH, SIZE))
        scanned = nn.scan(LinenLayer, {"params": 0}, split_rngs={"params": True}, length=DEPTH)
        self.blocks = scanned()
        self.ln_f = nn.LayerNorm(epsilon=1e-5)

    def __call__(self, tokens: Any) -> Any:
        x, _ = self.blocks(self.wte(tokens) + self.wpe, None)
        return self.wte.attend(self.ln_f(x))


class EqxLayer(eqx.Module):
    ln_1: eqx.nn.LayerNorm
    attn: eqx.nn.MultiheadAttention
    ln_2: eqx.nn.LayerNorm
    mlp: dict[str, eqx.nn.Linear]

    def __init__(self) -> None:
        self.ln_1, self.ln_2 = eqx.nn.LayerNorm(SIZE), eqx.nn.LayerNorm(SIZE)
        biases = {f"use_{name}_bias": True for name in ("query", "key", "value", "output")}
        self.attn = eqx.nn.MultiheadAttention(HEADS, SIZE, key=KEY, **biases)
        self.mlp = {
            "c_fc": eqx.nn.Linear(SIZE, 4 * SIZE, key=KEY),
            "c_proj": eqx.nn.Linear(4 * SIZE, SIZE, key=KEY),
        }

    def __call__(self, x: Any) -> Any:
        y = jax.vmap(self.ln_1)(x)
        x = x + self.attn(y, y, y, mask=jnp.tril(jnp.ones((len(x), len(x)), bool)))
        y = jax.vmap(self.mlp["c_fc"])(jax.vmap(self.ln_2)(x))
        return x + jax.vmap(self.mlp["c_proj"])(jax.nn.gelu(y, approximate=False))


class EqxGPT(eqx.Module):
    wte: eqx.nn.Embedding
    wpe: jax.Array
    h: list[EqxLayer]
    ln_f: eqx.nn.LayerNorm
    lm_head: eqx.nn.Linear

    def __init__(self) -> None:
        self.wte = eqx.nn.Embedding(VOCABULARY, SIZE, key=KEY)
        self.wpe = jnp.zeros((LENGTH, SIZE))
        self.h = [EqxLayer() for _ in range(DEPTH)]
        self.ln_f = eqx.nn.LayerNorm(SIZE)
        self.lm_head = eqx.nn.Linear(SIZE, VOCABULARY, use_bias=False, key=KEY)

    def __call__(self, tokens: Any) -> Any:
        x = jax.vmap(self.wte)(tokens) + self.wpe
        for block in self.h:
            x = block(x)
        return jax.vmap(self.lm_head)(jax.vmap(self.ln_f)(x))


def test_a_transformer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokens = torch.randint(VOCABULARY, (4, LENGTH))
    model = trained(TorchGPT(), tokens, tokens.roll(1, 1))
    expected = model(tokens).detach()
    ids = jnp.asarray(tokens.numpy().astype(np.int32))
    sources = sources_of(model, tmp_path)
    flax_model, report = converted(NnxGPT(nnx.Rngs(0)), sources, rename={"h": "blocks"})
    close(nnx.jit(lambda model, x: model(x))(flax_model, ids), expected)
    assert report.ignored == {"lm_head.weight": "equal to wte.weight"}
    assert not report.settings
    target = migrate.linen(LinenGPT(), None, ids)
    variables, _ = converted(target, sources, rename={"h.*.mlp": "blocks/*", "h": "blocks"})
    close(jax.jit(LinenGPT().apply)(variables, ids), expected)
    eqx_model, _ = converted(EqxGPT(), sources)
    close(jax.vmap(eqx_model)(ids), expected)
