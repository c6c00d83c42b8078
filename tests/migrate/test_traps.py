"""Conversions that every name and shape fits and that would be silently wrong are refused."""

from __future__ import annotations

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
from ..same import normal
from .models import Holder, linear, refusal, stacked

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("seeded_torch")


class Doubled(nnx.Linear):
    def __call__(self, x: Any) -> Any:
        return 2 * super().__call__(x)


class Renamed(nnx.Linear):
    """A subclass that only builds itself in another way."""

    def __init__(self, n: int) -> None:
        super().__init__(n, n, rngs=nnx.Rngs(0))


class Standardised(torch.nn.Conv2d):
    def forward(self, x: Any) -> Any:
        return torch.nn.functional.conv2d(x, self.weight - self.weight.mean(), self.bias)


class Inherited(Standardised):
    pass


class Padded(torch.nn.Conv2d):
    def _conv_forward(self, x: Any, weight: Any, bias: Any) -> Any:
        return super()._conv_forward(x + 1, weight, bias)


class Mixin:
    def forward(self: Any, x: Any) -> Any:
        return torch.nn.Linear.forward(self, x) + 1


class Mixed(Mixin, torch.nn.Linear):
    pass


class Quiet(torch.nn.Linear):
    def reset_parameters(self) -> None:
        torch.nn.init.ones_(self.weight)


def test_a_subclass_that_overrides_the_call_is_unknown_until_a_hint() -> None:
    source = {"fc.weight": normal(4, 4), "fc.bias": normal(4)}
    model = Holder(fc=Doubled(4, 4, rngs=nnx.Rngs(0)))
    assert refusal(model, source) == (
        "nothing was loaded: 1 mismatch\n"
        "  fc: expected Linear, or another known type, found Doubled, which overrides the call of "
        "Linear; if its weights mean what they mean in Linear, and the model and the source "
        "compute the same from them, add migrate.as_base('fc') to hints"
    )
    model, _ = migrate.convert(model, source, hints=[migrate.as_base("fc")])
    np.testing.assert_array_equal(model.fc.kernel[...], source["fc.weight"].T)


@pytest.mark.parametrize("cls", [Standardised, Inherited, Padded])
def test_a_module_that_overrides_the_call_is_unknown_until_a_hint(cls: Any) -> None:
    module = torch.nn.ModuleDict({"stem": torch.nn.ModuleList([cls(2, 3, 1)])})
    model = Holder(stem=nnx.List([nnx.Conv(2, 3, (1, 1), rngs=nnx.Rngs(0))]))
    assert refusal(model, module) == (
        "nothing was loaded: 1 mismatch\n"
        f"  stem/0: expected Conv2d, or another known type, found {cls.__name__} in the source, "
        "which overrides the call of Conv2d; if its weights mean what they mean in Conv2d, and the "
        "model and the source compute the same from them, add migrate.as_base('stem/0') to hints"
    )
    for glob in ("stem/0", "stem/*", "**"):
        migrate.convert(model, module, hints=[migrate.as_base(glob)])
    migrate.convert(model, module.state_dict())  # which tells no types


def test_a_mixin_overrides_the_call() -> None:
    assert "found Mixed in the source, which overrides" in refusal(linear(), Mixed(4, 4))


def test_the_name_of_a_layer_in_the_source_selects_it_too() -> None:
    model, module = Holder(fc=linear()), torch.nn.ModuleDict({"head": Mixed(4, 4)})
    names = {"head": "fc"}
    migrate.convert(model, module, rename=names, hints=[migrate.as_base("head")])
    migrate.convert(model, module, rename=names, hints=[migrate.as_base("fc")])


def test_a_subclass_that_does_not_override_the_call_is_known() -> None:
    x = normal(2, 4)
    module = Quiet(4, 4)
    model, _ = migrate.convert(Renamed(4), module)
    close(model(x), module(torch.tensor(x)))


def test_a_hint_that_concerns_no_such_layer_is_refused() -> None:
    source = {"weight": normal(4, 4), "bias": normal(4)}
    assert refusal(linear(), source, hints=[migrate.as_base("**")]) == (
        "nothing was loaded: 1 mismatch\n"
        "  **: expected a layer that overrides the call of its base type, for migrate.as_base, "
        "found none"
    )
    with pytest.raises(jtree.ArgumentTypeError) as caught:
        migrate.as_base()
    assert str(caught.value) == "as_base: expected one or more globs, found ()"


