"""Helpers around a training loop: a loop, what ends it, and what runs less often than it.

Less often:  throttle
When to end: patience, early_stopping, plateau
The loop:    train, stop, skip
"""

from __future__ import annotations

import operator
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from typing import Any, NoReturn, TypeVar

from ._errors import ArgumentError, ArgumentTypeError, JtreeError

__all__ = [
    "EarlyStopping",
    "Patience",
    "Plateau",
    "SkipStep",
    "StopTraining",
    "Throttled",
    "Trigger",
    "early_stopping",
    "patience",
    "plateau",
    "skip",
    "stop",
    "throttle",
    "train",
]

Model = TypeVar("Model")
Call = tuple[tuple[Any, ...], dict[str, Any]]


class StopTraining(JtreeError):  # noqa: N818 (a signal, as StopIteration is)
    """What `stop` raises, for `train` to catch."""


class SkipStep(JtreeError):  # noqa: N818 (a signal, as StopIteration is)
    """What `skip` raises, for `train` to catch."""


def stop() -> NoReturn:
    """Raise what ends the loop of `train`, which then returns the model of this step.

    >>> from jtree import callbacks
    >>> check = lambda m: m > 2 and callbacks.stop()
    >>> callbacks.train(lambda m, x: m + x, 0, [1, 2, 4], callbacks=[check])
    3
    """
    raise StopTraining("stop() was called outside the step and the callbacks of train")


def skip() -> NoReturn:
    """Raise what skips the rest of a step of `train`: later callbacks, and the update.

    >>> from jtree import callbacks
    >>> check = lambda m: m > 9 and callbacks.skip()
    >>> callbacks.train(lambda m, x: m + x, 0, [1, 9, 4], callbacks=[check])
    5
    """
    raise SkipStep("skip() was called outside the step and the callbacks of train")


def train(
    step: Callable[..., Model],
    model: Model,
    data: Iterable[Any],
    *,
    callbacks: Sequence[Callable[[Model], Any]] = (),
    progress: bool = True,
) -> Model:
    """Return the model after a step for each item of `data`.

    For every item the loop calls `step`, then the callbacks with the model that it returned. What
    else training carries along, such as a loss or the state of an optimiser, belongs in the
    model: any object will do, a tuple too.

    Args:
      step: `step(model, *item)` if the item is a tuple, `step(model, item)` otherwise, returning
        the next model. It may call `stop` and `skip`, unless it is jitted.
      model: the first model; with no data, also the result.
      data: any iterable, also one without end.
      callbacks: functions of the model, whose results are not used. One may call `stop()`: the
        loop ends, with this model. Or `skip()`: later callbacks are not called, and the loop goes
        on from the model before this step, which the step must not have donated.
      progress: whether to show a progress bar, which only a terminal does, on its standard error.

    Returns:
      The last model.

    Raises:
      ArgumentTypeError: `callbacks` is one function, not a sequence of them.

    Example:
      >>> from jtree import callbacks
      >>> step = jax.jit(lambda w, x, y: w - 0.5 * jax.grad(lambda w: (w * x - y) ** 2)(w))
      >>> callbacks.train(step, 0.0, [(1.0, 3.0), (1.0, 5.0)])
      Array(5., dtype=float32, weak_type=True)

    Source: `train!` of Flux.jl, and the `stop` and `skip` it had until version 0.13.
    """
    if callable(callbacks):
        raise ArgumentTypeError(
            f"callbacks: expected a sequence of functions, found one; write [{_name(callbacks)}]"
        )
    with _shown(data, progress) as items:
        for item in items:
            after = model
            try:
                after = step(model, *item) if type(item) is tuple else step(model, item)
                for callback in callbacks:
                    callback(after)
            except SkipStep:
                continue
            except StopTraining:
                return after
            model = after
    return model


@contextmanager
def _shown(data: Iterable[Any], progress: bool) -> Iterator[Iterable[Any]]:
    if not (progress and sys.stderr.isatty()):
        yield data
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        yield bar.track(data, total=operator.length_hint(data) or None, description="train")


class Trigger(ABC):
    """What counts calls that satisfy a condition, and is True from `wait` of them in a row on.

    Attributes:
      wait: how many calls in a row.
      count: how many there have been.
    """

    wait: int
    count: int

    def __call__(self, *args: Any, **kwargs: Any) -> bool:
        """Return whether the condition held at this call and at the `wait - 1` before it."""
        self.count = self.count + 1 if self._holds(*args, **kwargs) else 0
        return self.count >= self.wait

    def reset(self) -> None:
        """Forget all calls so far."""
        self.count = 0

    @abstractmethod
    def _holds(self, *args: Any, **kwargs: Any) -> bool:
        """Tell whether the condition holds at this call."""


