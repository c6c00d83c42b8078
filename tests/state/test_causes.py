"""Causes that many mismatches share: found first, said in one line, with a remedy that works."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtree
from jtree import migrate

from ..same import same


def network() -> dict[str, Any]:
    """Return a model of three blocks, with arrays of equal and of different shapes."""
    blocks = [
        {
            "attention": {"kernel": jnp.ones((3, 3)) * n, "bias": jnp.ones(3) * n},
            "mlp": {"kernel": jnp.ones((3, 5)) * n, "bias": jnp.arange(5.0) * n},
        }
        for n in range(3)
    ]
    return {"blocks": blocks, "head": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}}


def flat(model: Any) -> dict[str, np.ndarray[Any, Any]]:
    return {path: np.asarray(x) for path, x in jtree.trainables(model).items()}


def remedy(message: str, source: Any) -> Any:
    """Return the source after the remedy in a message."""
    (call,) = re.findall(r"(jtree\.migrate\.apply\(.*?\], source\))", message)
    return eval(call, {"jtree": jtree, "source": source})


RENAMED: dict[str, Callable[[str], str]] = {
    "a prefix": lambda x: f"model/{x}",
    "a prefix of torch": lambda x: "module." + x.replace("/", "."),
    "two levels more": lambda x: f"state/params/{x}",
    "a suffix": lambda x: f"{x}/value",
    "a level before the last": lambda x: re.sub(r"/(?=[^/]*$)", "/inner/", x),
    "a level in the middle": lambda x: re.sub(r"blocks/(\d+)/", r"blocks/\1/layer/", x),
    "a level less": lambda x: x.removeprefix("blocks/"),
    "another word": lambda x: x.replace("blocks", "layers"),
    "another word within": lambda x: x.replace("attention", "attn"),
    "a compiled module": lambda x: re.sub(r"^(blocks/\d+)/", r"\1/_orig_mod/", x),
}


@pytest.mark.parametrize("name", RENAMED)
def test_a_difference_of_all_paths_is_one_line_and_its_remedy_works(name: str) -> None:
    model = network()
    source = {RENAMED[name](path): x for path, x in flat(model).items()}
    if "torch" in name:  # a model of the same dotted names
        model = {path.replace("/", "."): jnp.asarray(x) for path, x in flat(model).items()}
    diff = jtree.diff(model, source)
    assert diff
    assert len(diff.message().splitlines()) == 1
    assert str(diff) == diff.message()
    with pytest.raises(jtree.LoadError) as error:
        jtree.loadmodel(model, source)
    assert same(jtree.loadmodel(model, remedy(str(error.value), source)), model)


@pytest.mark.parametrize("name", RENAMED)
def test_the_destination_may_have_the_difference(name: str) -> None:
    source = flat(network())
    model = {RENAMED[name](path): jnp.asarray(x) for path, x in source.items()}
    if "torch" in name:
        source = {path.replace("/", "."): x for path, x in source.items()}
    with pytest.raises(jtree.LoadError) as error:
        jtree.loadmodel(model, source)
    assert len(str(error.value).splitlines()) == 1
    assert same(jtree.loadmodel(model, remedy(str(error.value), source)), model)


def halves() -> dict[str, Any]:
    """Return a model of an encoder and a decoder, with arrays of equal and of different shapes."""
    return {"encoder": network(), "decoder": {"blocks": network()["blocks"][:1]}}


SEVERAL: dict[str, dict[str, str]] = {
    "two words": {"encoder/": "enc/", "decoder/": "dec/"},
    "two prefixes": {"encoder/": "a/encoder/", "decoder/": "b/decoder/"},
    "a prefix for one": {"encoder/": "model/encoder/"},
    "a prefix and a word": {"encoder/": "net/encoder/", "decoder/": "dec/"},
    "three words": {"encoder/blocks": "e", "encoder/head": "h/f", "decoder/": "dec/"},
}


@pytest.mark.parametrize("name", SEVERAL)
@pytest.mark.parametrize("swapped", [False, True])
def test_several_renamings_are_one_remedy_that_works(name: str, swapped: bool) -> None:
    model, source = halves(), flat(halves())
    for old, new in SEVERAL[name].items():
        source = {path.replace(old, new): x for path, x in source.items()}
    if swapped:
        model, source = {path: jnp.asarray(x) for path, x in source.items()}, flat(model)
    with pytest.raises(jtree.LoadError) as error:
        jtree.loadmodel(model, source)
    message = str(error.value)
    assert len(message.splitlines()) == 1
    assert message.count("jtree.migrate.rename(") == len(SEVERAL[name])
    assert same(jtree.loadmodel(model, remedy(message, source)), model)


def test_two_renamings_are_two_entries() -> None:
    model = {"encoder": {"w": jnp.ones(2), "b": jnp.ones(3)}, "decoder": {"w": 1.0, "b": 2.0}}
    model = jax.tree.map(jnp.asarray, model)
    source = {path.replace("coder", ""): x for path, x in flat(model).items()}
    with pytest.raises(jtree.LoadError) as error:
        jtree.loadmodel(model, source)
    assert str(error.value) == (
        "nothing was loaded: 8 mismatches: the source has 'de' in its paths where the destination "
        "has 'decoder', and has 'en' in its paths where the destination has 'encoder'; rename them "
        "with jtree.migrate.apply([jtree.migrate.rename('de/**', 'decoder/**'), "
        "jtree.migrate.rename('en/**', 'encoder/**')], source)"
    )


def test_the_message_names_the_cause_first_and_once() -> None:
    model = {"w": jnp.ones(2), "b": jnp.ones(3)}
    source = {f"net/{path}": x for path, x in model.items()}
    with pytest.raises(jtree.LoadError) as error:
        jtree.loadmodel(model, source)
    assert str(error.value) == (
        "nothing was loaded: 4 mismatches: the source has the prefix 'net' in its paths, unlike "
        "the destination; rename them with jtree.migrate.apply([jtree.migrate.rename('net/**', "
        "'**')], source)"
    )


def test_transposed_arrays_are_one_cause_square_ones_too() -> None:
    model = network()
    source = {path: x.T for path, x in flat(model).items()}
    with pytest.raises(jtree.LoadError) as error:
        jtree.loadmodel(model, source)
    assert str(error.value) == (
        "nothing was loaded: 4 mismatches: the source stores 4 arrays called 'kernel' with axes in "
        "another order; transpose all of them with jtree.migrate.apply([jtree.migrate.transpose("
        "'**/kernel')], source)"
    )
    assert same(jtree.loadmodel(model, remedy(str(error.value), source)), model)


@pytest.mark.parametrize("axes", [(3, 2, 0, 1), (3, 2, 1, 0), (2, 3, 1, 0)])
def test_kernels_of_convolutions_are_one_cause(axes: tuple[int, ...]) -> None:
    keys = jax.random.split(jax.random.key(0), 2)
    model = {
        "a": {"kernel": jax.random.normal(keys[0], (3, 5, 2, 4)), "bias": jnp.ones(4)},
        "b": {"kernel": jax.random.normal(keys[1], (3, 5, 4, 6)), "bias": jnp.ones(6)},
        "c": {"kernel": jnp.ones((6, 2)), "bias": jnp.ones(2)},
    }
    source = {path: x.transpose(axes) if x.ndim == 4 else x for path, x in flat(model).items()}
    with pytest.raises(jtree.LoadError) as error:
        jtree.loadmodel(model, source)
    assert same(jtree.loadmodel(model, remedy(str(error.value), source)), model)


def test_a_prefix_and_transposed_arrays_are_two_causes_with_one_remedy() -> None:
    model = network()
    source = {f"model/{path}": x.T for path, x in flat(model).items()}
    with pytest.raises(jtree.LoadError) as error:
        jtree.loadmodel(model, source)
    calls = re.findall(r"(jtree\.migrate\.apply\(.*?\], source\))", str(error.value))
    source = eval(calls[-1], {"jtree": jtree, "source": source})
    assert same(jtree.loadmodel(model, source), model)


def test_other_mismatches_follow_the_cause_ten_in_full_and_the_rest_by_kind() -> None:
    model = network() | {f"x{n}": jnp.ones(2) for n in range(12)}
    source = {f"net/{path}": x for path, x in flat(network()).items()}
    source |= {f"x{n}": np.ones(3) for n in range(10)} | {"z": np.ones(7)}
    message = jtree.diff(model, source).message()
    lines = message.splitlines()
    assert lines[0] == "41 mismatches"
    assert lines[1].startswith("  28 paths: the source has the prefix 'net'")
    assert len(lines) == 13
    assert lines[-1] == "  ... and 3 more, all in `.diff` (2 shape, 1 unexpected)"


def test_arrays_of_another_framework_are_to_be_converted() -> None:
    from flax import nnx

    model = nnx.List([nnx.Linear(2, 2, rngs=nnx.Rngs(n)) for n in range(2)])
    source = {f"{n}.weight": np.eye(2) for n in range(2)} | {
        f"{n}.bias": np.ones(2) for n in (0, 1)
    }
    source = {path.replace(".", "/"): x for path, x in source.items()}
    with pytest.raises(jtree.LoadError) as error:
        jtree.loadmodel(model, source)
    assert "jtree.migrate.convert(model, source, layout='torch')" in str(error.value)
    source = {path.replace("/", "."): x for path, x in source.items()}
    assert migrate.convert(model, source, layout="torch")[1]


def test_strict_false_that_loads_nothing_is_an_error() -> None:
    model = {"w": jnp.ones(2), "b": jnp.ones(3)}
    with pytest.raises(jtree.LoadError) as error:
        jtree.loadmodel(model, {"v": np.ones(4)}, strict=False)
    assert str(error.value) == (
        "nothing was loaded: strict=False loads what fits, and nothing in the source does: "
        "3 mismatches\n"
        "  b: expected float32[3], found nothing\n"
        "  v: expected nothing, found float64[4]\n"
        "  w: expected float32[2], found nothing"
    )
