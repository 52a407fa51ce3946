"""What Ctrl-C and SIGTERM do to a program: they unwind its stack, so that nothing half-written stays."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Final

TERMINATED: Final = 143
"""The exit code after SIGTERM."""
_IMPORTING: Final = "<frozen importlib._bootstrap>"
_IMPORT_S: Final = 10.0
"""How long an import is waited for: one may run code that never ends."""
_AGAIN_S: Final = 0.05


@contextmanager
def unwinding() -> Iterator[None]:
    """Raise KeyboardInterrupt at SIGINT and SystemExit at SIGTERM, after an import that is under way.

    An extension module whose import is left by an exception ends the process with a crash, or is half there
    from then on and fails in ways of its own. In a thread that is not the main one, nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ends = {signal.SIGTERM: _End(partial(SystemExit, TERMINATED))}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not as nohup leaves it
        ends[signal.SIGINT] = _End(KeyboardInterrupt)
    before = {number: signal.signal(number, end) for number, end in ends.items()}
    try:
        yield
    finally:
        for number, end in ends.items():
            end.forget()
            signal.signal(number, before[number])


class _End:
    """Handles a signal: raises an exception; while something is imported, it asks again a little later."""

    def __init__(self, exception: Callable[[], BaseException]) -> None:
        self._exception = exception
        self._until_s: float | None = None
        self._again: threading.Timer | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.forget()
        if self._until_s is None:
            self._until_s = time.monotonic() + _IMPORT_S
        if not _is_importing(frame) or time.monotonic() > self._until_s:
            self._until_s = None
            raise self._exception()
        main = threading.main_thread().ident or 0
        self._again = threading.Timer(_AGAIN_S, signal.pthread_kill, (main, number))
        self._again.daemon = True
        self._again.start()

    def forget(self) -> None:
        """Ask no more."""
        if self._again is not None:
            self._again.cancel()


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == _IMPORTING:
            return True
        frame = frame.f_back
    return False
