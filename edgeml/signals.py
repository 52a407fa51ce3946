"""What Ctrl-C and SIGTERM do to a program: they unwind its stack, so that nothing half-written stays."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final, TypeVar

T = TypeVar("T")

TERMINATED: Final = 143
"""The exit code after SIGTERM."""
_IMPORTING: Final = "<frozen importlib._bootstrap>"
_IMPORT_S: Final = 10.0
"""How long an import is waited for: one may run code that never ends."""
_AGAIN_S: Final = 0.05


class Ends:
    """What came of the signals so far."""

    import_broken = False
    """An import took too long and was left: what fails from then on may be due to that."""


@contextmanager
def unwinding() -> Iterator[Ends]:
    """Raise KeyboardInterrupt at SIGINT and SystemExit at SIGTERM, where that unwinds the stack.

    That is not in an import: an extension module whose import is left by an exception ends the process with a
    crash, or is half there from then on and fails in ways of its own. Nor where Python ignores exceptions, as
    in ``__del__`` and what is called around a fork. Either is waited for. In a thread that is not the main
    one, nothing is changed.
    """
    ends = Ends()
    if threading.current_thread() is not threading.main_thread():
        yield ends
        return
    handlers = [_Handler(signal.SIGTERM, SystemExit, (TERMINATED,), ends)]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not as nohup leaves it
        handlers.append(_Handler(signal.SIGINT, KeyboardInterrupt, (), ends))
    before = [signal.signal(one.number, one) for one in handlers]
    ignored = sys.unraisablehook

    def ask_again(unraisable: sys.UnraisableHookArgs) -> None:
        raised = [one for one in handlers if one.has_raised(unraisable.exc_value)]
        for one in raised:
            one.ask_again()
        if not raised:
            ignored(unraisable)

    sys.unraisablehook = ask_again
    try:
        yield ends
    finally:
        sys.unraisablehook = ignored
        for one, other in zip(handlers, before, strict=True):
            one.forget()
            signal.signal(one.number, other)


def run_async(main: Coroutine[Any, Any, T]) -> T:
    """Run as ``asyncio.run`` does, with Python's own handler of SIGINT: only then it cancels its task.

    An exception in the middle of its loop may make it wait for ever.
    """
    import asyncio

    before = signal.getsignal(signal.SIGINT)
    if not isinstance(before, _Handler) or threading.current_thread() is not threading.main_thread():
        return asyncio.run(main)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return asyncio.run(main)
    finally:
        signal.signal(signal.SIGINT, before)


class _Handler:
    """Handles a signal: raises an exception; while something is imported, it asks again a little later."""

    def __init__(
        self, number: int, exception: type[BaseException], args: tuple[object, ...], ends: Ends
    ) -> None:
        self.number = number
        self._exception, self._args = exception, args
        self._ends = ends
        self._deadline_s: float | None = None
        self._again: threading.Timer | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a handler's signature
        self.forget()
        if _is_importing(frame):
            if self._deadline_s is None:
                self._deadline_s = time.monotonic() + _IMPORT_S
            if time.monotonic() < self._deadline_s:
                self.ask_again()
                return
            self._ends.import_broken = True
        self._deadline_s = None
        raise self._exception(*self._args)

    def has_raised(self, exception: BaseException | None) -> bool:
        """Say whether an exception comes from here."""
        return type(exception) is self._exception and exception.args == self._args

    def ask_again(self) -> None:
        """Have the signal come once more."""
        main = threading.main_thread().ident or 0
        again = threading.Timer(_AGAIN_S, signal.pthread_kill, (main, self.number))
        again.daemon = True
        self._again = again
        again.start()

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
