"""Aligns two sequences without changing their order, between pairs that are known already."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import Final

LONGEST_GAP: Final = 16
"""How many items of a gap are looked at: the first that diverges stands at its beginning."""


def gaps(pairs: Sequence[tuple[int, int]], left_size: int, right_size: int) -> Iterator[tuple[range, range]]:
    """Give the stretches of both sequences between pairs that stand in the same order in both.

    Args:
        pairs: places in the left and in the right sequence, ascending on the left; those that cross most
            others are passed over.
        left_size: length of the left sequence.
        right_size: length of the right sequence.
    """
    before = (-1, -1)
    for pair in (*_longest_ascending(pairs), (left_size, right_size)):
        yield range(before[0] + 1, pair[0]), range(before[1] + 1, pair[1])
        before = pair


def align(
    left: Sequence[str], right: Sequence[str], likeness: Callable[[str, str], float | None]
) -> list[tuple[str, str]]:
    """Pair the items of two short sequences in order, so that the sum of their likeness is the largest.

    Args:
        left: items of the one.
        right: items of the other.
        likeness: above 0; ``None`` for two that cannot be a pair.
    """
    left, right = left[:LONGEST_GAP], right[:LONGEST_GAP]
    scores = [[likeness(one, other) for other in right] for one in left]
    best = [[0.0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i in reversed(range(len(left))):
        for j in reversed(range(len(right))):
            taken = scores[i][j]
            together = best[i + 1][j + 1] + taken if taken is not None else 0.0
            best[i][j] = max(best[i + 1][j], best[i][j + 1], together)
    found = []
    i = j = 0
    while i < len(left) and j < len(right):
        taken = scores[i][j]
        if taken is not None and best[i][j] == best[i + 1][j + 1] + taken:
            found.append((left[i], right[j]))
            i, j = i + 1, j + 1
        elif best[i][j] == best[i + 1][j]:
            i += 1
        else:
            j += 1
    return found


def _longest_ascending(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Give the longest run of pairs that ascend on the right as well."""
    ends: list[int] = []
    chains: list[list[tuple[int, int]]] = []
    for pair in pairs:
        place = bisect_left(ends, pair[1])
        chain = [*(chains[place - 1] if place else ()), pair]
        ends[place : place + 1] = [pair[1]]
        chains[place : place + 1] = [chain]
    return chains[-1] if chains else []
