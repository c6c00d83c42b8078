"""Several files that are one checkpoint, and the index that says which array is in which.

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
from .._storage.atomic import Path
from .file import File, Opened, parse_json

INDEX = ".index.json"
ENDINGS = (".safetensors", ".bin")  # the first of them that is in a directory is read
_WHOLE = "pytorch_model.bin"  # other files of this ending are not of the model
_NUMBERED = re.compile(r"(.*)-(\d+)-of-(\d+)(\.\w+)")


def has_shards(path: Path) -> bool:
    """Tell whether there are shards in a directory, or an index of them."""
    names = [x.name for x in path.iterdir()]
    return any(_indexes(names, end) or _shards(names, end) for end in ENDINGS)


def open_shards(path: Path, open_one: Callable[[Path], Opened]) -> Opened:
    """Return what is in a directory of shards, or in those that an index names."""
    directory = path if path.is_dir() else path.parent
    there = [x.name for x in directory.iterdir()]
    index = _index(path, there)
    if index is None:
        weights, metadata = None, dict[str, Any]()
        names = next(found for end in ENDINGS if (found := _shards(there, end)))
    else:
        weights, metadata = _weights(File(index))
        names = sorted(set(weights.values()))
        _check_known(names, there)
    _check_complete(set(names))
    opened = {name: _open(directory / name, open_one) for name in names}
    _check_names(opened, weights)
    formats = sorted({x.format for x in opened.values()})
    if len(formats) > 1:
        raise ValueError(f"its shards are of several formats: {', '.join(formats)}")
    tree = {name: x for shard in opened.values() for name, x in shard.tree.items()}
    for shard in opened.values():
        metadata = metadata | shard.metadata
    ties = tuple(group for shard in opened.values() for group in shard.ties)
    source = next((shard.source for shard in opened.values()), None)
    return Opened(formats[0] if formats else "safetensors", tree, metadata, source, ties)


def _indexes(names: Iterable[str], end: str) -> list[str]:
    return sorted(x for x in names if x.endswith(f"{end}{INDEX}"))


def _shards(names: Iterable[str], end: str) -> list[str]:
    found = sorted(x for x in names if x.endswith(end))
    return [x for x in found if end != ".bin" or x == _WHOLE or _NUMBERED.fullmatch(x)]


def _index(path: Path, there: list[str]) -> Path | None:
    """Return the index of shards: the file itself, or the one in a directory."""
    if not path.is_dir():
        return path
    for end in ENDINGS:
        found = _indexes(there, end)
        if len(found) > 1:
            raise ValueError(f"there are several: open one of {', '.join(found)}")
        if found:
            return path / found[0]
        if _shards(there, end):
            break
    return None


def _weights(index: File) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the file that each array is in, and the metadata."""
    found = parse_json(index.read(0, index.size), index.size)
    weights = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(weights, dict):
        raise ValueError('its index has no "weight_map"')
    for name, file in weights.items():
        plain = isinstance(file, str) and file and not set(file) & set("/\\:\0")
        if not plain or file.startswith("."):
            raise ValueError(f"{name:.80}: {file!r:.80} is no name of a file beside the index")
    metadata = found.get("metadata", {})
    return weights, metadata if isinstance(metadata, dict) else {}


def _check_known(names: list[str], there: list[str]) -> None:
    """Refuse a shard of the same name and number that the index does not name."""
    stems = {(x[1], x[4]) for name in names if (x := _NUMBERED.fullmatch(name))}
    for name in sorted(set(there) - set(names)):
        found = _NUMBERED.fullmatch(name)
        if found and (found[1], found[4]) in stems:
            raise ValueError(
                f"{name} is beside the shards, and not in their index; move it away, or use the "
                "index that it belongs to"
            )


def _check_complete(names: Collection[str]) -> None:
    """Refuse numbered shards that are not all there."""
    for name in sorted(names):
        found = _NUMBERED.fullmatch(name)
        if found is None or int(found[3]) > 10**5:
            continue
        first, digits, count, end = found.groups()
        numbers = (f"{number:0{len(digits)}}" for number in range(1, int(count) + 1))
        missing = [x for n in numbers if (x := f"{first}-{n}-of-{count}{end}") not in names]
        if missing:
            raise ValueError(f"{name} is one of {int(count)} shards, and {missing[0]} is missing")


def _check_names(opened: dict[str, Opened], weights: dict[str, str] | None) -> None:
    """Refuse arrays that are in two shards, or elsewhere than the index says."""
    homes: dict[str, str] = {}
    for file, shard in opened.items():
        for name in shard.tree:
            if name in homes:
                raise ValueError(f"{name!r} is in {file} and in another shard, {homes[name]}")
            homes[name] = file
    if weights is None:
        return
    for name in sorted(homes | weights):
        said, held = weights.get(name), homes.get(name)
        if said != held:
            where = f"in {held}" if held else "in none of them"
            should = f"in {said}" if said else "not in it"
            raise ValueError(
                f"the index and the shards do not agree: {name!r} is {where}, and the index has it "
                f"{should}; copy them again from where they come from"
            )


def _open(path: Path, open_one: Callable[[Path], Opened]) -> Opened:
    """Return what is in a shard: arrays by name."""
    if not path.exists():
        raise CheckpointError(f"{path}: this shard is missing; copy it beside the others")
    found = open_one(path)
    tree = found.tree if isinstance(found.tree, dict) else {"(root)": found.tree}
    for name, x in tree.items():
        if not (isinstance(x, LazyArray) and isinstance(found.tree, dict)):
            raise CheckpointError(
                f"{path}: expected a dict of arrays by name, as shards are, found at {name!r:.80} "
                f"{describe(x):.80}; open this file by itself"
            )
    return found
