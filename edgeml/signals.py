"""What Ctrl-C and SIGTERM do to a program: they unwind its stack, so that nothing half-written stays."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
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
    """Raise KeyboardInterrupt at SIGINT and SystemExit at SIGTERM, where that unwinds the stack.

    That is not in an import: an extension module whose import is left by an exception ends the process with a
    crash, or is half there from then on and fails in ways of its own. Nor where Python ignores exceptions, as
    in ``__del__`` and what is called around a fork. Either is waited for. In a thread that is not the main
    one, nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ends = {signal.SIGTERM: _End(signal.SIGTERM, SystemExit(TERMINATED))}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not as nohup leaves it
        ends[signal.SIGINT] = _End(signal.SIGINT, KeyboardInterrupt())
    before = {number: signal.signal(number, end) for number, end in ends.items()}
    ignored = sys.unraisablehook

    def ask_again(unraisable: sys.UnraisableHookArgs) -> None:
        raised = [end for end in ends.values() if end.is_raised_as(unraisable.exc_value)]
        for end in raised:
            end.ask_again()
        if not raised:
            ignored(unraisable)

    sys.unraisablehook = ask_again
    try:
        yield
    finally:
        sys.unraisablehook = ignored
        for number, end in ends.items():
            end.forget()
            signal.signal(number, before[number])


class _End:
    """Handles a signal: raises an exception; while something is imported, it asks again a little later."""

    def __init__(self, number: int, exception: BaseException) -> None:
        self._number = number
        self._exception = exception
        self._until_s: float | None = None
        self._again: threading.Timer | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a handler's signature
        self.forget()
        if self._until_s is None:
            self._until_s = time.monotonic() + _IMPORT_S
        if _is_importing(frame) and time.monotonic() < self._until_s:
            self.ask_again()
            return
        self._until_s = None
        raise type(self._exception)(*self._exception.args)

    def is_raised_as(self, exception: BaseException | None) -> bool:
        """Say whether this is what the handler raised."""
        return type(exception) is type(self._exception) and exception.args == self._exception.args

    def ask_again(self) -> None:
        """Have the signal come once more."""
        main = threading.main_thread().ident or 0
        self._again = threading.Timer(_AGAIN_S, signal.pthread_kill, (main, self._number))
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
