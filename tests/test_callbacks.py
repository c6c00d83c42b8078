"""throttle, patience, early_stopping, plateau, train, stop, skip."""

from __future__ import annotations

import io
import itertools
import math
import sys
import threading
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import jtree
from jtree import callbacks
from jtree.callbacks import early_stopping, patience, plateau, skip, stop, throttle, train


class Time:
    """A clock that stands still, and the timers on it, which run in the thread that advances it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[Timer] = []

    def clock(self) -> float:
        return self.now

    def timer(self, seconds: float, function: Callable[[], None]) -> Timer:
        return Timer(self, self.now + seconds, function)

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while due := sorted((x for x in self.timers if x.at <= end), key=lambda x: x.at):
            self.timers.remove(due[0])
            self.now = max(self.now, due[0].at)
            due[0].function()
        self.now = max(self.now, end)


class Timer:
    def __init__(self, time: Time, at: float, function: Callable[[], None]) -> None:
        self.time, self.at, self.function = time, at, function

    def start(self) -> None:
        self.time.timers.append(self)

    def cancel(self) -> None:
        self.time.timers = [x for x in self.time.timers if x is not self]


class Log(list[Any]):
    """A throttled function's calls: when, and with what."""

    def __init__(self, timeout: float, *, slow: float = 0.0, **options: bool) -> None:
        self.time = Time()
        self.slow = slow
        self.call = throttle(
            self.note, timeout, clock=self.time.clock, timer=self.time.timer, **options
        )

    def note(self, *args: Any, **kwargs: Any) -> int:
        self.append((self.time.now, *args, *kwargs.values()))
        self.time.now += self.slow
        return len(self)


def test_a_throttled_function_is_called_in_alternate_iterations() -> None:
    log = Log(2)
    for _ in range(4):
        log.call()
        log.time.advance(1)
    assert log == [(0,), (2,)]
    assert not log.time.timers


def test_calls_within_the_pause_return_the_last_result() -> None:
    log = Log(1)
    assert [log.call(), log.call()] == [1, 1]
    log.time.advance(1)
    assert log.call() == 2


def test_a_leading_call_only_happens_again_after_the_pause() -> None:
    log = Log(1, leading=True, trailing=False)
    log.call()
    log.call()
    assert log == [(0,)]
    log.time.advance(1.01)
    assert log == [(0,)]
    log.call()
    assert log == [(0,), (1.01,)]


def test_a_trailing_call_happens_though_nobody_calls_again() -> None:
    log = Log(1, leading=False, trailing=True)
    assert log.call() is None
    log.call()
    assert log == []
    log.time.advance(5)
    assert log == [(1,)]
    log.call()  # long after the pause, it begins one
    log.time.advance(0.9)
    assert log == [(1,)]
    log.time.advance(0.1)
    assert log == [(1,), (6,)]


def test_a_trailing_call_has_the_last_arguments() -> None:
    log = Log(1, leading=True, trailing=True)
    log.call(1)
    log.call(2)
    log.call(3, why="last")
    assert log == [(0, 1)]
    log.time.advance(1.01)
    assert log == [(0, 1), (1, 3, "last")]
    log.time.advance(5)
    assert len(log) == 2


@pytest.mark.parametrize("leading", [True, False])
@pytest.mark.parametrize("slow", [0.0, 0.25, 4.0])
def test_calls_are_a_timeout_apart_and_the_last_is_never_lost(leading: bool, slow: float) -> None:
    log = Log(1, slow=slow, leading=leading, trailing=True)
    for number in range(100):
        log.call(number)
        log.time.advance((0.125, 0.5, 0.75, 2.5)[number % 4])
    log.time.advance(10)
    times = [time for time, _ in log]
    assert all(b - a >= 1 + slow for a, b in itertools.pairwise(times))
    assert log[-1][1] == 99
    assert [x for _, x in log] == sorted({x for _, x in log})


