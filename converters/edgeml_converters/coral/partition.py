"""Which operators the compiler puts on the Edge TPU, once it is known which it would take.

It cuts a graph as TensorFlow Lite does (``PartitionGraphIntoIndependentNodeSubsets``), into epochs of
operators that are all taken or all not, and keeps the first epoch of those that are.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from edgeml_converters.coral.graph import Graph


@dataclass(frozen=True, slots=True)
class Epochs:
    """What was cut."""

    of: tuple[int, ...]
    """The epoch of each operator, from 0; −1 if it can never run."""
    first: int
    """The first epoch whose operators are all taken: what goes to the Edge TPU; −1 if there is none."""

    order: tuple[int, ...]
    """The operators as they become ready: each after those that it waits for."""

    def is_mapped(self, index: int) -> bool:
        """Say whether an operator goes to the Edge TPU."""
        return self.first >= 0 and self.of[index] == self.first


@dataclass(frozen=True, slots=True)
class Edges:
    """Which operators wait for which."""

    waiting: tuple[int, ...]
    """For each operator how many of its inputs other operators compute."""
    readers: tuple[tuple[int, ...], ...]
    """For each operator those that wait for it, once for each input."""


def edges(graph: Graph) -> Edges:
    """Find which operators wait for which: constants, variables and inputs of the graph are there at once."""
    makers = {tensor: operator.index for operator in graph.operators for tensor in operator.outputs}
    there = {*graph.inputs} | {
        place for place, one in enumerate(graph.tensors) if one.is_constant or one.is_variable
    }
    waiting = [0] * len(graph.operators)
    readers: list[list[int]] = [[] for _ in graph.operators]
    for operator in graph.operators:
        for tensor in operator.inputs:
            if tensor >= 0 and tensor in makers and tensor not in there:
                waiting[operator.index] += 1
                readers[makers[tensor]].append(operator.index)
    return Edges(tuple(waiting), tuple(tuple(one) for one in readers))


def partition(graph_edges: Edges, taken: Collection[int]) -> Epochs:
    """Cut a graph into epochs.

    Args:
        graph_edges: of the graph.
        taken: the operators that the compiler takes, by index.
    """
    waiting = list(graph_edges.waiting)
    epoch_of = [-1] * len(waiting)
    ready: dict[bool, list[int]] = {True: [], False: []}
    for index, count in enumerate(waiting):
        if not count:
            ready[index in taken].append(index)
    for heap in ready.values():
        heapify(heap)
    order: list[int] = []
    epoch, first = 0, -1
    while ready[True] or ready[False]:
        # the first operator that can run says of which kind the epoch is
        kind = not ready[False] or (bool(ready[True]) and ready[True][0] < ready[False][0])
        if kind and first < 0:
            first = epoch
        while ready[kind]:
            index = heappop(ready[kind])
            epoch_of[index] = epoch
            order.append(index)
            for reader in graph_edges.readers[index]:
                waiting[reader] -= 1
                if not waiting[reader]:
                    heappush(ready[reader in taken], reader)
        epoch += 1
    return Epochs(tuple(epoch_of), first, tuple(order))
