"""Tensors of PyTorch that NumPy cannot take as they are: read exactly, or refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtree
from jtree import migrate

from .models import linear

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.usefixtures("seeded_torch"),
    pytest.mark.filterwarnings("ignore::UserWarning"),  # PyTorch's, of quantised tensors
]


def kernel(weight: Any) -> Any:
    """Return the kernel that a model gets from a weight."""
    model, _ = migrate.convert(linear(), {"weight": weight, "bias": np.zeros(4)})
    return np.asarray(model.kernel[...])


@pytest.mark.parametrize(
    "name", ["float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu", "float8_e4m3fn", "bfloat16"]
)
def test_small_floats_are_read_exactly(name: str) -> None:
    weight = (torch.rand(4, 4) + 0.5).to(getattr(torch, name))
    np.testing.assert_array_equal(kernel(weight), weight.float().numpy().T)
    np.testing.assert_array_equal(kernel(weight.t()), weight.float().numpy())


def test_negated_and_conjugated_views_are_read_exactly() -> None:
    z = torch.randn(4, 4, dtype=torch.complex64)
    np.testing.assert_array_equal(kernel(torch.imag(z.conj())), -z.imag.numpy().T)
    arrays = {"z": z.conj(), "half": z.to(torch.complex32)}
    model = migrate.linen(Complex(), None)
    variables, _ = migrate.convert(model, arrays)
    np.testing.assert_array_equal(variables["params"]["z"], z.numpy().conj())
    np.testing.assert_allclose(variables["params"]["half"], z.numpy(), rtol=2e-3)


class Complex(nn.Module):
    @nn.compact
    def __call__(self) -> Any:
        shape = ((4, 4), jnp.complex64)
        half = self.param("half", nn.initializers.zeros, *shape)
        return self.param("z", nn.initializers.zeros, *shape) + half


REFUSED: list[tuple[Callable[[], Any], str]] = [
    (
        lambda: torch.ones(4, 4, device="meta"),
        "a tensor on the meta device, which has no values; load the weights into the module first, "
        "or create it without torch.device('meta')",
    ),
    (
        lambda: torch.eye(4).to_sparse(),
        "a tensor of layout sparse_coo; pass its values as .to_dense()",
    ),
    (
        lambda: torch.quantize_per_tensor(torch.eye(4), 0.1, 0, torch.qint8),
        "a quantised tensor; pass its values, which are .dequantize(), or convert the module from "
        "before its quantisation",
    ),
    (
        lambda: torch.zeros(4, 2, dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
        "a tensor of float4_e2m1fn_x2, which NumPy lacks; unpack or cast it first",
    ),
    (
        lambda: torch.empty(4, 4, dtype=torch.int4),
        "a tensor of int4, which NumPy lacks; unpack or cast it first",
    ),
    (
        lambda: torch.nn.LazyLinear(4).weight,
        "an uninitialised tensor of a lazy module; call the module on an input first",
    ),
]


@pytest.mark.parametrize(("weight", "found"), REFUSED)
def test_tensors_without_dense_values_are_refused(weight: Callable[[], Any], found: str) -> None:
    with pytest.raises(jtree.ArgumentError) as caught:
        kernel(weight())
    assert str(caught.value) == f"source: weight: expected a dense tensor, found {found}"


def test_lazy_and_quantised_modules_are_refused() -> None:
    with pytest.raises(jtree.ArgumentError) as caught:
        migrate.convert(linear(), torch.nn.LazyLinear(4))
    assert str(caught.value) == (
        "source: weight: expected a dense tensor, found an uninitialised tensor of a lazy module; "
        "call the module on an input first"
    )
    with pytest.raises(jtree.ArgumentError) as caught:
        migrate.convert(linear(), torch.ao.nn.quantized.dynamic.Linear(4, 4))
    assert str(caught.value) == (
        "source: _packed_params.dtype: expected a dense tensor, found dtype in the state of the "
        "module, as quantised modules have; convert the module from before its quantisation"
    )


class Extra(torch.nn.Linear):
    def get_extra_state(self) -> Any:
        return {"version": 2}

    def set_extra_state(self, state: Any) -> None:
        """Do nothing."""


def test_extra_state_of_modules_is_no_array() -> None:
    module = Extra(4, 4)
    model, _ = migrate.convert(linear(), module)
    np.testing.assert_array_equal(model.kernel[...], module.weight.detach().numpy().T)


class Flagged(nn.Module):
    @nn.compact
    def __call__(self, x: Any, train: bool, mask: Any = None) -> Any:
        x = nn.Dense(3)(x)
        if train:
            x = nn.BatchNorm(use_running_average=False)(x)
        return x if mask is None else x * mask


def test_flags_and_none_may_be_arguments_of_linen() -> None:
    x = jax.ShapeDtypeStruct((1, 4), jnp.float32)
    assert set(migrate.linen(Flagged(), None, x, False).layers) == {"params/Dense_0"}
    assert len(migrate.linen(Flagged(), None, x, True, None).layers) == 2
    assert len(migrate.linen(Flagged(), None, {"x": x}["x"], train=False, mask=None).layers) == 1
    with pytest.raises(jtree.ArgumentTypeError) as caught:
        migrate.linen(Flagged(), None)
    assert str(caught.value) == (
        "linen: the module cannot be called with 0 inputs; pass those of module.init after its "
        "key, as migrate.linen(module, variables, *inputs): TypeError: Flagged.__call__() missing "
        "2 required positional arguments: 'x' and 'train'"
    )
