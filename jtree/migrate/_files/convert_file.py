"""One checkpoint made another, with little memory, to be gone on with where it was killed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from ..._errors import CheckpointError
from ..._progress import progress_bar
from ..._text import plural
from ..._tree import paths
from ..._tree.leaves import describe
from ..._tree.paths import Where
from ...checkpoint._checkpoint import Checkpoint, open_checkpoint
from ...checkpoint._formats.shards import ENDINGS, INDEX
from ...checkpoint._storage.staging import PIECE
from .._rules.apply import Migrated, apply
from .._rules.base import Rule
from .._rules.lazy_arrays import read_pieces
from .._rules.plan import Plan
from .._rules.toml import rules_to_toml
from .._rules.values import cast as cast_rule
from .journal import Journal, locked, workplace
from .output import check_paths, chosen_format, iskey, left_out, remove, write, wrong_in

Format: TypeAlias = Literal["orbax", "safetensors", "npz"]


class FileReport(NamedTuple):
    """What `convert_file` has done.

    Attributes:
      plan: what was made of what.
      path: where it is.
      format: in which format.
      resumed: how many arrays an earlier process had finished.
      left_out: the paths of leaves that the format cannot hold.
      wrong: what is not as it should be in what was written, by path. Where there is anything,
        nothing is at `path`.
    """

    plan: Plan
    path: str
    format: str
    resumed: int
    left_out: tuple[str, ...]
    wrong: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON."""
        return self._asdict() | {"plan": self.plan.to_json(), "left_out": list(self.left_out)}

    def __str__(self) -> str:
        made = plural(len(self.plan.rows), "array"), plural(self.plan.nbytes, "byte")
        lines = [f"{self.path}: {', '.join(made)}, "]
        lines[0] += f"{self.format}, verified" if not self.wrong else "not written"
        if self.resumed:
            lines.append(f"{plural(self.resumed, 'array')} finished before")
        if self.plan.untouched and self.plan.rules:
            lines.append(f"untouched by any rule: {paths.shorten(self.plan.untouched)}")
        if self.plan.dropped:
            lines.append(f"dropped: {paths.shorten(list(self.plan.dropped))}")
        if self.left_out:
            lines.append(f"left out, being no arrays: {paths.shorten(self.left_out)}")
        lines += [f"{paths.show(path)}: {reason}" for path, reason in self.wrong.items()]
        return "\n".join(lines)


def convert_file(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    /,
    *,
    rules: Iterable[Rule] = (),
    where: Where = None,
    cast: Any = None,
    format: Format | None = None,
    progress: bool = True,
) -> FileReport:
    """Make another checkpoint of one, one array in memory at a time, and check what was written.

    Arrays are finished one after another in a hidden directory beside the target. A process that
    was killed can be run again, and goes on with those that are there, if its source, rules and
    options are the same. What is at `target` is complete, or nothing.

    Args:
      source: a checkpoint.
      target: a path where nothing is yet.
      rules: as in `apply`.
      where: a glob over the paths that come out, or several: only these are written.
      cast: a dtype for all floating arrays, as the rule `cast` has it.
      format: `"orbax"`, `"safetensors"` or `"npz"`; None goes by the end of the target.
      progress: False shows no bar. There is one on a terminal only, above 1 GB or after 2 seconds.

    Returns:
      A `FileReport`: the plan, and what is wrong, most often nothing.

    Raises:
      RuleError: as in `apply`; nothing has been read then.
      CheckpointError: the source cannot be read, or something is at the target.
      PathError: `where` matches nothing.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     a, b = f"{directory}/a", f"{directory}/b"
      ...     jtree.save(a, {"fc": {"weight": np.ones((2, 3), np.float32)}})
      ...     done = convert_file(a, b, rules=[jtree.migrate.transpose("fc/weight")], cast="bf16")
      ...     print(done.wrong, jtree.load(b)["fc"]["weight"].shape)
      {} (3, 2)
    """
    opened = open_checkpoint(source, shown=False)
    found = prepared(opened, rules=rules, where=where, cast=cast)
    place = _local(target)
    chosen = chosen_format(place, format)
    check_paths(found, chosen)
    work, key = workplace(place), _key(opened, found)
    if place.exists() and not _isdone(work, key):
        raise CheckpointError(f"{place} exists already; remove it, or use another path")
    with locked(work, place):
        staged = Journal(work, dict.fromkeys(x for x in found.values() if not iskey(x)))
        staged.resume(key)
        resumed, wrong = len(staged.checksums), {}
        if not place.exists():
            _stage(staged, progress)
            new = work / f"new{place.suffix}"
            remove(new)
            write(new, opened, found, staged, chosen, progress)
            wrong = wrong_in(new, found, staged, progress)
            if not wrong:
                (work / "done").write_text(key)
                new.rename(place)
    left = left_out(opened, found, chosen)
    return FileReport(Plan(found), str(place), chosen, resumed, left, wrong)


def prepared(
    opened: Checkpoint, *, rules: Iterable[Rule] = (), where: Where = None, cast: Any = None
) -> Migrated:
    """Return what is to be written; nothing is read."""
    last = () if cast is None else (cast_rule("**", cast),)
    return apply((*rules, *last), opened).select(where)


def _local(target: str | os.PathLike[str]) -> Path:
    if "://" in os.fspath(target):
        raise CheckpointError(
            f"{os.fspath(target)}: arrays are staged beside the target, which works on this "
            "machine only; convert to a path here, and copy what comes out"
        )
    return Path(os.path.realpath(target))


def _stage(staged: Journal, shown: bool) -> None:
    """Compute the arrays that are not finished yet, one after another."""
    missing = staged.missing()
    arrays = [staged.arrays[n] for n in missing]
    with progress_bar("converting", sum(x.nbytes for x in staged.arrays), shown=shown) as bar:
        bar.advance(sum(staged.arrays[n].nbytes for n in staged.checksums))
        for number, x, parts in zip(missing, arrays, read_pieces(arrays, PIECE), strict=True):
            staged.write(number, parts)
            bar.advance(x.nbytes)


def _key(opened: Checkpoint, found: Migrated) -> str:
    """Return what is the same if the same is made of the same files."""
    made = [(path, describe(x)) for path, x in found.items()]
    whole = [opened.path, _files(Path(opened.path)), rules_to_toml(found.rules), made]
    return hashlib.sha256(json.dumps(whole).encode(errors="surrogatepass")).hexdigest()


def _files(path: Path) -> list[tuple[str, int, int]]:
    """Return the files of a checkpoint, with their sizes and when they were changed."""
    others = list(path.rglob("*")) if path.is_dir() else []
    for end in ENDINGS if path.name.endswith(INDEX) else ():
        others += path.parent.glob(f"*{end}")
    files = {x: x.stat() for x in (path, *sorted(others)) if x.is_file()}
    return [(str(x), stat.st_size, stat.st_mtime_ns) for x, stat in files.items()]


def _isdone(work: Path, key: str) -> bool:
    """Tell whether a process was killed between the last step and tidying up."""
    mark = work / "done"
    return mark.exists() and mark.read_text() == key
