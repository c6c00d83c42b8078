"""Fixtures of the tests of curvature."""

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture
def double() -> Iterator[None]:
    """Run a test in double precision."""
    with jax.enable_x64(True):
        yield
