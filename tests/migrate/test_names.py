"""Names of layers in the source: prefixes, dots, numbers, functions, and two of one name."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jtree
from jtree import migrate

from ..same import close_to_scale as close
from ..same import normal
from .models import Holder, TwoLayers, assert_equal, linear, refusal, stacked, two_layers_source


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        return nn.Dense(4, name="last")(nn.relu(nn.Dense(4, name="first")(x)))


def network() -> Holder:
    return Holder(net=nnx.Sequential(linear(), nnx.relu, linear()))


def test_names_may_be_written_with_dots_in_every_layout() -> None:
    """`net.0`, `net/0` and `net_0` are one name, whatever the source's framework writes."""
    x = normal(2, 4)
    module = Linen()
    variables = module.init(jax.random.key(0), x)
    expected = module.apply(variables, x)
    for zero, two in (("net.0", "net.2"), ("net/0", "net/2"), ("net.0", "net_2")):
        model, _ = migrate.convert(
            network(), variables, layout="linen", rename={"first": zero, "last": two}
        )
        close(model.net(x), expected)
        target = migrate.linen(module, None, x)
        names = {zero.replace("net", "net.layers", 1): "first"}
        names |= {two.replace("net", "net.layers", 1): "last"}
        back, _ = migrate.convert(target, network(), layout="nnx", rename=names)
        assert set(back["params"]) == {"first", "last"}


@pytest.mark.parametrize(
    "rename",
    [
        {"net.l": "layers", "gain": "scale"},
        {"net/l/*": "layers/*", "gain": "scale"},
        {"net.l.0": "layers.0", "net.l.1": "layers.1", "gain": "scale"},
        lambda name: name.replace("net.l.", "layers.").replace("gain", "scale"),
    ],
)
def test_layers_are_renamed(rename: Any) -> None:
    source = two_layers_source()
    old = {x.replace("layers", "net.l").replace("scale", "gain"): y for x, y in source.items()}
    assert_equal(
        migrate.convert(TwoLayers(nnx.Rngs(0)), old, rename=rename)[0],
        migrate.convert(TwoLayers(nnx.Rngs(0)), source)[0],
    )


RENAMES: list[tuple[Any, type[Exception], str]] = [
    (
        {"layer": "layers"},
        jtree.PathError,
        "rename: 'layer' matches nothing in the source; did you mean layers.1 or layers.0?",
    ),
    (
        {"layers.1": "layers.0"},
        jtree.LoadError,
        "nothing was loaded: layers/0/bias: expected one array, found two in the source: "
        "layers.0.bias and layers.1.bias; rename or drop one of them",
    ),
    (
        {"layers": "layers/*"},
        jtree.ArgumentError,
        "rename: 'layers/*' has 1 wildcard, but 'layers' has 0; each '*' matches one segment, and "
        "'**' is not supported",
    ),
    (
        lambda _: None,
        jtree.ArgumentTypeError,
        "rename: expected the function to return a str for 'layers.0.bias', found None; to leave "
        "an array out, use rules=[migrate.drop(...)]",
    ),
    (
        7,
        jtree.ArgumentTypeError,
        "rename: expected a dict from names in the source to names in the model, or a function of "
        "a name, found int",
    ),
]


@pytest.mark.parametrize(("rename", "error", "message"), RENAMES, ids=lambda x: str(x)[:12])
def test_renames_that_do_not_fit_are_refused(rename: Any, error: Any, message: str) -> None:
    with pytest.raises(error) as caught:
        migrate.convert(TwoLayers(nnx.Rngs(0)), two_layers_source(), rename=rename)
    assert caught.value.args[0] == message


@pytest.mark.parametrize("place", [0, 1, 2])
def test_every_key_of_a_rename_is_checked(place: int) -> None:
    """The key that matches nothing is named, wherever in the dict it stands."""
    keys = [("layers.0", "layers/0"), ("layers.1", "layers/1")]
    keys.insert(place, ("gain", "scale"))
    with pytest.raises(jtree.PathError) as caught:
        migrate.convert(TwoLayers(nnx.Rngs(0)), two_layers_source(), rename=dict(keys))
    assert caught.value.args[0] == "rename: 'gain' matches nothing in the source"


def test_layers_are_stacked_in_the_order_of_their_numbers() -> None:
    source = {f"h_{n}/fc/kernel": np.full((4, 4), n, np.float32) for n in range(12)}
    source |= {f"h_{n}/fc/bias": np.full(4, n, np.float32) for n in range(12)}
    model, _ = migrate.convert(
        Holder(fc=stacked(12)),
        source,
        layout="linen",
        rename=lambda name: name.replace("/fc", "").replace("h_", "fc_"),
    )
    assert model.fc.bias[:, 0].tolist() == list(range(12))


class Twice(nn.Module):
    """A parameter and a statistic of one name."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        statistic = self.variable("batch_stats", "mean", jnp.ones, (2,))
        return x * self.param("mean", nn.initializers.zeros, (2,)) + statistic.value


def test_two_arrays_of_one_name_in_the_model_are_refused() -> None:
    """One of them would silently keep its first values."""
    names = {
        "conv/1/bias and conv_1/bias": "conv/1/bias",
        "batch_stats/mean and params/mean": "mean",
    }
    models = [
        Holder(conv_1=linear(2, 2), conv=nnx.List([linear(2, 2), linear(2, 2)])),
        migrate.linen(Twice(), None, normal(1, 2)),
    ]
    for model, (paths, name) in zip(models, names.items(), strict=True):
        with pytest.raises(jtree.ModelError) as caught:
            migrate.convert(model, {})
        assert str(caught.value) == (
            f"{paths}: expected two names, found {name} for both, since `x_1` and `x/1` are one "
            "name, and linen's collections are not part of a name; rename one of them in the model"
        )


def test_a_prefix_may_be_covered_by_longer_ones() -> None:
    source = {"encoder.layer.0.dense.weight": normal(4, 4), "encoder.layer.0.dense.bias": normal(4)}
    names = {"encoder.layer": "layers", "encoder.layer.*.dense": "fc/*"}
    model, _ = migrate.convert(Holder(fc=nnx.List([linear()])), source, rename=names)
    close(model.fc[0].kernel[...], source["encoder.layer.0.dense.weight"].T)


@pytest.mark.parametrize("prefix", ["module", "model/module"])
def test_a_prefix_of_all_names_is_suggested(prefix: str) -> None:
    """DataParallel and nested checkpoints add one."""
    source = {
        f"{prefix}.net.{n}.{name}": normal(*shape)
        for n in (0, 2)
        for name, shape in (("weight", (4, 4)), ("bias", (4,)))
    }
    assert refusal(network(), source) == (
        f"nothing was loaded: 8 mismatches: the source has the prefix {prefix!r} in its paths, "
        f"unlike the destination; pass rename={{{prefix!r}: ''}}"
    )
    migrate.convert(network(), source, rename={prefix: ""})


def test_a_layer_beside_one_of_its_name_with_a_number() -> None:
    """`fc_1` and `fc/1` are one name, but `fc_1` is not a part of the layer `fc`."""
    names = ("fc", "fc_1")
    source = {f"{name}.weight": normal(4, 4) + n for n, name in enumerate(names)}
    source |= {f"{name}.bias": normal(4) + n for n, name in enumerate(names)}
    model, report = migrate.convert(Holder(fc=linear(), fc_1=linear()), source)
    assert [x.kind for x in report.layers] == ["dense", "dense"]
    assert not report.copied
    for name in names:
        np.testing.assert_array_equal(getattr(model, name).kernel[...], source[f"{name}.weight"].T)
