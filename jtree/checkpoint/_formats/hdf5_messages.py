"""Headers of HDF5's datasets: their types, shapes, layouts, filters and attributes.

Source: HDF5 File Format Specification, version 3.0, "IV.A. Object Header Messages".
"""

from __future__ import annotations

from typing import NamedTuple

from .hdf5_types import (
    ATTRIBUTE,
    DATASPACE,
    DATATYPE,
    EXTERNAL,
    FILTERS,
    LAYOUT,
    Datatype,
    Message,
    datatype,
    dimensions,
    unpack,
)


class Filter(NamedTuple):
    """A filter by its number, and its parameters."""

    id: int
    values: tuple[int, ...]


class Dataset(NamedTuple):
    """The header of a dataset.

    Attributes:
      type: what its elements are.
      shape: of Julia's array, reversed; None for nothing, `()` for one value.
      layout: where its values are.
      filters: what they went through.
      attributes: its attributes by name.
    """

    type: Datatype
    shape: tuple[int, ...] | None
    layout: Layout
    filters: tuple[Filter, ...]
    attributes: dict[str, Attribute]


def header(messages: list[Message]) -> Dataset:
    """Return what the header of a dataset says."""
    by_kind = {x.kind: x for x in messages}
    if EXTERNAL in by_kind:
        raise ValueError("values in other files, which are not read")
    if LAYOUT not in by_kind:
        raise ValueError(f"a dataset without values at byte {messages[0].start:,}")
    stored = message_type(by_kind[DATATYPE])
    return Dataset(
        stored if isinstance(stored, Datatype) else Datatype("committed", 0, address=stored),
        dimensions(by_kind[DATASPACE].data),
        layout(by_kind[LAYOUT]),
        filters(by_kind[FILTERS]) if FILTERS in by_kind else (),
        attributes(messages),
    )


def attributes(messages: list[Message]) -> dict[str, Attribute]:
    """Return the attributes of an object by name."""
    listed = (attribute(x) for x in messages if x.kind == ATTRIBUTE)
    return {x.name: x for x in listed}


def message_type(x: Message) -> Datatype | int:
    """Return a datatype, or the address of a committed one."""
    if x.shared:
        return unpack("<2BQ", x.data)[2]
    return datatype(x.data)[0]


def filters(x: Message) -> tuple[Filter, ...]:
    """Return the filters that a message names, in the order of writing."""
    version, count = unpack("<2B", x.data)
    at = 8 if version == 1 else 2
    pipeline = []
    for _ in range(count):
        (number,) = unpack("<H", x.data, at)
        named = version == 1 or number >= 256
        length, _, parameters = (
            unpack("<3H", x.data, at + 2)
            if named
            else (
                0,
                *unpack("<2H", x.data, at + 2),
            )
        )
        at += 8 if named else 6
        at += length + (-length % 8 if version == 1 else 0)
        pipeline.append(Filter(number, unpack(f"<{parameters}I", x.data, at)))
        at += 4 * (parameters + (parameters % 2 if version == 1 else 0))
    return tuple(pipeline)


class Attribute(NamedTuple):
    """A named value of an object: its type, its shape and its bytes."""

    name: str
    type: Datatype | int
    shape: tuple[int, ...] | None
    data: bytes


def attribute(x: Message) -> Attribute:
    """Return an attribute; a type of its own that is committed is an address, and never opened."""
    version, flags, name, type_size, space_size = unpack("<2B3H", x.data)
    if version not in (1, 2, 3):
        raise ValueError(f"an attribute of version {version}")
    at = 9 if version == 3 else 8
    step = 8 if version == 1 else 1  # what each part is padded to
    text = x.data[at : at + name].rstrip(b"\0").decode(errors="replace")
    at += name + -name % step
    type_data = x.data[at : at + type_size]
    shared = unpack("<2BQ", type_data)[2] if flags & 1 else None
    at += type_size + -type_size % step
    shape = dimensions(x.data[at : at + space_size])
    at += space_size + -space_size % step
    kind = shared if shared is not None else datatype(type_data)[0]
    return Attribute(text, kind, shape, x.data[at:])


class Layout(NamedTuple):
    """Where the values of a dataset are.

    Attributes:
      start: the address of the values; for compact ones, their offset in the file.
      size: the bytes that are stored.
      iscompact: whether they are in the header.
      chunk: the shape of a chunk and the bytes of an element, where values are in chunks.
      istree: whether several chunks are in a tree.
      mask: the filters that were left out.
    """

    start: int
    size: int
    iscompact: bool = False
    chunk: tuple[int, ...] = ()
    istree: bool = False
    mask: int = 0


def layout(x: Message) -> Layout:
    """Return the layout that a message describes."""
    version, kind = unpack("<2B", x.data)
    if version not in (3, 4):
        raise ValueError(f"a layout of version {version}")
    if kind == 0:
        (size,) = unpack("<H", x.data, 2)
        if 4 + size > len(x.data):
            raise ValueError(f"truncated: expected {size:,} bytes in a header")
        return Layout(x.start + 4, size, iscompact=True)
    if kind == 1:
        address, size = unpack("<2Q", x.data, 2)
        return Layout(address, size)
    if kind != 2:
        raise ValueError("values in other files, which are not read")
    if version == 3:
        rank, address = unpack("<BQ", x.data, 2)
        return Layout(address, 0, chunk=unpack(f"<{rank}I", x.data, 11), istree=True)
    flags, rank, width = unpack("<3B", x.data, 2)
    at = 5 + rank * width
    chunk = tuple(int.from_bytes(x.data[n : n + width], "little") for n in range(5, at, width or 1))
    if unpack("<B", x.data, at)[0] != 1:
        raise ValueError("chunks in an index that JLD2.jl never writes; save it again by JLD2.jl")
    if not flags & 2:
        (address,) = unpack("<Q", x.data, at + 1)
        return Layout(address, -1, chunk=chunk)
    size, mask, address = unpack("<QIQ", x.data, at + 1)
    return Layout(address, size, chunk=chunk, mask=mask)
