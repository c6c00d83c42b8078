"""What the examples in docstrings and documents may use without importing it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtree


@pytest.fixture(autouse=True)
def _names(doctest_namespace: dict[str, object]) -> None:
    doctest_namespace |= {"jax": jax, "jnp": jnp, "np": np, "jtree": jtree}
