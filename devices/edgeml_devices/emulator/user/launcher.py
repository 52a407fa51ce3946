"""Runs proot on a kernel that seems older, and ends it: ``python -I -S launcher.py OWNER PROGRAM ARGUMENT…``.

OWNER is the process that starts this one. When it ends, however it does, or sends SIGTERM, all that was
started ends: on SIGQUIT proot kills whatever it traces, also what left its session. A proot that is killed
itself lets go of its programs, which then would see this machine's files; they are found as children here.

proot before 5.3 (Debian 12 has 5.1) does not know the system calls below, and lets their paths through as
they are: programs would see this machine's files. Answered by "no such system call", C libraries and
coreutils take the older ones, which every proot translates. seccomp(2) holds for all that is started.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import struct
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

REFUSED: Final = {"renameat2": 316, "statx": 332, "openat2": 437, "faccessat2": 439, "fchmodat2": 452}
"""Numbers of x86-64 (arch/x86/entry/syscalls/syscall_64.tbl)."""
_AUDIT_ARCH_X86_64: Final = 0xC000003E
_NUMBER, _ARCHITECTURE = 0, 4
"""Offsets in ``struct seccomp_data``."""
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
"""Of classic BPF: ``ld [k]``, ``jeq #k``, ``ret #k``."""
_ALLOW: Final = 0x7FFF0000
_ERRNO: Final = 0x00050000
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER = 38, 22, 2
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_OWNER_ENDED: Final = signal.SIGHUP
"""Sent when a thread of the owner ends, too: only another parent says that the owner did."""
_WAITED_FOR: Final = (signal.SIGCHLD, signal.SIGTERM, _OWNER_ENDED)
_TRIES, _TRY_S = 40, 0.05
"""A program that starts another one while proot kills is killed by the next try."""
_SIGNALLED: Final = 128
_PARENT: Final = 1
"""Place behind the command name in ``/proc/<pid>/stat`` (proc_pid_stat(5), field 4)."""

_libc: Final = ctypes.CDLL(None, use_errno=True)


def program(numbers: Iterable[int]) -> bytes:
    """Give the filter: ``ENOSYS`` for these calls of x86-64, everything else as it was."""
    refused = tuple(numbers)
    steps = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_JUMP_IF_EQUAL, 0, len(refused) + 1, _AUDIT_ARCH_X86_64),
        (_LOAD, 0, 0, _NUMBER),
        *((_JUMP_IF_EQUAL, len(refused) - place, 0, number) for place, number in enumerate(refused)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
    ]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def install(code: bytes) -> None:
    """Put the filter on this process, and so on all that it starts.

    Raises:
        OSError: the kernel refuses it.
    """
    buffer = ctypes.create_string_buffer(code, len(code))
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_SECCOMP, _FILTER, struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer)))


def keep(owner: int, argv: list[str]) -> int:
    """Run a program for as long as the owner lives; gives its exit code."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED_FOR)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    _prctl(_PR_SET_PDEATHSIG, _OWNER_ENDED)
    child = os.fork()
    if child == 0:
        _become(argv)
    code, told = None, 0
    while code is None and told != signal.SIGTERM and os.getppid() == owner:
        told = signal.sigwait(_WAITED_FOR)
        code = _reap(child)
    for _ in range(_TRIES):
        if code is not None:
            break
        os.kill(child, signal.SIGQUIT)
        time.sleep(_TRY_S)
        code = _reap(child)
    _kill_children()
    return _SIGNALLED + signal.SIGKILL if code is None else code


def _become(argv: list[str]) -> None:
    """Go on as the program, in the child: ended with the parent even where that is killed."""
    try:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        install(program(REFUSED.values()))
        os.execv(argv[0], argv)  # noqa: S606 - what it is for
    except OSError as error:
        sys.stderr.write(f"{argv[0]}: {error.strerror}\n")
        sys.stderr.flush()
    finally:
        os._exit(_SIGNALLED - 1)


def _reap(child: int) -> int | None:
    """Take note of all that ended; gives the exit code of one that did among them."""
    code = None
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == child:
                said = os.waitstatus_to_exitcode(ended[1])
                code = said if said >= 0 else _SIGNALLED - said
    return code


def _kill_children() -> None:
    for _ in range(_TRIES):
        left = list(_children())
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        if not left:
            break
        time.sleep(_TRY_S)
        _reap(0)


def _children() -> Iterator[int]:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(stat.read_text(errors="replace").rpartition(")")[2].split()[_PARENT]) == os.getpid():
                yield int(stat.parent.name)


def _prctl(option: int, *arguments: int | bytes) -> None:
    words = [*arguments, 0, 0, 0, 0][:4]
    if _libc.prctl(option, *(ctypes.c_ulong(word) if isinstance(word, int) else word for word in words)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    os._exit(keep(int(sys.argv[1]), sys.argv[2:]))
