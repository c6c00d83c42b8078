"""Conversion from one checkpoint to another: staged array by array, resumed, verified."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from ..._arguments import check_flag, check_iterable, check_path
from ..._errors import ArgumentError, CheckpointError
from ..._progress import progress_bar
from ..._text import plural
from ..._tree import paths
from ..._tree.leaves import describe
from ..._tree.paths import Where
from ..._tree.walk import walk
from ...checkpoint._checkpoint import Checkpoint
from ...checkpoint._formats.registry import FILE_FORMATS
from ...checkpoint._formats.shards import INDEX, SUFFIXES
from ...checkpoint._open import open_checkpoint
from ...checkpoint._save import save, select_format
from ...checkpoint._storage.durable import sync_directory
from ...checkpoint._storage.paths import check_names, local_name
from ...checkpoint._storage.staging import PIECE
from .._rules.apply import Migrated, apply
from .._rules.base import Rule
from .._rules.lazy_arrays import read_pieces
from .._rules.plan import Plan
from .._rules.toml import rules_to_toml
from .._rules.values import cast as cast_rule
from .journal import Journal, is_installed, locked_staging, mark_installed, remove, staging_path
from .output import check_nesting, convert_metadata, find_problems, is_key, nest

FORMATS: Final = ("orbax", "safetensors", "npz")


class FileReport(NamedTuple):
    """The report of `convert_file`.

    Attributes:
      plan: the plan, which shows the sources of each array.
      path: the path of the target.
      format: the format of the target.
      resumed: the number of arrays that an earlier run had completed.
      left_out: the paths of leaves that the format cannot hold.
      problems: where the result differs from what was computed, by path. If there are any, the
        target does not exist.
    """

    plan: Plan
    path: str
    format: str
    resumed: int
    left_out: tuple[str, ...]
    problems: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON."""
        return self._asdict() | {"plan": self.plan.to_json(), "left_out": list(self.left_out)}

    def __str__(self) -> str:
        counts = f"{plural(len(self.plan.rows), 'array')}, {plural(self.plan.nbytes, 'byte')}"
        result = f"{self.format}, verified" if not self.problems else "not written"
        lines = [f"{self.path}: {counts}, {result}"]
        if self.resumed:
            lines.append(f"{plural(self.resumed, 'array')} kept from an earlier run")
        if self.plan.untouched and self.plan.rules:
            lines.append(f"untouched by any rule: {paths.shorten(self.plan.untouched)}")
        if self.plan.dropped:
            lines.append(f"dropped: {paths.shorten(list(self.plan.dropped))}")
        if self.left_out:
            lines.append(f"left out, not arrays: {paths.shorten(self.left_out)}")
        lines += [f"{paths.show(path)}: {text}" for path, text in self.problems.items()]
        return "\n".join(lines)


def convert_file(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    /,
    *,
    rules: Iterable[Rule] = (),
    where: Where = None,
    cast: Any = None,
    format: Literal["orbax", "safetensors", "npz"] | None = None,
    progress: bool = True,
) -> FileReport:
    """Convert a checkpoint to another path, format or dtype, with rules, and verify the result.

    Arrays are computed one after another and staged in a hidden directory beside the target. If the
    process is killed, running the same conversion again resumes with the arrays that are complete.
    The target appears once it is complete and verified.

    Args:
      source: a checkpoint in any format that `jtree.open` reads.
      target: a path that does not exist yet.
      rules: rules, as in `apply`.
      where: a glob over the resulting paths, or several: only these arrays are written.
      cast: a dtype for all floating arrays, as in the rule `cast`.
      format: `"orbax"`, `"safetensors"` or `"npz"`; by default the suffix of the target decides.
      progress: whether to show a progress bar. It appears on a terminal only, for more than 1 GB
        or after 2 seconds.

    Returns:
      A `FileReport`: the plan, and the problems of the result, if there are any.

    Raises:
      RuleError: as in `apply`, before anything is read.
      CheckpointError: the source cannot be read, or the target exists.
      PathError: `where` matches nothing.

    Example:
      >>> import tempfile
      >>> directory = tempfile.mkdtemp()
      >>> jtree.save(f"{directory}/a", {"fc": {"weight": np.ones((2, 3), np.float32)}})
      >>> rules = [jtree.migrate.transpose("fc/weight")]
      >>> report = convert_file(f"{directory}/a", f"{directory}/b", rules=rules, cast="bf16")
      >>> report.problems, jtree.load(f"{directory}/b")["fc"]["weight"].shape
      ({}, (3, 2))
    """
    check_flag("progress", progress)
    checkpoint = open_checkpoint(source, shown=False)
    arrays = _apply(checkpoint, rules, where, cast)
    path = _local_path(target)
    output_format = _select_format(path, format)
    _check_arrays(path, arrays, output_format)
    staging, fingerprint = staging_path(path), _fingerprint(checkpoint, arrays)
    if path.exists() and not is_installed(staging, fingerprint):
        raise CheckpointError(f"{path} already exists; remove it, or use another path")
    with locked_staging(staging, path, sum(x.nbytes for x in arrays.values())):
        journal = Journal(staging, dict.fromkeys(x for x in arrays.values() if not is_key(x)))
        journal.resume(fingerprint)
        resumed, problems = len(journal.checksums), {}
        if not path.exists():
            _stage(journal, progress)
            new = staging / f"new{path.suffix}"
            remove(new)
            _write_staged(new, checkpoint, arrays, journal, output_format, progress)
            problems = _verify(new, arrays, journal, progress)
            if not problems:
                mark_installed(staging, fingerprint)
                new.rename(path)
                sync_directory(path.parent)
    left_out = _left_out(checkpoint, arrays, output_format)
    return FileReport(Plan(arrays), str(path), output_format, resumed, left_out, problems)


