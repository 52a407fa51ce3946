"""Work with an engine in a child process: a hostile model may make the engine crash, or run for ever."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Final, NoReturn, TypeVar

from edgeml.errors import ConversionError

LIMIT_S: Final = 600
"""A large model runs a few times in it on a slow machine."""

_Result = TypeVar("_Result")


def guarded(step: str, work: Callable[[], _Result]) -> _Result:
    """Do work in a copy of this process; gives its result, and raises what it raises.

    Where a process cannot be copied safely, as it has threads or is none of Linux, it does the work itself.

    Raises:
        ConversionError: the engine crashed, or did not end within ``LIMIT_S``.
    """
    if sys.platform != "linux" or _has_threads():
        return work()
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # of threads that are not Python's: numpy's wait for work, and end in the copy
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        _answer(writing, work)
    status: int | None = None
    try:
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            answer = pipe.read()
        status = os.waitpid(child, 0)[1]
    finally:
        if status is None:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    if status:
        raise ConversionError(f"{step}: the model cannot be run here: LiteRT {_death(status)}")
    is_done, result = pickle.loads(answer)  # noqa: S301 - of this program's own copy
    if not is_done:
        raise result
    done: _Result = result
    return done


def _has_threads() -> bool:
    return threading.active_count() > 1


def _answer(writing: int, work: Callable[[], object]) -> NoReturn:
    """Do the work, send what came of it, and leave without anything that a program does at its end."""
    code = 1
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        signal.alarm(LIMIT_S)
        answer: tuple[bool, object]
        try:
            answer = True, work()
        except Exception as error:  # noqa: BLE001 - the caller's to handle, whatever it is
            answer = False, error
        content = memoryview(pickle.dumps(answer))
        while content:
            content = content[os.write(writing, content) :]
        code = 0
    finally:
        os._exit(code)


def _death(status: int) -> str:
    if not os.WIFSIGNALED(status):
        return f"ended the process with exit code {os.WEXITSTATUS(status)}"
    number = os.WTERMSIG(status)
    if number == signal.SIGALRM:
        return f"did not end within {LIMIT_S} s"
    if number == signal.SIGKILL:
        return "was killed, most likely for lack of memory"
    return f"crashed at it (signal {number}): it is damaged, or made to do that"
