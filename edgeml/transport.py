"""The contract of a transport: run commands on a machine and move files to and from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a command left behind."""

    exit_code: int
    stdout: bytes
    stderr: bytes


class Transport(Protocol):
    """A way to a machine. The constructor says where; ``connect`` takes nothing."""

    def connect(self) -> None:
        """Open the way.

        Raises:
            TransportError: the machine cannot be reached.
        """
        ...

    def run(self, argv: Sequence[str], timeout_s: float) -> CommandResult:
        """Run a command to its end; a command's own failure is an exit code, not an error.

        Raises:
            TransportError: it could not be started, or did not end within ``timeout_s`` and was killed
                with the processes that it started.
        """
        ...

    def put(self, local: Path, remote: str) -> None:
        """Copy a file to the machine; ``remote`` appears whole or not at all."""
        ...

    def get(self, remote: str, local: Path) -> None:
        """Copy a file from the machine; ``local`` appears whole or not at all."""
        ...

    def close(self) -> None:
        """Close the way. Idempotent."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
