"""The outer structure of model files, read without an engine: how long a whole one is, what it refers to.

Every function takes the file as bytes or a memory map and raises ModelFileError for a file that is cut off or
damaged, in words of bytes: an engine would only say that it cannot parse it.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from xml.parsers import expat

from edgeml.errors import ModelFileError, UnsafeFileError
from edgeml.flatbuffer import DAMAGE, Bytes, Flatbuffer

PROTOBUF_LIMIT_BYTES: Final = 2 * 1024**3
"""No protobuf message may be larger; every reader refuses it."""
FLATBUFFER_LIMIT_BYTES: Final = 2 * 1024**3
"""Offsets are signed 32 bits; larger models keep their weights behind the flatbuffer."""
_DEPTH_LIMIT: Final = 64
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_AGAIN: Final = "copy it again from its source"


@contextmanager
def mapped(path: Path) -> Iterator[Bytes]:
    """Map a file that is not empty, read-only."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        yield view


# --- protobuf


@dataclass(frozen=True, slots=True)
class WireField:
    """One field of a protobuf message: its content is at ``start:end``, a varint's also in ``value``."""

    number: int
    kind: int
    start: int
    end: int
    value: int = 0


def message(path: Path, data: Bytes, start: int, end: int) -> Iterator[WireField]:
    """Give the fields of the protobuf message at ``start:end``.

    Raises:
        ModelFileError: a field claims more bytes than the message has.
    """
    place = start
    while place < end:
        tag, place = _varint(path, data, place, end)
        number, kind = tag >> 3, tag & 7
        if number == 0 or kind not in {_VARINT, _FIXED64, _LENGTH, _FIXED32}:
            raise ModelFileError(f"{path}: damaged at byte {place}; {_AGAIN}")
        value = 0
        if kind == _VARINT:
            begin = place
            value, place = _varint(path, data, place, end)
        else:
            length = {_FIXED64: 8, _FIXED32: 4}.get(kind, 0)
            if kind == _LENGTH:
                length, place = _varint(path, data, place, end)
            begin = place
            place += length
            if length >= PROTOBUF_LIMIT_BYTES:
                raise ModelFileError(
                    f"{path}: damaged: a field claims {length} bytes, the file has {len(data)}"
                )
            if place > end:
                raise ModelFileError(_cut(path, data, place, end))
        yield WireField(number, kind, begin, place, value)


