"""``local:`` — this machine, as a transport: what works on a device is tried here first."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Self

from edgeml.atomic import replacing_file
from edgeml.errors import TransportError, UsageError
from edgeml.processes import run_command
from edgeml_devices.transports.posix_shell import shown

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from edgeml.transport import CommandResult


class LocalTransport:
    """Runs commands in sessions of their own, so that one that is stopped takes its children with it."""

    def __init__(self, url: str = "local:") -> None:
        if url != "local:":
            raise UsageError(f"{url!r}: this machine is written 'local:', with nothing behind it")
        self._open = False

    def connect(self) -> None:
        self._open = True

    def run(self, argv: Sequence[str], timeout_s: float) -> CommandResult:
        self._require_open()
        try:
            done = run_command(argv, timeout_s)
        except (OSError, ValueError) as error:
            raise TransportError(f"local: {shown(argv)} could not be started: {error}") from error
        if done is None:
            raise TransportError(
                f"local: {shown(argv)} did not end within {timeout_s:g} s and was killed; "
                "give it more time or find out what it waits for"
            )
        return done

    def put(self, local: Path, remote: str) -> None:
        self._require_open()
        _copy(local, Path(remote))

    def get(self, remote: str, local: Path) -> None:
        self._require_open()
        _copy(Path(remote), local)

    def close(self) -> None:
        self._open = False

    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _require_open(self) -> None:
        if not self._open:
            raise TransportError("local: not connected; call connect() first, or use it in a with statement")


def _copy(source: Path, target: Path) -> None:
    try:
        with replacing_file(target) as scratch:
            shutil.copyfile(source, scratch)
    except OSError as error:
        raise TransportError(f"local: {source} could not be copied to {target}: {error.strerror}") from error
