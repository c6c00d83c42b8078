"""Which steps of a training loop to keep: the policies of Orbax, and what they read of a step."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from .._arguments import check_choice, unexpected
from .._errors import ArgumentTypeError
from .._tree.leaves import describe

Score: TypeAlias = Callable[[Any], float]


class StepInfo(NamedTuple):
    """The part of a step that Orbax's policies read."""

    step: int
    time: datetime.datetime
    metrics: dict[str, Any] | None


def step_manager(directory: Any, save_interval: int, save_policy: Any) -> Any:
    """Return Orbax's manager of the steps in a directory."""
    from orbax.checkpoint import checkpoint_managers as policies

    class Steps(policies.CheckpointManager):  # type: ignore[misc]
        """A manager that reads no metrics: those of a damaged step would end it."""

        def metrics(self, step: int) -> None:
            del step

    options = policies.CheckpointManagerOptions(
        save_interval_steps=save_interval,
        save_decision_policy=save_policy,
        lightweight_initialize=True,
    )
    return Steps(directory, options=options)


def check_policy(name: str, policy: Any, method: str) -> None:
    """Raise an error for what is neither None nor a policy of Orbax."""
    if policy is not None and (isinstance(policy, type) or not hasattr(policy, method)):
        raise unexpected(name, f"a policy of Orbax, with a method {method}", policy)


def limited_preservation(
    max_to_keep: int | None, keep_period: int | None, score: Score | None
) -> Any:
    """Return Orbax's policy for the newest steps, or the best ones, and the periodic ones."""
    from orbax.checkpoint import checkpoint_managers as policies

    limited: Any = policies.LatestN(max_to_keep)
    if score is not None:
        limited = policies.BestN(get_metric_fn=score, n=max_to_keep)
    periodic = [] if keep_period is None else [policies.EveryNSteps(keep_period)]
    return policies.AnyPreservationPolicy([limited, *periodic])


def score_by(best_fn: Callable[[Any], Any], mode: str) -> Score:
    """Return a function from metrics to a score, by which the best step has the highest.

    NaN is the worst score, where sorting by it would keep steps at random.
    """
    if not callable(best_fn):
        raise ArgumentTypeError(
            f"best_fn: expected a function from metrics to a number, found {describe(best_fn)}"
        )
    check_choice("best_mode", mode, ("max", "min"))

    def score(metrics: Any) -> float:
        value = float(best_fn(metrics))
        signed = value if mode == "max" else -value
        return -math.inf if math.isnan(signed) else signed

    return score