@dataclass(eq=False, repr=False)
class Patience(Trigger):
    """What `patience` returns."""

    predicate: Callable[..., Any]
    wait: int
    count: int = field(default=0, init=False)

    def __repr__(self) -> str:
        return f"patience({_name(self.predicate)}, {self.wait}, count={self.count})"

    def _holds(self, *args: Any, **kwargs: Any) -> bool:
        return bool(self.predicate(*args, **kwargs))


@dataclass(eq=False, repr=False)
class Scored(Trigger):
    """A trigger on a score. What `early_stopping` and `plateau` return derives from it.

    Attributes:
      score: what the next score is compared with: the best one, or the last one.
    """

    f: Callable[..., Any]
    wait: int
    distance: Callable[[Any, Any], Any]
    init_score: Any
    min_dist: Any
    count: int = field(default=0, init=False)
    score: Any = field(init=False)

    def __post_init__(self) -> None:
        self.score = self.init_score

    def __repr__(self) -> str:
        name = f"{type(self).name}({_name(self.f)}, {self.wait}"
        return f"{name}, count={self.count}, score={self.score})"

    def reset(self) -> None:
        """Forget all calls so far, and their scores."""
        self.count, self.score = 0, self.init_score

    name = ""


class EarlyStopping(Scored):
    """What `early_stopping` returns; `score` is the best one so far."""

    name = "early_stopping"

    def _holds(self, *args: Any, **kwargs: Any) -> bool:
        score = self.f(*args, **kwargs)
        gain = self.distance(self.score, score)
        self.score = score if gain >= 0 else self.score
        return not gain > self.min_dist  # so that NaN is no improvement


class Plateau(Scored):
    """What `plateau` returns; `score` is the last one."""

    name = "plateau"

    def _holds(self, *args: Any, **kwargs: Any) -> bool:
        score = self.f(*args, **kwargs)
        change = abs(self.distance(self.score, score))
        self.score = score
        return not change > self.min_dist  # so that NaN, and infinity twice, are no change


def patience(predicate: Callable[..., Any], wait: int) -> Patience:
    """Return a trigger that is True when `predicate` was true `wait` times in a row.

    Args:
      predicate: called with the arguments of the trigger.
      wait: how many times, 1 or more.

    Returns:
      A callable object, with `count` and `reset()`.

    Raises:
      ArgumentError: `wait` is less than 1.

    Example:
      >>> from jtree import callbacks
      >>> trigger = callbacks.patience(lambda a, *, b: a > b, 3)
      >>> [trigger(3, b=2) for _ in range(4)], trigger(1, b=2)
      ([False, False, True, True], False)

    Source: `patience` of Flux.jl.
    """
    return Patience(predicate, _wait(wait))


def early_stopping(
    f: Callable[..., Any],
    delay: int,
    *,
    distance: Callable[[Any, Any], Any] = operator.sub,
    init_score: Any = inf,
    min_dist: Any = 0,
) -> EarlyStopping:
    """Return a trigger that is True when `f` has not improved `delay` times in a row.

    A call counts if `distance(best_score, f(...)) <= min_dist`, or if that is NaN.

    Args:
      f: gives a score, called with the arguments of the trigger.
      delay: how many times, 1 or more.
      distance: how much better the second score is than the first, the best one so far. For a
        score that should grow: `lambda best, score: score - best`, with `init_score=-inf`.
      init_score: what the first score is compared with.
      min_dist: what an improvement must exceed.

    Returns:
      A callable object, with `count`, `score` (the best one) and `reset()`.

    Raises:
      ArgumentError: `delay` is less than 1.

    Example:
      >>> from jtree import callbacks
      >>> trigger = callbacks.early_stopping(lambda loss: loss, 2)
      >>> [trigger(loss) for loss in (3.0, 1.0, 2.0, 1.5)]
      [False, False, False, True]

    Source: `early_stopping` of Flux.jl.
    """
    return EarlyStopping(f, _wait(delay), distance, init_score, min_dist)


