"""Triggers, which are true after a condition has held several times in a row."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import Any, ClassVar

from .._arguments import check_callable, check_integer
from .._errors import ArgumentError


@dataclass(eq=False, repr=False)
class Trigger(ABC):
    """A function that counts calls, and is true once `wait` calls in a row meet a condition.

    Attributes:
      f: the function that is called, with the arguments of the trigger.
      wait: the number of calls in a row.
      count: the number of calls so far.
    """

    f: Callable[..., Any]
    wait: int
    count: int = field(default=0, init=False)
    name: ClassVar[str]

    def __post_init__(self) -> None:
        check_callable(self.name, self.f)
        if check_integer(self.name, self.wait) < 1:
            raise ArgumentError(f"expected to wait for at least 1 call, found {self.wait}")

    def __call__(self, *args: Any, **kwargs: Any) -> bool:
        """Return whether this call and the `wait - 1` calls before it met the condition."""
        self.count = self.count + 1 if self._condition(*args, **kwargs) else 0
        return self.count >= self.wait

    def reset(self) -> None:
        """Forget all calls so far."""
        self.count = 0

    def __repr__(self) -> str:
        function = getattr(self.f, "__name__", None) or repr(self.f)
        return f"{self.name}({function}, {self.wait}, {self._state()})"

    def _state(self) -> str:
        return f"count={self.count}"

    @abstractmethod
    def _condition(self, *args: Any, **kwargs: Any) -> bool:
        """Return whether this call meets the condition."""


class Patience(Trigger):
    """The result of `patience`."""

    name = "patience"

    def _condition(self, *args: Any, **kwargs: Any) -> bool:
        return bool(self.f(*args, **kwargs))


@dataclass(eq=False, repr=False)
class _ScoreTrigger(Trigger):
    """A trigger that compares each score with `score`, which is the best or the last one so far."""

    distance: Callable[[Any, Any], Any]
    init_score: Any
    min_dist: Any
    score: Any = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_callable("distance", self.distance)
        self.score = self.init_score

    def reset(self) -> None:
        """Forget all calls so far, and their scores."""
        super().reset()
        self.score = self.init_score

    def _state(self) -> str:
        return f"count={self.count}, score={self.score}"


class EarlyStopping(_ScoreTrigger):
    """The result of `early_stopping`; its attribute `score` is the best score so far."""

    name = "early_stopping"

    def _condition(self, *args: Any, **kwargs: Any) -> bool:
        score = self.f(*args, **kwargs)
        gain = self.distance(self.score, score)
        self.score = score if gain >= 0 else self.score
        return not gain > self.min_dist  # NaN does not count as an improvement


class Plateau(_ScoreTrigger):
    """The result of `plateau`; its attribute `score` is the last score."""

    name = "plateau"

    def _condition(self, *args: Any, **kwargs: Any) -> bool:
        score = self.f(*args, **kwargs)
        change = abs(self.distance(self.score, score))
        self.score = score
        return not change > self.min_dist  # NaN, as in inf - inf, does not count as a change


def patience(predicate: Callable[..., Any], wait: int) -> Patience:
    """Return a trigger that is true once `predicate` was true `wait` times in a row.

    Args:
      predicate: a function, called with the arguments of the trigger.
      wait: the number of times, at least 1.

    Returns:
      A callable object with `count` and `reset()`.

    Raises:
      ArgumentError: `wait` is less than 1.

    Example:
      >>> from jtree import callbacks
      >>> trigger = callbacks.patience(lambda a, *, b: a > b, 3)
      >>> [trigger(3, b=2) for _ in range(4)], trigger(1, b=2)
      ([False, False, True, True], False)

    Source: `patience` of Flux.jl.
    """
    return Patience(predicate, wait)


def early_stopping(
    f: Callable[..., Any],
    delay: int,
    *,
    distance: Callable[[Any, Any], Any] = operator.sub,
    init_score: Any = inf,
    min_dist: Any = 0,
) -> EarlyStopping:
    """Return a trigger that is true once `f` has not improved `delay` times in a row.

    A call counts if `distance(best_score, f(...))` is NaN or at most `min_dist`.

    Args:
      f: a function that returns a score, called with the arguments of the trigger.
      delay: the number of times, at least 1.
      distance: a function of the best score so far and a new score that returns the improvement.
        If larger scores are better, use `lambda best, score: score - best` with `init_score=-inf`.
      init_score: the score that the first one is compared with.
      min_dist: the largest distance that is not an improvement.

    Returns:
      A callable object with `count`, `score` (the best one) and `reset()`.

    Raises:
      ArgumentError: `delay` is less than 1.

    Example:
      >>> from jtree import callbacks
      >>> trigger = callbacks.early_stopping(lambda loss: loss, 2)
      >>> [trigger(loss) for loss in (3.0, 1.0, 2.0, 1.5)]
      [False, False, False, True]

    Source: `early_stopping` of Flux.jl.
    """
    return EarlyStopping(f, delay, distance, init_score, min_dist)


def plateau(
    f: Callable[..., Any],
    width: int,
    *,
    distance: Callable[[Any, Any], Any] = operator.sub,
    init_score: Any = inf,
    min_dist: Any = 1e-6,
) -> Plateau:
    """Return a trigger that is true once `f` has hardly changed `width` times in a row.

    A call counts if `abs(distance(last_score, f(...)))` is NaN or at most `min_dist`.

    Args:
      f: a function that returns a score, called with the arguments of the trigger.
      width: the number of times, at least 1.
      distance: a function of the last score and a new score that returns their difference.
      init_score: the score that the first one is compared with.
      min_dist: the largest distance that is not a change.

    Returns:
      A callable object with `count`, `score` (the last one) and `reset()`.

    Raises:
      ArgumentError: `width` is less than 1.

    Example:
      >>> from jtree import callbacks
      >>> trigger = callbacks.plateau(lambda loss: loss, 2, min_dist=0.1)
      >>> [trigger(loss) for loss in (3.0, 1.0, 1.05, 1.1)]
      [False, False, False, True]

    Source: `plateau` of Flux.jl.
    """
    return Plateau(f, width, distance, init_score, min_dist)
