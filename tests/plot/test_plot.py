"""Pictures: what is drawn where, and under which name. What they look like was looked at."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import jtree
from jtree.plot import hessian, landscape, parameters, spectrum
from jtree.plot._blocks import blocks

MODEL = {"head": {"w": jnp.ones((2, 3)), "b": jnp.zeros(2)}, "scale": jnp.array(2.0)}
FLAT, RE = jtree.destructure(MODEL)  # head/b: 0 and 1, head/w: 2 to 7, scale: 8
DIRECTION = jnp.arange(1.0, 10.0)


def quadratic(v: jax.Array) -> jax.Array:
    return 3.0 + (jnp.arange(1.0, 10.0) * v**2).sum()


def matrix(size: int = 9) -> np.ndarray:
    found = np.random.default_rng(0).normal(size=(size, size))
    return found + found.T


def labels(axes: Axes, axis: str = "y") -> list[str]:
    return [x.get_text() for x in getattr(axes, f"get_{axis}ticklabels")()]


def layout_of(names: list[str], size: int = 2) -> jtree.Restructure:
    tree: dict[str, Any] = {}
    for name in names:
        *above, last = name.split("/")
        node = tree
        for step in above:
            node = node.setdefault(step, {})
        node[last] = jnp.ones(size)
    return jtree.destructure(tree)[1]


# The matrix.


def test_a_matrix_is_drawn_as_it_is() -> None:
    entries, norms, *_ = hessian(matrix(), re=RE).axes
    assert np.array_equal(entries.images[0].get_array(), matrix())
    assert entries.images[0].get_extent() == [-0.5, 8.5, 8.5, -0.5]
    assert norms.images[0].get_array().shape == (3, 3)


def test_blocks_are_named_by_path_in_both_panels() -> None:
    entries, norms, *_ = hessian(matrix(), re=RE).axes
    assert labels(entries) == labels(norms) == labels(norms, "x") == ["head/b", "head/w", "scale"]


def test_borders_are_where_parameters_begin() -> None:
    entries = hessian(matrix(), re=RE).axes[0]
    lines = [(list(x.get_xdata()), list(x.get_ydata())) for x in entries.lines]
    for start in (2, 8):
        assert ([0, 1], [start - 0.5] * 2) in lines
        assert ([start - 0.5] * 2, [0, 1]) in lines
    assert sum(len(x) == 2 for x, _ in lines) == 4


def test_a_line_leads_from_each_label_to_the_middle_of_its_block() -> None:
    entries = hessian(matrix(), re=RE).axes[0]
    leaders = [x.get_ydata() for x in entries.lines if len(x.get_ydata()) == 3]
    assert [y[0] for y in leaders] == [0.5, 4.5, 8.0]
    assert [y[2] for y in leaders] == pytest.approx(list(entries.get_yticks()))


@pytest.mark.parametrize("sizes", [[1000, 1, 1, 1, 1], [1] * 30 + [5000], [3, 4000, 2, 1, 4000, 5]])
def test_labels_are_apart_and_inside_however_small_the_blocks(sizes: list[int]) -> None:
    tree = {f"p{k:02}": jnp.zeros(n) for k, n in enumerate(sizes)}
    _, re = jtree.destructure(tree)
    total = sum(sizes)
    places = np.array(hessian(np.eye(total, dtype=np.float32), re).axes[0].get_yticks())
    assert np.diff(places).min() > total / 40
    assert -0.5 <= places.min() <= places.max() <= total - 0.5


def test_the_norm_of_each_block_is_drawn_and_written() -> None:
    values = matrix()
    norms = hessian(values, re=RE).axes[1]
    parts = [slice(0, 2), slice(2, 8), slice(8, 9)]
    expected = [[np.linalg.norm(values[a, b]) for b in parts] for a in parts]
    assert np.allclose(norms.images[0].get_array(), expected)
    assert [x.get_text() for x in norms.texts] == [f"{x:.2g}" for x in np.ravel(expected)]


def test_colours_are_symmetric_and_linear_below_the_median() -> None:
    norm = hessian(matrix(), re=RE).axes[0].images[0].norm
    assert norm.vmax == -norm.vmin == np.abs(matrix()).max()
    assert norm.linthresh == np.median(np.abs(matrix()))
    steep = np.diag(10.0 ** -np.arange(9))
    assert hessian(steep).axes[0].images[0].norm.linthresh == pytest.approx(1e-4)


def test_a_large_matrix_shows_the_largest_entry_of_every_cell() -> None:
    values = np.zeros((1100, 1100), np.float32)
    values[7, 1099], values[8, 1098], values[6, 1099] = -5, 3, 4
    entries = hessian(values).axes[0]
    pixels = entries.images[0].get_array()
    assert pixels.shape == (367, 367)  # 3 by 3 each, the last ones 2
    assert (pixels[2, 366], np.count_nonzero(pixels)) == (-5, 1)
    assert entries.get_title() == "Entries, each pixel the largest of 3 by 3"
    assert entries.images[0].get_extent() == [-0.5, 1100.5, 1100.5, -0.5]
    assert (entries.get_xlim(), entries.get_ylim()) == ((-0.5, 1099.5), (1099.5, -0.5))


def test_a_matrix_without_names_is_one_panel() -> None:
    assert len(hessian(matrix()).axes) == 2  # the entries, and their colours


def test_numbers_that_are_zero_or_not_finite_can_be_drawn(tmp_path: Any) -> None:
    values = matrix()
    values[0, 1] = np.nan
    values[2, 3] = np.inf
    figure = hessian(values, re=RE)
    assert np.argwhere(figure.axes[0].images[0].get_array().mask).tolist() == [[0, 1], [2, 3]]
    assert np.argwhere(figure.axes[1].images[0].get_array().mask).tolist() == [[0, 0], [1, 1]]
    for each in (figure, hessian(np.zeros((9, 9)), re=RE), hessian(np.full((9, 9), np.nan), re=RE)):
        each.savefig(tmp_path / "drawn.png")


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32, jnp.int32])
def test_a_matrix_of_any_real_dtype_can_be_drawn(dtype: Any) -> None:
    image = hessian(jnp.eye(9, dtype=dtype), re=RE).axes[0].images[0]
    assert np.array_equal(image.get_array(), np.eye(9))


class Operator:
    re = RE

    def dense(self) -> jax.Array:
        return jnp.eye(9)


def test_an_operator_is_made_dense_and_brings_its_names() -> None:
    figure = hessian(Operator())
    assert labels(figure.axes[0]) == ["head/b", "head/w", "scale"]
    assert figure.get_suptitle() == "Operator over 9 parameters"
    assert hessian(Operator(), title="mine").get_suptitle() == "mine"


# Names.


def test_a_tied_parameter_is_marked() -> None:
    w = jnp.ones(3)
    _, re = jtree.destructure({"a": w, "b": w, "c": w}, ties=[("a", "b")])
    assert [block.label for block in blocks(re, 9)] == ["a (tied)", "c"]


def test_a_model_that_is_one_array_has_a_name() -> None:
    assert [x.label for x in blocks(jtree.destructure(jnp.ones(2))[1], 9)] == ["(root)"]


def test_parameters_of_no_numbers_are_left_out() -> None:
    _, re = jtree.destructure({"a": jnp.ones(2), "b": jnp.ones((0, 3))})
    assert [tuple(x) for x in blocks(re, 9)] == [("a", 0, 2)]


def test_too_many_parameters_are_grouped_by_their_deepest_nodes() -> None:
    names = [f"net/{k}/{part}/w" for k in range(3) for part in "ab"] + ["out"]
    re = layout_of(names)
    assert [x.label for x in blocks(re, 7)] == names
    grouped = blocks(re, 6)
    assert [x.label for x in grouped] == ["net/0/**", "net/1/**", "net/2/**", "out"]
    assert [(x.start, x.stop) for x in grouped] == [(0, 4), (4, 8), (8, 12), (12, 14)]
    assert [x.label for x in blocks(re, 3)] == ["net/**", "out"]


def test_too_many_children_of_the_root_are_put_together() -> None:
    found = blocks(layout_of([f"p{k}" for k in range(10, 20)]), 4)
    assert [x.label for x in found] == ["p10 to p12", "p13 to p15", "p16 to p18", "p19"]
    assert found[-1].stop == 20


def test_names_of_what_is_put_together_differ() -> None:
    names = [f"block_{k}/a_long_name_{j}/kernel" for k in range(20, 60) for j in range(2)]
    found = [x.label for x in blocks(layout_of(names), 36)]
    assert found[:2] == ["block_20 to block_21", "block_22 to block_23"]
    assert len(set(found)) == len(found) == 20


def test_one_parameter_is_singular() -> None:
    flat, re = jtree.destructure({"w": jnp.ones(1)})
    assert parameters(flat, re).get_suptitle() == "1 parameter"
    assert hessian(np.ones((1, 1)), re=re).get_suptitle() == "Matrix over 1 parameter"


def test_a_long_path_loses_its_middle() -> None:
    (block,) = blocks(layout_of(["encoder/layers/12/attention/query/kernel"]), 1)
    assert block.label == "encoder/l…ntion/query/kernel"
    assert len(block.label) == 28


# Eigenvalues.


def test_the_density_of_eigenvalues_integrates_to_their_number() -> None:
    values = np.concatenate([np.linspace(-1, 2, 50), [30.0]])
    density, ranks = spectrum(values).axes
    total = 0.0
    for line in density.lines:
        x, y = line.get_xdata(), line.get_ydata()
        linear = density.xaxis.get_transform().linear_width
        total += np.trapezoid(y, np.arcsinh(x / linear) / np.log(10))
    assert total == pytest.approx(51, rel=1e-3)
    assert np.allclose(np.sort(ranks.collections[0].get_offsets()[:, 1]), np.sort(np.abs(values)))


def test_weights_are_how_many_eigenvalues_a_number_stands_for() -> None:
    one = spectrum(jnp.array([1.0, 2.0, 2.0, 2.0])).axes[0].lines[1]
    two = spectrum((np.array([1.0, 2.0]), np.array([1.0, 3.0]))).axes[0].lines[1]
    same = spectrum(np.array([2.0, 1.0]), np.array([3.0, 1.0])).axes[0].lines[1]
    heights = [np.max(line.get_ydata()) for line in (one, two, same)]
    assert heights == pytest.approx([heights[0]] * 3, rel=0.05)
    figure = spectrum(np.array([2.0, 1.0]), np.array([3.0, 1.0]))
    assert len(figure.axes) == 1  # no ranks of what is not one eigenvalue each
    assert figure.get_suptitle() == "4 eigenvalues from 1 to 2"


def test_a_spectrum_by_quadrature_stands_for_all_eigenvalues() -> None:
    class Quadrature:
        nodes = jnp.array([[1.0, 3.0, 99.0], [1.0, 4.0, -7.0]])  # two runs, each with one stray
        weights = jnp.array([[0.5, 0.5, 0.0], [0.5, 0.5, 1e-12]])
        size = 100

    figure = spectrum(Quadrature())
    assert figure.get_suptitle() == "100 eigenvalues from 1 to 4"
    pair = spectrum(np.array([1.0, 3.0, 4.0]), np.array([50.0, 25.0, 25.0]))
    heights = [x.axes[0].lines[1].get_ydata() for x in (figure, pair)]
    assert np.allclose(*heights)


@pytest.mark.parametrize(("values", "colours"), [([0, 5], 1), ([-5, 0], 1), ([-5, 5], 2)])
def test_a_side_without_eigenvalues_has_no_colour(values: list[int], colours: int) -> None:
    density = spectrum(np.array(values)).axes[0]
    assert len({x.get_color() for x in density.lines if len(x.get_xdata())}) == colours


def test_several_spectra_share_their_axes() -> None:
    figure = spectrum({"step 0": np.array([-3.0, 1.0]), 10: (np.array([2.0]), np.array([2.0]))})
    assert [axes.get_ylabel() for axes in figure.axes] == ["step 0", "10"]
    assert figure.axes[0].get_xlim() == figure.axes[1].get_xlim()
    assert [axes.texts[0].get_text() for axes in figure.axes] == ["from -3 to 1", "from 2 to 2"]


@pytest.mark.parametrize("values", [[0.0, 0.0], [1.0], [-1e-12, 1e12], list(range(-500, 500))])
def test_ticks_are_zero_and_powers_of_ten(values: list[float], tmp_path: Any) -> None:
    figure = spectrum(np.array(values))
    figure.savefig(tmp_path / "drawn.png")
    ticks = figure.axes[0].get_xticks()
    powers = np.log10(np.abs(ticks[ticks != 0]))
    assert 0 in ticks
    assert len(ticks) <= 9
    assert np.allclose(powers, np.round(powers))


# Slices of the loss.


def test_a_line_is_the_loss_along_a_direction() -> None:
    axes = landscape(quadratic, FLAT, RE, DIRECTION, scale="none", span=2, points=5).axes[0]
    along, values = axes.lines[0].get_data()
    assert along.tolist() == [-2, -1, 0, 1, 2]
    assert np.allclose(values, [quadratic(FLAT + t * DIRECTION) for t in along])


def test_the_parabola_of_a_quadratic_is_the_quadratic() -> None:
    loss, parabola, middle = landscape(quadratic, FLAT, RE, DIRECTION, points=9).axes[0].lines
    assert np.allclose(loss.get_ydata(), parabola.get_ydata(), rtol=1e-5)
    assert (middle.get_xdata()[0], middle.get_ydata()[0]) == (0, quadratic(FLAT))
    assert len(landscape(quadratic, FLAT, RE, DIRECTION, quadratic=False).axes[0].lines) == 2


def test_each_filter_of_a_direction_has_the_norm_of_the_same_filter() -> None:
    seen = []

    def loss(v: jax.Array) -> jax.Array:
        jax.debug.callback(lambda x: seen.append(np.asarray(x)), v, ordered=True)
        return v.sum()

    flat = jnp.arange(9.0)
    landscape(loss, flat, RE, -DIRECTION, points=3, quadratic=False)
    jax.effects_barrier()
    moved = RE(jnp.asarray(seen[-1] - np.asarray(flat)))  # the point at 1
    start = RE(flat)
    kernel = np.linalg.norm(start["head"]["w"], axis=0)
    assert np.allclose(np.linalg.norm(moved["head"]["w"], axis=0), kernel)
    assert np.allclose(np.linalg.norm(moved["head"]["b"]), np.linalg.norm(start["head"]["b"]))
    assert np.allclose(moved["scale"], -start["scale"])


def test_a_direction_is_nothing_where_the_weights_are_zero() -> None:
    axes = landscape(quadratic, jnp.zeros(9), RE, DIRECTION).axes[0]
    assert np.allclose(axes.lines[0].get_ydata(), 3)
    axes = landscape(quadratic, FLAT, RE, jnp.zeros(9)).axes[0]
    assert np.allclose(axes.lines[0].get_ydata(), quadratic(FLAT))


def test_a_direction_can_have_the_norm_of_the_vector() -> None:
    axes = landscape(lambda v: ((v - FLAT) ** 2).sum(), FLAT, RE, DIRECTION, scale="norm").axes[0]
    assert axes.lines[0].get_ydata()[-1] == pytest.approx(float((FLAT**2).sum()))


def test_a_plane_is_the_loss_along_two_directions() -> None:
    basis = jnp.eye(9)[jnp.array([0, 8])]
    figure = landscape(
        lambda v, shift: v[0] + 10.0 * v[8] + shift, FLAT, RE, basis, 5.0, scale="none", span=(1, 2)
    )
    axes = figure.axes[0]
    x, y = axes.get_xlim(), axes.get_ylim()
    assert (x, y) == ((-1, 1), (-2, 2))
    low, high = axes.collections[0].get_clim()
    assert low <= 4 < 46 <= high  # 0 + 20 + 5 in the middle, 1 and 20 to either side
    assert figure.axes[1].get_ylabel() == "loss"


def test_colours_are_logarithmic_where_losses_are_far_apart() -> None:
    basis = jnp.eye(9)[:2]
    loss = lambda v: jnp.exp(3.0 * v[0]) + v[1] ** 2  # noqa: E731
    figure = landscape(loss, FLAT, RE, basis, scale="none", names=("up", "along"))
    assert figure.axes[1].get_ylabel() == "loss, on a logarithmic scale"
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("up", "along")


LOSSES = [lambda v: v[0] * 0.0, lambda v: jnp.log(v[0]), lambda v: jnp.sqrt(v[0] - 0.1)]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("count", [1, 2])
def test_losses_that_are_constant_or_not_finite_everywhere_can_be_drawn(
    loss: Callable[[Any], Any], count: int, tmp_path: Any
) -> None:
    figure = landscape(loss, FLAT, RE, jnp.eye(9)[:count], scale="none")
    figure.savefig(tmp_path / "drawn.png")


def test_digits_tell_nearly_equal_losses_apart() -> None:
    nearly = landscape(lambda v: 1 + 1e-5 * quadratic(v), FLAT, RE, jnp.eye(9)[:2], scale="none")
    bar = nearly.axes[1]
    nearly.canvas.draw()
    ticks = [x for x in labels(bar) if x]
    assert len(set(ticks)) == len(ticks) > 2


def test_a_loss_is_traced_a_few_times_only() -> None:
    count = 0

    def loss(v: jax.Array) -> jax.Array:
        nonlocal count
        count += 1
        return v.sum()

    landscape(loss, FLAT, RE, DIRECTION, points=201)
    assert count <= 4


# The numbers themselves.


def test_every_parameter_has_a_histogram_of_its_numbers() -> None:
    figure = parameters(DIRECTION, RE)
    assert [x.get_title(loc="left") for x in figure.axes] == ["head/b", "head/w", "scale"]
    heights = [sum(bar.get_height() for bar in axes.patches) for axes in figure.axes]
    assert heights == [2, 6, 1]


def test_under_the_path_are_the_shape_and_the_moments() -> None:
    texts = [axes.texts[0].get_text() for axes in parameters(DIRECTION - 1, RE).axes]
    assert texts == ["[2]   0.5 ± 0.5   1 zeros", "[2, 3]   4.5 ± 1.7", "[]   8 ± 0"]
    broken = jnp.full(9, jnp.nan).at[0].set(1.0)
    texts = [axes.texts[0].get_text() for axes in parameters(broken, RE).axes]
    assert texts == [
        "[2]   1 ± 0   1 not finite",
        "[2, 3]   6 not finite",
        "[]   1 not finite",
    ]


def test_many_parameters_are_one_histogram_per_node() -> None:
    re = layout_of([f"layers/{k}/{part}" for k in range(20) for part in "wb"])
    figure = parameters(jnp.ones(80), re)
    assert len(figure.axes) == 20
    assert figure.axes[0].texts[0].get_text() == "4 numbers   1 ± 0"


# All of them.


def pictures() -> dict[str, Callable[[], Figure]]:
    return {
        "hessian": lambda: hessian(matrix(), re=RE),
        "spectrum": lambda: spectrum(np.arange(9.0)),
        "landscape": lambda: landscape(quadratic, FLAT, RE, DIRECTION),
        "parameters": lambda: parameters(FLAT, RE),
    }


@pytest.mark.parametrize("name", pictures())
def test_a_picture_shows_itself_and_pickles_and_is_like_the_next(name: str) -> None:
    figure = pictures()[name]()
    assert isinstance(figure, Figure)
    shown = figure._repr_png_()
    assert shown.startswith(b"\x89PNG")
    assert shown == pictures()[name]()._repr_png_()
    assert len(pickle.loads(pickle.dumps(figure)).axes) == len(figure.axes)


def test_pyplot_is_never_imported(run_python: Callable[..., str]) -> None:
    found = run_python("""
        import sys, jax.numpy as jnp, jtree
        flat, re = jtree.destructure({"a": jnp.ones(3), "b": jnp.zeros(2)})
        print("matplotlib" in sys.modules)
        jtree.plot.hessian(jnp.eye(5), re)
        jtree.plot.spectrum(flat)
        jtree.plot.parameters(flat, re)
        jtree.plot.landscape(jnp.sum, flat, re, flat)
        jtree.plot.landscape(jnp.sum, flat, re, jnp.eye(5)[:2])
        print("matplotlib.pyplot" in sys.modules)
    """)
    assert found == "False\nFalse\n"


@pytest.mark.parametrize("name", pictures())
def test_without_matplotlib_the_error_says_what_to_install(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # type: ignore[arg-type]
    with pytest.raises(jtree.ExtraError) as caught:
        pictures()[name]()
    assert str(caught.value) == (
        'jtree.plot draws with matplotlib, which is not installed; run: pip install "jtree[plot]"'
    )


ERRORS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (
        lambda: hessian(np.ones((2, 3))),
        jtree.ArgumentError,
        "expected a square matrix, found an array of shape (2, 3)",
    ),
    (
        lambda: hessian(matrix(8), re=RE),
        jtree.ArgumentError,
        "expected a matrix of shape (9, 9), one row per parameter of Restructure(dict, ..., 9), "
        "found (8, 8)",
    ),
    (
        lambda: hessian(1j * matrix(), re=RE),
        jtree.ArgumentTypeError,
        "expected a real matrix, found one of complex128; draw its .real, .imag or abs",
    ),
    (
        lambda: hessian(np.ones((0, 0))),
        jtree.ArgumentError,
        "expected a matrix of one row or more, found an empty one",
    ),
    (
        lambda: spectrum(np.ones(3) * 1j),
        jtree.ArgumentTypeError,
        "expected real eigenvalues, found complex128; those of a symmetric matrix are what "
        "numpy.linalg.eigvalsh returns",
    ),
    (
        lambda: spectrum(np.ones(3), np.ones(2)),
        jtree.ArgumentError,
        "expected eigenvalues and one weight for each, found 3 and 2",
    ),
    (
        lambda: spectrum(np.array([1.0, np.nan])),
        jtree.ArgumentError,
        "expected finite eigenvalues, found some that are not",
    ),
    (
        lambda: spectrum({}),
        jtree.ArgumentError,
        "expected one spectrum or more, found an empty dict",
    ),
    (
        lambda: spectrum({"a": np.ones(2)}, np.ones(2)),
        jtree.ArgumentError,
        "weights: in a dict, give each spectrum as a pair (nodes, weights)",
    ),
    (
        lambda: landscape(quadratic, FLAT, RE, jnp.ones(8)),
        jtree.VectorError,
        "directions: expected shape (9,) or (2, 9), found (8,)",
    ),
    (
        lambda: landscape(quadratic, FLAT, RE, jnp.ones((3, 9))),
        jtree.ArgumentError,
        "directions: expected one or two, found 3",
    ),
    (
        lambda: landscape(quadratic, FLAT, RE, DIRECTION, scale="layer"),  # type: ignore[arg-type]
        jtree.ArgumentError,
        "scale: expected 'filter', 'norm' or 'none', found 'layer'",
    ),
    (
        lambda: landscape(lambda v: v[0] / 0.0, FLAT * 0.0, RE, DIRECTION),
        jtree.ArgumentError,
        "the loss is not finite at any of 101 points around the vector",
    ),
    (
        lambda: landscape(lambda v: v, FLAT, RE, DIRECTION),
        jtree.ArgumentTypeError,
        "expected a loss that returns a real scalar, found float32[9]",
    ),
    (
        lambda: landscape(
            quadratic, jnp.asarray(np.asarray(FLAT) * 1j, jnp.complex64), RE, DIRECTION
        ),
        jtree.ArgumentTypeError,
        "expected a vector of real numbers, found one of complex64",
    ),
    (
        lambda: parameters(FLAT[:8], RE),
        jtree.VectorError,
        "expected a vector of 9 numbers, found one of 8",
    ),
    (
        lambda: parameters(jnp.asarray(np.asarray(FLAT) * 1j, jnp.complex64), RE),
        jtree.ArgumentTypeError,
        "expected real numbers, found complex64; draw .real, .imag or abs of the vector",
    ),
    (
        lambda: parameters(jtree.destructure({})[1], jnp.zeros(0)),
        jtree.ArgumentError,
        "expected a model with parameters, found Restructure(dict, ..., 0)",
    ),
]


@pytest.mark.parametrize(("call", "kind", "message"), ERRORS)
def test_what_cannot_be_drawn_is_refused(
    call: Callable[[], Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert str(caught.value) == message
