"""The training loop: `train`, `stop` and `skip`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from typing import Any, NoReturn, TypeVar

from .._arguments import check_callable, check_flag, check_iterable
from .._errors import ArgumentTypeError, JtreeError
from .._progress import tracked

Model = TypeVar("Model")


class StopTraining(JtreeError):  # noqa: N818 (a signal, as StopIteration is)
    """Raised by `stop`, and caught by `train`."""


class SkipStep(JtreeError):  # noqa: N818 (a signal, as StopIteration is)
    """Raised by `skip`, and caught by `train`."""


def stop() -> NoReturn:
    """End the loop of `train`, which then returns the model of this step.

    >>> from jtree import callbacks
    >>> check = lambda m: m > 2 and callbacks.stop()
    >>> callbacks.train(lambda m, x: m + x, 0, [1, 2, 4], callbacks=[check])
    3
    """
    raise StopTraining("stop() was called outside the step and the callbacks of train")


def skip() -> NoReturn:
    """Skip the rest of a step of `train`, including later callbacks and the update of the model.

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
    """Return the model after one step for each item of `data`.

    For every item the loop calls `step`, and then each callback with the model that it returned. A
    loss or an optimiser state can be part of the model, which may be any object, such as a tuple.

    Args:
      step: `step(model, *item)` if the item is a tuple, `step(model, item)` otherwise. It returns
        the next model. It may call `stop` and `skip`, unless it is jitted.
      model: the initial model.
      data: an iterable, which may be infinite.
      callbacks: functions of the model. Their results are ignored. A callback may call `stop()` to
        end the loop with this model, or `skip()` to continue with the model before this step,
        without calling later callbacks. The step must not have donated that model.
      progress: whether to show a progress bar on standard error. It is shown on a terminal only.

    Returns:
      The last model.

    Raises:
      ArgumentTypeError: `callbacks` is a single function instead of a sequence.

    Example:
      >>> from jtree import callbacks
      >>> step = jax.jit(lambda w, x, y: w - 0.5 * jax.grad(lambda w: (w * x - y) ** 2)(w))
      >>> callbacks.train(step, 0.0, [(1.0, 3.0), (1.0, 5.0)])
      Array(5., dtype=float32, weak_type=True)

    Source: `train!` of Flux.jl, and its `stop` and `skip` until version 0.13.
    """
    if callable(callbacks):
        name = getattr(callbacks, "__name__", None) or repr(callbacks)
        raise ArgumentTypeError(
            f"callbacks: expected a sequence of functions, found one function; write [{name}]"
        )
    check_callable("step", step)
    check_iterable("data", data, "an iterable of batches")
    for callback in check_iterable("callbacks", callbacks, "a sequence of functions"):
        check_callable("callbacks", callback)
    shown = check_flag("progress", progress)
    with closing(tracked(data, "train", shown=shown)) as items:
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
