"""The exceptions of jtree. Each is also a subclass of a built-in exception.

```
JtreeError                      the base class
├── ModelError                  ValueError: the model cannot be walked or does not fit
│   └── DeletedArrayError       RuntimeError: an array was donated or deleted
├── VectorError                 ValueError: a vector has the wrong length or rank
│   └── VectorTypeError         TypeError: an argument is not a vector
├── PathError                   KeyError, ValueError: a path or a glob matches nothing
├── ArgumentError               ValueError: an option has an invalid value
│   └── ArgumentTypeError       TypeError: an option has the wrong type
├── CurvatureError              ArithmeticError: an indefinite matrix, or no convergence
├── ExtraError                  ImportError: an optional package is not installed
├── LoadError                   ValueError: the source does not fit the destination; has `.diff`
├── RuleError                   ValueError: a migration rule does not fit the arrays
└── CheckpointError             OSError: a checkpoint is missing, unreadable or in the way
    └── ChecksumError           the bytes on disk are not those that were written
```
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class JtreeError(Exception):
    """The base class of the exceptions of jtree."""


class ModelError(JtreeError, ValueError):
    """A model cannot be walked, or does not have the expected structure."""


class DeletedArrayError(ModelError, RuntimeError):
    """An array was donated to a jitted function, or deleted."""


class VectorError(JtreeError, ValueError):
    """A vector has the wrong length or rank."""


class VectorTypeError(VectorError, TypeError):
    """An argument is not a vector."""


class PathError(JtreeError, KeyError, ValueError):
    """A path or a glob matches nothing.

    This is a KeyError for `re[path]`, and a ValueError for the argument of a function.
    """

    def __str__(self) -> str:  # KeyError would print its message in quotes
        return str(self.args[0])


class ArgumentError(JtreeError, ValueError):
    """An option has an invalid value."""


class ArgumentTypeError(ArgumentError, TypeError):
    """An option has the wrong type."""


class CurvatureError(JtreeError, ArithmeticError):
    """A matrix lacks a property that an algorithm requires, or the algorithm did not converge."""


class ExtraError(JtreeError, ImportError):
    """An optional package is not installed; the message says how to install it."""


class LoadError(JtreeError, ValueError):
    """A source does not fit its destination, and nothing was loaded.

    Attributes:
      diff: a `jtree.Diff` with all mismatches.
    """

    def __init__(self, message: str, diff: Any) -> None:
        super().__init__(message)
        self.diff = diff

    def __reduce__(self) -> tuple[type[LoadError], tuple[str, Any]]:
        return type(self), (self.args[0], self.diff)


class RuleError(JtreeError, ValueError):
    """A migration rule matches nothing, does not fit an array, or collides with another rule."""


class CheckpointError(JtreeError, OSError):
    """A checkpoint is missing, unreadable, or in the way of a new one."""


class ChecksumError(CheckpointError):
    """The arrays in a checkpoint are not those that were written."""


_MANY = 1000  # names that are compared in full


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `"; did you mean ...?"` with the known names that are most similar, or nothing.

    >>> did_you_mean("wieght", ["weight", "bias"]), did_you_mean("x", ["weight", "bias"])
    ('; did you mean weight?', '')
    """
    names = list(known)
    if len(names) > _MANY:  # names that share neither end are rarely near
        names = [x for x in names if x[:3] == name[:3] or x[-3:] == name[-3:]][:_MANY]
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(near)}?" if near else ""
