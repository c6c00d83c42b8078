"""What weights do not say: what users tell of layers, and what the report tells them to check."""

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
from jtree import LoadError, migrate

from ..same import close_to_scale as close
from ..same import normal

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("seeded_torch")
KEY = jax.random.key(0)


class Biased(nnx.Module):
    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.first = nnx.Linear(4, 4, rngs=rngs)
        self.norm = nnx.LayerNorm(4, epsilon=1e-5, rngs=rngs)
        self.plain = nnx.LayerNorm(4, epsilon=1e-5, rngs=rngs)
        self.cell = nnx.RNN(nnx.LSTMCell(4, 4, rngs=rngs))

    def __call__(self, x: Any) -> Any:
        return self.cell(self.plain(self.norm(self.first(x))))


def unbiased() -> Any:
    return torch.nn.ModuleDict(
        {
            "first": torch.nn.Linear(4, 4, bias=False),
            "norm": torch.nn.LayerNorm(4, bias=False),
            "plain": torch.nn.LayerNorm(4, elementwise_affine=False),
            "cell": torch.nn.LSTM(4, 4, bias=False, batch_first=True),
        }
    )


def test_what_the_source_lacks_takes_defaults_where_a_hint_says_so() -> None:
    """Never without a word; the model's own numbers would be other ones."""
    module, x = unbiased(), normal(2, 3, 4)
    model = Biased()
    nnx.update(model, jax.tree.map(lambda y: y + 1, nnx.state(model, nnx.Param)))
    expected = module["first"](torch.tensor(x))
    expected = module["cell"](module["plain"](module["norm"](expected)))[0]
    for source in (module, module.state_dict()):
        with pytest.raises(LoadError) as caught:
            migrate.convert(model, source)
        assert len(caught.value.diff.missing) == 8
        assert (
            "  first/bias: expected float32[4], found no first.bias in the source; "
            "for zeros, add migrate.defaults('first/bias') to hints\n" in str(caught.value)
        )
        assert "for ones, add migrate.defaults('plain/scale')" in str(caught.value)
        found, report = migrate.convert(
            model, source, hints=[migrate.defaults("**/bias", "plain/scale")]
        )
        close(found(x), expected)
    notes = {layer.path: layer.notes for layer in report.layers}
    assert notes["first"] == ("bias: zeros, by migrate.defaults",)
    assert set(notes["plain"]) == {
        "scale: ones, by migrate.defaults",
        "bias: zeros, by migrate.defaults",
    }


def test_defaults_fill_no_kernel_and_nothing_that_the_source_has() -> None:
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    with pytest.raises(LoadError) as caught:
        migrate.convert(model, {"bias": np.ones(3)}, hints=[migrate.defaults("**")])
    assert str(caught.value) == (
        "nothing was loaded: 2 mismatches\n"
        "  **: expected a bias, scale or statistic that the source lacks, for migrate.defaults, "
        "found none\n"
        "  kernel: expected float32[2, 3], found no weight in the source"
    )
    with pytest.raises(jtree._errors.ArgumentTypeError, match="expected one or more globs"):
        migrate.defaults()


def test_a_rule_among_hints_and_a_hint_among_rules_are_refused() -> None:
    """Each error says where the other belongs."""
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    for hint in (migrate.flattened("fc", shape=(2, 3)), migrate.defaults("bias", "**/bias")):
        with pytest.raises(jtree.ArgumentTypeError) as caught:
            migrate.convert(model, {}, rules=[hint])  # type: ignore[list-item]
        assert str(caught.value) == (
            f"rules: {hint!r} is a hint about the model's layers, not a rule that rewrites the "
            f"source; pass it as hints=[{hint!r}]"
        )
    rule = migrate.transpose("weight")
    with pytest.raises(jtree.ArgumentTypeError) as caught:
        migrate.convert(model, {}, hints=[rule])  # type: ignore[list-item]
    assert str(caught.value) == (
        "hints: transpose('weight') is a rule that rewrites the source, not a hint about the "
        "model's layers; pass it as rules=[transpose('weight')]"
    )
    with pytest.raises(jtree.ArgumentTypeError) as caught:
        migrate.convert(model, {}, hints=[7])  # type: ignore[list-item]
    assert str(caught.value) == (
        "hints: expected migrate.flattened, migrate.unflattened or migrate.defaults, found 7"
    )
    assert repr(migrate.unflattened("fc", shape=[2, 3])) == "unflattened('fc', shape=(2, 3))"
    assert repr(migrate.defaults("bias", "**/bias")) == "defaults('bias', '**/bias')"