class Halved(eqx.nn.Linear):
    def __call__(self, x: Any, *, key: Any = None) -> Any:
        return super().__call__(x, key=key) / 2


class Gated(nn.Dense):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        return nn.sigmoid(super().__call__(x))


def test_subclasses_of_equinox_and_linen_are_unknown() -> None:
    source = {"weight": normal(4, 4), "bias": normal(4)}
    text = refusal(Halved(4, 4, key=jax.random.key(0)), source)
    assert "found Halved, which overrides the call of Linear" in text
    gated = migrate.linen(Gated(4), None, jnp.ones((1, 4)))
    assert "found Gated, which overrides the call of Dense" in refusal(gated, source)


class Lifted(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        dense = nn.vmap(nn.Dense, variable_axes={"params": 0}, split_rngs={"params": True})
        return nn.SelfAttention(2, name="attn")(nn.remat(dense)(4, name="fc")(x))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Flax's, of SelfAttention
def test_lifted_layers_and_self_attention_of_linen_are_known() -> None:
    target = migrate.linen(Lifted(), None, jnp.ones((3, 2, 4)))
    types = {x.type: x.base for x in target.layers.values()}
    assert types == {"Dense": "", "SelfAttention": ""}


def test_integers_do_not_become_floating_weights() -> None:
    for dtype in (np.int8, np.int64, np.bool_, jnp.int4):
        source = {"fc.weight": np.ones((4, 4), dtype), "fc.bias": np.zeros(4)}
        name = np.dtype(dtype).name
        assert refusal(Holder(fc=linear()), source) == (
            "nothing was loaded: 1 mismatch\n"
            "  fc.weight: expected floating-point values for fc/kernel, found "
            f"{name}[4, 4], which may be quantised; pass its dequantised values, or if the "
            "integers are the values, cast them to a floating dtype in the source"
        )


def test_integers_do_not_become_arrays_of_the_users_own() -> None:
    model = Holder(table=nnx.Param(jnp.zeros((2, 3))), count=nnx.Variable(jnp.zeros(2, jnp.int32)))
    source = {"table": np.ones((2, 3), np.uint8), "count": np.array([3, 4])}
    assert refusal(model, source) == (
        "nothing was loaded: 1 mismatch\n"
        "  table: expected floating-point values for table, found uint8[2, 3], which may be "
        "quantised; pass its dequantised values, or if the integers are the values, cast them to a "
        "floating dtype in the source"
    )


def test_integer_biases_of_cells_are_refused_by_name() -> None:
    module = torch.nn.LSTM(4, 4).state_dict()
    source = {f"lstm.{name}": x.numpy().astype(np.int8) for name, x in module.items()}
    text = refusal(Holder(lstm=nnx.LSTMCell(4, 4, rngs=nnx.Rngs(0))), source)
    assert "lstm.bias_hh_l0: expected floating-point values for lstm/h" in text


@pytest.mark.parametrize(
    ("weight", "scale"),
    [
        ("fc.weight", "fc.weight_scale_inv"),
        ("fc.weight", "fc.weight_scale"),
        ("fc.weight", "fc.SCB"),
        ("fc.weight", "fc.weight.absmax"),
        ("fc/kernel", "fc/scales"),
    ],
)
def test_the_scale_of_a_quantised_weight_is_not_dropped(weight: str, scale: str) -> None:
    values = jnp.ones((4, 4), jnp.float8_e4m3fn)
    layout = "torch" if "." in weight else "nnx"
    bias = weight.replace("weight", "bias").replace("kernel", "bias")
    source = {weight: values, scale: np.ones(1, np.float32), bias: np.zeros(4)}
    model = Holder(fc=linear())
    advice = f"dequantise {weight} before the conversion, and pass its values without the scale"
    assert refusal(model, source, layout=layout) == (
        "nothing was loaded: 1 mismatch\n"
        f"  {scale}: expected nothing, found float32[1], which no layer of the model takes; "
        f"{advice}"
    )
    assert refusal(model, source, layout=layout, rules=[migrate.drop(scale)]) == (
        "nothing was loaded: 1 mismatch\n"
        f"  {scale}: expected the values of a weight, found rules that drop this scale of "
        f"float8_e4m3fn[4, 4] in {weight}; {advice}"
    )
    del source[scale]
    migrate.convert(model, source, layout=layout)


def test_what_is_not_the_scale_of_a_quantised_weight_may_be_dropped() -> None:
    source = {"fc.weight": normal(4, 4), "fc.bias": normal(4), "fc.weight_scale": np.ones(1)}
    migrate.convert(Holder(fc=linear()), source, rules=[migrate.drop("fc.weight_scale")])


def test_values_that_are_nan_are_the_first_line_of_the_report() -> None:
    source = {"fc.weight": normal(4, 4), "fc.bias": normal(4)}
    source["fc.weight"][0, 1] = np.nan
    _, report = migrate.convert(Holder(fc=linear()), source)
    assert report.warnings == ("values of the source are NaN: fc/kernel (1 of 16 values)",)
    layers = [linear() for _ in range(5)]
    source = {f"net.{n}.bias": np.full(4, np.nan) for n in range(5)}
    source |= {f"net.{n}.weight": normal(4, 4) for n in range(5)}
    _, report = migrate.convert(Holder(net=nnx.List(layers)), source)
    assert report.warnings == (
        "values of the source are NaN: net/0/bias (4 of 4 values), net/1/bias (4 of 4 values), "
        "net/2/bias (4 of 4 values) and 2 more",
    )


WAYS: list[tuple[str, dict[str, Any]]] = [
    ("fc.weight", {"rename": {"fc.weight": "w"}}),
    ("fc.weight", {"rename": {"fc": ""}}),
    ("w", {"rules": [migrate.rename("fc.weight", "w")]}),
]


@pytest.mark.parametrize(("name", "options"), WAYS)
def test_a_kernel_in_an_array_of_the_users_own_is_a_warning(
    name: str, options: dict[str, Any]
) -> None:
    """The weight of a Linear may be multiplied as `x @ w`, which only the user's code tells."""
    x = normal(2, 4)
    module = torch.nn.ModuleDict({"fc": torch.nn.Linear(4, 4, bias=False)})
    own = "weight" if options.get("rename") == {"fc": ""} else "w"
    for source in (module, module.state_dict()):
        model = Holder(**{own: nnx.Param(jnp.zeros((4, 4)))})
        model, report = migrate.convert(model, source, **options)
        assert report.warnings == (
            f"{own}: {name} is copied as it is, and float32[4, 4] fits both ways; if it is a "
            "kernel, it is stored as (out, in): that is right for x @ w.T, and wrong for x @ w; "
            f"for the latter, add migrate.transpose({name!r}) to rules",
        )
        close(x @ getattr(model, own)[...].T, module["fc"](torch.tensor(x)))
        rules = [*options.get("rules", []), migrate.transpose(name)]
        model, report = migrate.convert(model, source, **(options | {"rules": rules}))
        assert report.warnings == ()
        close(x @ getattr(model, own)[...], module["fc"](torch.tensor(x)))


def test_a_kernel_of_a_window_in_an_array_of_the_users_own_is_a_warning() -> None:
    model = Holder(weight=nnx.Param(jnp.zeros((3, 3, 3, 3))))
    _, report = migrate.convert(model, {"weight": normal(3, 3, 3, 3)})
    assert report.warnings == (
        "weight: weight is copied as it is, and float32[3, 3, 3, 3] fits both ways; if it is a "
        "kernel, it is stored as (out, in, *window): that is right for code that takes this order, "
        "and wrong for (*window, in, out); for the latter, add "
        "migrate.transpose('weight', (2, 3, 1, 0)) to rules",
    )


def test_arrays_that_fit_one_way_only_are_no_warning() -> None:
    model = Holder(weight=nnx.Param(jnp.zeros((3, 4))), table=nnx.Param(jnp.zeros((4, 4))))
    _, report = migrate.convert(model, {"weight": normal(3, 4), "table": normal(4, 4)})
    assert report.warnings == ()


def test_a_stack_that_fits_two_axes_is_a_warning() -> None:
    source = {f"fc.{n}.weight": normal(4, 4) for n in range(5)}
    source |= {f"fc.{n}.bias": normal(4) for n in range(5)}
    _, report = migrate.convert(Holder(fc=stacked(5)), source)
    assert report.warnings == ()
    source = {name: x for name, x in source.items() if ".4." not in name}
    _, report = migrate.convert(Holder(fc=stacked(4)), source)
    assert report.warnings == (
        "fc: its 4 layers are stacked along axis 0, but its shapes (4, 4) and (4, 4, 4) fit a "
        "stack along axis 1 too; if the model stacks along that axis, as by out_axes=1 or "
        'variable_axes={"params": 1}, the result is wrong: build it with axis 0',
    )
