"""A model cut in two: the part for the Edge TPU compiler, and the rest, which no compiler sees.

What the compiler does not take it leaves to the CPU, in the same file: that needs no cut. A cut helps where
the compiler stops at an operator and maps nothing: one that is too new for it, a custom one that it does not
have, control flow, a size that is computed. The compiled part and the rest are joined again afterwards
(:mod:`edgeml_converters.coral.join`), to the one file that a compiler without that limit would write.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgeml.errors import ConversionError, ParityError
from edgeml_converters.coral.draft import Draft, content, parsed
from edgeml_converters.coral.graph import CUSTOM, Graph, graph_of, read_graph
from edgeml_converters.coral.guarded import guarded
from edgeml_converters.coral.join import RECORD, joined
from edgeml_converters.coral.limits import Node, computes_shape
from edgeml_converters.coral.parity import SAMPLES, Runner, difference, drawn
from edgeml_converters.coral.partition import edges, partition
from edgeml_converters.coral.placement import place
from edgeml_converters.coral.rules import fatal, objection

KNOWN_CUSTOM: Final = frozenset({"PosenetDecoderOp", "TFLite_Detection_PostProcess"})
"""Custom operators in models that were compiled."""
_CONTROL: Final = frozenset({"CALL", "CALL_ONCE", "IF", "WHILE"})
_SIZED_BY_VALUES: Final = frozenset({"NON_MAX_SUPPRESSION_V4", "NON_MAX_SUPPRESSION_V5", "UNIQUE", "WHERE"})
_STEP: Final = "cut"


@dataclass(frozen=True, slots=True)
class Cut:
    """Both parts of a model."""

    body: bytes
    """For the compiler. Its outputs are what the rest reads, and outputs of the model."""
    tail: bytes
    """The rest, for the CPU; it knows the names and the order of the model's inputs and outputs."""
    tensors: tuple[str, ...]
    """Where it was cut: outputs of the body that are inputs of the tail."""
    stops: tuple[str, ...]
    """Why the compiler would stop at the whole; empty: it would not, and the cut gains nothing."""
    mapped: int
    """Operators of the body that will run on the Edge TPU."""
    total: int
    """Operators of the body."""
    tail_total: int
    """Operators of the tail."""
    unchecked: str = ""
    """Why the parts could not be compared with the whole; empty: they were, and give the same."""

    def to_json(self) -> dict[str, Any]:
        """Give what ``--json`` prints of it."""
        return {
            "tensors": list(self.tensors),
            "stops": list(self.stops),
            "mapped": self.mapped,
            "body_operators": self.total,
            "tail_operators": self.tail_total,
        }


def stops(graph: Graph) -> dict[int, str]:
    """Give the operators at which the compiler stops, by index, each with its reason."""
    found: dict[int, str] = {}
    for one in graph.operators:
        message = fatal(one)
        if message is not None:
            found[one.index] = message
        elif one.kind == CUSTOM and one.custom_code not in KNOWN_CUSTOM:
            found[one.index] = "a custom operator that the compiler does not have"
        elif one.kind in _CONTROL:
            found[one.index] = "control flow"
        elif one.kind in _SIZED_BY_VALUES or computes_shape(Node(graph, one)):
            found[one.index] = "a result whose size is only known while the model runs"
    return found


def body_of(graph: Graph) -> frozenset[int]:
    """Give the operators that a body has: what the compiler would map, and what that waits for.

    Raises:
        ConversionError: nothing would be mapped, nothing is left for a tail, or an operator that stops the
            compiler lies before what would be mapped.
    """
    found = [objection(graph, one) for one in graph.operators]
    taken = frozenset(place for place, one in enumerate(found) if one is None or not one.is_certain)
    epochs = partition(edges(graph), taken)
    makers = {tensor: one.index for one in graph.operators for tensor in one.outputs}
    wanted = [one.index for one in graph.operators if epochs.is_mapped(one.index)]
    if not wanted:
        raise ConversionError(f"{_STEP}: the Edge TPU takes no operator of this model; quantize it to int8")
    body: set[int] = set()
    while wanted:
        index = wanted.pop()
        if index not in body:
            body.add(index)
            wanted += [makers[one] for one in graph.operators[index].inputs if one in makers]
    for index, why in stops(graph).items():
        if index in body:
            kind = graph.operators[index].kind
            raise ConversionError(
                f"{_STEP}: operator {index} ({kind}) stops the compiler ({why}), and lies before what the "
                "Edge TPU would take; replace it in the source, or try edgeml coral rewrite"
            )
    if len(body) == len(graph.operators):
        raise ConversionError(
            f"{_STEP}: nothing to cut off: no operator runs on the CPU behind what the Edge TPU takes"
        )
    return frozenset(body)