def test_defaults_of_a_stack() -> None:
    @nnx.split_rngs(splits=3)
    @nnx.vmap
    def create(rngs: nnx.Rngs) -> nnx.Linear:
        return nnx.Linear(2, 2, rngs=rngs)

    class Model(nnx.Module):
        def __init__(self) -> None:
            self.h = jax.tree.map(lambda y: y + 1, create(nnx.Rngs(0)))

    source = {f"h.{n}.weight": normal(2, 2) for n in range(3)}
    model, _ = migrate.convert(Model(), source, hints=[migrate.defaults("h/bias")])
    assert not model.h.bias[...].any()
    np.testing.assert_array_equal(model.h.kernel[...][2], source["h.2.weight"].T)


def test_batch_norm_without_running_statistics_of_its_own() -> None:
    """It normalises by the batch, in evaluation too; so must the model."""
    layer, x = torch.nn.BatchNorm1d(4, track_running_stats=False).eval(), normal(5, 4)
    model = nnx.BatchNorm(4, use_running_average=False, momentum=0.9, rngs=nnx.Rngs(0))
    with pytest.raises(LoadError, match=r"the statistics of each batch.*migrate.defaults\('var"):
        migrate.convert(model, layer)
    found, _ = migrate.convert(model, layer, hints=[migrate.defaults("mean", "var")])
    close(found(x), layer(torch.tensor(x)))


def test_settings_that_are_not_in_weights_are_notes() -> None:
    rngs = nnx.Rngs(0)
    group, source = nnx.GroupNorm(6, 2, epsilon=1e-5, rngs=rngs), torch.nn.GroupNorm(3, 6)
    _, report = migrate.convert(group, source.state_dict())
    assert report.layers[0].notes == ("not in the weights: groups=2; check",)
    assert not report.settings
    assert "not in the weights: groups=2; check" in str(report)
    _, report = migrate.convert(group, source)
    assert report.layers[0].notes == ()
    assert [x.text for x in report.settings] == ["(root): groups=2 in the model, 3 in the source"]
    attention = nnx.MultiHeadAttention(2, 4, decode=False, rngs=rngs)
    state = torch.nn.MultiheadAttention(4, 4).state_dict()
    _, report = migrate.convert(attention, state)
    assert report.layers[0].notes == ("not in the weights: heads=2; check",)
    conv = nnx.Conv(2, 2, (3, 3), strides=2, padding="VALID", rngs=rngs)
    _, report = migrate.convert(conv, torch.nn.Conv2d(2, 2, 3).state_dict())
    assert report.layers[0].notes == ("not in the weights: strides=(2, 2); check",)
    _, report = migrate.convert(nnx.RMSNorm(4, rngs=rngs), {"weight": np.ones(4)})
    assert report.layers[0].notes == ("not in the weights: epsilon=1e-06; check",)


class Conv1D(torch.nn.Module):
    """A dense layer of GPT-2, whose kernel is not transposed."""

    def __init__(self, n: int, m: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(n, m))
        self.bias = torch.nn.Parameter(torch.randn(m))

    def forward(self, x: Any) -> Any:
        return x @ self.weight + self.bias


def test_a_type_that_no_table_names_is_a_setting_to_check() -> None:
    """A square kernel of a layer of the user's own fits both ways."""
    module, x = (
        torch.nn.ModuleDict({"c_fc": Conv1D(4, 4), "head": torch.nn.Linear(4, 2)}),
        normal(3, 4),
    )

    class Model(nnx.Module):
        def __init__(self) -> None:
            self.fc = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
            self.head = nnx.Linear(4, 2, rngs=nnx.Rngs(0))

    rules = [migrate.transpose("c_fc.weight")]
    model, report = migrate.convert(Model(), module, rename={"c_fc": "fc"}, rules=rules)
    close(model.head(model.fc(x)), module["head"](module["c_fc"](torch.tensor(x))))
    assert [x.text for x in report.settings] == [
        "fc: type=Linear in the model, Conv1D in the source"
    ]


