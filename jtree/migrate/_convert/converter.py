"""A conversion while it is made: what was found, what was used, what is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..._state.diff import Mismatch
from ..._tree.walk import walk
from .._layouts.canonical import CanonicalArrays, from_canonical, lost_names, to_canonical
from .._layouts.spec import ArraySpec, KeyPath, LayerSpec, TypedLayer
from .defaults import advice, word
from .hints import Hint, Told
from .match import Spot, find, layer_spec_in, names_in
from .problems import ambiguous, twice, unplaced, wrong_kind
from .report import Report
from .report_builder import Findings
from .source import SourceArrays
from .target import Model
from .unused import left_over

CONSTANTS: dict[str, Any] = {
    "counter": np.int32(2**30),
    "first": np.bool_(False),
}  # Equinox's: enough batches


class Target(NamedTuple):
    """A layer of the model: where it is, what it is, and the slots of its arrays."""

    place: KeyPath
    layer: TypedLayer
    specs: dict[str, ArraySpec]  # by the path of the slot
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

    def __init__(self, model: Model, source: SourceArrays, hints: Sequence[Hint]) -> None:
        self.model = model
        self.source = source
        self.told = Told(hints, source.layout)
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
        self.used: dict[KeyPath, set[int | None]] = {}
        self.stacks: dict[KeyPath, Any] = {}
        self.refused: set[str] = set()
        self.fillable: dict[str, tuple[ArraySpec, bool]] = {}

    def run(self) -> None:
        """Convert every layer and every other array of the model."""
        groups: dict[KeyPath, dict[KeyPath, str]] = {}
        for place, path in self.model.places.items():
            above = (place[:n] for n in range(len(place)))
            layer = next((x for x in above if x in self.model.layers), None)
            spec = self._spec(layer, place)
            if layer is None or spec is None:
                self._plain(place, path)
            else:
                groups.setdefault(layer, {})[place] = path
        for place, slots in groups.items():
            self._layer(self._target(place, slots))
        ignored, problems = left_over(self.source, self.used, self.done.tables)
        self.done.ignored |= ignored
        self.problems += [*problems, *self.told.problems, *self.told.unneeded()]

    def _spec(self, layer: KeyPath | None, place: KeyPath) -> ArraySpec | None:
        if layer is None:
            return None
        rest, layer_spec = place[len(layer) :], self.model.layers[layer].spec
        return next((spec for spec in layer_spec if spec.key_path == rest), None)

    def _target(self, place: KeyPath, slots: Mapping[KeyPath, str]) -> Target:
        layer = self.model.layers[place]
        specs = {path: self._spec(place, name) for name, path in slots.items()}
        known = {path: spec for path, spec in specs.items() if spec is not None}
        stacks = {self._stacked(layer, path, spec) for path, spec in known.items()}
        number = stacks.pop() if len(stacks) == 1 else None
        return Target(place, layer, known, number)

    def _stacked(self, layer: TypedLayer, path: str, spec: ArraySpec) -> int | None:
        """Return how many layers an array holds, by the axes that it has more than its type."""
        shape = self.slots[path].shape
        return int(shape[0]) if len(shape) == spec.transform.rank(layer.options) + 1 else None

    def _layer(self, target: Target) -> None:
        own_names = self.model.names(target.place)
        names = names_in(self.source.layout, target.layer.kind, own_names)
        own = next((x for name in names if (x := self.source.layers.get(name))), None)
        layer_spec = layer_spec_in(self.source.layout, target.layer, own)
        spots = self._find(
            target.path, names, [spec.key_path for spec in layer_spec], target.number
        )
        self._note_tried(target, layer_spec, spots[0].prefix if spots else own_names[-1])
        if spots is None:
            self.refused |= target.specs.keys()
            return
        if own is not None and not _alike(own.kind, target.layer.kind):
            self._wrong_kind(target, layer_spec, own, names)
            return
        done = [self._one(target, layer_spec, spot, own) for spot in spots]
        for path in target.specs:
            blocks = [found[path] for found in done if path in found]
            if blocks and len(blocks) == len(spots):
                self.values[path] = blocks[0] if target.number is None else np.stack(blocks)
        short = [
            spot for spot, found in zip(spots, done, strict=True) if len(found) < len(target.specs)
        ]
        if short:
            self._note_tried(target, layer_spec, short[0].prefix)
        self._fill(target, found=bool(spots))
        if spots or any(path in self.values for path in target.specs):
            self.done.add(target.layer, layer_spec, spots, own, target.number)

    def _find(
        self, path: str, names: Sequence[KeyPath], below: Sequence[KeyPath], number: int | None
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

    def _wrong_kind(
        self, target: Target, layer_spec: LayerSpec, own: TypedLayer, names: Sequence[KeyPath]
    ) -> None:
        """Refuse a layer that is of another kind in the source."""
        self.refused |= target.specs.keys()
        for name in names:
            for spec in layer_spec:
                if (entry := self.source.get((*name, *spec.key_path))) is not None:
                    self.used.setdefault(entry.place, set()).add(None)
        self.problems.append(wrong_kind(own, target.layer))

    def _fill(self, target: Target, *, found: bool) -> None:
        """Fill what the source lacks with identity values where a hint allows it."""
        for path, spec in target.specs.items():
            if path in self.values:
                continue
            number, slot = self.told.number(path, spec), self.slots[path]
            if number is None:
                self.fillable[path] = (spec, found)
            else:
                self.values[path] = np.full(slot.shape, number, slot.dtype)
                self.done.note(target.layer, f"{spec.path}: {word(number)}, by migrate.defaults")

    def _one(
        self, target: Target, layer_spec: LayerSpec, spot: Spot, own: TypedLayer | None
    ) -> dict[str, np.ndarray[Any, Any]]:
        """Return the arrays of one layer, of one that may be in a stack."""
        options = own.options if own is not None else target.layer.options
        ranks = (
            {spec.key_path: spec.transform.rank(options) for spec in layer_spec}
            if spot.place is not None
            else {}
        )
        self._check_doubled(target, layer_spec, spot)
        canonical = to_canonical(
            layer_spec, lambda name: self._fetch(spot, name, ranks.get(name)), options
        )
        self._ignore(layer_spec, spot)
        names = (*self.model.names(target.place), spot.prefix)
        canonical, notes = self.told.image(target.place, names, target.layer, canonical)
        for note in notes:
            self.done.note(target.layer, note)
        held = {
            canonical_name for spec in target.specs.values() for canonical_name in spec.canonical
        }
        if "mean" in canonical:
            canonical |= {name: x for name, x in CONSTANTS.items() if name in held}
        self._check_held(target, layer_spec, spot, canonical, held)
        self.done.see(target.place, target.layer, canonical, layer_spec, spot)
        found = {}
        for path, spec in target.specs.items():
            shape = self.slots[path].shape[0 if target.number is None else 1 :]
            x = from_canonical(spec, canonical, target.layer.options, shape)
            if x is not None:
                found[path] = x
        return found

    def _fetch(self, spot: Spot, name: KeyPath, rank: int | None = None) -> Any:
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

    def _ignore(self, layer_spec: LayerSpec, spot: Spot) -> None:
        for spec in layer_spec:
            entry = self.source.get((*spot.prefix, *spec.key_path))
            if not spec.canonical and entry is not None:
                self.used.setdefault(entry.place, set()).add(spot.place)
                self.done.ignored[entry.name] = "counts batches"

    def _check_doubled(self, target: Target, layer_spec: LayerSpec, spot: Spot) -> None:
        """Refuse a layer that is there twice, in two ways to store it."""
        at = {spec.key_path: self.source.get((*spot.prefix, *spec.key_path)) for spec in layer_spec}
        held = {name: entry.name for name, entry in at.items() if entry is not None}
        self.problems += twice(target.path, layer_spec, held)

    def _check_held(
        self,
        target: Target,
        layer_spec: LayerSpec,
        spot: Spot,
        canonical: CanonicalArrays,
        held: set[str],
    ) -> None:
        """Refuse numbers that the layer has no place for, unless they change nothing."""
        for canonical_name in lost_names(canonical, held):
            places = [
                (*spot.prefix, *spec.key_path)
                for spec in layer_spec
                if canonical_name in spec.canonical
            ]
            names = [entry.name for x in places if (entry := self.source.get(x))]
            self.problems.append(
                unplaced(target.layer, canonical_name, canonical[canonical_name], names)
            )

    def _plain(self, place: KeyPath, path: str) -> None:
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

    def _note_tried(self, target: Target, layer_spec: LayerSpec, prefix: KeyPath) -> None:
        for path, spec in target.specs.items():
            near = [x for x in layer_spec if set(x.canonical) & set(spec.canonical)]
            name = near[0].key_path if near else ("nothing",)
            self.tried[path] = self.source.layout.separator.join((*prefix, *name))

    def sorted(self, problems: Iterable[Mismatch]) -> tuple[Mismatch, ...]:
        """Return problems with what a layer lacks beside what nothing takes of that name."""
        places = {path: place for place, path in self.model.places.items()}
        names = {entry.name: place for place, entry in self.source.entries.items()}

        def key(x: Mismatch) -> tuple[KeyPath, str]:
            found = places if x.kind == "missing" else names
            return found.get(x.path, tuple(x.path.split("/"))), x.kind

        return tuple(sorted(problems, key=key))

    def advice(self, path: str, *, left: bool) -> str:
        """Return how to fill an array, if not its name is wrong: nothing of its layer is left."""
        spec, found = self.fillable.get(path, (None, False))
        return advice(path, spec) if spec and (found or not left) else ""

    def unused(self) -> list[str]:
        """Return the names of the arrays that nothing has taken."""
        return [x.name for place, x in self.source.entries.items() if place not in self.used]

    def report(self) -> Report:
        """Return what was done."""
        return self.done.report(self.model, self.told)


def _alike(source: str, model: str) -> bool:
    """Tell whether a layer can be made from one of another kind: groups may be channels."""
    return source == model or (source, model) == ("instance_norm", "group_norm")