def cut(path: Path) -> Cut:
    """Cut a TFLite file, and check that both parts together give what the whole gives.

    A model with an operator that LiteRT does not have is cut unchecked.

    Raises:
        ModelFileError: missing, truncated, damaged, no TFLite file.
        ConversionError: there is no place to cut, see :func:`body_of`; or it crashes the engine.
        ParityError: the parts do not give what the whole gives.
    """
    read_graph(path)
    whole = path.read_bytes()
    made = cut_unchecked(path, whole)
    return replace(made, unchecked=guarded(_STEP, lambda: _compared(path, whole, made)))


def _compared(path: Path, whole: bytes, made: Cut) -> str:
    """Say why the parts cannot be compared with the whole; empty: they give the same."""
    try:
        runner = Runner(_STEP, whole)
    except ConversionError as error:
        return str(error)
    _require_same(path, runner, made)
    return ""


def cut_unchecked(path: Path, whole: bytes) -> Cut:
    """Cut a file's content, run nothing; ``path`` is for messages. Raises as :func:`cut`, but for parity."""
    graph = graph_of(path, whole)
    return _parts(path, graph, parsed(path, whole), body_of(graph))


def _parts(path: Path, graph: Graph, draft: Draft, body: Collection[int]) -> Cut:
    front = [one for one in graph.operators if one.index in body]
    back = [one for one in graph.operators if one.index not in body]
    made = {tensor for one in front for tensor in one.outputs}
    read = {tensor for one in back for tensor in one.inputs}
    through = sorted(made & read)
    if not through:
        raise ConversionError(f"{_STEP}: the rest reads nothing of what the Edge TPU would compute")
    _name_apart(draft)
    given = [index for index in dict.fromkeys(graph.inputs) if index in read]
    ends = [index for index in dict.fromkeys(graph.outputs) if index in made]
    last = [index for index in dict.fromkeys(graph.outputs) if index not in ends]
    record = _record(draft)
    operators = draft.graph.operators
    read_by_body = {tensor for one in front for tensor in one.inputs}
    starts = [index for index in dict.fromkeys(graph.inputs) if index in read_by_body]
    first = draft.part(
        [operators[one.index] for one in front], starts, [*ends, *(one for one in through if one not in ends)]
    )
    first.model.subgraphs = first.model.subgraphs[:1]
    first.tidy()
    second = draft.part([operators[one.index] for one in back], [*through, *given], last)
    second.add_metadata(RECORD, json.dumps(record).encode())
    front_content = content(first)
    placements = place(graph_of(path, front_content))
    reasons = (
        f"operator {index} ({graph.operators[index].kind}): {why}" for index, why in stops(graph).items()
    )
    return Cut(
        front_content,
        content(second),
        tuple(draft.name(index) for index in through),
        tuple(reasons),
        placements.mapped,
        len(front),
        len(back),
    )


def _name_apart(draft: Draft) -> None:
    """Give every tensor a name of its own: parts are joined by names."""
    seen: set[bytes] = set()
    for index, tensor in enumerate(draft.graph.tensors):
        name = tensor.name or b""
        if not name or name in seen:
            tensor.name = name + f"#{index}".encode()
        seen.add(tensor.name)


def _record(draft: Draft) -> dict[str, Any]:
    """Give inputs and outputs of the whole in their order: name of the tensor, and of the signature."""
    signatures = draft.model.signatureDefs or []
    signature = signatures[0] if len(signatures) == 1 and not signatures[0].subgraphIndex else None
    record: dict[str, Any] = {
        "signature": signature.signatureKey.decode(errors="replace") if signature is not None else None
    }
    for side in ("inputs", "outputs"):
        items = getattr(signature, side, None) or []
        named = {int(item.tensorIndex): item.name.decode(errors="replace") for item in items}
        record[side] = [[draft.name(index), named.get(index)] for index in getattr(draft.graph, side)]
    return record


def _require_same(path: Path, left: Runner, made: Cut) -> None:
    runners = [Runner(_STEP, one) for one in (made.body, made.tail, joined(path, made.body, path, made.tail))]
    body, tail, one_file = runners
    generator = np.random.default_rng(0)
    for _ in range(SAMPLES):
        given = [drawn(generator, port) for port in left.inputs]
        values = dict(zip((port["name"] for port in one_file.inputs), given, strict=True))
        expected = left.run(given)
        for part in (body, tail):
            outputs = part.run([values[port["name"]] for port in part.inputs])
            values |= dict(zip((port["name"] for port in part.outputs), outputs, strict=True))
        both = [values[port["name"]] for port in one_file.outputs]
        for found in (both, one_file.run(given)):
            for wanted, value, port in zip(expected, found, left.outputs, strict=True):
                reason = difference(wanted, value, port)
                if reason is not None:
                    raise ParityError(f"{_STEP}: output {port['name']!r} {reason}")
