"""Conversion by type: each layer of the model says what it needs, and how it is stored."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from ..._errors import ArgumentTypeError, LoadError, did_you_mean
from ..._state.diff import Diff, Mismatch
from ..._state.load import compare_walks, load_into
from ..._tree.walk import walk
from .._layouts.registry import MODULES, framework_layout
from .._rules.apply import apply
from .._rules.base import Rule
from .converter import Work
from .hints import Hint, checked
from .linen import Linen, model_of_linen
from .names import Rename
from .report import Report
from .source import source_of
from .target import Model, model_of

NEAR = 20  # missing arrays for which near names are looked for
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
      ([[1.0, 3.0], [2.0, 4.0]], Report(1 layers from torch))
    """
    names: Any = rename
    given = list(rules)
    if isinstance(rename, list | tuple):
        given, names = [*given, *rename], None
    others, told = checked(given, hints)
    found = source_of(
        source,
        framework_layout(layout),
        names,
        lambda arrays: apply(others, arrays) if others else arrays,
    )
    target = _destination(model)
    work = Work(target, found, told)
    work.run()
    loaded, report = _load(target, work), work.report()
    for warning in report.warnings:
        logger.warning("converted, but %s", warning)
    return loaded, report


def _destination(model: Any) -> Model:
    if isinstance(model, Linen):
        return model_of_linen(model)
    found = model_of(model, MODULES)
    basic = isinstance(model, dict | list | tuple) and not found.layers
    if basic or not found.places:
        raise ArgumentTypeError(
            "model: expected a model whose layers have types, found "
            f"{type(model).__name__}; for linen give migrate.linen(module, variables, *inputs), "
            "for Equinox with running statistics (model, state)"
        )
    return found


def _load(target: Model, work: Work) -> Any:
    """Return the model with the numbers that were found, or refuse with all that is wrong."""
    wanted = {*target.places.values(), *work.values} - set(work.done.kept)

    def where(path: str, _: Any) -> bool:
        return path in wanted

    walked = walk(target.tree)
    compared = compare_walks(walked, walk(work.values), where=where if wanted else None).diff
    mismatches = [x for x in compared.mismatches if x.path not in work.refused]
    unused = work.unused()
    prefix = _prefix([work.tried.get(x.path, "") for x in mismatches], unused)
    problems = work.problems + [
        _explained(x, work, unused, prefix, n < NEAR) for n, x in enumerate(mismatches)
    ]
    if problems:
        diff = Diff(work.sorted(problems), compared.config)
        raise LoadError(f"nothing was loaded: {diff.message()}", diff)
    return load_into(target.tree, work.values, where=where)


def _prefix(tried: Sequence[str], unused: Iterable[str]) -> str | None:
    """Return what the source has before most of the names that were looked for, if it is one."""
    looked, names = [*filter(None, tried)], set(unused)
    longer = (x for x in names if looked and x.endswith(looked[0]))
    for prefix in sorted(x[: -len(looked[0])] for x in longer):
        found = sum(f"{prefix}{x}" in names for x in looked)
        if prefix[-1:] in (".", "/") and found > 1 and 2 * found > len(looked):
            return prefix
    return None


def _explained(
    x: Mismatch, work: Work, unused: list[str], prefix: str | None, near: bool
) -> Mismatch:
    """Say of a missing array what it was looked for as."""
    tried = work.tried.get(x.path)
    if x.kind != "missing" or tried is None:
        return x
    what = did_you_mean(tried, unused) if near else ""
    what += work.advice(x.path, left=bool(unused))
    if prefix is not None and f"{prefix}{tried}" in unused:
        what = f"; {prefix}{tried} is there: add {prefix[:-1]!r}: '' to rename"
    text = f"{x.path}: expected {x.expected} from {tried}, found nothing there{what}"
    return x._replace(text=text)
