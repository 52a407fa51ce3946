"""A root shell on a serial line, for what must not need the network: short commands and their output."""

from __future__ import annotations

import secrets
import socket
import time
from types import TracebackType
from typing import Final, Self

from edgeml.errors import EngineError

_WITHIN_S: Final = 30.0
_AGAIN_S: Final = 2.0
"""The line's shell may throw away what came while it started: so often it is asked whether it is there."""


class Line:
    """A connection to a serial line of a machine; it takes one client at a time."""

    def __init__(self, port: int, where: str) -> None:
        self._where = where
        try:
            self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        except OSError as error:
            raise EngineError(f"{where}: its serial line cannot be reached: {error}") from error
        self._seen = b""

    def send(self, text: str) -> None:
        """Type a line.

        Raises:
            EngineError: the machine is gone.
        """
        try:
            self._socket.sendall(text.encode() + b"\n")
        except OSError as error:
            raise EngineError(f"{self._where}: its serial line is gone: {error}") from error

    def wait_for(self, mark: str, within_s: float) -> str:
        """Give what comes up to a mark.

        Raises:
            EngineError: it does not come in time; holds what came.
        """
        deadline = time.monotonic() + within_s
        while mark.encode() not in self._seen:
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                came = self._socket.recv(1 << 16)
            except TimeoutError:
                shown = self._seen[-300:].decode(errors="replace")
                raise EngineError(
                    f"{self._where}: no {mark!r} on the serial line within {within_s:g} s; it says {shown!r}"
                ) from None
            except OSError as error:
                raise EngineError(f"{self._where}: its serial line is gone: {error}") from error
            if not came:
                raise EngineError(f"{self._where}: its serial line is gone")
            self._seen += came
        before, _, self._seen = self._seen.partition(mark.encode())
        return before.decode(errors="replace")

    def wait_for_shell(self, within_s: float) -> None:
        """Wait until a shell answers.

        Raises:
            EngineError: none does.
        """
        deadline = time.monotonic() + within_s
        while True:
            word = secrets.token_hex(4)
            # the echo of what is typed has the quotes in it, the answer has not
            self.send(f"\necho {word[:4]}''{word[4:]}")
            try:
                self.wait_for(word, min(_AGAIN_S, within_s))
            except EngineError:
                if time.monotonic() > deadline:
                    raise
            else:
                return

    def run(self, command: str, within_s: float) -> str:
        """Run a command of the shell, and give what it prints.

        Raises:
            EngineError: it does not end in time.
        """
        word = secrets.token_hex(4)
        self.send(
            f"stty -echo; echo {word[:4]}''{word[4:]}; {command}; echo {word[:4]}''{word[4:]}; stty echo"
        )
        self.wait_for(word, within_s)
        return self.wait_for(word, within_s).strip("\r\n")

    def close(self) -> None:
        """Leave the line. Idempotent."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def run_on_line(port: int, script: str, where: str) -> None:
    """Run a script of a machine's shell on a serial line.

    Raises:
        EngineError: the line is another's, or the script ended with another exit code than 0.
    """
    with Line(port, where) as line:
        line.wait_for_shell(_WITHIN_S)
        said = line.run(f"({script}) 2>&1; echo $?", _WITHIN_S).split()
    if said[-1:] != ["0"]:
        raise EngineError(
            f"{where}: {script!r:.200} ended with exit code {' '.join(said[-1:])}: {' '.join(said[:-1])}"
        )