def test_a_module_with_an_array_of_its_own_says_nothing_of_renamed_layers() -> None:
    module = torch.nn.Sequential(torch.nn.Sequential(torch.nn.Linear(2, 2)))
    module.register_parameter("cls", torch.nn.Parameter(torch.randn(2)))

    class Model(nnx.Module):
        def __init__(self) -> None:
            self.fc, self.cls = nnx.Linear(2, 2, rngs=nnx.Rngs(0)), nnx.Param(jnp.zeros(2))

    model, report = migrate.convert(Model(), module, rename={"0.0": "fc"})
    np.testing.assert_array_equal(model.cls[...], module.cls)
    assert not report.settings


def test_what_changes_outputs_without_being_a_weight_of_the_layer() -> None:
    """A token of zeros is attended to; rows of an embedding may be shortened when looked up."""
    attention = torch.nn.MultiheadAttention(4, 2, add_bias_kv=True)
    torch.nn.init.zeros_(attention.bias_k)
    model = nnx.MultiHeadAttention(2, 4, decode=False, rngs=nnx.Rngs(0))
    with pytest.raises(LoadError, match=r"expected no bias k in MultiHead.*4\] in bias_k; add"):
        migrate.convert(model, attention)
    table = nnx.Embed(5, 4, rngs=nnx.Rngs(0))
    _, report = migrate.convert(table, torch.nn.Embedding(5, 4, max_norm=0.5))
    assert [x.text for x in report.settings] == [
        "(root): max_norm=False in the model, 0.5 in the source"
    ]
    _, report = migrate.convert(table, torch.nn.Embedding(5, 4))
    assert not report.settings
    conv = nnx.Conv(2, 2, (1, 1), strides=2, padding="SAME", rngs=nnx.Rngs(0))
    _, report = migrate.convert(conv, torch.nn.Conv2d(2, 2, 1, stride=2))
    assert not report.settings  # a window of one pads nothing


def test_instance_norm_as_itself_and_as_group_norm() -> None:
    layer, x = torch.nn.InstanceNorm2d(4, affine=True, eps=1e-3), normal(2, 4, 5, 6)
    torch.nn.init.normal_(layer.weight)
    expected = layer(torch.tensor(x))
    model, report = migrate.convert(eqx.nn.GroupNorm(4, 4, eps=1e-3), layer)
    close(jax.vmap(model)(x), expected)
    assert not report.settings
    model, report = migrate.convert(nnx.InstanceNorm(4, epsilon=1e-5, rngs=nnx.Rngs(0)), layer)
    assert [x.name for x in report.settings] == ["epsilon"]
    with pytest.raises(LoadError, match="expected layer norm weights for LayerNorm, found Inst"):
        migrate.convert(nnx.LayerNorm(4, rngs=nnx.Rngs(0)), layer)


@pytest.mark.parametrize(
    ("text", "shape"), [("bi,ihn->bhn", (6, 4, 2)), ("...i,nhi->...hn", (2, 4, 6))]
)
def test_einsums_are_dense_layers(text: str, shape: tuple[int, ...]) -> None:
    """The order of a kernel's axes is that of the text, and of features that of its result."""
    layer, x = torch.nn.Linear(6, 8), normal(3, 6)
    expected = layer(torch.tensor(x)).reshape(3, 4, 2)
    model, _ = migrate.convert(nnx.Einsum(text, shape, (4, 2), rngs=nnx.Rngs(0)), layer)
    close(model(jnp.asarray(x)), expected)
    module = nn.Einsum(shape, text)
    variables, _ = migrate.convert(migrate.linen(module, None, x), model, layout="nnx")
    close(module.apply(variables, x), expected)
    batched = nnx.Einsum("ebi,ein->ebn", (3, 6, 8), None, rngs=nnx.Rngs(0))
    with pytest.raises(LoadError, match="found no kernel in the source"):
        migrate.convert(batched, layer.state_dict())
