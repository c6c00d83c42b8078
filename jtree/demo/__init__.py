"""The demo: digits learned through one vector, a Hessian, a checkpoint and a diff."""

from ._run import run as run
