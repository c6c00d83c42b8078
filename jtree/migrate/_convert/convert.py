"""Conversion between frameworks, directed by the types of the model's layers, stage by stage."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from ..._arguments import check_iterable
from ..._errors import LoadError
from ..._state.load import compare_walks, load_compared
from ..._state.mismatch import Diff
from ..._tree.walk import walk
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
    """Return a model with the values of a source from another framework, and a report.

    The type of each layer of the model tells what it needs and how it is stored, and `layout` how
    the framework of the source stores the same kind of layer. Nothing is guessed from shapes: a
    square kernel is transposed if the types say so. Arrays outside of all known layers are copied
    unchanged.

    Layers are matched by name: `layers/0/kernel`, `layers_0/kernel` and `layers.0.weight` belong
    to one layer. Containers that only one of the two has, such as the `layers` of a Sequential or
    the `cell` of an RNN, may be left out. Stacked layers (`nnx.vmap`, `nn.scan`,
    `eqx.filter_vmap`) are made from numbered ones, and numbered layers from a stack.

    Args:
      model: an NNX or Equinox module, a model of `jtree.layers`, a pair `(model, state)` of
        Equinox, or `migrate.linen(module, variables, *inputs)`. It may be abstract.
      source: a mapping from names to arrays (of NumPy, JAX or PyTorch, or lazy ones), a nested
        state, a checkpoint, or a model, whose settings are then compared too.
      layout: the layout of the source's framework: `"torch"`, `"linen"`, `"nnx"`, `"equinox"`,
        `"jtree"`, `"haiku"` or `"keras"`.
      rename: the names of layers in the model, for those in the source: a dict such as
        `{"transformer.h": "blocks"}`, in which `*` matches one segment; a function of the full name
        of an array; or rules. The names of arrays within a layer stay those of the source.
      rules: rules that rewrite the source first, such as `migrate.transpose`.
      hints: what weights do not tell about layers of the model: `migrate.flattened`,
        `migrate.unflattened`, `migrate.defaults`.

    Returns:
      The model, with its own dtypes, devices and shardings, or linen's variables; and a `Report`.

    Raises:
      LoadError: arrays are missing, unexpected or of other shapes. The message and `.diff` list
        all of them, and nothing is loaded.
      PathError: a name in `rename` matches nothing.
      ArgumentTypeError: the model has no layers of known types, a rule is among the hints, or a
        hint among the rules.

    Example:
      >>> from flax import nnx
      >>> from jtree import migrate
      >>> model = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
      >>> source = {"weight": np.array([[1.0, 2.0], [3.0, 4.0]]), "bias": np.zeros(2)}
      >>> model, report = migrate.convert(model, source)
      >>> model.kernel[...].tolist(), report
      ([[1.0, 3.0], [2.0, 4.0]], Report(1 layer from torch))
    """
    rules, names = _split_rename(check_iterable("rules", rules, "a sequence of rules"), rename)
    hints = list(check_iterable("hints", hints, "a sequence of hints"))
    if rules or hints:
        check_arguments(rules, hints)
    origin = read_source(source, layout)
    arrays = apply(rules, origin.arrays) if rules else origin.arrays
    named = name_source(origin, arrays, names)
    target = read_target(model)
    matches = match_layers(target, named)
    values = convert_values(target, named, matches, hints)
    unused = find_unused(named, matches)
    compared = compare_walks(target.walked, walk(values.by_path), none="keep")
    if compared.diff or unused.problems or values.refused:
        problems = find_problems(target, named, values, unused, compared.diff.mismatches)
        diff = Diff(problems, compared.diff.config)
        raise LoadError(f"nothing was loaded: {diff.message()}", diff)
    loaded = load_compared(target.walked, compared)
    report = make_report(named, values, unused)
    for warning in report.warnings:
        logger.warning("converted, but %s", warning)
    return loaded, report


def _split_rename(rules: Iterable[Rule], rename: Any) -> tuple[list[Rule], Any]:
    """Return the rules, including those passed as `rename`, and `rename` if it is not rules."""
    if isinstance(rename, list | tuple):
        return [*rules, *rename], None
    return list(rules), rename
