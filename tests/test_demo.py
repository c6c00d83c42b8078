"""The command `jtree`, and the demo that it runs."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.image import imread
from typer.testing import CliRunner

import jtree
from jtree.cli import app
from jtree.demo._digits import coarse, load
from jtree.demo._network import Network
from jtree.demo._train import loss


class Ran(NamedTuple):
    out: Path
    text: str


def invoke(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(x) for x in arguments], env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    return result.output


def measured(text: str, what: str) -> str:
    """Return what the table has beside a name."""
    found = re.search(rf"│ {re.escape(what)} +│ (.*?) *│", text)
    assert found, f"{what} is not in the table:\n{text}"
    return found[1]


def without_times(text: str) -> str:
    """Return the text without times, and without the lines and blanks that fit their widths."""
    return re.sub(r"[\s─┏┓┗┛┡┩┳╇━┴┬┼├┤└┘]+", " ", re.sub(r" +\d+\.\d s │", " time │", text))


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    out = tmp_path_factory.mktemp("demo") / "new" / "folder"
    return Ran(out, invoke("demo", "--out", out, "--seed", 3))


def test_the_network_tells_more_than_95_percent_of_held_out_digits(ran: Ran) -> None:
    assert float(measured(ran.text, "accuracy on 360 held-out images").removesuffix(" %")) > 95


def test_nested_and_flat_gradients_agree(ran: Ran) -> None:
    assert float(measured(ran.text, "gradients, largest |nested - flat|")) < 1e-6


def test_the_hessian_is_over_all_parameters_of_a_trained_network(ran: Ran) -> None:
    assert measured(ran.text, "Hessian of a small network") == "390 by 390"
    least = float(measured(ran.text, "its smallest eigenvalue"))
    most = float(measured(ran.text, "its largest eigenvalue"))
    assert abs(least) < 0.01 < 1 < most  # a minimum: nothing curves down that could be seen


def test_the_picture_has_many_colours(ran: Ran) -> None:
    pixels = imread(ran.out / "hessian.png")
    assert min(pixels.shape[:2]) > 1000
    assert len(np.unique(pixels.reshape(-1, pixels.shape[-1])[::7], axis=0)) > 200


def test_what_was_saved_is_the_trained_network(ran: Ran) -> None:
    found = jtree.load(ran.out / "checkpoint")
    network = jtree.loadmodel(
        Network((64, 32, 32, 10), activation=jnp.tanh, unbiased={1}, seed=0), found
    )
    assert jtree.count(network) == 3434
    assert found["layers"][1]["bias"] is None


def test_loading_into_another_network_changes_no_number(ran: Ran) -> None:
    assert float(measured(ran.text, "parameters, largest |saved - loaded|")) == 0
    assert float(measured(ran.text, "accuracy of the other network, as loaded")[:-2]) > 80


def test_the_diff_of_a_third_network_is_shown(ran: Ran) -> None:
    assert measured(ran.text, "mismatches of a third network") == "7"
    assert re.search(r"layers/1/kernel +│ shape +│ \(32, 48\) +│ \(32, 32\)", ran.text)


def test_the_table_says_where_the_files_are(ran: Ran) -> None:
    assert measured(ran.text, "picture") == str(ran.out / "hessian.png")
    assert Path(measured(ran.text, "eigenvalues")).is_file()
    assert Path(measured(ran.text, "checkpoint")).is_dir()


@pytest.mark.slow
def test_a_quiet_run_over_old_files_prints_the_same_table_and_nothing_else(ran: Ran) -> None:
    text = invoke("demo", "--out", ran.out, "--seed", 3, "--quiet")
    assert text.startswith("Measurements")
    assert without_times(ran.text).endswith(without_times(text))


def test_the_seed_decides_the_split_and_the_network() -> None:
    (a, same), b = (load(0), load(0)), load(1)
    assert np.array_equal(a.train.images, same.train.images)
    assert not np.array_equal(a.train.images, b.train.images)
    assert len(a.train.labels) + len(a.held_out.labels) == 1797
    kernels = [Network((4, 2), activation=jnp.tanh, seed=n).layers[0].kernel[...] for n in (0, 1)]
    assert not np.array_equal(*kernels)


def test_coarse_images_are_means_of_four_pixels() -> None:
    split = load(0).held_out
    first = split.images[0].reshape(8, 8)
    assert np.allclose(coarse(split).images[0].reshape(4, 4)[1, 2], first[2:4, 4:6].mean())


def test_the_loss_of_zero_parameters_is_that_of_a_guess() -> None:
    _, layout = jtree.destructure(Network((64, 10), activation=jnp.tanh, seed=0))
    value = loss(jnp.zeros(len(layout)), layout, load(0).train)
    assert np.isclose(value, np.log(10))


@pytest.mark.parametrize(
    ("module", "package"),
    [("optax", "optax"), ("sklearn", "scikit-learn"), ("matplotlib", "matplotlib")],
)
def test_a_missing_package_is_one_line_that_says_what_to_install(
    module: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # type: ignore[arg-type]
    text = invoke("demo", "--out", tmp_path / "out", code=2)
    assert text == (
        f"jtree: jtree.demo needs {package}, which is not installed; "
        'run: pip install "jtree[demo]"\n'
    )
    assert not (tmp_path / "out").exists()


def test_a_file_instead_of_the_folder_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    assert "is a file" in invoke("demo", "--out", tmp_path / "out", code=2)


def test_the_version_is_printed() -> None:
    assert invoke("--version") == f"jtree {jtree.__version__}\n"


def test_importing_the_command_imports_neither_the_demo_nor_its_packages(
    run_python: Callable[..., str],
) -> None:
    found = run_python("""
        import sys, jtree.cli
        names = "flax", "matplotlib", "optax", "sklearn", "orbax.checkpoint", "jtree.demo"
        print([name for name in names if name in sys.modules])
    """)
    assert found == "[]\n"
