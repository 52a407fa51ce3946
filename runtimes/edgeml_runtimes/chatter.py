"""Keeps lines that an engine prints for no reason off the user's terminal.

LiteRT's native code writes one to file descriptor 2 and has no switch for it. The descriptor is turned
aside only while the process has a single thread, so that nobody else's output can be caught, and what
was caught and is not chatter is written after all. With more threads the line is shown.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_STDERR = 2


@contextmanager
def without_chatter(*beginnings: bytes) -> Iterator[None]:
    """Drop lines that native code writes to stderr and that begin like this."""
    if threading.active_count() > 1:
        yield
        return
    sys.stderr.flush()
    try:
        saved = os.dup(_STDERR)
    except OSError:  # there is no stderr
        yield
        return
    with tempfile.TemporaryFile() as caught:
        try:
            os.dup2(caught.fileno(), _STDERR)
            try:
                yield
            finally:
                os.dup2(saved, _STDERR)
        finally:
            os.close(saved)
            caught.seek(0)
            kept = [line for line in caught if not line.startswith(beginnings)]
            if kept:
                os.write(_STDERR, b"".join(kept))
