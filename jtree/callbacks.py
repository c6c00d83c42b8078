"""Helpers for training loops.

Loop:        train, stop, skip
Triggers:    patience, early_stopping, plateau
Throttling:  throttle
"""

from ._callbacks.loop import SkipStep, StopTraining, skip, stop, train
from ._callbacks.throttle import Throttled, throttle
from ._callbacks.triggers import (
    EarlyStopping,
    Patience,
    Plateau,
    Trigger,
    early_stopping,
    patience,
    plateau,
)
from ._public import publish

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

publish(globals())
