"""How every test runs: what XLA compiles, what is let go, and the names that examples use."""

import ctypes
import gc
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtree

# Most of the time of these tests would go into compiling small programs well, so XLA compiles them
# quickly instead. `XLA_FLAGS=` in the environment compiles them as users have it. The second flag,
# which chooses an older emitter, is known to exist in this version: XLA aborts at one it lacks.
QUICKLY = "--xla_backend_optimization_level=0"
if jax.__version_info__[:2] == (0, 10):
    QUICKLY += " --xla_cpu_use_fusion_emitters=false"

MEMORY = 1.5 * 2**30  # bytes; a worker that has more lets go of what was compiled
PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0


def pytest_configure() -> None:
    """Set the flags of XLA for this process and those that it starts."""
    os.environ.setdefault("XLA_FLAGS", QUICKLY)


@pytest.fixture(scope="session", autouse=True)
def _compiled(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep compiled programs in files of this session, which its workers share."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    """Let go of compiled programs, a megabyte each, before they fill the memory."""
    memory = Path("/proc/self/statm")
    if not memory.exists() or int(memory.read_text().split()[1]) * PAGE < MEMORY:
        return
    jax.clear_caches()
    gc.collect()
    getattr(ctypes.CDLL(None), "malloc_trim", bool)(0)  # of glibc: gives back what was freed


@pytest.fixture(autouse=True)
def _examples(doctest_namespace: dict[str, object], request: pytest.FixtureRequest) -> None:
    """Let examples use the usual names without importing them, and write files nobody keeps."""
    doctest_namespace |= {"jax": jax, "jnp": jnp, "np": np, "jtree": jtree}
    if isinstance(request.node, pytest.DoctestItem):
        request.getfixturevalue("monkeypatch").chdir(request.getfixturevalue("tmp_path"))
