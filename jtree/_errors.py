"""The exceptions of jtree. Each is also the built-in that a Python user would catch.

```
JtreeError                      the root of them all
├── ModelError                  ValueError: a model that cannot be walked or does not fit
│   └── DeletedArrayError       RuntimeError: an array whose buffer was donated or deleted
├── VectorError                 ValueError: a flat vector of the wrong length or rank
│   └── VectorTypeError         TypeError: no vector at all
├── PathError                   KeyError and ValueError: a path or a glob that matches nothing
├── ArgumentError               ValueError: an option that is none of those offered
│   └── ArgumentTypeError       TypeError: an option of the wrong type
├── CurvatureError              ArithmeticError: an indefinite matrix, or no convergence
├── ExtraError                  ImportError: a package of an extra is not installed
├── LoadError                   ValueError: the source does not fit the destination; has `.diff`
├── RuleError                   ValueError: a rule that does not fit the arrays it is applied to
└── CheckpointError             OSError: missing, unreadable or in the way
    └── ChecksumError           the bytes on disk are not the bytes that were written
```
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class JtreeError(Exception):
    """The root of every exception that jtree raises itself."""


class ModelError(JtreeError, ValueError):
    """A model cannot be walked, or is not of the structure that was asked for."""


class DeletedArrayError(ModelError, RuntimeError):
    """An array's buffer is gone: it was donated to a jitted function, or deleted."""


class VectorError(JtreeError, ValueError):
    """A flat vector has the wrong length or rank."""


class VectorTypeError(VectorError, TypeError):
    """Something that is no array was given as a flat vector."""


class PathError(JtreeError, KeyError, ValueError):
    """A path or a glob matches nothing: a KeyError to index with, a ValueError to pass on."""

    def __str__(self) -> str:  # KeyError would print its message with quotes around it
        return str(self.args[0])


class ArgumentError(JtreeError, ValueError):
    """An option has a value that is none of those offered."""


class ArgumentTypeError(ArgumentError, TypeError):
    """An option has the wrong type."""


class CurvatureError(JtreeError, ArithmeticError):
    """A matrix is not what an algorithm needs, or the algorithm did not converge."""


class ExtraError(JtreeError, ImportError):
    """A package that only some of jtree needs is not installed; the message says how to."""


class LoadError(JtreeError, ValueError):
    """A source does not fit its destination. Nothing was loaded; `.diff` holds the whole report."""

    def __init__(self, message: str, diff: Any) -> None:
        super().__init__(message)
        self.diff = diff  # a jtree.Diff

    def __reduce__(self) -> tuple[type[LoadError], tuple[str, Any]]:
        return type(self), (self.args[0], self.diff)


class RuleError(JtreeError, ValueError):
    """A rule of a migration matches nothing, does not fit an array, or collides with another."""


class CheckpointError(JtreeError, OSError):
    """A checkpoint is missing, unreadable, or in the way of a new one."""


class ChecksumError(CheckpointError):
    """Arrays read from a checkpoint are not the arrays that were written."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `"; did you mean ...?"` with the nearest known names, or nothing."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(near)}?" if near else ""
