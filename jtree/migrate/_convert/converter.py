"""A conversion while it is made: what was found, what was used, what is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..._state.diff import Mismatch
from ..._tree.walk import walk
from .._layouts.canonical import Roles, inner, read, unheld, write
from .._layouts.spec import Form, Layer, Part, Steps
from .defaults import advice, word
from .hints import Rules, Told
from .match import Spot, find, form_in, names_in
from .problems import ambiguous, twice, unplaced, wrong_kind
from .report import Report
from .report_builder import Findings
from .source import Source
from .target import Model
from .unused import left_over

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
      refused: slots of which it is said already why there is nothing for them.
      problems: what is wrong, apart from what `compare` finds in the values.
    """

    def __init__(self, model: Model, source: Source, rules: Sequence[Rules]) -> None:
        self.model = model
        self.source = source
        self.told = Told(rules, source.layout)
        self.done = Findings(source)
        self.known = {
            name
            for places in (model.layers, (place[:-1] for place in model.places))
            for place in places
            for name in model.names(place)
        }
        self.slots = {slot.path: slot.value for slot in walk(model.tree).slots}
        self.values: dict[str, Any] = {}
        self.tried: dict[str, str] = {}
        self.problems: list[Mismatch] = []
        self.used: dict[Steps, set[int | None]] = {}
        self.stacks: dict[Steps, Any] = {}
        self.refused: set[str] = set()
        self.fillable: dict[str, tuple[Part, bool]] = {}

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
        ignored, problems = left_over(self.source, self.used, self.done.tables)
        self.done.ignored |= ignored
        self.problems += [*problems, *self.told.problems, *self.told.unneeded()]

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
        own_names = self.model.names(target.place)
        names = names_in(self.source.layout, target.layer.kind, own_names)
        own = next((x for name in names if (x := self.source.layers.get(name))), None)
        form = form_in(self.source.layout, target.layer, own)
        spots = self._find(target.path, names, [inner(part) for part in form], target.number)
        self._note_tried(target, form, spots[0].prefix if spots else own_names[-1])
        if spots is None:
            self.refused |= target.parts.keys()
            return
        if own is not None and not _alike(own.kind, target.layer.kind):
            self._wrong_kind(target, form, own, names)
            return
        done = [self._one(target, form, spot, own) for spot in spots]
        for path in target.parts:
            blocks = [found[path] for found in done if path in found]
            if blocks and len(blocks) == len(spots):
                self.values[path] = blocks[0] if target.number is None else np.stack(blocks)
        short = [
            spot for spot, found in zip(spots, done, strict=True) if len(found) < len(target.parts)
        ]
        if short:
            self._note_tried(target, form, short[0].prefix)
        self._fill(target, found=bool(spots))
        if spots or any(path in self.values for path in target.parts):
            self.done.add(target.layer, form, spots, own, target.number)

    def _find(
        self, path: str, names: Sequence[Steps], below: Sequence[Steps], number: int | None
    ) -> list[Spot] | None:
        """Return where a layer is; None, and a problem, where nothing tells which way is meant."""
        ways = find(self.source.shapes, names, below, number, self.known)
        if len(ways) < 2:
            return ways[0] if ways else []
        for spot in (spot for way in ways for spot in way):
            for place in ((*spot.prefix, *name) for name in below):
                self.used.setdefault(place, set()).add(None)
        self.problems.append(ambiguous(path, ways, self.source.layout.separator))
        return None

    def _wrong_kind(self, target: Target, form: Form, own: Layer, names: Sequence[Steps]) -> None:
        """Refuse a layer that is of another kind in the source."""
        self.refused |= target.parts.keys()
        for name in names:
            for part in form:
                if (entry := self.source.get((*name, *inner(part)))) is not None:
                    self.used.setdefault(entry.place, set()).add(None)
        self.problems.append(wrong_kind(own, target.layer))

    def _fill(self, target: Target, *, found: bool) -> None:
        """Take neutral numbers for what the source has not, where a rule allows it."""
        for path, part in target.parts.items():
            if path in self.values:
                continue
            number, slot = self.told.number(path, part), self.slots[path]
            if number is None:
                self.fillable[path] = (part, found)
            else:
                self.values[path] = np.full(slot.shape, number, slot.dtype)
                self.done.note(target.layer, f"{part.name}: {word(number)}, by migrate.neutral")

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
        self._check_doubled(target, form, spot)
        roles = read(form, lambda name: self._fetch(spot, name, ranks.get(name)), options)
        self._ignore(form, spot)
        names = (*self.model.names(target.place), spot.prefix)
        roles, notes = self.told.image(target.place, names, target.layer, roles)
        for note in notes:
            self.done.note(target.layer, note)
        held = {role for part in target.parts.values() for role in part.roles}
        if "mean" in roles:
            roles |= {name: x for name, x in CONSTANTS.items() if name in held}
        self._check_held(target, form, spot, roles, held)
        self.done.see(target.place, target.layer, roles, form, spot)
        found = {}
        for path, part in target.parts.items():
            shape = self.slots[path].shape[0 if target.number is None else 1 :]
            x = write(part, roles, target.layer.options, shape)
            if x is not None:
                found[path] = x
        return found

    def _fetch(self, spot: Spot, name: Steps, rank: int | None = None) -> Any:
        """Return an array of the source, or None; one of a stack has an axis more than its rank."""
        entry = self.source.get((*spot.prefix, *name))
        if entry is None:
            return None
        place = entry.place
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
            entry = self.source.get((*spot.prefix, *inner(part)))
            if not part.roles and entry is not None:
                self.used.setdefault(entry.place, set()).add(spot.place)
                self.done.ignored[entry.name] = "counts batches"

    def _check_doubled(self, target: Target, form: Form, spot: Spot) -> None:
        """Refuse a layer that is there twice, in two ways to store it."""
        at = {inner(part): self.source.get((*spot.prefix, *inner(part))) for part in form}
        held = {name: entry.name for name, entry in at.items() if entry is not None}
        self.problems += twice(target.path, form, held)

    def _check_held(
        self, target: Target, form: Form, spot: Spot, roles: Roles, held: set[str]
    ) -> None:
        """Refuse numbers that the layer has no place for, unless they change nothing."""
        for role in unheld(roles, held):
            places = [(*spot.prefix, *inner(part)) for part in form if role in part.roles]
            names = [entry.name for x in places if (entry := self.source.get(x))]
            self.problems.append(unplaced(target.layer, role, roles[role], names))

    def _plain(self, place: Steps, path: str) -> None:
        """Take an array that no type of layer explains as it is."""
        slot = self.slots[path]
        names = self.model.names(place[:-1])
        for number in (None, slot.shape[0] if slot.shape else None):
            spots = self._find(path, names, [place[-1:]], number)
            if spots is None or spots:
                break
        if spots is None:
            self.refused.add(path)
            return
        rank = len(slot.shape)
        found = [self._fetch(spot, place[-1:], rank) for spot in spots]
        short = [spot.prefix for spot, x in zip(spots, found, strict=True) if x is None]
        tried = (*(short or names[-1:])[0], place[-1])
        self.tried.setdefault(path, self.source.layout.separator.join(tried))
        if found and all(x is not None for x in found):
            self.values[path] = found[0] if len(spots) == 1 and number is None else np.stack(found)
            taken = [self.source.get((*spot.prefix, place[-1])) for spot in spots]
            self.done.copied[path] = ", ".join(
                dict.fromkeys(entry.name for entry in taken if entry)
            )
        elif path in self.model.optional:
            self.done.kept.append(path)

    def _note_tried(self, target: Target, form: Form, prefix: Steps) -> None:
        for path, part in target.parts.items():
            near = [x for x in form if set(x.roles) & set(part.roles)]
            name = inner(near[0]) if near else ("nothing",)
            self.tried[path] = self.source.layout.separator.join((*prefix, *name))

    def sorted(self, problems: Iterable[Mismatch]) -> tuple[Mismatch, ...]:
        """Return problems with what a layer lacks beside what nothing takes of that name."""
        places = {path: place for place, path in self.model.places.items()}
        names = {entry.name: place for place, entry in self.source.entries.items()}

        def key(x: Mismatch) -> tuple[Steps, str]:
            found = places if x.sort == "missing" else names
            return found.get(x.path, tuple(x.path.split("/"))), x.sort

        return tuple(sorted(problems, key=key))

    def advice(self, path: str, *, left: bool) -> str:
        """Return how to fill an array, if not its name is wrong: nothing of its layer is left."""
        part, found = self.fillable.get(path, (None, False))
        return advice(path, part) if part and (found or not left) else ""

    def unused(self) -> list[str]:
        """Return the names of the arrays that nothing has taken."""
        return [x.name for place, x in self.source.entries.items() if place not in self.used]

    def report(self) -> Report:
        """Return what was done."""
        return self.done.report(self.model, self.told)


def _alike(source: str, model: str) -> bool:
    """Tell whether a layer can be made from one of another kind: groups may be channels."""
    return source == model or (source, model) == ("instance_norm", "group_norm")
