"""A conversion while it is made: what was found, what was used, what is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .._diff import Mismatch
from .._leaves import describe
from .._walk import walk
from ._arrays import Source
from ._find import Spot, find, form_in, names_in
from ._flattened import Flattened
from ._layer import Form, Layer, Part, Steps
from ._left import left_over, mismatch
from ._model import Model
from ._names import steps
from ._report import Converted, Report, Setting
from ._roles import ONES, Roles, inner, read, unheld, write
from ._settings import differing, several_axes, suspicious

CONSTANTS: dict[str, Any] = {
    "counter": np.int32(2**30),
    "first": np.bool_(False),
}  # Equinox's: enough batches


class Target(NamedTuple):
    """A layer of the model: where it is, what it is, and the slots of its arrays."""

    place: Steps
    layer: Layer
    parts: dict[str, Part]  # by the path of the slot
    number: int | None  # how many layers are stacked in it, or None

    @property
    def path(self) -> str:
        """The layer's name."""
        return self.layer.name


class Work:
    """A conversion of a source into a model.

    Attributes:
      values: the new numbers, by the paths of slots.
      tried: what a slot was looked for as, by its path.
      kept: slots that stay as they are.
      problems: what is wrong, apart from what `compare` finds in the values.
    """

    def __init__(self, model: Model, source: Source, rules: Sequence[Flattened]) -> None:
        self.model = model
        self.source = source
        self.flattened = {steps(rule.path, source.layout): rule for rule in rules}
        self.slots = {slot.path: slot.value for slot in walk(model.tree).slots}
        self.values: dict[str, Any] = {}
        self.tried: dict[str, str] = {}
        self.kept: list[str] = []
        self.problems: list[Mismatch] = []
        self.used: dict[Steps, set[int | None]] = {}
        self.ignored: dict[str, str] = {}
        self.layers: list[Converted] = []
        self.copied: dict[str, str] = {}
        self.settings: list[Setting] = []
        self.tables: list[Steps] = []
        self.kernels: dict[Steps, tuple[str, tuple[int, ...]]] = {}
        self.stacks: dict[Steps, Any] = {}
        self.told: set[Steps] = set()
        self.reordered: set[Steps] = set()
        self.ordered: list[str] = []

    def run(self) -> None:
        """Convert every layer and every other array of the model."""
        groups: dict[Steps, dict[Steps, str]] = {}
        for place, path in self.model.places.items():
            above = (place[:n] for n in range(len(place)))
            layer = next((x for x in above if x in self.model.layers), None)
            part = self._part(layer, place)
            if layer is None or part is None:
                self._plain(place, path)
            else:
                groups.setdefault(layer, {})[place] = path
        for place, slots in groups.items():
            self._layer(self._target(place, slots))
        ignored, problems = left_over(self.source, self.used, self.tables)
        self.ignored |= ignored
        self.problems += problems
        self._check_flattened()

    def _part(self, layer: Steps | None, place: Steps) -> Part | None:
        if layer is None:
            return None
        rest, form = place[len(layer) :], self.model.layers[layer].form
        return next((part for part in form if inner(part) == rest), None)

    def _target(self, place: Steps, slots: Mapping[Steps, str]) -> Target:
        layer = self.model.layers[place]
        parts = {path: self._part(place, name) for name, path in slots.items()}
        known = {path: part for path, part in parts.items() if part is not None}
        stacks = {self._stacked(layer, path, part) for path, part in known.items()}
        number = stacks.pop() if len(stacks) == 1 else None
        return Target(place, layer, known, number)

    def _stacked(self, layer: Layer, path: str, part: Part) -> int | None:
        """Return how many layers an array holds, by the axes that it has more than its type."""
        shape = self.slots[path].shape
        return int(shape[0]) if len(shape) == part.turn.rank(layer.options) + 1 else None

    def _layer(self, target: Target) -> None:
        names = names_in(self.source.layout, target.layer.kind, self.model.names(target.place))
        own = next((x for name in names if (x := self.source.layers.get(name))), None)
        form = form_in(self.source.layout, target.layer, own)
        spots = find(self.source.entries, names, [inner(part) for part in form], target.number)
        self._note_tried(target, form, spots[0].prefix if spots else names[-1])
        if own is not None and own.kind != target.layer.kind:
            return self._problem(target.path, "kind", f"a layer {own.type}", target.layer.type)
        if not spots:
            return None
        done = [self._one(target, form, spot, own) for spot in spots]
        for path in target.parts:
            blocks = [found[path] for found in done if path in found]
            if len(blocks) == len(spots):
                self.values[path] = blocks[0] if target.number is None else _stack(blocks)
        short = [
            spot for spot, found in zip(spots, done, strict=True) if len(found) < len(target.parts)
        ]
        if short:
            self._note_tried(target, form, short[0].prefix)
        self._report(target, form, spots, own)
        return None

    def _one(
        self, target: Target, form: Form, spot: Spot, own: Layer | None
    ) -> dict[str, np.ndarray[Any, Any]]:
        """Return the arrays of one layer, of one that may be in a stack."""
        options = own.options if own is not None else target.layer.options
        ranks = (
            {inner(part): part.turn.rank(options) for part in form}
            if spot.place is not None
            else {}
        )
        roles = read(form, lambda name: self._fetch(spot, name, ranks.get(name)), options)
        self._ignore(form, spot)
        self._flatten(target, spot, roles)
        held = {role for part in target.parts.values() for role in part.roles}
        if "mean" in roles:
            roles |= {name: x for name, x in CONSTANTS.items() if name in held}
        self._check_held(target, form, spot, roles, held)
        self._remember(target, spot, roles)
        found = {}
        for path, part in target.parts.items():
            shape = self.slots[path].shape[0 if target.number is None else 1 :]
            x = write(part, roles, target.layer.options, shape)
            if x is not None:
                found[path] = x
        return found

    def _fetch(self, spot: Spot, name: Steps, rank: int | None = None) -> Any:
        """Return an array of the source, or None; one of a stack has an axis more than its rank."""
        place = (*spot.prefix, *name)
        if place not in self.source.entries:
            return None
        entry = self.source.entries[place]
        self.used.setdefault(place, set()).add(spot.place)
        if spot.place is None:
            return np.asarray(entry.array)
        shape = tuple(entry.array.shape)
        if place not in self.stacks:
            self.stacks[place] = np.asarray(entry.array)  # read once for all layers in it
        if len(shape) != (len(shape) if rank is None else rank + 1) or spot.place >= shape[0]:
            return None
        return self.stacks[place][spot.place]

    def _ignore(self, form: Form, spot: Spot) -> None:
        for part in form:
            place = (*spot.prefix, *inner(part))
            if not part.roles and place in self.source.entries:
                self.used.setdefault(place, set()).add(spot.place)
                self.ignored[self.source.entries[place].name] = "counts batches"

    def _flatten(self, target: Target, spot: Spot, roles: Roles) -> None:
        """Permute the rows of a kernel after a flattened image."""
        for path, rule in self.flattened.items():
            if path not in (target.place, spot.prefix) or "kernel" not in roles:
                continue
            self.told |= {path, target.place}
            kernel = roles["kernel"]
            if target.layer.kind != "dense" or kernel.shape[0] != rule.size:
                expected = f"a dense layer with {rule.size} inputs"
                self._problem(
                    target.path, "shape", expected, f"{target.layer.kind} {describe(kernel)}"
                )
            elif self.source.layout.channels_first != target.layer.layout.channels_first:
                first = self.source.layout.channels_first
                roles["kernel"] = rule.permute(kernel, channels_first=first)
                self.reordered.add(target.place)

    def _check_held(
        self, target: Target, form: Form, spot: Spot, roles: Roles, held: set[str]
    ) -> None:
        """Refuse numbers that the layer has no place for, unless they change nothing."""
        for role in unheld(roles, held):
            places = [(*spot.prefix, *inner(part)) for part in form if role in part.roles]
            names = [self.source.entries[x].name for x in places if x in self.source.entries]
            number = "one" if role in ONES else "zero"
            what = f"no {role.replace('_', ' ')} in {target.layer.type}"
            found = f"{describe(roles[role])}, not all {number}, in {' and '.join(names)}"
            advice = _ADVICE.get(role, "give the layer this parameter, or drop it with a rule")
            self._problem(target.path, "kind", what, found, f"; {advice}")

    def _remember(self, target: Target, spot: Spot, roles: Roles) -> None:
        """Keep what warnings and tied heads need to know."""
        kernel = roles.get("kernel", roles.get("table"))
        if kernel is not None and kernel.ndim >= 2:
            self.kernels[target.place] = (target.layer.kind, kernel.shape)
        first = target.layer.layout.channels_first, self.source.layout.channels_first
        scale = roles.get("scale")
        if first[0] != first[1] and scale is not None and scale.ndim > 1:
            self.ordered.append(several_axes(target.path, tuple(scale.shape)))
        if target.layer.kind == "embedding":
            form = form_in(self.source.layout, target.layer, None)
            self.tables += [(*spot.prefix, *inner(part)) for part in form]

    def _plain(self, place: Steps, path: str) -> None:
        """Take an array that no type of layer explains as it is."""
        slot = self.slots[path]
        names = self.model.names(place[:-1])
        for number in (None, slot.shape[0] if slot.shape else None):
            spots = find(self.source.entries, names, [place[-1:]], number)
            if spots:
                break
        rank = len(slot.shape)
        found = [self._fetch(spot, place[-1:], rank) for spot in spots]
        short = [spot.prefix for spot, x in zip(spots, found, strict=True) if x is None]
        tried = (*(short or names[-1:])[0], place[-1])
        self.tried.setdefault(path, self.source.layout.separator.join(tried))
        if found and all(x is not None for x in found):
            self.values[path] = found[0] if len(spots) == 1 and number is None else _stack(found)
            taken = [self.source.entries[*spot.prefix, place[-1]].name for spot in spots]
            self.copied[path] = ", ".join(dict.fromkeys(taken))
        elif path in self.model.optional:
            self.kept.append(path)

    def _check_flattened(self) -> None:
        for path, rule in self.flattened.items():
            if path not in self.told:
                self._problem(
                    rule.path, "missing", "a dense layer for flattened", "none of that name"
                )

    def _note_tried(self, target: Target, form: Form, prefix: Steps) -> None:
        for path, part in target.parts.items():
            near = [x for x in form if set(x.roles) & set(part.roles)]
            name = inner(near[0]) if near else ("nothing",)
            self.tried[path] = self.source.layout.separator.join((*prefix, *name))

    def _problem(self, path: str, sort: str, expected: str, found: str, advice: str = "") -> None:
        self.problems.append(mismatch(path, sort, expected, found, advice))

    def unused(self) -> list[str]:
        """Return the names of the arrays that nothing has taken."""
        return [x.name for place, x in self.source.entries.items() if place not in self.used]

    def _report(self, target: Target, form: Form, spots: list[Spot], own: Layer | None) -> None:
        entries = self.source.entries
        places = ((*spot.prefix, *inner(part)) for spot in spots for part in form if part.roles)
        names = tuple(dict.fromkeys(entries[x].name for x in places if x in entries))
        notes = [f"{target.number} layers stacked"] if target.number else []
        notes += [f"layer {spots[0].place} of a stack"] if _instack(target, spots) else []
        notes += ["rows permuted"] if target.place in self.reordered else []
        self.layers.append(Converted(target.path, target.layer.kind, names, tuple(notes)))
        self.settings += differing(target.path, target.layer, own, self.source.layout)

    def report(self) -> Report:
        """Return what was done."""
        orders = {x.layout.channels_first for x in self.model.layers.values()}
        differ = orders != {self.source.layout.channels_first}
        return Report(
            layout=self.source.layout.name,
            layers=tuple(self.layers),
            copied=self.copied,
            settings=tuple(self.settings),
            warnings=(
                *(suspicious(self.kernels, self.told) if differ else ()),
                *dict.fromkeys(self.ordered),
            ),
            ignored=self.ignored,
            kept=tuple(self.kept),
        )


_ADVICE = {
    "hidden_bias_n": "use a GRU that has this bias, as flax.linen.GRUCell and eqx.nn.GRUCell do",
    "mean": "give the model its running statistics: for Equinox, the pair (model, state)",
    "var": "give the model its running statistics: for Equinox, the pair (model, state)",
}


def _stack(blocks: Iterable[Any]) -> Any:
    return np.stack(list(blocks))


def _instack(target: Target, spots: list[Spot]) -> bool:
    return target.number is None and spots[0].place is not None
