"""The checkpoints of a training loop: a directory of steps, each with checksums."""

from __future__ import annotations

import datetime
import logging
import operator
import os
from collections.abc import Callable
from typing import Any, Literal

from .._arguments import check_flag
from .._errors import ArgumentError, ArgumentTypeError, CheckpointError
from .._tree.paths import Where
from ._background import Saving, run_in_background
from ._load import load
from ._metrics import check_metrics, read_metrics
from ._policies import StepInfo, check_policy, limited_preservation, score_by, step_manager
from ._save import begin_save
from ._storage.paths import as_path

logger = logging.getLogger("jtree")


class Manager:
    """The checkpoints of a training loop: one for each step that is saved, in one directory.

    `orbax.checkpoint.CheckpointManager` and its policies decide when to save and what to keep.
    Each step is a checkpoint of `jtree.save`, at `directory/step`, with a checksum for every array,
    and written in the background. Orbax's own managers read the same directories.

    Args:
      directory: where the steps are; it is made if it does not exist.
      max_to_keep: how many steps to keep, the newest ones; None keeps all.
      save_interval: the steps that are multiples of this are saved, and the first one is.
      keep_period: the steps that are multiples of this are kept forever.
      best_fn: a function from the metrics of a step to a number. `max_to_keep` then keeps the best
        steps, not the newest ones, and those without metrics.
      best_mode: `"max"` or `"min"`: which number is best.
      save_policy: a `SaveDecisionPolicy` of Orbax, in place of `save_interval`.
      preservation_policy: a `PreservationPolicy` of Orbax, in place of `max_to_keep`,
        `keep_period` and `best_fn`.

    Raises:
      ArgumentError: an option has an invalid value.

    Example:
      >>> import tempfile
      >>> run = {"w": jnp.zeros(2), "step": 0}
      >>> with jtree.Manager(tempfile.mkdtemp(), max_to_keep=2) as manager:
      ...     for step in (1, 2, 3):
      ...         run = {"w": run["w"] + 1, "step": step}
      ...         saved = manager.save(step, run)
      ...     manager.wait_until_finished()
      ...     manager.all_steps(), manager.restore()["w"]
      ([2, 3], array([3., 3.], dtype=float32))
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        max_to_keep: int | None = None,
        save_interval: int = 1,
        keep_period: int | None = None,
        best_fn: Callable[[dict[str, Any]], float] | None = None,
        best_mode: Literal["max", "min"] = "max",
        save_policy: Any = None,
        preservation_policy: Any = None,
    ) -> None:
        _check_positive("save_interval", save_interval)
        for name, value in {"max_to_keep": max_to_keep, "keep_period": keep_period}.items():
            if value is not None:
                _check_positive(name, value)
        self.directory = as_path(directory)
        self._score = None if best_fn is None else score_by(best_fn, best_mode)
        limits = max_to_keep, keep_period, self._score
        check_policy("save_policy", save_policy, "should_save")
        check_policy("preservation_policy", preservation_policy, "should_preserve")
        self._preservation = preservation_policy or limited_preservation(*limits)
        self._orbax = step_manager(self.directory, save_interval, save_policy)
        self._saving: Saving | None = None
        self._damaged: set[int] = set()

    def save(
        self,
        step: int,
        tree: Any,
        *,
        metrics: dict[str, Any] | None = None,
        force: bool = False,
        metadata: dict[str, Any] | None = None,
    ) -> bool:
        """Save a step in the background, if the policy says so, and return whether it does.

        The values at the time of the call are saved. One step is written at a time: if another one
        is still being written, this waits for it. Then the steps that the policy does not keep are
        deleted.

        Args:
          step: the number of the step, which is the name of the checkpoint too.
          tree: any pytree.
          metrics: numbers by name, such as `{"loss": 0.5}`, for `best_fn` and for Orbax's managers.
          force: True saves whatever the policy says.
          metadata: JSON of your own, as for `jtree.save`.

        Raises:
          ArgumentError: the step is not an integer of at least 0.
          CheckpointError: the step exists and `force` is True, or the last save has failed.
          ModelError: the tree holds something that cannot be saved; the message names its path.
        """
        step, metrics = _check_step(step), check_metrics(metrics)
        force = check_flag("force", force)
        if metrics is not None and self._score is not None:
            self._score(metrics)  # raises before anything is written
        self.wait_until_finished()
        self._orbax.reload()
        again = step in self._damaged
        if not (force or again or self._orbax.should_save(step)):
            return False
        target = self.directory / str(step)
        options = again, None, metadata
        finish = begin_save(
            target, tree, "orbax", *options, shown=False, copy=True, metrics=metrics
        )

        def finish_and_delete() -> None:
            finish()
            self._damaged.discard(step)
            self._delete_old()

        self._saving = run_in_background(str(target), finish_and_delete)
        return True

    def restore(
        self,
        into: Any = None,
        step: int | None = None,
        *,
        fallback: bool = False,
        where: Where = None,
        sharding: Any = None,
        strict: bool = True,
    ) -> Any:
        """Load a step, by default the newest one, as `jtree.load` does.

        Args:
          into: a model, which may be abstract; None returns the state, with NumPy arrays.
          step: the step; None is the newest one.
          fallback: True loads the newest whole step where newer ones are damaged, and logs a
            warning for each of those. They stay on disk until the same step is saved again.
          where: as in `jtree.load`: only these paths are read.
          sharding: as in `jtree.load`: where the arrays are put.
          strict: as in `jtree.load`: False loads what fits.

        Raises:
          ArgumentError: `fallback` is given for one step.
          CheckpointError: there is no such step, or it is damaged; the message names it.
          LoadError: the step does not fit the model.
        """
        if check_flag("fallback", fallback) and step is not None:
            raise ArgumentError(
                "fallback=True is for the newest step; leave out step= or fallback="
            )
        self.wait_until_finished()
        steps = self._candidates(step)
        faults = []
        for candidate in steps if fallback else steps[:1]:
            path = self.directory / str(candidate)
            try:
                tree = load(
                    path, into, where=where, sharding=sharding, strict=strict, progress=False
                )
            except CheckpointError as error:
                self._damaged.add(candidate)
                faults.append((candidate, error))
                continue
            for damaged, fault in faults:
                logger.warning("step %d is damaged, restored %d: %s", damaged, candidate, fault)
            return tree
        raise self._damage_error(faults, fallback or step is not None)

    def latest_step(self) -> int | None:
        """Return the newest step that is complete, or None if there is none."""
        return max(self.all_steps(), default=None)

    def all_steps(self) -> list[int]:
        """Return the steps that are complete, in increasing order."""
        from orbax.checkpoint import utils

        return sorted(utils.checkpoint_steps(self.directory))

    def best_step(self) -> int | None:
        """Return the complete step with the best metrics, or None if no step has metrics."""
        if self._score is None:
            raise ArgumentError("best_step needs best_fn=; pass it to jtree.Manager")
        scores = {step: self._score(x) for step in self.all_steps() if (x := self.metrics(step))}
        return max(scores, key=lambda step: (scores[step], step), default=None)

    def metrics(self, step: int) -> dict[str, Any] | None:
        """Return the metrics that a step was saved with, or None."""
        return read_metrics(self.directory / str(_check_step(step)))

    def wait_until_finished(self) -> None:
        """Wait for the step that is being written; raise its error if it has failed."""
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.result()

    def close(self) -> None:
        """Wait for the step that is being written, and release what Orbax holds."""
        try:
            self.wait_until_finished()
        finally:
            self._orbax.close()

    def __enter__(self) -> Manager:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Manager({str(self.directory)!r}, steps={self.all_steps()})"

    def _candidates(self, step: int | None) -> list[int]:
        """Return the steps to try: the given one, or all from the newest on."""
        steps = self.all_steps()
        if step is not None and _check_step(step) not in steps:
            existing = ", ".join(map(str, steps[-10:])) or "none"
            raise CheckpointError(
                f"{self.directory} does not have step {step}; its newest steps are: {existing}"
            )
        if not steps:
            raise CheckpointError(f"{self.directory} does not have any steps; save one first")
        return steps[::-1] if step is None else [operator.index(step)]

    def _damage_error(
        self, faults: list[tuple[int, CheckpointError]], final: bool
    ) -> CheckpointError:
        """Return the error that names the damaged steps."""
        steps = ", ".join(str(step) for step, _ in faults)
        remedy = "" if final else "; pass fallback=True to restore the newest whole step instead"
        kind = type(faults[0][1])
        count = "step" if len(faults) == 1 else "all steps are damaged:"
        state = " is damaged" if len(faults) == 1 else ""
        return kind(f"{self.directory}: {count} {steps}{state}: {faults[0][1]}{remedy}")

    def _delete_old(self) -> None:
        """Delete the steps that the policy does not keep; damaged ones are left alone."""
        from orbax.checkpoint import checkpoint_managers as policies

        whole = [step for step in self.all_steps() if step not in self._damaged]
        infos = [StepInfo(x, self._time(x), self._metrics_or_none(x)) for x in whole]
        preserved = self._preservation.should_preserve(
            infos, context=policies.PreservationContext()
        )
        self._orbax.reload()
        for info, keep in zip(infos, preserved, strict=True):
            if not keep:
                self._orbax.delete(info.step)

    def _metrics_or_none(self, step: int) -> dict[str, Any] | None:
        try:
            return self.metrics(step)
        except CheckpointError as error:
            logger.warning("step %d counts as one without metrics: %s", step, error)
            return None

    def _time(self, step: int) -> datetime.datetime:
        seconds = (self.directory / str(step)).stat().mtime
        return datetime.datetime.fromtimestamp(seconds, tz=datetime.UTC)


def _check_positive(name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ArgumentTypeError(f"{name}: expected an int, found {type(value).__name__}")
    if value < 1:
        raise ArgumentError(f"{name}: expected at least 1, found {value}")


def _check_step(step: Any) -> int:
    try:
        number = operator.index(step)
    except TypeError:
        raise ArgumentTypeError(f"step: expected an int, found {type(step).__name__}") from None
    if number < 0 or isinstance(step, bool):
        raise ArgumentError(f"step: expected an int of at least 0, found {step}")
    return number