def test_a_call_after_the_pause_supersedes_one_that_is_waiting() -> None:
    log = Log(1, trailing=True)
    log.call("first")
    log.call("old")
    log.time.now = 1.5  # the timer is late
    log.call("new")
    log.call("newer")
    log.time.advance(10)
    assert log == [(0, "first"), (1.5, "new"), (2.5, "newer")]


def test_flush_makes_the_trailing_call_at_once() -> None:
    log = Log(60, trailing=True)
    log.call("first")
    log.call("last")
    log.call.flush()
    log.call.flush()
    assert log == [(0, "first"), (0, "last")]
    assert not log.time.timers


def test_an_error_passes_through_and_begins_a_pause() -> None:
    time = Time()
    calls = []

    def fail() -> None:
        calls.append(time.now)
        raise ZeroDivisionError

    throttled = throttle(fail, 1, clock=time.clock)
    with pytest.raises(ZeroDivisionError):
        throttled()
    throttled()
    assert calls == [0]


def test_a_throttled_function_may_call_itself() -> None:
    log: list[int] = []

    def again(depth: int) -> None:
        log.append(depth)
        if depth < 3:
            throttled(depth + 1)

    throttled = throttle(again, 60)
    throttled(0)
    assert log == [0]


def test_of_many_threads_one_calls() -> None:
    log: list[int] = []
    throttled = throttle(log.append, 3600)
    barrier = threading.Barrier(16)

    def call(number: int) -> None:
        barrier.wait()
        for _ in range(100):
            throttled(number)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(log) == 1


def test_the_trailing_call_comes_from_a_real_timer_too() -> None:
    done = threading.Event()
    throttled = throttle(done.set, 0.001, leading=False, trailing=True)
    throttled()
    assert done.wait(60)


def test_throttle_refuses_what_it_cannot_do() -> None:
    with pytest.raises(jtree.ArgumentError) as error:
        throttle(print, -1)
    assert str(error.value) == "timeout: expected 0 seconds or more, found -1"
    with pytest.raises(jtree.ArgumentError) as error:
        throttle(print, 1, leading=False)
    assert str(error.value) == "leading, trailing: expected one of them to be True, found neither"


def calls(trigger: Callable[..., bool], inputs: Any) -> int:
    """Return how many calls there were before the trigger was True."""
    for number, x in enumerate(inputs):
        if trigger(x):
            return number
    return len(inputs)


def test_patience_counts_what_is_true_in_a_row() -> None:
    trigger = patience(lambda: True, 3)
    assert [trigger(), trigger(), trigger(), trigger()] == [False, False, True, True]
    flags = [False, True, False, True, True, True]
    assert calls(patience(lambda flag: flag, 3), flags) == 5
    assert [patience(lambda x: x, 1)(x) for x in (jnp.array(True), jnp.array(False))] == [1, 0]


def test_early_stopping_goes_on_while_the_score_improves() -> None:
    assert calls(early_stopping(lambda x: -x, 10), range(99)) == 99
    grow = early_stopping(
        lambda x: x, 10, distance=lambda best, score: score - best, init_score=-math.inf
    )
    assert calls(grow, range(99)) == 99
    both = early_stopping(lambda x, *, y: x + y, 10)
    assert not any(both(-n, y=-n) for n in range(99))


def test_early_stopping_compares_as_the_documentation_says() -> None:
    three = early_stopping(lambda x: x, 10, min_dist=3)
    assert calls(three, range(0, -99, -4)) == 25  # each is better by more than 3
    three.reset()
    assert calls(three, range(0, -99, -3)) == 10  # by 3, which is <= 3
    three.reset()
    assert calls(three, range(0, -99, -1)) == 10
    flat = early_stopping(lambda x: x, 2)
    assert calls(flat, [1.0, 1.0, 1.0]) == 2  # an equal score is no improvement


