"""Fuzz the readers, guided by coverage: python -m tests.formats.fuzz pickle DIRECTORY --seconds 300

It needs `atheris`, the extra `fuzz`. What the fuzzer changes is what stands behind a checksum: a
pickle or an array is put into an archive after it was changed. It stops at the first input with
which a reader raises anything but an error of jtree's, takes half a minute or more memory
than twice the file and 100 MB, or returns other numbers than the library whose format it is.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import resource
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import atheris
import numpy as np

with atheris.instrument_imports(include=["jtree.checkpoint", "jtree.migrate", "pickletools"]):
    import flax.serialization
    import jax
    import orbax.checkpoint
    import safetensors.numpy

    import jtree
    from jtree.checkpoint._orbax import decoding as _decoding
    from jtree.checkpoint._orbax import encoding as _encoding

    from . import (
        bounds,
        bson_files,
        damage,
        files,
        jld2_files,
        test_msgpack,
        test_numpy,
        test_pickle,
        test_safetensors,
    )

SECONDS = 30  # that a reader may take, slowed down by what records coverage
GROWN = 2**24  # bytes of memory from which on they are counted
LONGEST = 4096  # bytes of an input


class Target(NamedTuple):
    """A reader: inputs to begin with, and what is done with each."""

    begin: Callable[[], Iterable[bytes]]
    wrap: Callable[[bytes], bytes] = bytes  # makes a file of an input
    others: Callable[[bytes], Iterable[Any]] = lambda _: iter(())  # the arrays of that file
    read: Callable[[Path], Any] = lambda path: damage.read_all(path, shown=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("format", choices=TARGETS)
    parser.add_argument("directory", type=Path, help="for the corpus, and for what is found")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--runs", type=int, default=-1, help="inputs at the most")
    parser.add_argument("--seed", type=int, default=0, help="of what is tried; 0 takes a new one")
    parser.add_argument("--again", type=Path, help="an input that was found, to try once more")
    given = parser.parse_args()
    target, corpus = TARGETS[given.format], given.directory / "corpus"
    file, tokens = given.directory / "file", given.directory / "tokens"
    corpus.mkdir(parents=True, exist_ok=True)
    if given.again:
        check(target, file, given.again.read_bytes())
        return
    for number, data in enumerate(target.begin()):
        (corpus / str(number)).write_bytes(data)
    tokens.write_text("\n".join(map(quoted, TOKENS)))
    options = [
        f"-max_total_time={given.seconds}",
        f"-runs={given.runs}",
        f"-seed={given.seed}",
        f"-timeout={SECONDS}",
        f"-max_len={LONGEST}",
        f"-dict={tokens}",
        f"-artifact_prefix={given.directory}/",
        "-print_final_stats=1",
        str(corpus),
    ]
    atheris.Setup([sys.argv[0], *options], lambda data: check(target, file, data))
    atheris.Fuzz()


def check(target: Target, path: Path, data: bytes) -> None:
    """Raise where a reader does what none may."""
    written = target.wrap(data)
    path.write_bytes(written)
    before = most_memory()
    arrays = target.read(path)
    if most_memory() > before + GROWN:
        with bounds.bounded(path):
            target.read(path)
    expected = theirs(target, written) if arrays else set()
    assert not expected or {as_bytes(x) for x in arrays} <= expected, "other numbers"


def theirs(target: Target, written: bytes) -> set[Any]:
    """Return the arrays that another library reads; none where it does not read the file."""
    try:
        return {as_bytes(x) for x in target.others(written)}
    except Exception:
        return set()


def as_bytes(x: Any) -> Any:
    x = np.asarray(x)
    return x.shape, x.astype(x.dtype.newbyteorder("=")).tobytes()


def most_memory() -> int:
    """Return the most bytes of memory that this process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def quoted(token: bytes) -> str:
    """Return a token as dictionaries of libFuzzer have it."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in token) + '"'


def small(files: Iterable[bytes]) -> Iterator[bytes]:
    return (x for x in files if 0 < len(x) <= LONGEST)


def with_header(data: bytes) -> bytes:
    """Return a file of safetensors: its header up to the last brace, and numbers."""
    header, _, numbers = data.rpartition(b"}")
    header = b"{" + header + b"}"
    return len(header).to_bytes(8, "little") + header + numbers.lstrip(b" ")


def with_length(data: bytes) -> bytes:
    """Return a document of BSON with the length that it has."""
    return len(data).to_bytes(4, "little") + data[4:-1] + b"\0"


def with_pickle(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(files.whole_file("PyTorch"))) as archive:
        entries = {x: archive.read(x) for x in archive.namelist()}
    (program,) = [x for x in entries if x.endswith("data.pkl")]
    return files.zip_archive(entries | {program: data})


def pickles() -> Iterator[bytes]:
    with zipfile.ZipFile(io.BytesIO(files.whole_file("PyTorch"))) as archive:
        yield from (archive.read(x) for x in archive.namelist() if x.endswith("data.pkl"))
    yield from test_pickle.TENSORS.values()
    yield from test_pickle.programs(Path("x")).values()
    yield from (make() for name, make in test_pickle.PICKLES.items() if not name.startswith("many"))


def torch_arrays(data: bytes) -> Iterator[Any]:
    import torch

    held = torch.load(io.BytesIO(data), weights_only=True)
    for x in jax.tree.leaves(held):
        if isinstance(x, torch.Tensor):
            flat = x.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
            yield flat.view(torch.uint8).numpy().view(f"V{x.element_size()}").reshape(x.shape)


def flax_arrays(data: bytes) -> Iterator[Any]:
    leaves = jax.tree.leaves(flax.serialization.msgpack_restore(data))
    return (x for x in leaves if isinstance(x, np.ndarray))


def npy_arrays(data: bytes) -> Iterator[Any]:
    file = io.BytesIO(data)
    while file.tell() < len(data):
        yield np.load(file)


def npz_arrays(data: bytes) -> Iterator[Any]:
    yield from np.load(io.BytesIO(data)).values()


def structures() -> Iterator[bytes]:
    tree = {"w": np.ones(2), "x": [1, 2.5, None, "a", (True, 3j, b"b")], "y": {3: np.int8(7)}}
    yield _encoding.encode(tree)[0]["structure"].encode()


def read_structure(path: Path) -> None:
    structure = {"format": _decoding.FORMAT, "structure": path.read_bytes().decode("latin1")}
    structure["crc32"] = _decoding.structure_crc32(structure)
    with contextlib.suppress(jtree.CheckpointError):
        _decoding.decode(structure, lambda stored: stored)


def read_index(path: Path) -> list[Any] | None:
    """Read the index of two shards."""
    directory = path.with_name("shards")
    if not directory.exists():
        directory.mkdir()
        for n, name in enumerate(("a", "b"), 1):
            shard = directory / f"model-0000{n}-of-00002.safetensors"
            shard.write_bytes(safetensors.numpy.save({name: np.arange(3)}))
    index = directory / "model.safetensors.index.json"
    index.write_bytes(path.read_bytes())
    return damage.read_all(index, shown=False)


INDEX = (
    b'{"metadata": {"total_size": 48}, "weight_map": {"a": "model-00001-of-00002.safetensors", '
    b'"b": "model-00002-of-00002.safetensors"}}'
)
TREE = {"w": np.arange(6.0).reshape(2, 3), "x": {"b": np.ones(2, np.float32)}}


class CheckpointFile(NamedTuple):
    """A file in a checkpoint, which the input is put in the place of."""

    name: str
    save: Callable[[Path, Any], Any] = jtree.save

    def begin(self) -> Iterator[bytes]:
        with tempfile.TemporaryDirectory() as directory:
            self.save(Path(directory) / "x", TREE)
            yield (Path(directory) / "x" / self.name).read_bytes()

    def read(self, path: Path) -> list[Any]:
        """Read all arrays that can be read."""
        checkpoint = path.with_name("checkpoint")
        if not checkpoint.exists():
            self.save(checkpoint, TREE)
        (checkpoint / self.name).write_bytes(path.read_bytes())
        arrays = []
        with contextlib.suppress(jtree.CheckpointError):
            opened = jtree.open(checkpoint)
            str(opened)
            for x in opened.values():
                with contextlib.suppress(jtree.CheckpointError):
                    arrays.append(x.read())
        return arrays


def save_by_orbax(path: Path, tree: Any) -> None:
    orbax.checkpoint.PyTreeCheckpointer().save(path, tree)


def rules() -> Iterator[bytes]:
    for rule in (
        jtree.migrate.rename("a/*", "b/*"),
        jtree.migrate.transpose("conv/*", axes=(2, 3, 1, 0)),
        jtree.migrate.cast("**", "bf16"),
        jtree.migrate.fill("x", (2, 3), value=1.5),
        jtree.migrate.split("qkv", ("q", "k", "v")),
    ):
        yield jtree.migrate.rules_to_toml([rule]).encode()


def read_rules(path: Path) -> None:
    with contextlib.suppress(jtree.JtreeError):
        jtree.migrate.rules_from_toml(path)


def file_target(name: str, save: Callable[[Path, Any], Any] = jtree.save) -> Target:
    file = CheckpointFile(name, save)
    return Target(file.begin, read=file.read)


TARGETS = {
    "safetensors": Target(
        lambda: [files.whole_file("safetensors"), *small(test_safetensors.MALFORMED.values())],
        others=lambda data: safetensors.numpy.load(data).values(),
    ),
    "header": Target(
        lambda: [
            x[9:]
            for x in (files.whole_file("safetensors"), *small(test_safetensors.MALFORMED.values()))
        ],
        wrap=with_header,
        others=lambda data: safetensors.numpy.load(data).values(),
    ),
    "msgpack": Target(
        lambda: [files.whole_file("msgpack"), *small(test_msgpack.MALFORMED.values())],
        wrap=lambda data: b"\x81\xa1a" + data,  # what it begins with says what it is
        others=flax_arrays,
    ),
    "npy": Target(
        lambda: [
            *(files.whole_file("npy"), files.whole_file("Equinox")),
            *small(files.npy_file(header=x) for x in test_numpy.HEADERS.values()),
        ],
        others=npy_arrays,
    ),
    "npz": Target(lambda: map(files.whole_file, ("npz", "packed npz")), others=npz_arrays),
    "member": Target(
        lambda: [
            files.whole_file("npy"),
            *small(files.npy_file(header=x) for x in test_numpy.HEADERS.values()),
        ],
        wrap=lambda data: files.zip_archive({"a.npy": data}),
        others=npz_arrays,
    ),
    "PyTorch": Target(lambda: [files.whole_file("PyTorch")], others=torch_arrays),
    "pickle": Target(lambda: small(pickles()), wrap=with_pickle, others=torch_arrays),
    "line": Target(
        lambda: [b'{"a": [1, 2.5, null, "b"]}', b"[true]"],
        wrap=lambda data: b"{" + data.lstrip(b"{") + b"\n" + files.whole_file("Equinox"),
    ),
    "HDF5": Target(lambda: [files.whole_file("HDF5")]),
    "index": Target(lambda: [INDEX], read=read_index),
    "mark": file_target("_CHECKPOINT_METADATA"),
    "tree": file_target("state/_METADATA"),
    "Orbax": file_target("_METADATA", save_by_orbax),
    "BSON": Target(
        lambda: map(bson_files.document, (bson_files.MODEL, bson_files.EVERYTHING)),
        wrap=with_length,
    ),
    "JLD2": Target(
        lambda: [
            jld2_files.document({"model_state": jld2_files.STATE}),
            files.whole_file("JLD2"),
        ],
        wrap=jld2_files.with_checksums,
    ),
    "structure": Target(structures, read=read_structure),
    "rules": Target(rules, read=read_rules),
}
TOKENS = [
    *(f"c{x.replace('.', chr(10))}\n".encode() for x in ("torch.FloatStorage", "torch.Size")),
    *(f"ctorch._utils\n_rebuild_{x}\n".encode() for x in ("tensor_v2", "tensor_v3", "parameter")),
    *(b"ctorch._tensor\n_rebuild_from_type_v2\n", b"ccollections\nOrderedDict\n"),
    *(b"ccopyreg\n_reconstructor\n", b"cos\nsystem\n", files.pickled_text("storage")),
    *(b"\x94", b"\x93", b"\x81", b"\x92", b"(t", b"h\0", b"2\x86", b"\xff\xff\xff\x7f"),
    *(b"__msgpack_chunked_array__", b"bfloat16", b"float32", b"\xc7", b"\xc9", b"\xd4"),
    *(b'"dtype"', b'"shape"', b'"data_offsets"', b"__metadata__", b"F8_E4M3", b"BF16", b"F4"),
    *(b"'descr'", b"'fortran_order'", b"'|O'", b"'<U9'", b"'<M8[s]'", b"True", b"()", b"(0,)"),
    *(b'{"array":', b'{"dict":[[', b'{"tuple":[', b'{"scalar":["', b'{"bytes":"', b'"bytes":true'),
    *(b'"weight_map"', b'"model-00001-of-00002.safetensors"', b"\n\x93NUMPY", b'"item_handlers"'),
    *(b'"tree_metadata"', b'"key_metadata"', b'"value_type"', b'"write_shape"', b'"key_type"'),
    *(b'"use_ocdbt"', b'"custom_metadata"', b'"jtree"', b"1e999", b"NaN", b"[[[[", b"/../"),
    *(b"\x02tag\0\6\0\0\0array\0", b"\x03type\0", b"\x04size\0", b"\x05data\0", b"backref\0"),
    *(b"OHDR\2", b"OCHK", b"GCOL\1", b"TREE", b"julia_type\0", b"Core.Tuple", b"Core.NamedTuple"),
    *(b"[[rules]]\n", b'rule = "', b"optional = true\n", b"PK\1\2", b"PK\3\4", b"PK\6\6"),
]

if __name__ == "__main__":
    main()
