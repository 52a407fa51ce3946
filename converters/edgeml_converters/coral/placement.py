"""Where each operator of a model will run, and which operator to change first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from edgeml_converters.coral.graph import Graph
from edgeml_converters.coral.partition import Edges, Epochs, edges, partition
from edgeml_converters.coral.reasons import MAPPED, SUBGRAPH, UNKNOWN, Objection, Placement
from edgeml_converters.coral.rules import fatal, objection

MOST_TRIED: Final = 16
"""So many operators of which nothing is known are tried either way, one by one."""


@dataclass(frozen=True, slots=True)
class Placed:
    """An operator, where it runs and why."""

    index: int
    kind: str
    placement: Placement
    reason: str
    """In the compiler's words."""
    remedy: str | None
    """A plain sentence: the cause and what to change; none for what is mapped."""


@dataclass(frozen=True, slots=True)
class Split:
    """The first operator that ends what runs on the Edge TPU while more could run there."""

    index: int
    kind: str
    objection: Objection
    mapped_without: int
    """How many operators would be mapped if the compiler took this one."""


@dataclass(frozen=True, slots=True)
class Placements:
    """Of all operators."""

    operators: tuple[Placed, ...]
    split: Split | None
    fatal: tuple[str, ...]
    """Messages with which the compiler gives up before it looks at operators."""

    @property
    def mapped(self) -> int:
        """How many are known to go to the Edge TPU."""
        return self.count("tpu")

    def count(self, placement: Placement) -> int:
        """Count the operators with a placement."""
        return sum(one.placement == placement for one in self.operators)


def place(graph: Graph) -> Placements:
    """Say where each operator will run; an operator that hangs on what is not known is unknown, too."""
    objections = [objection(graph, operator) for operator in graph.operators]
    messages = tuple(dict.fromkeys(_fatal(graph)))
    if messages:
        return Placements(_none(graph, objections, messages[0]), None, messages)
    graph_edges = edges(graph)
    taken = frozenset(index for index, one in enumerate(objections) if one is None)
    open_ = tuple(index for index, one in enumerate(objections) if one is not None and not one.is_certain)
    ways = [partition(graph_edges, taken | extra) for extra in _ways(open_)]
    all_taken = taken | frozenset(open_)
    blockers = (
        _blockers(graph_edges, ways[0], all_taken),
        _blockers(graph_edges, ways[-1], taken),
    )
    placed = tuple(
        _placed(graph, index, objections, {way.is_mapped(index) for way in ways}, blockers)
        for index in range(len(objections))
    )
    split = _split(graph, objections, graph_edges, taken, placed, blockers)
    return Placements(placed, split, ())


def _fatal(graph: Graph) -> Iterator[str]:
    if graph.subgraphs > 1:
        yield f"the model has {graph.subgraphs} graphs; the compiler reads one"
    for operator in graph.operators:
        message = fatal(operator)
        if message is not None:
            yield message


def _none(graph: Graph, objections: Sequence[Objection | None], message: str) -> tuple[Placed, ...]:
    stops = "the compiler stops before it places anything"
    return tuple(
        Placed(
            operator.index,
            operator.kind,
            "cpu",
            found.reason if found is not None and found.is_certain else message,
            str(found) if found is not None and found.is_certain else stops,
        )
        for operator, found in zip(graph.operators, objections, strict=True)
    )


def _ways(open_: tuple[int, ...]) -> Iterator[frozenset[int]]:
    """Give what the compiler may take of what is not known: first all of it, last nothing."""
    every = frozenset(open_)
    yield every
    for one in open_[:MOST_TRIED] if len(open_) > 1 else ():
        yield every - {one}
        yield frozenset({one})
    if open_:
        yield frozenset()


def _placed(
    graph: Graph,
    index: int,
    objections: Sequence[Objection | None],
    mapped: set[bool],
    blockers: tuple[Mapping[int, int], Mapping[int, int]],
) -> Placed:
    kind, found = graph.operators[index].kind, objections[index]
    if found is not None:
        placement: Placement = "unknown" if True in mapped else "cpu"
        return Placed(index, kind, placement, found.reason, str(found))
    if mapped == {True}:
        return Placed(index, kind, "tpu", MAPPED, None)
    blocker = blockers[0].get(index, blockers[1].get(index))
    if mapped == {False}:
        return Placed(index, kind, "cpu", SUBGRAPH, _behind(graph, objections, blocker))
    blocker = blockers[1].get(index, blocker)
    return Placed(index, kind, "unknown", UNKNOWN, _behind(graph, objections, blocker))


def _behind(graph: Graph, objections: Sequence[Objection | None], blocker: int | None) -> str:
    found = None if blocker is None else objections[blocker]
    if blocker is None or found is None:
        return "it waits for other operators than the part on the Edge TPU does"
    name = f"operator {blocker} ({graph.operators[blocker].kind})"
    return f"{name} {'ends' if found.is_certain else 'may end'} the part on the Edge TPU: {found.remedy}"


def _blockers(graph_edges: Edges, epochs: Epochs, taken: frozenset[int]) -> dict[int, int]:
    """Give for each operator behind the Edge TPU's part the first that keeps it from there."""
    found: dict[int, int] = {}
    for index in epochs.order:
        if index not in found and index not in taken and epochs.of[index] > epochs.first >= 0:
            found[index] = index
        if index in found:
            for reader in graph_edges.readers[index]:
                found[reader] = min(found.get(reader, found[index]), found[index])
    return found


def _split(
    graph: Graph,
    objections: Sequence[Objection | None],
    graph_edges: Edges,
    taken: frozenset[int],
    placed: Sequence[Placed],
    blockers: tuple[Mapping[int, int], Mapping[int, int]],
) -> Split | None:
    """Find the first operator behind which there is one that the compiler would take."""
    behind = [one.index for one in placed if one.reason == SUBGRAPH or one.placement == "unknown"]
    found = {blockers[1][index] for index in behind if index in blockers[1]}
    if not found:
        return None
    first = min(found)
    reason = objections[first]
    if reason is None:
        return None
    without = partition(graph_edges, taken | {first})
    mapped = sum(without.is_mapped(index) for index in range(len(placed)))
    return Split(first, graph.operators[first].kind, reason, mapped)
