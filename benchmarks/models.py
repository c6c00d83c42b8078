"""The models that are measured: dicts of arrays, and losses over them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Params = dict[str, Any]


def gpt2(seed: int = 0) -> Params:
    """Return arrays of the shapes of GPT-2 small: 146 leaves, 124 million numbers."""
    width, layers = 768, 12
    rng = np.random.default_rng(seed)

    def norm() -> Params:
        return {"scale": np.ones(width, np.float32), "bias": np.zeros(width, np.float32)}

    def dense(n: int, m: int) -> Params:
        return {"w": rng.random((n, m), np.float32), "b": np.zeros(m, np.float32)}

    block = lambda: {  # noqa: E731
        "ln1": norm(),
        "qkv": dense(width, 3 * width),
        "proj": dense(width, width),
        "ln2": norm(),
        "up": dense(width, 4 * width),
        "down": dense(4 * width, width),
    }
    model = {
        "wte": rng.random((50257, width), np.float32),
        "wpe": rng.random((1024, width), np.float32),
        "blocks": {f"{i:02}": block() for i in range(layers)},
        "norm": np.ones(width, np.float32),
    }
    return jax.device_put(model)  # type: ignore[no-any-return]


def many(leaves: int, size: int = 36, dtype: Any = np.float32) -> Params:
    """Return a model of small leaves in two sizes, in layers of two."""
    model = {
        f"layer{i:05}": {
            "w": np.full((size // 6, 6), i, dtype),
            "b": np.full(size // 6, i, dtype),
        }
        for i in range(leaves // 2)
    }
    return jax.device_put(model)  # type: ignore[no-any-return]


def mixed(leaves: int) -> Params:
    """Return a model in bfloat16 and float32, with leaves that are no parameters."""
    model = many(leaves)
    for i, layer in enumerate(model.values()):
        layer["w"] = layer["w"].astype(jnp.bfloat16) if i % 2 else layer["w"]
        layer["steps"] = jnp.array(i)
    return model


class Task(NamedTuple):
    """Something to train: parameters, a loss over them, and a batch."""

    params: Params
    loss: Callable[[Params, Any], jax.Array]
    batch: Any


def _normal(key: Any, *shape: int) -> jax.Array:
    return jax.random.normal(key, shape) / np.sqrt(shape[-2] if len(shape) > 1 else 1)


def mlp(depth: int, width: int, batch: int = 256) -> Task:
    """Return a multi-layer perceptron and a regression on random data."""
    keys = jax.random.split(jax.random.key(0), depth)
    params = {
        f"layer{i:03}": {"w": _normal(k, width, width), "b": jnp.zeros(width)}
        for i, k in enumerate(keys)
    }

    def loss(params: Params, x: jax.Array) -> jax.Array:
        h = x
        for layer in params.values():
            h = jnp.tanh(h @ layer["w"] + layer["b"])
        return ((h - x) ** 2).mean()

    return Task(params, loss, _normal(jax.random.key(1), batch, width))


def cnn(batch: int = 32) -> Task:
    """Return a small convolutional network on random images."""
    keys = jax.random.split(jax.random.key(0), 4)
    channels = (3, 16, 32, 32)
    params: Params = {
        f"conv{i}": {"w": _normal(k, 3, 3, c, d), "b": jnp.zeros(d)}
        for i, (k, c, d) in enumerate(zip(keys, channels, channels[1:], strict=False))
    }
    params["head"] = {"w": _normal(keys[3], 32, 10), "b": jnp.zeros(10)}

    def loss(params: Params, x: jax.Array) -> jax.Array:
        for i in range(3):
            layer = params[f"conv{i}"]
            x = jax.lax.conv_general_dilated(
                x, layer["w"], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = jax.nn.relu(x + layer["b"])
        logits = x.mean((1, 2)) @ params["head"]["w"] + params["head"]["b"]
        return (jax.nn.logsumexp(logits, -1) - logits[:, 0]).mean()

    return Task(params, loss, _normal(jax.random.key(1), batch, 32, 32, 3))


def transformer(depth: int = 4, width: int = 128, length: int = 64, batch: int = 8) -> Task:
    """Return a small transformer on random sequences."""
    keys = iter(jax.random.split(jax.random.key(0), 4 * depth))
    params = {
        f"block{i}": {
            "qkv": _normal(next(keys), width, 3 * width),
            "out": _normal(next(keys), width, width),
            "up": _normal(next(keys), width, 4 * width),
            "down": _normal(next(keys), 4 * width, width),
            "scale1": jnp.ones(width),
            "scale2": jnp.ones(width),
        }
        for i in range(depth)
    }

    def norm(x: jax.Array, scale: jax.Array) -> jax.Array:
        return scale * x * jax.lax.rsqrt((x**2).mean(-1, keepdims=True) + 1e-6)

    def loss(params: Params, x: jax.Array) -> jax.Array:
        h = x
        for p in params.values():
            q, k, v = jnp.split(norm(h, p["scale1"]) @ p["qkv"], 3, -1)
            heads = lambda a: a.reshape(batch, length, 4, -1)  # noqa: E731
            y = jax.nn.dot_product_attention(heads(q), heads(k), heads(v))
            h = h + y.reshape(h.shape) @ p["out"]
            h = h + jax.nn.gelu(norm(h, p["scale2"]) @ p["up"]) @ p["down"]
        return ((h - x[:, ::-1]) ** 2).mean()

    return Task(params, loss, _normal(jax.random.key(1), batch, length, width))


TASKS: dict[str, Callable[[], Task]] = {
    "MLP 10 x 512": lambda: mlp(10, 512),
    "MLP 100 x 128": lambda: mlp(100, 128),
    "convolutional": cnn,
    "transformer": transformer,
}
