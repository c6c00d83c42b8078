"""Rules as TOML: read from a file, and written as text."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, Final

from ..._errors import ArgumentError, ArgumentTypeError, CheckpointError, did_you_mean
from ..._tree import paths
from ..._tree.leaves import describe
from .axes import flip, permute, reshape, transpose
from .base import Rule
from .naming import drop, rename, tie
from .split import merge, split
from .stack import stack, unstack
from .values import cast, fill, scale

RULES: Final[dict[str, type[Rule]]] = {
    cls.__name__.lower(): cls
    for cls in (
        *(rename, drop, tie, transpose, permute, flip, reshape),
        *(cast, scale, fill, stack, unstack, split, merge),
    )
}


def read_rules(path: str | os.PathLike[str], /) -> tuple[Rule, ...]:
    """Return the rules in a TOML file, in order.

    Each is a table `[[rules]]` with `rule`, its name, and its arguments by name.

    Args:
      path: a file.

    Returns:
      A tuple of rules.

    Raises:
      CheckpointError: there is no such file.
      ArgumentError: it is no TOML, or a rule in it is none; the message says which.

    Example:
      >>> import pathlib, tempfile
      >>> rules = [jtree.migrate.drop("**/step"), jtree.migrate.cast("**", "bf16")]
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     file = pathlib.Path(directory, "rules.toml")
      ...     _ = file.write_text(to_toml(rules))
      ...     read_rules(file)
      (drop('**/step'), cast('**', 'bfloat16'))
    """
    try:
        found = tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise CheckpointError(f"{os.fspath(path)}: no rules can be read: {error}") from error
    except (ValueError, RecursionError) as error:  # of TOML, and of UTF-8
        raise ArgumentError(f"{os.fspath(path)}: this is no TOML: {error}") from error
    tables = found.pop("rules", None)
    if found or not isinstance(tables, list):
        raise ArgumentError(
            f"{os.fspath(path)}: expected tables [[rules]] and nothing else, found "
            f"{paths.shorten(sorted(found)) or 'none'}"
        )
    return tuple(_rule(f"{os.fspath(path)}: rule {n}", x) for n, x in enumerate(tables, 1))


def to_toml(rules: Iterable[Rule], /) -> str:
    """Return rules as the text of a TOML file, as `read_rules` reads it.

    Args:
      rules: rules.

    Returns:
      Text.

    Example:
      >>> print(to_toml([jtree.migrate.transpose("conv/*", axes=(2, 3, 1, 0))]))
      [[rules]]
      rule = "transpose"
      where = "conv/*"
      axes = [2, 3, 1, 0]
      <BLANKLINE>
    """
    return "\n".join(map(_table, rules))


def _rule(name: str, table: Any) -> Rule:
    if not isinstance(table, dict):
        raise ArgumentError(f"{name}: expected a table, found {describe(table)}")
    given = dict(table)
    kind = given.pop("rule", None)
    if not isinstance(kind, str) or kind not in RULES:
        near = did_you_mean(str(kind), RULES) if isinstance(kind, str) else ""
        near = near or f"; there are {', '.join(RULES)}"
        raise ArgumentError(
            f"{name}: expected rule = and the name of one, found {describe(kind)}{near}"
        )
    known = {f.name: f.default is MISSING for f in fields(RULES[kind])}
    for argument in given:
        if argument not in known:
            near = did_you_mean(argument, known) or f"; there are {', '.join(known)}"
            raise ArgumentError(f"{name}: {kind} has no argument {argument!r}{near}")
    missing = [argument for argument, needed in known.items() if needed and argument not in given]
    if missing:
        raise ArgumentError(f"{name}: {kind} needs {' and '.join(missing)}")
    try:
        return RULES[kind](**given)
    except RecursionError as error:
        raise ArgumentError(f"{name}: it is nested too deeply") from error
    except ArgumentTypeError as error:
        raise ArgumentTypeError(f"{name}: {error}") from error
    except ArgumentError as error:
        raise ArgumentError(f"{name}: {error}") from error


def _table(rule: Rule) -> str:
    given = {f.name: getattr(rule, f.name) for f in fields(rule) if f.name != "optional"}
    usual = {f.name: f.default for f in fields(rule)}
    given |= {"optional": True} if rule.optional else {}
    lines = ["[[rules]]", f"rule = {_value(type(rule).__name__.lower())}"]
    lines += [f"{key} = {_value(x)}" for key, x in given.items() if x != usual[key]]
    return "\n".join(lines) + "\n"


def _value(x: Any) -> str:
    """Return a value as TOML: JSON is, but for infinities and DEL."""
    if isinstance(x, float):
        return repr(x)
    return json.dumps(x, ensure_ascii=False).replace("\x7f", "\\u007f")
