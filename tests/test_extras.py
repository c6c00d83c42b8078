"""Optional packages: a feature that needs one says how to install it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from typer.testing import CliRunner

import jtree
from jtree import cli, curvature, demo, plot
from jtree._extras import check_extra

OPTIONAL = ("h5py", "lineax", "matfree", "matplotlib", "optax", "sklearn")
OTHERS = ("chex", "equinox", "haiku", "keras", "pandas", "safetensors", "torch", "tqdm")
HDF5 = b"\x89HDF\r\n\x1a\n" + bytes(100)
KEY = jax.random.key(0)
FLAT, RE = jtree.destructure({"w": jnp.ones(3)})


def quadratic(flat: Any) -> Any:
    return (flat**2).sum()


def operator() -> Any:
    return curvature.hessian(quadratic, FLAT)


CURVATURE: dict[str, tuple[str, Callable[[], Any]]] = {
    "newton": ("optax", lambda: curvature.newton(quadratic)),
    "diagonal": ("matfree", lambda: curvature.diagonal(operator(), key=KEY, method="xdiag")),
    "trace": ("matfree", lambda: curvature.trace(operator(), key=KEY, method="hutchinson")),
    "spectrum": ("matfree", lambda: curvature.spectrum(operator(), key=KEY)),
    "as_lineax": ("lineax", lambda: operator().as_lineax()),
}
PLOTS: dict[str, Callable[[], Any]] = {
    "plot.hessian": lambda: plot.hessian(np.eye(3)),
    "plot.landscape": lambda: plot.landscape(quadratic, FLAT, RE, FLAT),
    "plot.parameters": lambda: plot.parameters(FLAT, RE),
    "plot.spectrum": lambda: plot.spectrum(np.arange(3.0)),
}
FILES: dict[str, Callable[[], Any]] = {
    "open": lambda: jtree.open("a.h5"),
    "load": lambda: jtree.load("a.h5"),
    "load into": lambda: jtree.load("a.h5", {"w": FLAT}),
    "verify": lambda: jtree.verify("a.h5"),
    "diff": lambda: jtree.diff({"w": FLAT}, Path("a.h5")),
    "convert_file": lambda: jtree.migrate.convert_file("a.h5", "b.npz"),
}
# Each call, with what the message names: who needs a package, the package, and the extra.
CALLS: dict[str, tuple[Callable[[], Any], str, str, str]] = {
    **{name: (call, "jtree.curvature", x, "curvature") for name, (x, call) in CURVATURE.items()},
    **{name: (call, "jtree.plot", "matplotlib", "plot") for name, call in PLOTS.items()},
    **{name: (call, "a.h5: reading HDF5", "h5py", "keras") for name, call in FILES.items()},
    "demo": (lambda: demo.run("x"), "jtree.demo", "matplotlib, optax and scikit-learn", "demo"),
}


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide every package that a base installation lacks."""
    monkeypatch.chdir(tmp_path)
    Path("a.h5").write_bytes(HDF5)
    for name in [*sys.modules]:
        if name.partition(".")[0] in {*OPTIONAL, *OTHERS}:
            monkeypatch.delitem(sys.modules, name)
    for name in (*OPTIONAL, *OTHERS):
        monkeypatch.setitem(sys.modules, name, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.usefixtures("base")
def test_what_needs_a_package_says_how_to_install_it(name: str) -> None:
    call, user, packages, extra = CALLS[name]
    with pytest.raises(jtree.ExtraError) as caught:
        call()
    verb = "are" if "and" in packages else "is"
    assert str(caught.value).removeprefix(f"{Path.cwd()}/") == (
        f'{user} needs {packages}, which {verb} not installed; run: pip install "jtree[{extra}]"'
    )


@pytest.mark.parametrize("command", ["show", "verify", "stats", "demo --out out"])
@pytest.mark.usefixtures("base")
def test_the_command_says_it_in_one_line(command: str) -> None:
    arguments = command.split() if "demo" in command else [command, "a.h5"]
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 2
    assert result.output.startswith("jtree: ")
    assert 'not installed; run: pip install "jtree[' in result.output
    assert result.output.count("\n") == 1


def test_a_package_that_fails_to_import(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "broken_package.py").write_text("import another_package")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(jtree.ExtraError) as caught:
        check_extra("jtree.plot", "plot", "broken_package")
    assert str(caught.value) == (
        "jtree.plot needs broken_package, which cannot be imported: No module named "
        "'another_package'; run: pip install \"jtree[plot]\""
    )
    assert caught.value.name == "broken_package"
