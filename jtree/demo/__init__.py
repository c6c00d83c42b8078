"""The demo: digits learned through one vector, a Hessian, a checkpoint and a diff."""

from .._public import publish
from ._run import run

__all__ = [
    "run",
]

publish(globals())
