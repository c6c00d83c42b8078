"""Shards: several files that are one checkpoint, and the index that names the file of each array.

Source: https://huggingface.co/docs/transformers, "Sharded checkpoints": `weight_map` in
`model.safetensors.index.json` and `pytorch_model.bin.index.json`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from typing import Any

from ..._errors import CheckpointError
from ..._tree.lazy import LazyArray
from ..._tree.leaves import describe
from .file import File, FileContents, Path
from .limits import parse_json

INDEX = ".index.json"
SUFFIXES = (".safetensors", ".bin")  # the first that a directory has is read
_WHOLE = "pytorch_model.bin"  # other .bin files may belong to something else
_NUMBERED = re.compile(r"(.*)-(\d+)-of-(\d+)(\.\w+)")


def has_shards(directory: Path) -> bool:
    """Return whether there are shards in a directory, or an index of them."""
    names = [x.name for x in directory.iterdir()]
    return any(_indexes(names, suffix) or _shards(names, suffix) for suffix in SUFFIXES)


def open_shards(path: Path, open_shard: Callable[[Path], FileContents]) -> FileContents:
    """Return the contents of the shards in a directory, or of those that an index names."""
    directory = path if path.is_dir() else path.parent
    siblings = [x.name for x in directory.iterdir()]
    index = _index(path, siblings)
    if index is None:
        weights, metadata = None, dict[str, Any]()
        names = next(names for suffix in SUFFIXES if (names := _shards(siblings, suffix)))
    else:
        weights, metadata = _read_index(File(index))
        names = sorted(set(weights.values()))
        _check_indexed(names, siblings)
    _check_complete(set(names))
    shards = {name: _open_one(directory / name, open_shard) for name in names}
    _check_names(shards, weights)
    formats = sorted({x.format for x in shards.values()}) or ["safetensors"]
    if len(formats) > 1:
        raise ValueError(f"expected shards of one format, found {' and '.join(formats)}")
    tree = {name: x for shard in shards.values() for name, x in shard.tree.items()}
    for shard in shards.values():
        metadata = metadata | shard.metadata
    ties = tuple(group for shard in shards.values() for group in shard.ties)
    source = next((shard.source for shard in shards.values()), None)
    return FileContents(formats[0], tree, metadata, source, ties)


def _indexes(names: Iterable[str], suffix: str) -> list[str]:
    return sorted(x for x in names if x.endswith(f"{suffix}{INDEX}"))


def _shards(names: Iterable[str], suffix: str) -> list[str]:
    files = sorted(x for x in names if x.endswith(suffix))
    return [x for x in files if suffix != ".bin" or x == _WHOLE or _NUMBERED.fullmatch(x)]


def _index(path: Path, siblings: list[str]) -> Path | None:
    """Return the index of shards: the file itself, or the one in a directory."""
    if not path.is_dir():
        return path
    for suffix in SUFFIXES:
        indexes = _indexes(siblings, suffix)
        if len(indexes) > 1:
            raise ValueError(f"expected one index, found several; open one: {', '.join(indexes)}")
        if indexes:
            return path / indexes[0]
        if _shards(siblings, suffix):
            break
    return None


def _read_index(index: File) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the name of the file that each array is in, and the metadata."""
    content = parse_json(index.read(0, index.size), index.size)
    weights = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weights, dict):
        raise ValueError('the index lacks a "weight_map"')
    for name, file in weights.items():
        plain = isinstance(file, str) and file and not set(file) & set("/\\:\0")
        if not plain or file.startswith("."):
            raise ValueError(
                f"{name:.80}: expected the name of a file beside the index, found {file!r:.80}"
            )
    metadata = content.get("metadata", {})
    return weights, metadata if isinstance(metadata, dict) else {}


def _check_indexed(names: list[str], siblings: list[str]) -> None:
    """Refuse a shard of the same name that the index does not list."""
    stems = {(x[1], x[4]) for name in names if (x := _NUMBERED.fullmatch(name))}
    for name in sorted(set(siblings) - set(names)):
        match = _NUMBERED.fullmatch(name)
        if match and (match[1], match[4]) in stems:
            raise ValueError(
                f"{name} is beside the shards but not in their index; move it away, or open the "
                "index that lists it"
            )


def _check_complete(names: Collection[str]) -> None:
    """Refuse numbered shards of which some are missing."""
    checked = set()
    for name in sorted(names):
        match = _NUMBERED.fullmatch(name)
        if match is None or int(match[3]) > 10**5:
            continue
        stem, digits, count, suffix = match.groups()
        series = stem, len(digits), count, suffix
        if series in checked:
            continue
        checked.add(series)
        numbers = (f"{n:0{len(digits)}}" for n in range(1, int(count) + 1))
        expected = (f"{stem}-{number}-of-{count}{suffix}" for number in numbers)
        missing = next((x for x in expected if x not in names), None)
        if missing:
            raise ValueError(f"{name} is one of {int(count)} shards, and {missing} is missing")


def _check_names(shards: dict[str, FileContents], weights: dict[str, str] | None) -> None:
    """Refuse arrays that are in two shards, or not where the index has them."""
    files: dict[str, str] = {}
    for file, shard in shards.items():
        for name in shard.tree:
            if name in files:
                raise ValueError(f"{name!r} is in two shards, {files[name]} and {file}")
            files[name] = file
    if weights is None:
        return
    for name in sorted(files | weights):
        expected, found = weights.get(name, "no shard"), files.get(name, "none")
        if expected != found:
            raise ValueError(
                f"the index and the shards disagree on {name!r}: expected it in {expected}, found "
                f"it in {found}; copy the index and the shards again"
            )


def _open_one(path: Path, open_shard: Callable[[Path], FileContents]) -> FileContents:
    """Return the contents of a shard, which must be arrays by name."""
    if not path.exists():
        raise CheckpointError(f"{path}: this shard is missing; copy it beside the others")
    contents = open_shard(path)
    isdict = isinstance(contents.tree, dict)
    for name, x in (contents.tree if isdict else {"(root)": contents.tree}).items():
        if not (isdict and isinstance(x, LazyArray)):
            raise CheckpointError(
                f"{path}: expected a dict from names to arrays, as shards have, found "
                f"{describe(x):.80} at {name!r:.80}; open this file by itself"
            )
    return contents