def test_early_stopping_stops_at_the_documented_epochs() -> None:
    losses = range(1, 11)  # a loss that grows
    assert calls(early_stopping(lambda x: x, 3), losses) + 1 == 4  # the first one improves
    assert calls(early_stopping(lambda x: x, 3, init_score=0), losses) + 1 == 3  # none does
    parabola = [(t - 4) ** 2 for t in range(1, 11)]
    assert calls(early_stopping(lambda x: x, 2, init_score=9), parabola) + 1 == 6


def test_a_nan_is_neither_an_improvement_nor_a_best_score() -> None:
    trigger = early_stopping(lambda x: x, 3)
    assert calls(trigger, [2.0, math.nan, math.nan, 1.0, math.nan, math.nan, math.nan]) == 6
    assert trigger.score == 1.0
    assert calls(plateau(lambda x: x, 2), [1.0, math.nan, math.nan]) == 2
    assert calls(plateau(lambda x: x, 2), [math.inf] * 3) == 1  # from init_score, which is inf


def test_plateau_stops_at_the_documented_epoch() -> None:
    value = [10.0]

    def f() -> float:  # -9, 8, -7, 6, ...
        value[0] = value[0] / abs(value[0]) - value[0]
        return value[0]

    trigger = plateau(f, 3, init_score=10, min_dist=18)
    assert [trigger() for _ in range(4)] == [False, False, False, True]
    assert value == [6.0]


def test_plateau_compares_with_the_last_score() -> None:
    assert calls(plateau(lambda x: x, 2, min_dist=1), [0, 2, 1, 2]) == 3  # 1 <= 1
    assert calls(plateau(lambda x: x, 2, min_dist=0.5), list(range(50))) == 50


def test_scores_may_be_jax_arrays() -> None:
    for trigger in (early_stopping(jnp.asarray, 2), plateau(jnp.asarray, 2)):
        answers = [trigger(x) for x in (3.0, 3.0, 3.0)]
        assert answers == [False, False, True]
        assert all(type(x) is bool for x in answers)


@pytest.mark.parametrize(
    "trigger",
    [patience(bool, 2), early_stopping(float, 2, init_score=5.0), plateau(float, 2)],
    ids=repr,
)
def test_reset_forgets(trigger: callbacks.Trigger) -> None:
    fresh = repr(trigger)
    first = [trigger(x) for x in (3, 3, 3, 3)]
    assert repr(trigger) != fresh
    trigger.reset()
    assert repr(trigger) == fresh
    assert [trigger(x) for x in (3, 3, 3, 3)] == first
    trigger.reset()


def test_a_repr_says_what_an_object_does_and_where_it_is() -> None:
    trigger = early_stopping(float, 3)
    trigger(2.0)
    trigger(7.0)
    assert repr(trigger) == "early_stopping(float, 3, count=1, score=2.0)"
    assert repr(plateau(float, 3)) == "plateau(float, 3, count=0, score=inf)"
    assert repr(patience(bool, 3)) == "patience(bool, 3, count=0)"
    assert repr(throttle(print, 2.5)) == "throttle(print, 2.5, leading=True, trailing=False)"


@pytest.mark.parametrize("make", [patience, early_stopping, plateau])
def test_waiting_for_less_than_one_call_is_refused(make: Any) -> None:
    with pytest.raises(jtree.ArgumentError) as error:
        make(bool, 0)
    assert str(error.value) == "expected to wait for at least 1 call, found 0"


def add(model: int, x: int) -> int:
    return model + x


def test_train_steps_through_the_data() -> None:
    seen: list[int] = []
    assert train(add, 0, [1, 2, 3], callbacks=[seen.append]) == 6
    assert seen == [1, 3, 6]
    assert train(add, 7, []) == 7
    assert train(add, 0, iter([1, 2])) == 3


