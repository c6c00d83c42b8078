"""Files of PyTorch: its own tensors, read without it."""

from __future__ import annotations

import collections
import io
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import jtree

from .files import tensor_bytes

torch = pytest.importorskip("torch")


PLAIN = [torch.float32, torch.float64, torch.float16, torch.int8, torch.int16, torch.int32]
PLAIN += [torch.int64, torch.uint8, torch.bool, torch.complex64, torch.complex128]
PLAIN += [torch.uint16, torch.uint32, torch.uint64, torch.bfloat16]


EIGHT = [torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz]


def check(path: Path, tensors: dict[str, Any]) -> jtree.Checkpoint:
    torch.save(tensors, path)
    found = jtree.open(path)
    assert found.format == "PyTorch"
    assert set(found) == set(tensors)
    for name, x in tensors.items():
        read = np.asarray(found[name])
        assert read.shape == tuple(x.shape), name
        assert str(read.dtype) == str(x.dtype).removeprefix("torch."), name
        assert np.ascontiguousarray(read).tobytes() == tensor_bytes(x), name
    return found


@pytest.mark.parametrize("dtype", PLAIN + EIGHT, ids=str)
def test_every_dtype_and_every_view(tmp_path: Path, dtype: Any) -> None:
    x = torch.randint(0, 2, (4, 6)).to(torch.float32).to(dtype)
    found = check(
        tmp_path / "x",
        {
            "plain": x,
            "same": x,
            "transposed": x.t(),
            "part": x[1:3, 2:],
            "steps": x[::2, ::3],
            "expanded": x[:1].expand(5, 6),
            "scalar": x[0, 0],
            "empty": x[:0],
            "permuted": x.reshape(2, 2, 6).permute(2, 0, 1),
        },
    )
    assert found.ties == (("plain", "same"),)
    assert found["plain"] is found["same"]
    assert found.checksums
    for lazy in found.values():
        lazy.read()[...] = 0  # nobody else's memory
    check(tmp_path / "x", {"a": x})


def test_conjugate_and_negative_views(tmp_path: Path) -> None:
    x = torch.tensor([1 + 2j, 3 - 4j])
    for view in (x.conj(), x.conj().imag, x.imag, x.real, x.conj().t()):
        check(tmp_path / "x", {"view": view})


def test_modules_with_ties_and_half_precision(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3))
    model.head = torch.nn.Linear(3, 3)
    model.head.weight = model[0].weight
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        torch.save(model.to(dtype).state_dict(), tmp_path / "x.pt")
        found = jtree.open(tmp_path / "x.pt")
        assert ("0.weight", "head.weight") in found.ties
        assert set(found) == set(model.state_dict())
        for name, x in model.state_dict().items():
            assert found[name].read().tobytes() == tensor_bytes(x)


def test_optimisers_and_nested_dicts(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 3)
    optimiser = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimiser.step()
    held = {
        "model": model.state_dict(),
        "optimizer": optimiser.state_dict(),
        "epoch": 3,
        "scheduler": torch.optim.lr_scheduler.StepLR(optimiser, 1).state_dict(),
        "loss": np.float64(0.5),
        "best": float("inf"),
        "dtype": torch.float32,
        "shape": torch.Size([1, 2]),
        "device": torch.device("cpu"),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "mixed": {1: "one", "two": 2},
        "default": collections.defaultdict(list),
        "names": {"a", "b"},
        "list": [torch.zeros(1), (1, None)],
    }
    for protocol in (2, 3, 4, 5):
        torch.save(held, tmp_path / "x", pickle_protocol=protocol)
        tree = jtree.load(tmp_path / "x")
        step = tree["optimizer"]["state"][0]["exp_avg"]
        assert step.tobytes() == tensor_bytes(optimiser.state_dict()["state"][0]["exp_avg"])
        assert tree["epoch"] == 3
        assert tree["optimizer"]["param_groups"][0]["lr"] == 0.001
        assert (tree["best"], tree["shape"], tree["dtype"]) == (float("inf"), (1, 2), ())
        assert tree["mixed"] == {"1": "one", "two": 2}
        assert tree["list"][1] == (1, None)
        assert tree["loss"] == tree["names"] == tree["device"] == ()
    weights = jtree.loadmodel({"weight": np.zeros((3, 2)), "bias": np.zeros(3)}, tree["model"])
    assert weights["weight"].shape == (3, 2)


class Config:
    def __init__(self) -> None:
        self.width = 3


def test_objects_beside_tensors_become_nothing(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2), "config": Config()}, tmp_path / "x")
    assert jtree.load(tmp_path / "x")["config"] == ()


