"""The launcher's filter refuses the system calls that proot does not translate, and no others."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest
from edgeml_devices.emulator.user import launcher

PROBE = """
import ctypes, errno, os, sys
libc = ctypes.CDLL(None, use_errno=True)
for number in map(int, sys.argv[1:]):
    libc.syscall(number, -1, 0, 0, 0, 0)
    print(errno.errorcode[ctypes.get_errno()])
os.stat("/")
"""
FACCESSAT = 269


@pytest.mark.skipif(platform.machine() != "x86_64", reason="system calls are numbered by architecture")
def test_only_calls_that_proot_does_not_know_are_refused() -> None:
    numbers = [str(number) for number in (*launcher.REFUSED.values(), FACCESSAT)]
    argv = [
        sys.executable,
        "-I",
        "-S",
        launcher.__file__,
        str(os.getpid()),
        sys.executable,
        "-c",
        PROBE,
        *numbers,
    ]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    *refused, allowed = done.stdout.split()
    assert set(refused) == {"ENOSYS"}
    assert allowed != "ENOSYS"
