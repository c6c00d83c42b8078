"""Compare two models, states or checkpoints: `diff`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

from .._arguments import check_flag
from .._tree import paths
from .._tree.lazy import LazyArray
from .._tree.leaves import describe
from .._tree.ties import Ties
from .file_casts import cast_mismatch
from .load import compare_walks, resolve_both, walk_both
from .mismatch import Diff, Mismatch
from .sources import Scalars, recorded_ties, scalars_of
from .values import Pairs, compare_values


def diff(
    dst: Any,
    src: Any,
    /,
    *,
    values: bool = False,
    filter: Callable[[Any], Any] | None = None,
    none: Literal["error", "zero", "keep"] = "error",
    ties: Ties = "references",
    scalars: bool | None = None,
    progress: bool = True,
) -> Diff:
    """Compare two models, states or checkpoints; nothing is loaded.

    The mismatches are those that would make `loadmodel(dst, src)` fail or, where `src` is a
    checkpoint, `load(src, dst)`. With `values=True` they include the values that differ.

    Args:
      dst: any pytree, an opened checkpoint, or the path of one.
      src: the same.
      values: True compares values too, some arrays at a time; NaN equals NaN.
      filter: a function of a child; children for which it is false are dropped on both sides.
      none: the meaning of `None` in `src`, as in `loadmodel`.
      ties: which leaves of `dst` are one parameter, as in `loadmodel`.
      scalars: whether leaves that are numbers, bools, text or bytes are loaded too, and must fit.
        By default they are if `src` is a checkpoint and `dst` is not, as in `jtree.load`.
      progress: False shows no progress bar.

    Returns:
      A `Diff`, which is true if there is a mismatch, and prints as a table. Without `values`,
      arrays are read only if shapes and dtypes do not decide, and either model may be abstract.

    Raises:
      CheckpointError: a checkpoint cannot be read.
      ModelError: `values=True` and an array is abstract.

    Example:
      >>> report = diff({"w": jnp.ones(2), "b": jnp.ones(1)}, {"w": jnp.ones(3)})
      >>> bool(report), report.missing, report.shape
      (True, ('b',), {'w': ((2,), (3,))})
      >>> diff({"w": jnp.ones(2)}, {"w": jnp.array([1.0, 1.5])}, values=True).values
      {'w': ValueDifference(absolute=0.5, relative=0.3333333333333333)}
    """
    check_flag("values", values)
    check_flag("progress", progress)
    dst, src = resolve_both(dst, src)
    loads = _scalars(dst, src, scalars)
    compared = compare_walks(*walk_both(dst, src, ties), keep=filter, none=none, scalars=loads)
    different = compare_values(compared.pairs, shown=progress) if values else ()
    lost = _lost(compared.pairs)
    mismatches = sorted(
        (*compared.diff.mismatches, *lost, *different), key=lambda x: (x.path, x.kind)
    )
    remarks = (*_conversions(compared.pairs), *_ties(dst, src))
    return Diff(tuple(mismatches), compared.diff.config, remarks, compared.diff.causes)


def _scalars(dst: Any, src: Any, scalars: bool | None) -> Scalars:
    """Return what is asked for, or else what `load` does if `src` is a checkpoint."""
    if scalars is not None:
        return Scalars.LOADED if check_flag("scalars", scalars) else Scalars.KEPT
    return scalars_of(src) if scalars_of(dst) is Scalars.KEPT else Scalars.KEPT


def _lost(pairs: Pairs) -> Iterator[Mismatch]:
    """Yield the arrays in files with finite values that loading would make infinite or NaN."""
    for path, (expected, found) in pairs.items():
        if isinstance(found, LazyArray) and (x := cast_mismatch(path, expected, found, found)):
            yield x


def _conversions(pairs: Pairs) -> Iterator[Mismatch]:
    """Yield the dtypes that loading would convert."""
    for path, (expected, found) in pairs.items():
        if expected.dtype != found.dtype:
            texts = describe(expected), describe(found)
            text = f"{paths.show(path)}: expected {texts[0]}, found {texts[1]}, which is converted"
            yield Mismatch(path, "conversion", *texts, text)


def _ties(dst: Any, src: Any) -> Iterator[Mismatch]:
    """Yield the arrays that are tied in one of two checkpoints only."""
    expected, found = recorded_ties(dst), recorded_ties(src)
    if expected is None or found is None:
        return
    for group in sorted({*expected} ^ {*found}):
        tied = f"tied to {' and '.join(map(paths.show, group[1:]))}"
        texts = (tied, "not tied") if group in expected else ("not tied", tied)
        text = f"{paths.show(group[0])}: expected {texts[0]}, found {texts[1]}"
        yield Mismatch(group[0], "ties", *texts, text)