REFUSED = {
    "module": (
        lambda: torch.nn.Linear(2, 2),
        "(root) is a whole torch.nn.modules.linear.Linear, which only its own code can build; in "
        "PyTorch, save its values: torch.save(model.state_dict(), path)",
    ),
    "nested": (
        lambda: {"model": torch.nn.ReLU()},
        "model is a whole torch.nn.modules.activation.ReLU, which only its own code can build; in "
        "PyTorch, save its values: torch.save(model.state_dict(), path)",
    ),
    "sparse": (lambda: torch.eye(2).to_sparse(), "it holds a sparse tensor; save its .to_dense()"),
    "meta": (
        lambda: torch.empty(2, device="meta"),
        "it holds a tensor on the meta device, which has no values",
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REFUSED)
def test_objects_that_are_not_tensors_are_refused_with_advice(tmp_path: Path, name: str) -> None:
    make, text = REFUSED[name]
    torch.save(make(), tmp_path / "x")
    with pytest.raises(jtree.CheckpointError) as error:
        jtree.open(tmp_path / "x")
    assert str(error.value) == f"{tmp_path / 'x'}: cannot read this PyTorch file: {text}"


@pytest.mark.filterwarnings("ignore")
def test_torchscript_and_old_files_are_refused_with_advice(tmp_path: Path) -> None:
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "script"))
    with pytest.raises(jtree.CheckpointError, match="this is a TorchScript program; load it with"):
        jtree.open(tmp_path / "script")
    torch.save({"a": torch.ones(1)}, tmp_path / "old", _use_new_zipfile_serialization=False)
    with pytest.raises(jtree.CheckpointError, match=r"a pickle, as PyTorch before 1\.6 writes"):
        jtree.open(tmp_path / "old")


def test_a_flipped_bit_is_an_error_that_names_the_tensor(tmp_path: Path) -> None:
    x = torch.arange(1000.0)
    torch.save({"a": x, "b": x[10:20], "c": torch.ones(3)}, tmp_path / "x")
    data = bytearray((tmp_path / "x").read_bytes())
    data[data.index(np.arange(5, 20, dtype=np.float32).tobytes())] ^= 1
    (tmp_path / "x").write_bytes(data)
    assert jtree.load(tmp_path / "x", where="c")["c"].tolist() == [1, 1, 1]
    for name in "ab":
        with pytest.raises(
            jtree.ChecksumError, match=f"cannot read {name}: checksum mismatch in .*/data/0"
        ):
            jtree.open(tmp_path / "x")[name].read()
    assert jtree.open(tmp_path / "x", verify=False)["b"].shape == (10,)
    assert set(jtree.verify(tmp_path / "x")) == {"a", "b"}


def test_the_other_order_of_bytes(tmp_path: Path) -> None:
    held = {"a": torch.arange(3.0), "c": torch.tensor([1 + 2j]), "h": torch.ones(2).bfloat16()}
    torch.save(held, tmp_path / "x")
    out = io.BytesIO()
    with zipfile.ZipFile(tmp_path / "x") as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith("byteorder"):
                data = b"big"
            if "/data/" in name:
                dtype = {12: ">f4", 8: ">f4", 4: ">u2"}[len(data)]
                data = np.frombuffer(data, dtype[1:]).astype(dtype).tobytes()
            new.writestr(name, data)
    (tmp_path / "x").write_bytes(out.getvalue())
    found = jtree.load(tmp_path / "x")
    assert found["a"].tolist() == [0, 1, 2]
    assert found["c"].tolist() == [1 + 2j]
    assert found["h"].tolist() == [1, 1]
    assert found["h"].dtype == ml_dtypes.bfloat16


def test_into_safetensors_and_back_to_torch(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.torch")
    tensors = {str(x): torch.ones(2, 3).to(x) for x in PLAIN + EIGHT if x != torch.complex128}
    torch.save(tensors, tmp_path / "x.pt")
    jtree.save(tmp_path / "x.safetensors", tmp_path / "x.pt")
    theirs = library.load_file(tmp_path / "x.safetensors")
    assert {name: tensor_bytes(x) for name, x in theirs.items()} == {
        name: tensor_bytes(x) for name, x in tensors.items()
    }
    library.save_file(tensors, tmp_path / "y.safetensors")
    found = jtree.open(tmp_path / "y.safetensors")
    assert {name: x.read().tobytes() for name, x in found.items()} == {
        name: tensor_bytes(x) for name, x in tensors.items()
    }


def test_torch_is_never_imported(run_python: Any, tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "x")
    out = run_python(
        f"import sys, jtree; print(jtree.load({str(tmp_path / 'x')!r}), 'torch' in sys.modules)"
    )
    assert out == "{'a': array([1.], dtype=float32)} False\n"
