"""A demo: train on digits through one vector, draw a Hessian, save, load and compare."""

from .._public import publish
from ._run import run

__all__ = [
    "run",
]

publish(globals())