def test_tuples_are_arguments_and_other_items_are_one() -> None:
    assert train(lambda m, x, y: m + x * y, 0, [(1, 2), (3, 4)]) == 14
    assert train(lambda m, xy: m + sum(xy), 0, [[1, 2], [3, 4]]) == 10


def test_stop_ends_the_loop_with_the_model_of_the_step() -> None:
    seen: list[int] = []

    def enough(model: int) -> None:
        if model >= 3:
            stop()

    assert train(add, 0, iter(int, 1), callbacks=[lambda _: stop()]) == 0  # data without end
    assert train(add, 0, [1, 2, 3], callbacks=[enough, seen.append]) == 3
    assert seen == [1]


def test_skip_skips_the_update_and_later_callbacks() -> None:
    seen: list[int] = []
    check = lambda model: model > 50 and skip()  # noqa: E731
    assert train(add, 0, [1, 100, 3], callbacks=[check, seen.append]) == 4
    assert seen == [1, 4]


def test_a_step_may_stop_and_skip_too() -> None:
    def step(model: int, x: int) -> int:
        if x < 0:
            stop()
        return model + x if x else skip()

    assert train(step, 0, [1, 0, 2, -1, 5]) == 3


def test_other_errors_pass_and_a_stray_signal_is_an_error() -> None:
    with pytest.raises(ZeroDivisionError):
        train(lambda m, x: m / x, 1, [0])
    with pytest.raises(jtree.JtreeError) as error:
        stop()
    assert str(error.value) == "stop() was called outside the step and the callbacks of train"
    with pytest.raises(jtree.JtreeError, match=r"^skip\(\) was called outside"):
        skip()
    with pytest.raises(jtree.ArgumentTypeError) as error:
        train(add, 0, [1], callbacks=print)  # type: ignore[arg-type]
    assert str(error.value) == (
        "callbacks: expected a sequence of functions, found one function; write [print]"
    )


def test_a_jitted_loop_with_early_stopping() -> None:
    @jax.jit
    def step(state: Any, x: jax.Array) -> Any:
        w, _ = state
        loss, grad = jax.value_and_grad(lambda w: ((w - x) ** 2).sum())(w)
        return w - 0.25 * grad, loss

    ends = early_stopping(lambda state: state[1], 3, min_dist=1e-6)
    start = (jnp.zeros(2), jnp.array(jnp.inf))
    data = [jnp.array([1.0, 2.0])] * 1000
    w, loss = train(step, start, data, callbacks=[lambda state: ends(state) and stop()])
    assert float(loss) < 1e-5
    assert ends.count == 3
    assert jnp.allclose(w, data[0], atol=1e-2)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("data", [[1, 2, 3], iter([1, 2, 3])], ids=["list", "iterator"])
def test_a_terminal_sees_a_bar_which_is_gone_in_the_end(
    data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert train(add, 0, data) == 6
    shown = sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert "train" in shown
    assert shown.endswith("\x1b[1A\x1b[2K")


def test_no_bar_without_a_terminal_or_with_progress_false(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for stream, options in ((io.StringIO(), {}), (Terminal(), {"progress": False})):
        monkeypatch.setattr(sys, "stderr", stream)
        assert train(add, 0, [1, 2, 3], **options) == 6
        assert stream.getvalue() == ""


def test_the_bar_ends_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    before = set(threading.enumerate())
    with pytest.raises(ZeroDivisionError):
        train(lambda m, x: m / x, 1, [1, 0])
    for thread in set(threading.enumerate()) - before:  # the one that draws the bar was told to end
        thread.join(60)
        assert not thread.is_alive()


def test_importing_and_training_without_a_terminal_imports_no_rich(run_python: Any) -> None:
    out = run_python(
        """
        import sys
        from jtree import callbacks, init
        callbacks.train(lambda m, x: m, 0, [1])
        print([name for name in ("rich", "flax") if name in sys.modules])
        """,
        PYTHONPATH=str(jtree.__path__[0]) + "/..",
    )
    assert out == "[]\n"
