"""The base classes of rules: plain data, and the edits that they make to arrays by path."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, NamedTuple, TypeAlias, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp

from ..._arguments import check_iterable
from ..._errors import ArgumentTypeError, RuleError, did_you_mean
from ..._public import keep_source
from ..._text import plural
from ..._tree import paths as _paths
from ..._tree.lazy import LazyArray
from ..._tree.leaves import describe
from .arguments import check_fields, check_globs
from .lazy_arrays import as_blocks, as_lazy
from .lazy_ops import BlockArray

LazyArrays: TypeAlias = Mapping[str, LazyArray]
_MOST = 10  # arrays that an error names in full
Class = TypeVar("Class", bound=type)


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def public_rule(cls: Class) -> Class:
    """Make a class a frozen dataclass that has its public name, such as `jtree.migrate.rename`."""
    rule: Any = dataclass(frozen=True, repr=False)(cls)
    keep_source(rule)
    rule.__name__ = rule.__qualname__ = cls.__name__.removesuffix("Rule").lower()
    rule.__module__ = "jtree.migrate"
    named: Class = rule
    return named


class Edit(NamedTuple):
    """A part of what a rule does: paths that it removes, and arrays that it adds."""

    removes: tuple[str, ...]
    adds: dict[str, LazyArray]


@dataclass(frozen=True, repr=False)
class Rule(ABC):
    """A rule of a migration: plain data that rewrites arrays by path.

    Attributes:
      optional: whether the rule may match nothing.
    """

    optional: bool = field(default=False, kw_only=True)

    @abstractmethod
    def edits(self, arrays: LazyArrays, /) -> Iterator[Edit]:
        """Yield the edits to these arrays; raise `RuleError` where the rule does not fit."""

    def no_match(self, glob: str, paths: Collection[str], *, filled: bool = False) -> RuleError:
        """Return the error for a glob that matches none of the paths.

        Where new paths are `filled` in from its wildcards, another glob needs as many.
        """
        near = _paths.near_glob(glob, paths)
        if near and filled and _paths.count_wildcards(near) != _paths.count_wildcards(glob):
            near = None
        known = [*paths]
        hint = f"; did you mean {near!r}?" if near else did_you_mean(glob, known)
        hint = hint or f"; the paths are {_paths.shorten(known) or 'none'}"
        return RuleError(
            f"{self}: {glob!r} matches nothing; pass optional=True if that is expected{hint}"
        )

    def mismatch(self, path: str, x: Any, expected: str, advice: str) -> RuleError:
        """Return the error for an array that the rule does not fit."""
        return RuleError(
            f"{self}: {_paths.show(path)}: expected {expected}, found {describe(x)}; {advice}"
        )

    def __repr__(self) -> str:
        ordered = sorted(fields(self), key=lambda f: f.name == "optional")
        values = [(f.name, getattr(self, f.name), f.default) for f in ordered]
        arguments = [repr(x) for _, x, default in values if default is MISSING]
        arguments += [f"{name}={x!r}" for name, x, default in values if default not in (MISSING, x)]
        return f"{type(self).__name__}({', '.join(arguments)})"


@dataclass(frozen=True, repr=False)
class ArrayRule(Rule):
    """A rule that transforms arrays one by one and leaves their paths as they are."""

    where: str | tuple[str, ...]

    def __post_init__(self) -> None:
        check_fields(self, where=check_globs)

    @abstractmethod
    def transform(self, path: str, x: BlockArray, /) -> BlockArray | None:
        """Return the transformed array, or None where it stays as it is."""

    def edits(self, arrays: LazyArrays, /) -> Iterator[Edit]:
        """Yield one edit for each array that is selected."""
        selected = select(self, self.where, arrays)
        edits: list[Edit] = []
        problems: list[RuleError] = []
        for path in selected:
            try:
                edits.append(Edit((path,), {path: self._transformed(path, arrays[path])}))
            except RuleError as error:
                problems.append(error)
        if problems:
            raise _join_problems(self, problems, len(selected))
        yield from edits

    def _transformed(self, path: str, x: LazyArray) -> LazyArray:
        check_values(self, path, x)
        new = self.transform(path, as_blocks(x))
        return x if new is None else as_lazy(new)


def _join_problems(rule: Rule, problems: Sequence[RuleError], count: int) -> RuleError:
    """Return one error for all arrays that a rule does not fit, with each remedy once."""
    if len(problems) == 1:
        return problems[0]
    facts: dict[str, list[str]] = {}
    for error in problems:
        fact, _, advice = str(error).removeprefix(f"{rule}: ").rpartition("; ")
        facts.setdefault(advice, []).append(fact)
    lines = [f"{rule}: {len(problems)} of {plural(count, 'array')} do not fit"]
    for advice, group in facts.items():
        lines.append(f"  {plural(len(group), 'path')}: {advice}")
        lines += [f"    {fact}" for fact in group[:_MOST]]
        if len(group) > _MOST:
            lines.append(f"    ... and {len(group) - _MOST} more")
    return RuleError("\n".join(lines))


def check_rules(rules: Any) -> tuple[Rule, ...]:
    """Return rules as a tuple, or refuse anything else."""
    checked = tuple(check_iterable("rules", rules, "a sequence of rules"))
    for rule in checked:
        if not isinstance(rule, Rule):
            raise ArgumentTypeError(
                f"expected rules such as jtree.migrate.rename('a', 'b'), found {rule!r}"
            )
    return checked


def select(rule: Rule, where: str | Iterable[str], arrays: LazyArrays) -> list[str]:
    """Return the paths that globs match; each must match one unless the rule is optional."""
    selected: dict[str, None] = {}
    for glob in (where,) if isinstance(where, str) else where:
        matches = [path for path in arrays if _paths.matches(glob, path)]
        if not matches and not rule.optional:
            raise rule.no_match(glob, arrays)
        selected |= dict.fromkeys(matches)
    return list(selected)


def capture(rule: Rule, glob: str, arrays: LazyArrays) -> dict[str, tuple[str, ...]]:
    """Return the paths that a glob matches, each with the text that its wildcards match."""
    captures = ((path, _paths.captures(glob, path)) for path in arrays)
    matches = {path: groups for path, groups in captures if groups is not None}
    if not matches and not rule.optional:
        raise rule.no_match(glob, arrays, filled=True)
    return matches


def check_values(rule: Rule, path: str, x: LazyArray) -> None:
    """Refuse PRNG keys, which hold no numeric values."""
    if jnp.issubdtype(x.dtype, jax.dtypes.extended):
        advice = "PRNG keys can only be renamed, dropped or tied"
        raise rule.mismatch(path, x, "numeric values", advice)


def check_same_type(
    rule: Rule, paths: list[str], arrays: LazyArrays, except_axis: int | None = None
) -> None:
    """Refuse arrays whose dtypes differ, or whose shapes differ along any axis but one."""
    first = arrays[paths[0]]
    for path in paths:
        x = arrays[path]
        check_values(rule, path, x)
        lengths = zip(x.shape, first.shape, strict=False)
        same = all(a == b or axis == except_axis for axis, (a, b) in enumerate(lengths))
        if not same or len(x.shape) != len(first.shape) or x.dtype != first.dtype:
            but = "" if except_axis is None else f" except along axis {except_axis}"
            expected = f"{describe(first)}{but}, as at {_paths.show(paths[0])}"
            advice = "reshape or cast it first, or select fewer arrays"
            raise rule.mismatch(path, x, expected, advice)


def normalise_axis(rule: Rule, path: str, x: BlockArray, axis: int, ndim: int | None = None) -> int:
    """Return an axis counted from the front, or refuse one that is out of range."""
    ndim = len(x.shape) if ndim is None else ndim
    if not -ndim <= axis < ndim:
        axes = f"0 to {ndim - 1}" if ndim > 1 else "0 only" if ndim else "none"
        raise rule.mismatch(path, x, f"an axis {axis}", f"its axes are {axes}")
    return axis % ndim
