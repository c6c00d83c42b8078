"""Rules as TOML: `[[rules]]` tables, read and written."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, Final

from ..._arguments import check_path
from ..._errors import ArgumentError, CheckpointError, did_you_mean
from ..._tree import paths
from ..._tree.leaves import describe
from .axes import flip, reshape, take, transpose
from .base import Rule, check_rules
from .naming import drop, rename, tie
from .split import concatenate, split
from .stack import stack, unstack
from .values import cast, fill, scale

RULES: Final[dict[str, type[Rule]]] = {
    cls.__name__: cls
    for cls in (
        *(rename, drop, tie, transpose, take, flip, reshape),
        *(cast, scale, fill, stack, unstack, split, concatenate),
    )
}


def rules_from_toml(toml: str | os.PathLike[str], /) -> tuple[Rule, ...]:
    """Return the rules of a TOML file or text, in order.

    Each rule is a table `[[rules]]` with its name under `rule` and its arguments under their own
    names, as `rules_to_toml` writes it.

    Args:
      toml: the path of a file, or the text itself. A `str` that contains a newline or an equals
        sign, and does not end in `.toml`, is text.

    Returns:
      A tuple of rules.

    Raises:
      CheckpointError: the file cannot be read.
      ArgumentError: the text is not valid TOML or does not describe rules; the message names the
        rule.

    Example:
      >>> text = '''
      ... [[rules]]
      ... rule = "drop"
      ... where = "**/step"
      ...
      ... [[rules]]
      ... rule = "cast"
      ... where = "**"
      ... dtype = "bf16"
      ... '''
      >>> rules_from_toml(text)
      (drop('**/step'), cast('**', 'bfloat16'))
    """
    origin, text = _text(toml)
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArgumentError(f"{origin}: not valid TOML: {error}") from error
    tables = document.pop("rules", None)
    if document or not isinstance(tables, list):
        keys = paths.shorten(sorted(document)) or "none"
        raise ArgumentError(f"{origin}: expected only [[rules]] tables, found {keys}")
    return tuple(_rule(f"{origin}: rule {n}", table) for n, table in enumerate(tables, 1))


def rules_to_toml(rules: Iterable[Rule], path: str | os.PathLike[str] | None = None, /) -> str:
    """Return rules as the TOML text that `rules_from_toml` reads, and write it to a file if given.

    Args:
      rules: any rules.
      path: a file to write the text to; None writes nothing.

    Returns:
      The text. Arguments that have their default value are left out.

    Raises:
      CheckpointError: the file cannot be written.

    Example:
      >>> print(rules_to_toml([jtree.migrate.transpose("conv/*", axes=(2, 3, 1, 0))]))
      [[rules]]
      rule = "transpose"
      where = "conv/*"
      axes = [2, 3, 1, 0]
      <BLANKLINE>
    """
    text = "\n".join(map(_table, check_rules(rules))) or "rules = []\n"
    if path is not None:
        try:
            Path(check_path("path", path)).write_text(text, "utf-8")
        except OSError as error:
            raise CheckpointError(f"{os.fspath(path)}: cannot write the rules: {error}") from error
    return text


def _text(toml: str | os.PathLike[str]) -> tuple[str, str]:
    """Return what to call a TOML document in errors, and its text."""
    if isinstance(toml, str) and not toml.endswith(".toml") and ("\n" in toml or "=" in toml):
        return "the TOML text", toml
    check_path("toml", toml)
    try:
        return os.fspath(toml), Path(toml).read_text("utf-8")
    except OSError as error:
        raise CheckpointError(f"{os.fspath(toml)}: cannot read the rules: {error}") from error
    except UnicodeDecodeError as error:
        raise ArgumentError(f"{os.fspath(toml)}: not valid TOML: {error}") from error


def _rule(origin: str, table: Any) -> Rule:
    """Return the rule that a table describes."""
    if not isinstance(table, dict):
        raise ArgumentError(f"{origin}: expected a table, found {describe(table)}")
    arguments = dict(table)
    name = arguments.pop("rule", None)
    if not isinstance(name, str) or name not in RULES:
        near = did_you_mean(name, RULES) if isinstance(name, str) else ""
        raise ArgumentError(
            f"{origin}: expected rule = and the name of a rule, found {describe(name)}"
            + (near or f"; the rules are {', '.join(RULES)}")
        )
    _check_arguments(f"{origin}: {name}", RULES[name], arguments)
    try:
        return RULES[name](**arguments)
    except RecursionError as error:
        raise ArgumentError(f"{origin}: nested too deeply") from error
    except ArgumentError as error:
        raise type(error)(f"{origin}: {error}") from error


def _check_arguments(origin: str, rule: type[Rule], arguments: dict[str, Any]) -> None:
    """Refuse arguments that a rule does not take, and those that it needs and does not get."""
    required = {field.name: field.default is MISSING for field in fields(rule)}
    for name in arguments:
        if name not in required:
            near = did_you_mean(name, required) or f"; its arguments are {', '.join(required)}"
            raise ArgumentError(f"{origin} has no argument {name!r}{near}")
    missing = [name for name, needed in required.items() if needed and name not in arguments]
    if missing:
        raise ArgumentError(f"{origin} requires {' and '.join(missing)}")


def _table(rule: Rule) -> str:
    """Return a rule as a TOML table, without the arguments that have their default value."""
    options = sorted(fields(rule), key=lambda field: field.name == "optional")
    given = {field.name: getattr(rule, field.name) for field in options}
    defaults = {field.name: field.default for field in options}
    lines = ["[[rules]]", f"rule = {_value(type(rule).__name__)}"]
    lines += [f"{name} = {_value(x)}" for name, x in given.items() if x != defaults[name]]
    return "\n".join(lines) + "\n"


def _value(x: Any) -> str:
    """Return a value as TOML: as JSON, except for infinities, NaN and the character DEL."""
    if isinstance(x, float):
        return repr(x)
    return json.dumps(x, ensure_ascii=False).replace("\x7f", "\\u007f")
