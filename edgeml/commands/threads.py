"""Numbers of engine threads, as commands take them."""

from __future__ import annotations

from edgeml.errors import UsageError


def thread_counts(text: str) -> tuple[int, ...]:
    """Read ``1,2,4``; each number once.

    Raises:
        UsageError: it holds something else than whole numbers from 1.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise UsageError(f"--threads {text}: give whole numbers from 1, as in 1,2,4")
    return tuple(dict.fromkeys(map(int, words)))