def plateau(
    f: Callable[..., Any],
    width: int,
    *,
    distance: Callable[[Any, Any], Any] = operator.sub,
    init_score: Any = inf,
    min_dist: Any = 1e-6,
) -> Plateau:
    """Return a trigger that is True when `f` has hardly changed `width` times in a row.

    A call counts if `abs(distance(last_score, f(...))) <= min_dist`, or if that is NaN.

    Args:
      f: gives a score, called with the arguments of the trigger.
      width: how many times, 1 or more.
      distance: how far the second score is from the first, the last one.
      init_score: what the first score is compared with.
      min_dist: what a change must exceed.

    Returns:
      A callable object, with `count`, `score` (the last one) and `reset()`.

    Raises:
      ArgumentError: `width` is less than 1.

    Example:
      >>> from jtree import callbacks
      >>> trigger = callbacks.plateau(lambda loss: loss, 2, min_dist=0.1)
      >>> [trigger(loss) for loss in (3.0, 1.0, 1.05, 1.1)]
      [False, False, False, True]

    Source: `plateau` of Flux.jl.
    """
    return Plateau(f, _wait(width), distance, init_score, min_dist)


def _wait(number: int) -> int:
    if operator.index(number) < 1:
        raise ArgumentError(f"expected to wait for at least 1 call, found {number}")
    return number


def _name(f: Any) -> str:
    return getattr(f, "__name__", None) or repr(f)


def throttle(
    f: Callable[..., Any],
    timeout: float,
    *,
    leading: bool = True,
    trailing: bool = False,
    clock: Callable[[], float] = time.monotonic,
    timer: Callable[[float, Callable[[], None]], Any] = threading.Timer,
) -> Throttled:
    """Return a function that calls `f` at most once per `timeout` seconds.

    The pause begins when `f` returns, so `f` never runs twice at once. All of it is safe to call
    from several threads.

    Args:
      f: any function.
      timeout: the length of the pause, in seconds.
      leading: whether a call outside a pause calls `f` at once. If not, it begins a pause.
      trailing: whether, after a pause with calls in it, `f` is called with the arguments of the
        last one, also when nobody calls again. This happens in a thread of its own, for which
        Python waits before it exits; `flush()` does it at once.
      clock: gives the time in seconds.
      timer: `timer(seconds, function)`, with methods `start` and `cancel`.

    Returns:
      A callable object. A call returns what `f` returned last, before its first return None.

    Raises:
      ArgumentError: `timeout` is negative, or neither `leading` nor `trailing` is set.

    Example:
      >>> from jtree import callbacks
      >>> log = callbacks.throttle(print, 3600)
      >>> for step in range(1000):
      ...     log("step", step)
      step 0

    Source: `throttle` of Flux.jl.
    """
    if not timeout >= 0:
        raise ArgumentError(f"timeout: expected seconds, 0 or more, found {timeout}")
    if not (leading or trailing):
        raise ArgumentError("leading, trailing: expected one of them to be True, found neither")
    return Throttled(f, timeout, leading, trailing, clock, timer)


@dataclass(eq=False, repr=False)
class Throttled:
    """What `throttle` returns."""

    f: Callable[..., Any]
    timeout: float
    leading: bool
    trailing: bool
    clock: Callable[[], float]
    timer: Callable[[float, Callable[[], None]], Any]

    def __post_init__(self) -> None:
        self._lock = threading.Lock()  # held around all that follows, but never around f
        self._running = False
        self._open = -inf  # when the pause is over
        self._waiting: Call | None = None
        self._timer: Any = None
        self._result: Any = None

    def __repr__(self) -> str:
        options = f"leading={self.leading}, trailing={self.trailing}"
        return f"throttle({_name(self.f)}, {self.timeout}, {options})"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call `f` now, or later, or not at all, and return its last result."""
        with self._lock:
            free = not self._running and self.clock() >= self._open
            now = free and self.leading
            if now:
                self._running, self._waiting = True, None
            elif self.trailing:
                if free and self._timer is None:
                    self._open = self.clock() + self.timeout
                self._waiting = args, kwargs
                self._arm()
        if now:
            self._run(args, kwargs)
        return self._result

    def flush(self) -> None:
        """Make the trailing call now, if there is one to make."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = None
            call = self._take()
        if call:
            self._run(*call)

    def _arm(self) -> None:
        if self._timer is None and not self._running:
            self._timer = self.timer(max(self._open - self.clock(), 0), self._fire)
            self._timer.start()

    def _fire(self) -> None:
        with self._lock:
            self._timer = None
            early = self._waiting is not None and self.clock() < self._open
            call = None if early else self._take()
            if early:  # a call that came between began a new pause
                self._arm()
        if call:
            self._run(*call)

    def _take(self) -> Call | None:
        if self._running or self._waiting is None:
            return None  # where f is running, what is waiting gets its timer when it returns
        call, self._waiting, self._running = self._waiting, None, True
        return call

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            self._result = self.f(*args, **kwargs)
        finally:
            with self._lock:
                self._running = False
                self._open = self.clock() + self.timeout
                if self._waiting is not None:
                    self._arm()
