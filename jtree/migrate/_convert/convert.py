"""Conversion by type: each layer of the model says what it needs and how it stores it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from ..._errors import LoadError
from ..._state.load import compare_walks, load_compared
from ..._state.mismatch import Diff
from ..._tree.walk import walk
from .._layouts.registry import framework_layout
from .._rules.apply import apply
from .._rules.base import Rule
from .hints import Hint, check_arguments
from .match import match_layers
from .names import Rename, name_source
from .problems import find_problems
from .report import Report, make_report
from .source import read_source
from .target import read_target
from .unused import find_unused
from .values import convert_values

logger = logging.getLogger("jtree")


def convert(
    model: Any,
    source: Any,
    /,
    *,
    layout: str = "torch",
    rename: Rename | Sequence[Rule] = None,
    rules: Iterable[Rule] = (),
    hints: Iterable[Hint] = (),
) -> tuple[Any, Report]:
    """Return a model with the numbers of a source in another framework's layout, and a report.

    The model is walked. The type of each layer says what it needs and how it stores it, and the
    source's layout how that framework stores the same kind of layer. Nothing is guessed from
    shapes: a square kernel is transposed where the types say so. An array that belongs to no known
    layer is taken as it is.

    Layers are found by name: `layers/0/kernel` is `layers.0.weight`, `layers_0` is `layers/0`, and
    containers without a name of their own elsewhere (`layers` of a Sequential, `cell` of an RNN)
    may be left out. A stack of layers (`nnx.vmap`, `nn.scan`, `eqx.filter_vmap`) is made from
    layers that are numbered, and numbered layers from a stack.

    Args:
      model: an NNX or Equinox module, a model of `jtree.layers`, a pair `(model, state)` of
        Equinox, or `migrate.linen(module, variables, *inputs)`. It may be abstract.
      source: a mapping from names to arrays (of NumPy, JAX or PyTorch, or lazy ones), a nested
        state, an opened checkpoint, or a model, whose settings are then compared, too.
      layout: how the source stores layers: `"torch"`, `"linen"`, `"nnx"`, `"equinox"`, `"jtree"`,
        `"haiku"` or `"keras"`.
      rename: names of layers, from the source's to the model's: a dict such as
        `{"transformer.h": "blocks"}`, where `*` stands for one step, a function of the name of an
        array in the source, or rules. The names of arrays below a layer stay the source's.
      rules: rules that rewrite the source before anything else, such as `migrate.transpose`.
      hints: what weights do not tell about the model's layers: `migrate.flattened`,
        `migrate.unflattened`, `migrate.defaults`.

    Returns:
      The model, with its own dtypes, devices and shardings (for linen, the variables), and a
      `Report`.

    Raises:
      LoadError: something is missing, left over, or does not fit. All is reported at once, nothing
        is loaded; `.diff` holds it.
      PathError: a name in `rename` matches nothing.
      ArgumentTypeError: a rule is among the hints, or a hint among the rules.

    Example:
      >>> from flax import nnx
      >>> from jtree import migrate
      >>> model = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
      >>> source = {"weight": np.array([[1.0, 2.0], [3.0, 4.0]]), "bias": np.zeros(2)}
      >>> model, report = migrate.convert(model, source)
      >>> model.kernel[...].tolist(), report
      ([[1.0, 3.0], [2.0, 4.0]], Report(1 layer from torch))
    """
    rules, names = _split_rename(rules, rename)
    hints = list(hints)
    if rules or hints:
        check_arguments(rules, hints)
    origin = read_source(source, framework_layout(layout))
    arrays = apply(rules, origin.arrays) if rules else origin.arrays
    named = name_source(origin, arrays, names)
    target = read_target(model)
    matches = match_layers(target, named)
    values = convert_values(target, named, matches, hints)
    unused = find_unused(named, matches)
    compared = compare_walks(target.walked, walk(values.by_path), none="keep")
    problems = find_problems(target, named, values, unused, hints, compared.diff.mismatches)
    if problems:
        diff = Diff(problems, compared.diff.config)
        raise LoadError(f"nothing was loaded: {diff.message()}", diff)
    loaded = load_compared(target.walked, compared)
    report = make_report(named, values, unused)
    for warning in report.warnings:
        logger.warning("converted, but %s", warning)
    return loaded, report


def _split_rename(rules: Iterable[Rule], rename: Any) -> tuple[list[Rule], Any]:
    """Return the rules, with those of `rename`, and what `rename` is if it holds no rules."""
    if isinstance(rename, list | tuple):
        return [*rules, *rename], None
    return list(rules), rename
