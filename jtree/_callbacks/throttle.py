"""Functions that are called at most once per so many seconds: `throttle`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any

from .._arguments import check_callable, check_flag, check_number
from .._errors import ArgumentError

Call = tuple[tuple[Any, ...], dict[str, Any]]


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

    A pause starts when `f` returns, so calls of `f` never overlap. The returned function can be
    called from several threads.

    Args:
      f: any function.
      timeout: the length of the pause in seconds.
      leading: whether a call outside a pause calls `f` immediately. If False it starts a pause.
      trailing: whether to call `f` after a pause with the arguments of the last call during the
        pause. A separate thread makes this call, and Python waits for it before it exits;
        `flush()` makes it immediately.
      clock: a function that returns the time in seconds.
      timer: a function `timer(seconds, function)` that returns an object with the methods `start`
        and `cancel`.

    Returns:
      A callable object. A call returns the last result of `f`, or None before there is one.

    Raises:
      ArgumentError: `timeout` is negative, or `leading` and `trailing` are both False.

    Example:
      >>> from jtree import callbacks
      >>> log = callbacks.throttle(print, 3600)
      >>> for step in range(1000):
      ...     log("step", step)
      step 0

    Source: `throttle` of Flux.jl.
    """
    for name, function in {"f": f, "clock": clock, "timer": timer}.items():
        check_callable(name, function)
    if not check_number("timeout", timeout) >= 0:
        raise ArgumentError(f"timeout: expected 0 seconds or more, found {timeout}")
    if not (check_flag("leading", leading) or check_flag("trailing", trailing)):
        raise ArgumentError("leading, trailing: expected one of them to be True, found neither")
    return Throttled(f, timeout, leading, trailing, clock, timer)


@dataclass(eq=False, repr=False)
class Throttled:
    """The result of `throttle`."""

    f: Callable[..., Any]
    timeout: float
    leading: bool
    trailing: bool
    clock: Callable[[], float]
    timer: Callable[[float, Callable[[], None]], Any]

    def __post_init__(self) -> None:
        self._lock = threading.Lock()  # guards what follows; not held while f runs
        self._running = False
        self._pause_end = -inf
        self._waiting: Call | None = None
        self._timer: Any = None
        self._result: Any = None

    def __repr__(self) -> str:
        options = f"leading={self.leading}, trailing={self.trailing}"
        name = getattr(self.f, "__name__", None) or repr(self.f)
        return f"throttle({name}, {self.timeout}, {options})"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call `f` now, later or not at all, and return its last result."""
        with self._lock:
            free = not self._running and self.clock() >= self._pause_end
            now = free and self.leading
            if now:
                self._running, self._waiting = True, None
            elif self.trailing:
                if free and self._timer is None:
                    self._pause_end = self.clock() + self.timeout
                self._waiting = args, kwargs
                self._arm()
        if now:
            self._run(args, kwargs)
        return self._result

    def flush(self) -> None:
        """Make the trailing call now, if there is one."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = None
            call = self._take()
        if call:
            self._run(*call)

    def _arm(self) -> None:
        if self._timer is None and not self._running:
            self._timer = self.timer(max(self._pause_end - self.clock(), 0), self._fire)
            self._timer.start()

    def _fire(self) -> None:
        with self._lock:
            self._timer = None
            early = self._waiting is not None and self.clock() < self._pause_end
            call = None if early else self._take()
            if early:  # another call has started a new pause
                self._arm()
        if call:
            self._run(*call)

    def _take(self) -> Call | None:
        if self._running or self._waiting is None:
            return None  # if f is running, `_run` starts the timer when it returns
        call, self._waiting, self._running = self._waiting, None, True
        return call

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            self._result = self.f(*args, **kwargs)
        finally:
            with self._lock:
                self._running = False
                self._pause_end = self.clock() + self.timeout
                if self._waiting is not None:
                    self._arm()
