"""This terminal, attached to a machine's serial line."""

from __future__ import annotations

import os
import select
import socket
import sys
import termios
import tty
from typing import Final

from edgeml.errors import EngineError

LEAVE: Final = b"\x1d"
"""Ctrl-], as in telnet and virsh."""
_READ_BYTES: Final = 1 << 16


def attach_terminal(port: int, where: str) -> None:
    """Send what is typed to the line and show what it says, until Ctrl-] or the machine's end.

    Raises:
        EngineError: the line cannot be reached; QEMU serves one client at a time.
    """
    try:
        line = socket.create_connection(("127.0.0.1", port), timeout=10)
    except OSError as error:
        raise EngineError(f"{where}: its serial line cannot be reached: {error}") from error
    handle = sys.stdin.fileno()
    before = termios.tcgetattr(handle)
    with line:
        line.settimeout(None)
        try:
            tty.setraw(handle)
            line.sendall(b"\r")  # for a prompt
            _pump(handle, sys.stdout.fileno(), line)
        finally:
            termios.tcsetattr(handle, termios.TCSADRAIN, before)
    sys.stdout.write("\n")


def _pump(typed_from: int, shown_on: int, line: socket.socket) -> None:
    while True:
        ready = select.select([typed_from, line.fileno()], [], [])[0]
        if line.fileno() in ready:
            try:
                said = line.recv(_READ_BYTES)
            except ConnectionError:
                return
            if not said:
                return
            os.write(shown_on, said)
        if typed_from in ready:
            typed, leave, _ = os.read(typed_from, _READ_BYTES).partition(LEAVE)
            line.sendall(typed)
            if leave or not typed:
                return
