"""The steps of the demo, each with the code that it demonstrates."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from matplotlib.figure import Figure
from rich.table import Table

import jtree

from .._text import table
from . import _digits, _train
from ._digits import Digits, LabelledImages
from ._network import Network
from ._report import DemoReport

SIZES = (64, 32, 32, 10)
SMALL = (16, 10, 10, 10)  # its Hessian has 390 rows, one per parameter


def run_steps(out: Path, seed: int, quiet: bool) -> None:
    """Print the results of every step, and write their files to a folder."""
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "checkpoint"
    report, digits = DemoReport(quiet), _digits.load(seed)
    network = _learn(report, digits, seed)
    _compare_gradients(report, network, digits.train)
    pictures = _draw_hessian(report, digits, seed, out)
    _save_and_load(report, network, digits.held_out, seed, checkpoint)
    _compare_networks(report, network, seed)
    report.conclude(pictures | {"checkpoint": str(checkpoint)})


def _learn(report: DemoReport, digits: Digits, seed: int) -> Network:
    """Return a network after training over its flat vector."""
    code = (
        "flat, re = jtree.destructure(network)\n"
        "grad = jax.grad(lambda flat: loss(re(flat), data))(flat)\n"
        "updates, state = optax.lbfgs().update(grad, state, flat, ...)"
    )
    with report.step("Train over one vector", code) as step:
        network = Network(SIZES, activation=nnx.gelu, unbiased={1}, seed=seed)
        report.say(_layout(network))
        network, value = _train.train(network, digits.train, report.track(300, "L-BFGS"))
        report.say(f"loss {value:.4f} on {len(digits.train.labels):,} images")
        step.measured["parameters of the network"] = f"{jtree.count(network):,}"
        step.measured[f"accuracy on {_digits.HELD_OUT} held-out images"] = _accuracy(
            network, digits.held_out
        )
    return network


def _layout(network: Network) -> Table:
    """Return the slice of the vector for each parameter, as a table."""
    _, re = jtree.destructure(network)
    slices = {path: f"flat[{x.start}:{x.stop}]" for path, x in re.slices.items()}
    rows = [(path, str(shape), slices[path]) for path, shape in re.shapes.items()]
    titles = ("path", "shape", "in the vector")
    return table(titles, rows, title=repr(re), title_justify="left")


def _accuracy(network: Network, split: LabelledImages) -> str:
    return f"{100 * float(_train.accuracy(network, split)):.1f} %"


def _compare_gradients(report: DemoReport, network: Network, split: LabelledImages) -> None:
    """Differentiate one loss over the nested network and over its vector."""
    code = (
        "nested = re.ravel_grad(nnx.grad(loss)(network, data))\n"
        "direct = jax.grad(lambda flat: loss(re(flat), data))(flat)"
    )
    with report.step("Nested and flat gradients agree", code) as step:
        nested, direct = _gradients(network, split)
        report.say(f"{len(direct):,} elements each, the largest {jnp.abs(direct).max():.2g}")
        difference = jnp.abs(nested - direct).max()
        step.measured["gradients, largest |nested - flat|"] = f"{difference:.2g}"


def _gradients(network: Network, split: LabelledImages) -> tuple[jax.Array, jax.Array]:
    """Return the gradient over the network as a vector, and the gradient over the vector."""
    flat, re = jtree.destructure(network)
    nested = nnx.grad(_train.cross_entropy)(network, split)
    direct = jax.grad(lambda flat: _train.cross_entropy(re(flat), split))(flat)
    return re.ravel_grad(nested), direct


def _draw_hessian(report: DemoReport, digits: Digits, seed: int, out: Path) -> dict[str, str]:
    """Train a small network, draw the Hessian over all its parameters, and return the files."""
    code = (
        "matrix = jax.hessian(lambda flat: loss(re(flat), data))(flat)\n"
        "jtree.plot.hessian(matrix, re=re).savefig(path)"
    )
    with report.step("A Hessian over all parameters", code) as step:
        split = _digits.coarse(digits.train)
        network = Network(SMALL, activation=nnx.tanh, seed=seed)
        network, value = _train.train(network, split, report.track(1000, "L-BFGS"))
        report.say(f"trained first, on images of 4 by 4 pixels: loss {value:.4f}")
        flat, re = jtree.destructure(network)
        hessian = np.asarray(jax.jit(jax.hessian(_train.loss))(flat, re, split), np.float64)
        eigenvalues = np.linalg.eigvalsh(hessian)
        step.measured["Hessian of a small network"] = f"{len(re)} by {len(re)}"
        step.measured["its smallest eigenvalue"] = f"{eigenvalues[0]:.4g}"
        step.measured["its largest eigenvalue"] = f"{eigenvalues[-1]:.4g}"
        title = f"Every second derivative of a small trained network: {len(re)} by {len(re)}"
        return {
            "picture": _write(jtree.plot.hessian(hessian, re=re, title=title), out / "hessian.png"),
            "eigenvalues": _write(jtree.plot.spectrum(eigenvalues), out / "spectrum.png"),
        }


def _write(figure: Figure, path: Path) -> str:
    figure.savefig(path, dpi=200, bbox_inches="tight", pad_inches=0.25)
    return str(path)


def _save_and_load(
    report: DemoReport, network: Network, held_out: LabelledImages, seed: int, checkpoint: Path
) -> None:
    """Load a saved network into one with another activation and an additional bias."""
    code = (
        "jtree.save(path, network, overwrite=True)\n"
        'other = jtree.loadmodel(other, jtree.load(path), none="zero")'
    )
    with report.step("Save, and load into another network", code) as step:
        jtree.save(checkpoint, network, overwrite=True)
        other = Network(SIZES, activation=nnx.relu, seed=seed + 1)
        other = jtree.loadmodel(other, jtree.load(checkpoint), none="zero")
        report.say("gelu became relu; layers/1/bias, which was absent, became zero")
        step.measured["parameters, largest |saved - loaded|"] = f"{_difference(network, other):.2g}"
        step.measured["accuracy of the other network, as loaded"] = _accuracy(other, held_out)


def _difference(saved: Network, loaded: Network) -> float:
    """Return the largest difference between the parameters of two networks."""
    before = jtree.trainables(saved)
    return max(
        float(jnp.abs(array - before.get(path, 0)).max())
        for path, array in jtree.trainables(loaded).items()
    )


def _compare_networks(report: DemoReport, network: Network, seed: int) -> None:
    """Print why the trained network does not fit into one of another shape."""
    with report.step("Mismatches", "jtree.diff(third, network)") as step:
        third = Network((64, 32, 48, 24, 10), activation=nnx.relu, unbiased={0}, seed=seed)
        diff = jtree.diff(third, network)
        report.say(diff)
        step.measured["mismatches of a third network"] = str(len(diff.mismatches))
