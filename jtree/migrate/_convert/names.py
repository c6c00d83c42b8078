"""Names of layers and arrays in the source, as key paths with the names of the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, TypeAlias, TypeVar

from ..._errors import ArgumentError, ArgumentTypeError, LoadError, PathError, did_you_mean
from ..._state.mismatch import Diff, Mismatch
from ..._text import plural
from ..._tree.leaves import check_alive
from .._layouts.spec import FrameworkLayout, KeyPath
from .stages import NamedSource, SourceArray, SourceModel

Rename: TypeAlias = Mapping[str, str] | Callable[[str], str] | None
T = TypeVar("T")


def name_source(source: SourceModel, arrays: Mapping[str, Any], rename: Rename) -> NamedSource:
    """Return a source with the names of the model; `arrays` are its arrays after all rules."""
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
    for name, layer in layers.items():
        prefix = f"{name}{layout.separator}" if name else ""
        depths = {
            array: array[len(prefix) :].count(layout.separator) + 1
            for array in key_paths
            if array.startswith(prefix)
        }
        if depths:
            array = min(depths, key=depths.__getitem__)  # deeper ones may be renamed differently
            yield key_paths[array][: max(0, len(key_paths[array]) - depths[array])], layer


def rename_all(names: Iterable[str], layout: FrameworkLayout, rename: Rename) -> dict[str, KeyPath]:
    """Return the key path of each name of a source, with the names of the model."""
    if rename is None:
        return {name: layout.key_path(name) for name in names}
    if isinstance(rename, Mapping):
        return _rename_by_prefix(list(names), layout, rename)
    return {name: layout.key_path(_call(rename, name)) for name in names}


def _rename_by_prefix(
    names: list[str], layout: FrameworkLayout, rename: Mapping[str, str]
) -> dict[str, KeyPath]:
    """Return key paths renamed by their longest known prefix; every prefix must match a name."""
    before = {name: layout.key_path(name) for name in names}
    changes = {
        old: (_prefix(old, layout, before.values()), layout.key_path(new.replace(".", "/")))
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
    exact = layout.key_path(old)
    if any(_starts_with(keys, exact) for keys in known):
        return exact
    return layout.key_path(old.replace(".", "/"))


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