def plan_file(
    source: str | os.PathLike[str],
    /,
    *,
    rules: Iterable[Rule] = (),
    where: Where = None,
    cast: Any = None,
) -> Plan:
    """Return the plan of `convert_file`, without reading an array."""
    return Plan(_apply(open_checkpoint(source), rules, where, cast))


def _apply(checkpoint: Checkpoint, rules: Iterable[Rule], where: Where, cast: Any) -> Migrated:
    last = () if cast is None else (cast_rule("**", cast),)
    rules = check_iterable("rules", rules, "a sequence of rules")
    return apply((*rules, *last), checkpoint).select(where)


def _local_path(target: str | os.PathLike[str]) -> Path:
    name = local_name(os.fsdecode(check_path("target", target)))
    if "://" in name:
        raise CheckpointError(
            f"{os.fspath(target)}: arrays are staged beside the target, which must be on this "
            "machine; convert to a local path, and copy the result"
        )
    return Path(os.path.realpath(name))


def _select_format(path: Path, format: str | None) -> Any:
    selected = select_format(path, format)
    if selected not in FORMATS:
        raise ArgumentError(
            f"{path}: a conversion writes orbax, safetensors or npz, not {selected}; pass one of "
            "them as format="
        )
    return selected


def _check_arrays(path: Path, arrays: Migrated, format: str) -> None:
    """Refuse what a format cannot hold, before anything is read."""
    if format == "orbax":
        check_names(path)
        check_nesting(arrays)
    else:
        FILE_FORMATS[format].check(arrays)


def _stage(journal: Journal, shown: bool) -> None:
    """Compute the arrays that are not complete, one after another."""
    missing = journal.missing()
    arrays = [journal.arrays[n] for n in missing]
    with progress_bar("converting", sum(x.nbytes for x in journal.arrays), shown=shown) as bar:
        bar.advance(sum(journal.arrays[n].nbytes for n in journal.checksums))
        for index, x, pieces in zip(missing, arrays, read_pieces(arrays, PIECE), strict=True):
            journal.write(index, pieces)
            bar.advance(x.nbytes)


def _write_staged(
    new: Path,
    checkpoint: Checkpoint,
    arrays: Migrated,
    journal: Journal,
    format: Any,
    shown: bool,
) -> None:
    """Write the staged arrays as a checkpoint."""
    staged = dict(zip(journal.arrays, journal.lazy(), strict=True))
    values = {path: staged.get(x, x) for path, x in arrays.items()}  # PRNG keys are not staged
    metadata = convert_metadata(checkpoint.metadata, format)
    content: Any = values
    if format == "orbax":
        tree = _tree(checkpoint, values)
        content = Checkpoint(str(new), "staged", tree, metadata, arrays.ties, journal)
    save(new, content, format=format, metadata=metadata, progress=shown)


def _tree(checkpoint: Checkpoint, values: Mapping[str, Any]) -> Any:
    """Return the tree of the source with other arrays; where paths differ, nested dicts."""
    if values.keys() != checkpoint.keys():
        return nest(values)
    walked = walk(checkpoint.tree, ties=())
    return walked.rebuild([values.get(x.path, x.value) for x in walked.slots])


def _verify(new: Path, arrays: Migrated, journal: Journal, shown: bool) -> dict[str, str]:
    try:
        written = open_checkpoint(new, shown=False)
    except CheckpointError as error:
        return {"": str(error)}
    return find_problems(written, arrays, journal, shown)


def _left_out(checkpoint: Checkpoint, arrays: Migrated, format: str) -> tuple[str, ...]:
    """Return the paths of leaves that are not arrays and that are not written."""
    if format == "orbax" and arrays.keys() == checkpoint.keys():
        return ()
    return tuple(path for path, x in arrays.others.items() if x is not None)


def _fingerprint(checkpoint: Checkpoint, arrays: Migrated) -> str:
    """Return a hash of the files of the source, the rules and the resulting arrays."""
    results = [(path, describe(x)) for path, x in arrays.items()]
    files = _files(Path(checkpoint.path))
    content = [checkpoint.path, files, rules_to_toml(arrays.rules), results]
    return hashlib.sha256(json.dumps(content).encode(errors="surrogatepass")).hexdigest()


def _files(path: Path) -> list[tuple[str, int, int]]:
    """Return the files of a checkpoint, with their sizes and times of modification."""
    others = list(path.rglob("*")) if path.is_dir() else []
    for suffix in SUFFIXES if path.name.endswith(INDEX) else ():
        others += path.parent.glob(f"*{suffix}")
    files = {x: x.stat() for x in (path, *sorted(others)) if x.is_file()}
    return [(str(x), stat.st_size, stat.st_mtime_ns) for x, stat in files.items()]
