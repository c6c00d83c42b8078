"""An opened checkpoint: its paths, shapes and dtypes, and its arrays when they are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from .._state.sources import Scalars, open_tree, recorded_ties, scalars_of
from .._text import render
from .._tree.lazy import LazyArray, Source
from .._tree.leaves import isnumeric
from .._tree.paths import no_array
from .._tree.walk import walk
from ._show import as_tree


class Checkpoint(Mapping[str, LazyArray]):
    """An opened checkpoint: a mapping from paths to arrays that are read on demand.

    It prints as a tree, and `jtree.load`, `jtree.loadmodel`, `jtree.diff` and `jtree.save` take it
    in place of its path.

    Attributes:
      path: the path of the checkpoint.
      format: what wrote it: `"jtree"`, `"Orbax v1"`, `"Orbax v0"`, `"safetensors"`, `"PyTorch"`,
        `"msgpack"`, `"npz"`, `"npy"`, `"Equinox"`, `"Keras"`, `"BSON"` or `"JLD2"`.
      tree: the state that was saved, with a `LazyArray` in place of each array.
      metadata: the metadata that was given to `save`, or that another format has.
      ties: the paths of each array that is at several.
      types: the Julia type of each struct and function, by path; functions are `()` in `tree`.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     jtree.save(f"{directory}/model", {"w": jnp.ones((2, 3))}, metadata={"step": 7})
      ...     checkpoint = jtree.open(f"{directory}/model")
      ...     print(list(checkpoint), checkpoint.metadata, np.asarray(checkpoint["w"]).sum())
      ['w'] {'step': 7} 6.0
    """

    def __init__(
        self,
        path: str,
        format: str,
        tree: Any,
        metadata: Any,
        ties: tuple[tuple[str, ...], ...],
        source: Source,
        types: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.path = path
        self.format = format
        self.tree = tree
        self.metadata = metadata
        self.ties = ties
        self.source = source
        self.types = types
        self.leaves = {slot.path: slot.value for slot in walk(tree, ties=()).slots}
        self._arrays = {path: x for path, x in self.leaves.items() if isinstance(x, LazyArray)}

    @property
    def checksums(self) -> bool:
        """Whether each array has a checksum."""
        return self.source.verified

    @property
    def packed(self) -> bool:
        """Whether small arrays are stored as one."""
        return self.source.packed

    @property
    def nbytes(self) -> int:
        """The bytes of all arrays in memory; tied ones count once."""
        return sum(x.nbytes for x in set(self._arrays.values()))

    def __getitem__(self, path: str) -> LazyArray:
        if path not in self:
            raise no_array(path, self._arrays)
        return self._arrays[path]

    def __contains__(self, path: object) -> bool:
        return isinstance(path, str) and path in self._arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        return f"Checkpoint({self.path!r}, {self.format}, {len(self)} arrays)"

    def __str__(self) -> str:
        return render(self)

    def __rich__(self) -> Any:
        return as_tree(self)


@open_tree.register
def _(checkpoint: Checkpoint) -> Any:
    return checkpoint.tree


@recorded_ties.register
def _(checkpoint: Checkpoint) -> Any:
    return tuple(group for group in checkpoint.ties if isnumeric(checkpoint[group[0]]))


@scalars_of.register
def _(checkpoint: Checkpoint) -> Scalars:
    holds_all = checkpoint.format in ("jtree", "Orbax v1", "Orbax v0", "msgpack")
    return Scalars.REQUIRED if holds_all else Scalars.LOADED
