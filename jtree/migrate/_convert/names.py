"""Names of layers and arrays as key paths: those of the model, and of the source renamed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, TypeAlias, TypeVar

from ..._errors import (
    ArgumentError,
    ArgumentTypeError,
    LoadError,
    ModelError,
    PathError,
    did_you_mean,
)
from ..._state.mismatch import Diff, Mismatch
from ..._text import plural
from ..._tree.leaves import check_alive
from ..._tree.ties import Slot
from .._layouts.spec import FrameworkLayout
from .._layouts.transforms import KeyPath
from .images import Flattened
from .stages import NamedModel, NamedSource, SourceArray, SourceModel, TypedModel

Rename: TypeAlias = Mapping[str, str] | Callable[[str], str] | None
T = TypeVar("T")
_NUMBERED = re.compile(r"(.*?[A-Za-z0-9])((?:_(?:\d+|\*))+)")


def key_path(layout: FrameworkLayout, name: str) -> KeyPath:
    """Return a name as its keys; numbers at the end of a name are keys, as list indices are.

    >>> from jtree.migrate._layouts.registry import TORCH, LINEN
    >>> key_path(TORCH, "blocks.10.fc.weight"), key_path(LINEN, "blocks_10/fc")
    (('blocks', '10', 'fc', 'weight'), ('blocks', '10', 'fc'))
    """
    path = name.replace(layout.separator, "/")
    for pattern, replacement in layout.substitutions:
        path = re.sub(pattern, replacement, path)
    keys = (key for key in path.split("/") if key not in ("", "~"))
    return tuple(part for key in keys for part in _split_number(key))


def _split_number(key: str) -> KeyPath:
    match = _NUMBERED.fullmatch(key)
    return (match[1], *match[2][1:].split("_")) if match else (key,)


def name_model(model: TypedModel) -> NamedModel:
    """Return a model whose layers and arrays have key paths; those of arrays must differ."""
    slots = {slot.path: slot for slot in model.walked.slots}
    arrays: dict[KeyPath, Slot] = {}
    for path, name in model.names.items():
        keys = key_path(model.layout, name)
        if keys in arrays:
            raise ModelError(
                f"{arrays[keys].path} and {path}: expected two names, found {'/'.join(keys)} for "
                "both, since `x_1` and `x/1` are one name, and linen's collections are not part of "
                "a name; rename one of them in the model"
            )
        arrays[keys] = slots[path]
    layers = {key_path(model.layout, name): layer for name, layer in model.layers.items()}
    containers = {key_path(model.layout, name): x for name, x in model.containers.items()}
    parents = (keys[:-1] for keys in arrays)
    names = {keys: tuple(_names_elsewhere(keys, containers)) for keys in (*layers, *parents)}
    return NamedModel(model.walked, layers, arrays, model.optional, names)


def _names_elsewhere(
    keys: KeyPath, containers: Mapping[KeyPath, Mapping[str, KeyPath]]
) -> Iterable[KeyPath]:
    """Return the key paths that a layer may have: its own first, the one without containers last.

    In between, some containers are left out: a Sequential in a Sequential of one framework may be
    a Sequential in a list of the other.
    """
    names: list[KeyPath] = [()]
    for n, key in enumerate(keys):
        below = containers.get(keys[:n], {}).get(key)
        kept = [(*name, key) for name in names]
        names = kept if below is None else kept + [(*name, *below) for name in names]
    return dict.fromkeys(names)


def name_source(
    source: SourceModel,
    arrays: Mapping[str, Any],
    rename: Rename,
    hints: Iterable[Any],
    unchanged: Mapping[str, str] | None = None,
) -> NamedSource:
    """Return a source with the names of the model.

    Args:
      source: the source with its own names.
      arrays: its arrays after all rules.
      rename: the names of layers in the model, for those in the source.
      hints: the hints.
      unchanged: for each array whose values no rule changes, its name before the rules; None if
        there are no rules.
    """
    layout = source.layout
    short = {} if callable(rename) else _unambiguous(source.short_names, arrays)
    key_paths = rename_all([*arrays, *short.values()], layout, rename)
    named: dict[KeyPath, SourceArray] = {}
    for name, x in arrays.items():
        check_alive(name, x)
        new = SourceArray(name, x, key_paths[name])
        previous = named.setdefault(new.key_path, new)
        if previous is not new:
            raise _two_arrays(previous, new)
    parents = {name.rpartition(layout.separator)[0] for name in arrays}
    others = {name: x for name, x in source.other_types.items() if name in parents}
    aliases = {key_paths[name]: named[key_paths[full]] for full, name in short.items()}
    return NamedSource(
        layout,
        tuple(named.values()),
        aliases | named,
        dict(_follow(source.layers, key_paths, layout)),
        dict(_follow(others, key_paths, layout)),
        [(key_path(layout, x.path), x) for x in hints if isinstance(x, Flattened)],
        source.ignored,
        {name: name for name in arrays} if unchanged is None else unchanged,
    )


def _unambiguous(short_names: Mapping[str, str], arrays: Collection[str]) -> dict[str, str]:
    """Return the short name of each array, unless another array has it too."""
    present = {name: short for name, short in short_names.items() if name in arrays}
    counts = Counter(present.values())
    return {
        name: short for name, short in present.items() if counts[short] == 1 and short not in arrays
    }


def _two_arrays(first: SourceArray, second: SourceArray) -> LoadError:
    path = "/".join(first.key_path)
    text = (
        f"{path}: expected one array, found two in the source: {first.name} and {second.name}; "
        "rename or drop one of them"
    )
    diff = Diff((Mismatch(path, "unexpected", "one array", "two", text),))
    return LoadError(f"nothing was loaded: {text}", diff)


def _follow(
    layers: Mapping[str, T], key_paths: Mapping[str, KeyPath], layout: FrameworkLayout
) -> Iterator[tuple[KeyPath, T]]:
    """Yield each layer with its key path in the model, which is that of its arrays."""
    nearest: dict[str, tuple[int, str]] = {}  # deeper arrays may be renamed differently
    for array in key_paths if layers else ():
        segments = array.split(layout.separator)
        for n in range(len(segments)):
            prefix, depth = layout.separator.join(segments[:n]), len(segments) - n
            if depth < nearest.get(prefix, (depth + 1,))[0]:
                nearest[prefix] = depth, array
    for name, layer in layers.items():
        if name in nearest:
            depth, array = nearest[name]
            yield key_paths[array][: max(0, len(key_paths[array]) - depth)], layer


def rename_all(names: Iterable[str], layout: FrameworkLayout, rename: Rename) -> dict[str, KeyPath]:
    """Return the key path of each name of a source, with the names of the model."""
    if rename is None:
        return {name: key_path(layout, name) for name in names}
    if isinstance(rename, Mapping):
        return _rename_by_prefix(list(names), layout, rename)
    return {name: key_path(layout, _call(rename, name)) for name in names}


def _rename_by_prefix(
    names: list[str], layout: FrameworkLayout, rename: Mapping[str, str]
) -> dict[str, KeyPath]:
    """Return key paths renamed by their longest known prefix; every prefix must match a name."""
    before = {name: key_path(layout, name) for name in names}
    changes = {
        old: (_prefix(old, layout, before.values()), key_path(layout, new.replace(".", "/")))
        for old, new in rename.items()
    }
    for old, (prefix, _) in changes.items():
        if not any(_starts_with(keys, prefix) for keys in before.values()):
            layers = [name.rpartition(layout.separator)[0] for name in names]
            near = did_you_mean(old, dict.fromkeys([*names, *layers]))
            raise PathError(f"rename: {old!r} matches nothing in the source{near}")
    longest = sorted(changes.values(), key=lambda change: -len(change[0]))
    after = {}
    for name, keys in before.items():
        change = next((x for x in longest if _starts_with(keys, x[0])), None)
        after[name] = keys if change is None else _replace(keys, *change)
    return after


def _prefix(old: str, layout: FrameworkLayout, known: Collection[KeyPath]) -> KeyPath:
    """Return the key path of a prefix; it may be written with dots in every layout."""
    exact = key_path(layout, old)
    if any(_starts_with(keys, exact) for keys in known):
        return exact
    return key_path(layout, old.replace(".", "/"))


def _call(rename: object, name: str) -> str:
    if not callable(rename):
        raise ArgumentTypeError(
            "rename: expected a dict from names in the source to names in the model, or a function "
            f"of a name, found {type(rename).__name__}"
        )
    new = rename(name)
    if not isinstance(new, str):
        raise ArgumentTypeError(
            f"rename: expected the function to return a str for {name!r}, found {new!r}; to leave "
            "an array out, use rules=[migrate.drop(...)]"
        )
    return new


def _starts_with(keys: KeyPath, pattern: KeyPath) -> bool:
    if len(keys) < len(pattern):
        return False
    return all(fnmatchcase(key, glob) for key, glob in zip(keys, pattern, strict=False))


def _replace(keys: KeyPath, old: KeyPath, new: KeyPath) -> KeyPath:
    captured = [key for key, glob in zip(keys, old, strict=False) if "*" in glob]
    stars = sum(key == "*" for key in new)
    if stars > len(captured) or "**" in (*old, *new):
        raise ArgumentError(
            f"rename: {'/'.join(new)!r} has {plural(stars, 'wildcard')}, but {'/'.join(old)!r} has "
            f"{len(captured)}; each '*' matches one segment, and '**' is not supported"
        )
    remaining = iter(captured)
    return (*(next(remaining) if key == "*" else key for key in new), *keys[len(old) :])
