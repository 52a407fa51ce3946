"""Starts proot on a kernel that seems older: ``python -I -S launcher.py PROGRAM ARGUMENT…``.

proot before 5.3 (Debian 12 has 5.1) does not know the system calls below, and lets their paths through as
they are: programs would see this machine's files. Answered by "no such system call", C libraries and
coreutils take the older ones, which every proot translates. seccomp(2) holds for all that is started.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from collections.abc import Iterable
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
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer))
    for arguments in ((_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (_PR_SET_SECCOMP, _FILTER, header, 0, 0)):
        if libc.prctl(*arguments):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    install(program(REFUSED.values()))
    os.execv(sys.argv[1], sys.argv[1:])  # noqa: S606 - what it is for
