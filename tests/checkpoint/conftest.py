"""An interpreter that forks processes, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..forks import Forks


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    forks = Forks()
    yield forks
    forks.close()
