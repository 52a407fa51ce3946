"""QEMU's control socket: one JSON object a line, as in QEMU's ``docs/interop/qmp-spec``.

QEMU serves one client at a time, and others wait: connect, say what is to be said, and leave.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedRWPair
from pathlib import Path
from typing import Any, Final

from edgeml.errors import EngineError

SOCKET: Final = "qmp"
"""In a machine's folder."""
TIMEOUT_S: Final = 30.0
"""For one answer. QEMU answers at once, unless this machine is busy or another client has the socket."""


class Qmp:
    """A connection; use :func:`open_qmp`."""

    def __init__(self, lines: BufferedRWPair, where: str) -> None:
        self._lines = lines
        self._where = where

    def execute(self, command: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """Run a command and give what it returns; events on the way are passed over.

        Raises:
            EngineError: QEMU refuses it, says why; or it is gone.
        """
        request: dict[str, Any] = {"execute": command}
        if arguments:
            request["arguments"] = dict(arguments)
        try:
            self._lines.write(json.dumps(request).encode() + b"\n")
            self._lines.flush()
            while True:
                answer = self.read()
                if "return" in answer:
                    return answer["return"]
                if "error" in answer:
                    raise EngineError(
                        f"{self._where}: QEMU refuses {command}: {answer['error'].get('desc', answer)}"
                    )
        except OSError as error:
            raise EngineError(f"{self._where}: QEMU did not answer {command}: {error}") from error

    def monitor(self, line: str) -> str:
        """Run a command of the monitor that people type at, and give what it prints."""
        return str(self.execute("human-monitor-command", {"command-line": line}))

    def read(self) -> dict[str, Any]:
        """Read the next object: an answer, an event, or the greeting.

        Raises:
            EngineError: QEMU is gone, or it is no QEMU.
            OSError: nothing came in time.
        """
        line = self._lines.readline()
        if not line:
            raise EngineError(f"{self._where}: QEMU has ended")
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise EngineError(f"{self._where}: this is not QEMU's control socket: {line[:80]!r}")
        return answer


@contextmanager
def open_qmp(folder: Path, timeout_s: float = TIMEOUT_S) -> Iterator[Qmp]:
    """Connect to the QEMU of a machine's folder, and leave at the end.

    Raises:
        EngineError: it is not there, does not answer, or is no QEMU.
    """
    where = folder.name
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout_s)
        try:
            _connect(connection, folder)
            with connection.makefile("rwb") as lines:
                qmp = Qmp(lines, where)
                if "QMP" not in qmp.read():
                    raise EngineError(f"{where}: this is not QEMU's control socket")
                qmp.execute("qmp_capabilities")
                yield qmp
        except OSError as error:
            raise EngineError(f"{where}: QEMU cannot be reached: {error}") from error


def _connect(connection: socket.socket, folder: Path) -> None:
    """Go by the folder's descriptor: a socket's path has 107 bytes at most (unix(7)), a folder's more."""
    handle = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        connection.connect(f"/proc/self/fd/{handle}/{SOCKET}")
    finally:
        os.close(handle)
