"""Names and a working directory for the examples in docstrings and documents."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtree


@pytest.fixture(autouse=True)
def _examples(doctest_namespace: dict[str, object], request: pytest.FixtureRequest) -> None:
    """Let examples use the usual names without importing them, and write files nobody keeps."""
    doctest_namespace |= {"jax": jax, "jnp": jnp, "np": np, "jtree": jtree}
    if isinstance(request.node, pytest.DoctestItem):
        request.getfixturevalue("monkeypatch").chdir(request.getfixturevalue("tmp_path"))
