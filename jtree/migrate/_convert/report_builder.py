"""What a conversion has done so far, layer by layer, for its report."""

from __future__ import annotations

from .._layouts.canonical import CanonicalArrays
from .._layouts.spec import KeyPath, LayerSpec, TypedLayer
from .checks import Seen, suspicious
from .hints import Told
from .match import Spot
from .report import ConvertedLayer, Report, Setting
from .settings import differing, untold
from .source import SourceArrays
from .target import Model


class Findings:
    """What was done with the layers and arrays of a model.

    Attributes:
      copied: arrays taken as they are, from place to source.
      ignored: arrays of the source that nothing needs, and why.
      kept: slots that stay as they are.
      tables: where embeddings are in the source.
    """

    def __init__(self, source: SourceArrays) -> None:
        self.source = source
        self.copied: dict[str, str] = {}
        self.ignored: dict[str, str] = {}
        self.kept: list[str] = []
        self.tables: list[KeyPath] = []
        self.layers: list[ConvertedLayer] = []
        self.settings: list[Setting] = []
        self.notes: dict[str, dict[str, None]] = {}
        self.seen = Seen()

    def note(self, layer: TypedLayer, note: str) -> None:
        """Say something of a layer, once."""
        self.notes.setdefault(layer.name, {})[note] = None

    def see(
        self,
        place: KeyPath,
        layer: TypedLayer,
        canonical: CanonicalArrays,
        layer_spec: LayerSpec,
        spot: Spot,
    ) -> None:
        """Remember what warnings and tied heads need to know of a layer."""
        differ = layer.layout.channels_first != self.source.layout.channels_first
        self.seen.add(place, layer, canonical, differ=differ)
        if layer.kind == "embedding":
            self.tables += [(*spot.prefix, *spec.key_path) for spec in layer_spec]

    def add(
        self,
        layer: TypedLayer,
        layer_spec: LayerSpec,
        spots: list[Spot],
        own: TypedLayer | None,
        number: int | None,
    ) -> None:
        """Add a layer, which the source has at some spots, and knows the type of or not."""
        source = self.source
        places = (
            (*spot.prefix, *spec.key_path)
            for spot in spots
            for spec in layer_spec
            if spec.canonical
        )
        found = (entry.name for x in places if (entry := source.get(x)))
        names = tuple(dict.fromkeys(found))
        notes = [f"{number} layers stacked"] if number else []
        instack = number is None and spots and spots[0].place is not None
        notes += [f"layer {spots[0].place} of a stack"] if instack else []
        notes += self.notes.get(layer.name, ())
        untyped = untold(layer, source.layout) if own is None else ""
        notes += [untyped] if untyped else []
        self.layers.append(ConvertedLayer(layer.name, layer.kind, names, tuple(notes)))
        self.settings += differing(layer.name, layer, own, source.layout)
        types = {source.others[x.prefix] for x in spots if x.prefix in source.others}
        for other in sorted(types):
            self.settings.append(Setting(layer.name, "type", layer.type, other, known=True))

    def report(self, model: Model, told: Told) -> Report:
        """Return what was done."""
        orders = {x.layout.channels_first for x in model.layers.values()}
        differ = orders != {self.source.layout.channels_first}
        flat = suspicious(self.seen.kernels, told.sides) if differ else ()
        return Report(
            layout=self.source.layout.name,
            layers=tuple(self.layers),
            copied=self.copied,
            settings=tuple(self.settings),
            warnings=(*flat, *self.seen.warnings),
            ignored=self.ignored,
            kept=tuple(self.kept),
        )
