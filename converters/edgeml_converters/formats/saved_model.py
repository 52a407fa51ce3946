"""Which operators of a SavedModel reach for files or Python. Reads ``saved_model.pb`` without TensorFlow."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeml.errors import ModelFileError

CALLS_PYTHON: Final = frozenset({"PyFunc", "PyFuncStateless", "EagerPyFunc"})

TOUCHES_FILES: Final = re.compile(
    r"ReadFile|WriteFile|MatchingFiles|MatchingFilesDataset|FileSystemSetConfiguration"
    # event files
    r"|Write\w*Summary|CreateSummary\w+Writer|SummaryWriter|ImportEvent"
    # readers and data sets
    r"|(WholeFile|TextLine|FixedLengthRecord|TFRecord|LMDB)Reader(V2)?|BigQueryReader"
    r"|(TextLine|FixedLengthRecord|TFRecord|CSV|LMDB|SSTable|Sql|Save|Load|Cache|Snapshot|DataService|"
    r"ListSnapshotChunks|SnapshotChunk)(Experimental)?Dataset(V\d)?|Experimental\w*(CSV|LMDB|Sql)Dataset|\w*DatasetToTFRecord"
    r"|Snapshot\w*(Reader|Writer)|DistributedSave"
    # vocabularies and checkpoints by path
    r"|GenerateVocabRemapping|LoadAndRemapMatrix|Debug(Identity|NanCount|NumericSummary)(V\d)?"
    # networks
    r"|Rpc\w*"
)
"""TensorFlow operators that read or write what a path in the graph names, or reach a network."""

TABLES_FROM_FILES: Final = frozenset({"InitializeTableFromTextFile", "InitializeTableFromTextFileV2"})
"""Usual where the file is one of the model's own assets."""

CHECKPOINTS: Final = frozenset(
    {"Save", "SaveSlices", "SaveV2", "Restore", "RestoreSlice", "RestoreV2", "MergeV2Checkpoints"}
)
"""Every SavedModel has these to load its own variables; only there are they harmless."""

_SAVER: Final = re.compile(r"__inference_+traced_(save|restore)\w*")
_SAVER_NODE: Final = re.compile(r"(?:\w+/)?save(?:_\d+)?/\w+")
_FILE_STREAM: Final = b"file://"
_LENGTH_DELIMITED: Final = 2
_FIXED_BYTES: Final = {1: 8, 5: 4}
_VARINT_LIMIT: Final = 10


@dataclass(frozen=True, slots=True)
class Node:
    """An operator's call: its ``op``, its name, the function it stands in, its attributes' bytes."""

    op: str
    name: str
    function: str | None
    attributes: bytes


def finding(folder: Path) -> str | None:
    """Say what in a SavedModel would run or reach for files, or ``None``.

    Raises:
        ModelFileError: damaged.
    """
    if (folder / "saved_model.cpb").exists():
        return "a graph in parts (saved_model.cpb), which is not looked through"
    try:
        nodes = list(_nodes((folder / "saved_model.pb").read_bytes()))
    except (ValueError, IndexError) as error:
        raise ModelFileError(f"{folder} is damaged: its saved_model.pb cannot be read: {error}") from error
    assets = folder / "assets"
    has_assets = assets.is_dir() and any(assets.iterdir())
    inside = b"".join(node.attributes for node in nodes if node.function is not None)
    for node in nodes:
        if node.op in CALLS_PYTHON:
            return f"an operator that calls Python ({node.op})"
        file = (
            TOUCHES_FILES.fullmatch(node.op) is not None
            or (node.op == "PrintV2" and _FILE_STREAM in node.attributes.lower())
            or (node.op in TABLES_FROM_FILES and not has_assets)
            or (node.op in CHECKPOINTS and not _is_saver(node, inside))
        )
        if file:
            return f"an operator that reads or writes files ({node.op})"
    return None


def _is_saver(node: Node, inside: bytes) -> bool:
    """Say whether a checkpoint operator belongs to the model's own saver, which no function calls."""
    if node.function is None:
        return _SAVER_NODE.fullmatch(node.name) is not None
    return _SAVER.fullmatch(node.function) is not None and node.function.encode() not in inside


def _nodes(saved_model: bytes) -> Iterator[Node]:
    """Walk SavedModel.meta_graphs.graph_def: its nodes, and those of the functions in its library."""
    for meta_graph in _parts(saved_model, 2):
        for graph in _parts(meta_graph, 2):
            for node in _parts(graph, 1):
                yield from _node(node, None)
            for library in _parts(graph, 2):
                for function in _parts(library, 1):
                    names = [name for signature in _parts(function, 1) for name in _parts(signature, 1)]
                    name = names[-1].decode() if names else ""
                    for node in _parts(function, 3):
                        yield from _node(node, name)


def _node(content: bytes, function: str | None) -> Iterator[Node]:
    names = [name.decode() for name in _parts(content, 1)]
    attributes = b"\0".join(_parts(content, 5))
    for op in _parts(content, 2):
        yield Node(op.decode(), names[-1] if names else "", function, attributes)


def _parts(content: bytes, wanted: int) -> Iterator[bytes]:
    """Give a protobuf message's length-delimited fields of one number.

    Raises:
        ValueError: not a message.
    """
    place = 0
    while place < len(content):
        key, place = _varint(content, place)
        kind = key & 7
        if kind == 0:
            _, place = _varint(content, place)
            continue
        if kind == _LENGTH_DELIMITED:
            size, place = _varint(content, place)
        elif kind in _FIXED_BYTES:
            size = _FIXED_BYTES[kind]
        else:
            raise ValueError(f"a field of kind {kind} at byte {place}")
        if place + size > len(content):
            raise ValueError(f"a field leaves its message at byte {place}")
        if kind == _LENGTH_DELIMITED and key >> 3 == wanted:
            yield content[place : place + size]
        place += size


def _varint(content: bytes, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(_VARINT_LIMIT):
        byte = content[place + shift]
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:  # noqa: PLR2004 - the top bit says that another byte follows
            return value, place + shift + 1
    raise ValueError(f"a number without an end at byte {place}")
