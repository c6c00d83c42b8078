"""Conversion between frameworks, directed by the types of the model's layers, stage by stage."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..._arguments import check_iterable, unexpected
from ..._errors import ArgumentError, LoadError
from ..._state.compare import Comparison
from ..._state.load import compare_walks, load_compared
from ..._state.mismatch import Diff, Mismatch
from ..._tree.walk import walk
from .._layouts.registry import FLUX
from .._rules.apply import Migrated, apply
from .._rules.base import Rule
from .causes import Attempt, find_conversion_causes
from .checks import make_report
from .flux_source import fit_to_model
from .hints import Hint, check_arguments
from .match import match_layers
from .names import Rename, name_model, name_source
from .problems import expected_names, find_problems
from .report import Report
from .source import read_source
from .stages import NamedModel, NamedSource, Unused, Values
from .target import read_target
from .to_flux import convert_to_flux
from .traps import find_cautions, find_traps
from .unused import find_unused
from .values import convert_values

logger = logging.getLogger("jtree")


def convert(
    model: Any,
    source: Any = None,
    /,
    *,
    layout: str = "torch",
    to: str | None = None,
    rename: Rename | Sequence[Rule] = None,
    rules: Iterable[Rule] = (),
    hints: Iterable[Hint] = (),
    fields: Mapping[str, Sequence[str]] | None = None,
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
        `"jtree"`, `"haiku"`, `"keras"` or `"flux"`.
      to: `"flux"` for a conversion of the model itself, without a source, into the state that
        `Flux.loadmodel!` reads; `jtree.save("model.bson", state)` writes it.
      rename: the names of layers in the model, for those in the source: a dict such as
        `{"transformer.h": "blocks"}`, in which `*` matches one segment; a function of the full name
        of an array; or rules. The names of arrays within a layer stay those of the source.
      rules: rules that rewrite the source first, such as `migrate.transpose`.
      hints: what weights do not tell about layers of the model: `migrate.flattened`,
        `migrate.unflattened`, `migrate.defaults`, `migrate.as_base`.
      fields: for `layout="flux"`, the names of the fields of further structs by type, such as
        `{"TwoTower": ("query", "key")}`.

    Returns:
      The model, with its own dtypes, devices and shardings, or linen's variables; and a `Report`.
      With `to`, the state in place of the model.

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
    if to is not None:
        _check_target(to, source)
        return convert_to_flux(model, list(check_iterable("hints", hints, "a sequence of hints")))
    rules, names = _split_rename(check_iterable("rules", rules, "a sequence of rules"), rename)
    hints = list(check_iterable("hints", hints, "a sequence of hints"))
    converted = _convert(model, source, layout, names, rules, hints, fields=fields)
    if converted.problems:

        def retry(layout: str, prefix: Mapping[str, str], more: Sequence[Rule]) -> Attempt:
            changed = dict(prefix) if prefix else names
            more = [*rules, *more]
            target = converted.target
            return _attempt(_convert(model, source, layout, changed, more, hints, target, fields))

        causes = find_conversion_causes(_attempt(converted), layout, names, retry)
        diff = Diff(converted.problems, converted.compared.diff.config, causes=causes)
        raise LoadError(f"nothing was loaded: {diff.message()}", diff)
    loaded = load_compared(converted.target.walked, converted.compared)
    cautions = find_cautions(converted.source, converted.values)
    nodes = converted.target.walked.nodes
    report = make_report(converted.source, converted.values, converted.unused, cautions, nodes)
    for warning in report.warnings:
        logger.warning("converted, but %s", warning)
    return loaded, report


def _check_target(to: Any, source: Any) -> None:
    if not isinstance(to, str) or to != "flux":
        raise ArgumentError(f"to: expected 'flux' or None, found {to!r}")
    if source is not None:
        raise ArgumentError(
            "to: the model itself is converted, so a source cannot be given; write "
            'migrate.convert(model, to="flux")'
        )


class _Converted(NamedTuple):
    """The result of all stages of a conversion but the last."""

    source: NamedSource
    target: NamedModel
    values: Values
    unused: Unused
    compared: Comparison
    problems: tuple[Mismatch, ...]


def _convert(
    model: Any,
    source: Any,
    layout: str,
    names: Rename,
    rules: Sequence[Rule],
    hints: Sequence[Hint],
    target: NamedModel | None = None,
    fields: Mapping[str, Sequence[str]] | None = None,
) -> _Converted:
    """Return the new arrays of a model, and every reason why they cannot be loaded."""
    if rules or hints:
        check_arguments(rules, hints)
    origin = read_source(source, layout, fields)
    target = name_model(read_target(model)) if target is None else target
    if origin.layout is FLUX:
        origin = fit_to_model(origin, target)
    arrays = apply(rules, origin.arrays) if rules else origin.arrays
    unchanged = arrays.unchanged if isinstance(arrays, Migrated) else None
    named = name_source(origin, arrays, names, hints, unchanged)
    if not origin.arrays:
        raise unexpected("source", "a state dict, a model or a checkpoint with arrays", source)
    matches = match_layers(target, named)
    values = convert_values(target, named, matches, hints)
    unused = find_unused(named, matches)
    compared = compare_walks(target.walked, walk(values.by_path), none="keep")
    problems: tuple[Mismatch, ...] = ()
    traps = find_traps(origin.arrays, arrays, named, matches, hints)
    if compared.diff or unused.problems or values.refused or traps:
        mismatches = (*compared.diff.mismatches, *traps)
        problems = find_problems(target, named, values, unused, mismatches)
    return _Converted(named, target, values, unused, compared, problems)


def _attempt(converted: _Converted) -> Attempt:
    join = converted.source.layout.separator.join
    in_model = {slot.path: slot.value for slot in converted.target.arrays.values()}
    in_source = {x.name: x.array for x in converted.source.arrays}
    missing = {x.path for x in converted.problems if x.kind == "missing"}
    names = expected_names(converted.target, converted.values)
    return Attempt(
        converted.problems,
        {join(keys): _axes(in_model[path]) for path, keys in names if path in missing},
        {name: _axes(in_source[name]) for name in converted.unused.names},
        len(in_model),
    )


def _axes(array: Any) -> tuple[int, ...]:
    """Return the lengths of the axes, in order of length, since layouts order axes differently."""
    return tuple(sorted(array.shape))


def _split_rename(rules: Iterable[Rule], rename: Any) -> tuple[list[Rule], Any]:
    """Return the rules, including those passed as `rename`, and `rename` if it is not rules."""
    if isinstance(rename, list | tuple):
        return [*rules, *rename], None
    return list(rules), rename
