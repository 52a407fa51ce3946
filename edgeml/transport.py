"""The contract of a transport: run commands on a machine and move files to and from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, runtime_checkable


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a command left behind."""

    exit_code: int
    """128 + n for a command that signal n ended, as shells say it."""
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a transfer is."""

    name: str
    """The file's path on the machine."""
    done_bytes: int
    """With what an earlier transfer had brought."""
    whole_bytes: int
    bytes_per_second: float
    """As measured since this transfer began."""


@runtime_checkable
class ReportsProgress(Protocol):
    """What a transport has whose transfers take long enough to be watched."""

    def on_progress(self, callback: Callable[[Progress], None] | None) -> None:
        """Call back in the course of each ``put`` and ``get``."""
        ...


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
