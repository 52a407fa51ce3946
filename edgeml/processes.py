"""Running processes, waiting for them, and ending them with everything that they started.

For processes started with ``start_new_session=True``: the session is what still holds together a
command, its children, and those of them that made process groups of their own.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from edgeml.transport import CommandResult

SIGNALLED: Final = 128
"""What shells add to the number of the signal that ended a command."""

_PR_SET_PDEATHSIG: Final = 1
_STATE, _SESSION = 0, 3
"""Places behind the command name in ``/proc/<pid>/stat`` (proc_pid_stat(5), fields 3 and 6)."""
_GONE: Final = frozenset("ZX")
_PASSES: Final = 10
"""A process that forks while its session is listed is found by the next pass."""


def run_command(argv: Sequence[str], timeout_s: float, *, leashed: bool = False) -> CommandResult | None:
    """Run a command in a session of its own; ``None``: it did not end in time.

    What it leaves running in the background goes on. Where it does not end in time, or the wait is
    interrupted, the whole session is killed. One that is ``leashed`` gets SIGTERM if this process is
    killed while it waits.

    Raises:
        OSError, ValueError: it cannot be started.
    """
    # files, not pipes: a child left in the background would hold a pipe open
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
            preexec_fn=leash(signal.SIGTERM) if leashed else None,  # noqa: PLW1509 - as in leash
        )
        try:
            ended = ended_within(process, timeout_s)
        except BaseException:
            kill_session(process)
            raise
        if not ended:
            kill_session(process)
            return None
        out.seek(0)
        err.seek(0)
        code = process.returncode
        return CommandResult(code if code >= 0 else SIGNALLED - code, out.read(), err.read())


def leash(number: signal.Signals) -> Callable[[], None] | None:
    """Give a ``preexec_fn``: a signal reaches the process when the thread that started it is gone.

    prctl has no other moment than before the program starts. ``None`` where the system cannot do it.
    """
    if not sys.platform.startswith("linux"):
        return None
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def in_child() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)

    return in_child


def ended_within(process: subprocess.Popen[Any], timeout_s: float) -> bool:
    """Say whether a process ended in time, as soon as it does; ``Popen.wait`` finds out up to 50 ms late."""
    if not hasattr(os, "pidfd_open"):
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout_s)
        return process.returncode is not None
    if process.returncode is None:
        handle = os.pidfd_open(process.pid)
        try:
            ready, _, _ = select.select([handle], [], [], timeout_s)
        finally:
            os.close(handle)
        if not ready:
            return False
        process.wait()
    return True


def kill_session(process: subprocess.Popen[Any]) -> None:
    """Kill a process with everything in its session, and reap it.

    It may have ended: what it left behind is killed all the same. Without ``/proc``, only its process
    group is found.
    """
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    for _ in range(_PASSES):
        members = list(_session_members(process.pid))
        if not members:
            break
        for pid in members:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
    process.wait()


def _session_members(session: int) -> Iterator[int]:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            fields = stat.read_text(errors="replace").rpartition(")")[2].split()
            if int(fields[_SESSION]) == session and fields[_STATE] not in _GONE:
                yield int(stat.parent.name)
