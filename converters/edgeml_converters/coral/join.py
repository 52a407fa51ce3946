"""The compiled part of a model and the rest of it, joined to one file again."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any, Final

from edgeml.errors import ConversionError
from edgeml_converters.coral.draft import Draft, content, outputs_of, parsed
from edgeml_converters.coral.graph import graph_of

RECORD: Final = "edgeml_cut"
"""Metadata of a tail: inputs and outputs of the whole, in JSON."""


def join(body: Path, tail: Path) -> bytes:
    """Join two files; see :func:`joined`.

    Raises:
        ModelFileError: one is missing, truncated, damaged, or no TFLite file.
        UnsafeFileError: one unpacks to far more than it holds.
        ConversionError: they are not parts of one model.
    """
    return joined(body, body.read_bytes(), tail, tail.read_bytes())


def joined(body_path: Path, body: bytes, tail_path: Path, tail: bytes) -> bytes:
    """Give one model of a body, compiled or not, and a tail, with the inputs and outputs of the whole.

    Raises:
        ModelFileError: one is damaged; its path is named.
        ConversionError: the tail is none that was cut off, or that of another model.
    """
    graph_of(body_path, body), graph_of(tail_path, tail)
    front, back = parsed(body_path, body), parsed(tail_path, tail)
    record = _record(tail_path, back)
    names = {front.name(index): index for index in (*front.graph.inputs, *front.graph.outputs)}
    places: dict[int, int] = {-1: -1}
    for index in back.graph.inputs:
        places[index] = _same(front, names, back, index, (body_path, tail_path))
    shift = len(front.model.buffers)
    for index, tensor in enumerate(back.graph.tensors):
        if index not in places:
            places[index] = len(front.graph.tensors)
            front.graph.tensors.append(tensor)
            tensor.buffer += shift
    _append(front, back, places, shift)
    names |= {back.name(index): places[index] for index in back.graph.outputs}
    for side in ("inputs", "outputs"):
        lost = [name for name, _ in record[side] if name not in names]
        if lost:
            raise ConversionError(f"join: {body_path} has no {lost[0]!r}: it is not the body of {tail_path}")
        setattr(front.graph, side, [names[name] for name, _ in record[side]])
    front.model.signatureDefs = _signature(front, record)
    front.tidy()
    return content(front)


def _same(front: Draft, names: dict[str, int], back: Draft, index: int, paths: tuple[Path, Path]) -> int:
    """Give the tensor of the body that an input of the tail is."""
    name = back.name(index)
    found = names.get(name)
    if found is None:
        if any(name == own for own, _ in _record(paths[1], back)["inputs"]):
            # an input of the whole that the body does not read
            front.graph.tensors.append(copy.deepcopy(back.tensor(index)))
            front.graph.tensors[-1].buffer = 0
            names[name] = len(front.graph.tensors) - 1
            return names[name]
        raise ConversionError(f"join: {paths[0]} has no output {name!r}: it is not the body of {paths[1]}")
    left, right = (
        (one.dtype(at), one.shape(at), one.scale(at)) for one, at in ((front, found), (back, index))
    )
    if left != right:
        raise ConversionError(
            f"join: {name!r} is {left[0]} {list(left[1])} in {paths[0]} and {right[0]} {list(right[1])} in "
            f"{paths[1]}: they are not parts of one model"
        )
    return found


def _append(front: Draft, back: Draft, places: dict[int, int], shift: int) -> None:
    codes = len(front.model.operatorCodes)
    for one in back.graph.operators:
        one.inputs = [places[int(index)] for index in ([] if one.inputs is None else one.inputs)]
        one.outputs = [places[index] for index in outputs_of(one)]
        if one.intermediates is not None:
            one.intermediates = [places[int(index)] for index in one.intermediates]
    front.graph.operators += back.graph.operators
    for graph in back.model.subgraphs[1:]:
        for tensor in graph.tensors or []:
            tensor.buffer += shift
        front.model.subgraphs.append(graph)
    for one in (one for graph in back.model.subgraphs for one in graph.operators or []):
        one.opcodeIndex += codes
    front.model.operatorCodes += back.model.operatorCodes
    front.model.buffers += back.model.buffers


def _record(path: Path, tail: Draft) -> dict[str, Any]:
    """Read what a tail says of the whole."""
    for one in tail.model.metadata or []:
        if one.name == RECORD.encode():
            try:
                found = json.loads(bytes(tail.model.buffers[one.buffer].data))
                sides = [found["inputs"], found["outputs"]]
                pairs = [(str(name), named) for side in sides for name, named in side]
            except (IndexError, KeyError, TypeError, ValueError) as error:
                raise ConversionError(
                    f"join: {path}: what it says of its model is damaged; cut again"
                ) from error
            if pairs and isinstance(found, dict):
                return found
    raise ConversionError(f"join: {path} is no tail; make one: edgeml coral cut MODEL -o FOLDER")


def _signature(draft: Draft, record: dict[str, Any]) -> list[Any] | None:
    from ai_edge_litert import schema_py_generated as schema

    key = record.get("signature")
    if not isinstance(key, str):
        return None
    made = schema.SignatureDefT()
    made.signatureKey, made.subgraphIndex = key.encode(), 0
    for side in ("inputs", "outputs"):
        items = []
        for (name, named), index in zip(record[side], getattr(draft.graph, side), strict=True):
            item = schema.TensorMapT()
            item.name, item.tensorIndex = str(named or name).encode(), index
            items.append(item)
        setattr(made, side, items)
    return [made]