def _varint(path: Path, data: Bytes, place: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while place < end:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the continuation bit
            return value, place
        shift += 7
        if shift > 63:  # noqa: PLR2004 - ten bytes hold 64 bits
            raise ModelFileError(f"{path}: damaged at byte {place}; {_AGAIN}")
    raise ModelFileError(_cut(path, data, place + 1, end))


def _cut(path: Path, data: Bytes, needs: int, end: int) -> str:
    if end < len(data):
        return f"{path}: damaged: a field inside it claims more bytes than there are; {_AGAIN}"
    return f"{path}: truncated: {len(data)} of at least {needs} bytes; {_AGAIN}"


@dataclass(frozen=True, slots=True)
class ExternalData:
    """Where an ONNX tensor's values lie outside the file."""

    location: str
    offset: int
    length: int


_TENSOR: Final = "tensor"
_ENTRY_FIELD: Final = 13
_INSIDE: Final[dict[str, dict[int, str]]] = {
    "model": {7: "graph", 25: "function", 20: "training"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: _TENSOR, 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: _TENSOR, 6: "graph", 10: _TENSOR, 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: _TENSOR, 2: _TENSOR},
}
"""Of onnx.proto: message to the fields that can lead to a tensor."""


def onnx_external_data(path: Path, data: Bytes) -> list[ExternalData]:
    """Walk an ONNX model down to its tensors; give what they keep in other files.

    Raises:
        ModelFileError: cut off or damaged anywhere on the way.
    """
    found: list[ExternalData] = []
    pending = [("model", 0, len(data), 0)]
    while pending:
        kind, start, end, depth = pending.pop()
        if depth > _DEPTH_LIMIT:
            raise UnsafeFileError(f"{path}: graphs nested deeper than {_DEPTH_LIMIT}; refused")
        if kind == _TENSOR:
            found.extend(_external(path, data, start, end))
            continue
        inside = _INSIDE[kind]
        pending.extend(
            (inside[field.number], field.start, field.end, depth + 1)
            for field in message(path, data, start, end)
            if field.kind == _LENGTH and field.number in inside
        )
    return found


def _external(path: Path, data: Bytes, start: int, end: int) -> list[ExternalData]:
    entries: dict[str, str] = {}
    for field in message(path, data, start, end):
        if field.number == _ENTRY_FIELD and field.kind == _LENGTH:
            texts = {
                part.number: data[part.start : part.end].decode(errors="replace")
                for part in message(path, data, field.start, field.end)
            }
            entries[texts.get(1, "")] = texts.get(2, "")
    if "location" not in entries:
        return []
    numbers = [entries.get(key, "0") for key in ("offset", "length")]
    if not all(number.isdecimal() for number in numbers):
        raise ModelFileError(f"{path}: damaged: external data with offset or length {numbers}; {_AGAIN}")
    return [ExternalData(entries["location"], int(numbers[0]), int(numbers[1]))]


# --- flatbuffer


def tflite_end(path: Path, data: Bytes) -> int:
    """Give how many bytes a TFLite file needs, as far as its subgraphs and buffers tell.

    Raises:
        ModelFileError: cut off or damaged.
        UnsafeFileError: its parts lie over one another.
    """
    reader, behind = Flatbuffer(path, data), 0
    try:
        model = reader.follow(0)
        subgraphs, buffers = reader.tables(model, 2), reader.tables(model, 4)
        reader.vector(model, 3, 1)
        for code in reader.tables(model, 1):
            reader.vector(code, 1, 1)
        for field in (6, 7):
            reader.tables(model, field)
        for subgraph in subgraphs:
            _walk_subgraph(reader, subgraph)
        for buffer in buffers:
            reader.vector(buffer, 0, 1)
            outside, size = reader.scalar(buffer, 1, "<Q"), reader.scalar(buffer, 2, "<Q")
            if outside > 1:  # behind the flatbuffer
                behind = max(behind, outside + size)
    except DAMAGE as error:
        needs = max(reader.end, len(data) + 1)
        what = f"truncated: {len(data)} of at least {needs} bytes"
        if needs > FLATBUFFER_LIMIT_BYTES:
            what = "damaged: its offsets lead nowhere"
        raise ModelFileError(f"{path}: {what}; {_AGAIN}") from error
    if not subgraphs:
        raise ModelFileError(f"{path}: damaged: a TFLite file without a graph; {_AGAIN}")
    return max(reader.end, behind)


def _walk_subgraph(reader: Flatbuffer, subgraph: int) -> None:
    """Touch what a subgraph consists of; numbers of fields are those of TFLite's schema."""
    for field in (1, 2):
        reader.vector(subgraph, field, 4)
    for tensor in reader.tables(subgraph, 0):
        reader.vector(tensor, 0, 4)
        reader.vector(tensor, 3, 1)
        quantization = reader.table(tensor, 4)
        for field, item_bytes in ((0, 4), (1, 4), (2, 4), (3, 8)):
            if quantization:
                reader.vector(quantization, field, item_bytes)
    for operator in reader.tables(subgraph, 3):
        for field in (1, 2):
            reader.vector(operator, field, 4)
        reader.table(operator, 4)
        reader.vector(operator, 5, 1)


# --- HDF5


def hdf5_end(path: Path, data: Bytes) -> int:
    """Give how many bytes an HDF5 file has by its superblock.

    Raises:
        ModelFileError: the superblock itself is cut off or of an unknown version.
    """
    head = bytes(data[:16]).ljust(16, b"\0")
    version = head[8]
    if version > 3:  # noqa: PLR2004 - the last version there is
        raise ModelFileError(f"{path}: damaged: HDF5 superblock version {version} is unknown; {_AGAIN}")
    offset_bytes = head[13] if version < 2 else head[9]  # noqa: PLR2004 - where the layout changed
    end_place = (24, 28, 12, 12)[version] + 2 * offset_bytes
    if not offset_bytes or len(data) < end_place + offset_bytes:
        raise ModelFileError(f"{path}: truncated: {len(data)} of at least {end_place + 8} bytes; {_AGAIN}")
    return int.from_bytes(data[end_place : end_place + offset_bytes], "little")


# --- OpenVINO's XML


def openvino_weights_end(path: Path, text: bytes) -> int:
    """Parse an OpenVINO .xml; give how many bytes of weights its constants refer to.

    Raises:
        ModelFileError: not well-formed, or not an OpenVINO network.
        UnsafeFileError: it declares entities.
    """
    parser = expat.ParserCreate()
    found = _Network(path)
    parser.StartElementHandler = found.start
    parser.EndElementHandler = found.finish
    parser.StartDoctypeDeclHandler = found.refuse
    parser.EntityDeclHandler = found.refuse
    try:
        parser.Parse(text, True)  # noqa: FBT003 - expat takes it by position only
    except expat.ExpatError as error:
        what = (
            "truncated" if error.code == expat.errors.codes[expat.errors.XML_ERROR_NO_ELEMENTS] else "damaged"
        )
        if found.open:
            what = "truncated or damaged"
        raise ModelFileError(f"{path}: {what}: {error}; {_AGAIN}") from error
    if found.root != "net":
        raise ModelFileError(f"{path}: XML, but not an OpenVINO network (its root is <{found.root}>)")
    return found.weights_end


class _Network:
    """What the parser meets."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.root = ""
        self.open: list[str] = []
        self.weights_end = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self.root = self.root or name
        self.open.append(name)
        if name == "data" and "offset" in attributes and "size" in attributes:
            offset, size = attributes["offset"], attributes["size"]
            if offset.isdecimal() and size.isdecimal():
                self.weights_end = max(self.weights_end, int(offset) + int(size))

    def finish(self, _name: str) -> None:
        self.open.pop()

    def refuse(self, *_: Any) -> None:
        raise UnsafeFileError(f"{self.path}: XML with a DOCTYPE or entities; refused, OpenVINO writes none")
