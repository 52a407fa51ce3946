"""``serial:///dev/ttyUSB0?baud=115200`` — a machine behind a console line, through pyserial."""

from __future__ import annotations

import base64
import os
import shlex
import time
from typing import TYPE_CHECKING, Final, Self

from edgeml.errors import TransportError
from edgeml.transport import CommandResult
from edgeml_devices.transports.partial_file import Meter, PartialFile, file_size_and_sha256
from edgeml_devices.transports.posix_shell import (
    FILE_STATE,
    FINISH_PUT,
    PART_STATE,
    kept,
    part_path,
    plain_path,
    read_state,
    shown,
)
from edgeml_devices.transports.serial_console import BlockSize, SerialConsole
from edgeml_devices.transports.serial_port import SerialPort, serial_address
from edgeml_devices.transports.serial_receiver import UNIT_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import IO

    from edgeml.transport import Progress

KILLED_WITHIN_S: Final = 10.0
"""How long the machine may take to say that it has killed a command."""
LARGEST_PUT_BYTES: Final = 2816
"""In base64, with what goes round it, less than the 4095 bytes that a terminal holds for a busy reader."""
LARGEST_GET_BYTES: Final = 32 * UNIT_BYTES
SMALLEST_PUT_BYTES: Final = 96
RESUME_FROM_BYTES: Final = 4096
"""Smaller files are sent without asking what an earlier transfer left."""
_TOOLS: Final = ("cat", "cksum", "dd", "mkdir", "mktemp", "mv", "rm", "setsid", "sleep", "tail", "wc")
_OCTAL_PUT_BYTES: Final = 384
_CHECK_S: Final = 60.0
_HASH_BYTES_PER_S: Final = 1_000_000
_FIRST_PAUSE_S: Final = 0.01
_LONGEST_PAUSE_S: Final = 1.0
_DEFINED_FROM_BYTES: Final = 400


class SerialTransport:
    """Runs commands in the background of a console shell and reads what they printed from files there."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._console = SerialConsole(SerialPort(serial_address(url)))
        self._opened = False
        self._has_base64 = True
        self._progress: Callable[[Progress], None] | None = None

    def on_progress(self, callback: Callable[[Progress], None] | None) -> None:
        """Have each transfer reported, with its measured rate."""
        self._progress = callback

    def connect(self) -> None:
        self.close()
        try:
            self._console.connect()
            self._require_tools()
        except BaseException:
            self._console.close()
            raise
        self._opened = True

    def run(self, argv: Sequence[str], timeout_s: float) -> CommandResult:
        self._require_open()
        script = os.fsencode(f"start {kept(timeout_s, argv)}")
        try:
            long = len(script) > _DEFINED_FROM_BYTES
            begun = self._console.define(script) if long else self._console.ask(script)
            ended = None if begun.status else self._ended(timeout_s)
        except BaseException:
            self._stop()
            raise
        if begun.status:
            raise TransportError(f"{self._url}: {shown(argv)} could not be started: {_text(begun.data)}")
        if ended is None:
            self._stop()
            raise TransportError(
                f"{self._url}: {shown(argv)} did not end within {timeout_s:g} s and was killed; "
                "give it more time or find out what it waits for"
            )
        code, out_bytes, err_bytes = ended
        if code == "missing":
            raise TransportError(
                f"{self._url}: {shown(argv)} could not be started: {argv[0]!r} is no program there"
            )
        if not code.isdigit():
            raise TransportError(f"{self._url}: {shown(argv)} was killed on the machine")
        out = b"".join(self._blocks(b'"$d/job/out"', 0, out_bytes))
        err = b"".join(self._blocks(b'"$d/job/err"', 0, err_bytes))
        return CommandResult(int(code), out, err)

    def put(self, local: Path, remote: str) -> None:
        self._require_open()
        target = plain_path(remote)
        doing = f"{self._url}: {local} could not be copied to {remote}"
        try:
            with local.open("rb") as file:
                size, sha256 = file_size_and_sha256(file)
                part = part_path(target, sha256)
                begin = self._part_size(file, part, size, doing) if size >= RESUME_FROM_BYTES else 0
                self._append(file, part, begin, Meter(remote, begin, size, self._progress), doing)
        except OSError as error:
            raise TransportError(f"{doing}: {error.strerror}") from error
        self._script(FINISH_PUT, [part, target, str(size), sha256], size, doing)

    def get(self, remote: str, local: Path) -> None:
        self._require_open()
        source = plain_path(remote)
        doing = f"{self._url}: {remote} could not be copied to {local}"
        state = read_state(self._script(FILE_STATE, [source], 0, doing), self._url)
        if state is None:
            raise TransportError(f"{doing}: the machine did not say what it is")
        try:
            with PartialFile(local, *state) as part:
                meter = Meter(remote, part.size_bytes, part.whole_bytes, self._progress)
                quoted = os.fsencode(shlex.quote(source))
                for data in self._blocks(quoted, part.size_bytes, part.whole_bytes):
                    part.write(data)
                    meter.add(len(data))
                part.finish(doing)
        except OSError as error:
            raise TransportError(f"{doing}: {error.strerror}") from error

    def close(self) -> None:
        self._opened = False
        self._console.close()

    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _require_open(self) -> None:
        if not self._opened:
            raise TransportError(
                f"{self._url}: not connected; call connect() first, or use it in a with statement"
            )
        if not self._console.alive:
            raise TransportError(f"{self._url}: the line was lost; connect() again")

    def _require_tools(self) -> None:
        tools = " ".join(_TOOLS)
        script = f"for tool in base64 {tools}; do command -v $tool >/dev/null || echo $tool; done"
        missing = self._console.ask(script.encode()).data.decode().split()
        self._has_base64 = "base64" not in missing
        lacking = [tool for tool in missing if tool != "base64"]
        if lacking:
            raise TransportError(
                f"{self._url}: the machine lacks {', '.join(lacking)}; "
                "install coreutils and util-linux, or busybox"
            )

    def _ended(self, timeout_s: float) -> tuple[str, int, int] | None:
        """Wait for the command's end: its code, the sizes of what it printed; None when its time is over."""
        deadline = time.monotonic() + timeout_s
        pause_s = _FIRST_PAUSE_S
        while True:
            over = time.monotonic() >= deadline
            answer = self._console.ask(b"poll")
            if answer.status == 0:
                code, out_bytes, err_bytes = answer.data.decode().split()
                return code, int(out_bytes), int(err_bytes)
            if over:
                return None
            time.sleep(max(0.0, min(pause_s, deadline - time.monotonic())))
            pause_s = min(pause_s * 1.5, _LONGEST_PAUSE_S)

    def _stop(self) -> None:
        """Have the machine kill the command, and wait until it is dead, if the line stands."""
        deadline = time.monotonic() + KILLED_WITHIN_S
        try:
            while self._console.alive and time.monotonic() < deadline:
                if self._console.ask(b'stop; [ ! -e "$d/job" ] || [ -e "$d/job/code" ]').status == 0:
                    return
                time.sleep(_FIRST_PAUSE_S)
        except TransportError:
            return

    def _script(self, script: str, arguments: list[str], size_bytes: int, doing: str) -> str:
        """Run a short script that may hash a file of this size, and give its output.

        Raises:
            TransportError: it failed; holds what it said.
        """
        done = self.run(["sh", "-c", script, "sh", *arguments], _CHECK_S + size_bytes / _HASH_BYTES_PER_S)
        if done.exit_code:
            raise TransportError(f"{doing}: {_text(done.stderr) or f'exit code {done.exit_code}'}")
        return done.stdout.decode(errors="replace")

    def _part_size(self, file: IO[bytes], part: str, size: int, doing: str) -> int:
        """Give how many bytes of the file the machine holds from an earlier transfer."""
        state = read_state(self._script(PART_STATE, [part], size, doing), self._url)
        if state is None or state[0] > size:
            return 0
        file.seek(0)
        held, sha256 = file_size_and_sha256(file, state[0])
        return held if sha256 == state[1] else 0

    def _append(self, file: IO[bytes], part: str, begin: int, meter: Meter, doing: str) -> None:
        """Send a file from where the machine's part of it ends; the machine says how far that is."""
        path = os.fsencode(shlex.quote(part))
        begun = self._console.ask(b"at=%d" % begin if begin else b"begin " + path)
        if begun.status:
            raise TransportError(f"{doing}: {_text(begun.data)}")
        largest = LARGEST_PUT_BYTES if self._has_base64 else _OCTAL_PUT_BYTES
        size = BlockSize(SMALLEST_PUT_BYTES, largest)
        at = begin
        while True:
            file.seek(at)
            data = file.read(size.bytes)
            if not data:
                return
            answer = self._console.exchange(self._block(path, at, data), once=not size.smallest)
            if answer is None:
                size.bad()
                continue
            if answer.status:
                self._console.ask(b"rm -f " + path)
                raise TransportError(f"{doing}: {_text(answer.data)}")
            size.good()
            meter.add(int(answer.data) - at)
            at = int(answer.data)

    def _block(self, path: bytes, at: int, data: bytes) -> bytes:
        """Give the request that appends a block; it may be sent again."""
        if self._has_base64:
            return b"append %s %d %d %s" % (path, at, at + len(data), base64.b64encode(data))
        octal = "".join(f"\\0{byte:03o}" for byte in data).encode()
        return b"append_octal %s %d %d '%s'" % (path, at, at + len(data), octal)

    def _blocks(self, path: bytes, begin: int, end: int) -> Iterator[bytes]:
        """Give a file of the machine from ``begin`` to ``end``; ``path`` is as its shell reads it."""
        size = BlockSize(UNIT_BYTES, LARGEST_GET_BYTES)
        at = begin
        while at < end:
            skip = at // UNIT_BYTES
            count = min(size.bytes // UNIT_BYTES, -(-(end - skip * UNIT_BYTES) // UNIT_BYTES))
            answer = self._console.exchange(b"block %s %d %d" % (path, skip, count), once=not size.smallest)
            if answer is None:
                size.bad()
                continue
            data = answer.data[at - skip * UNIT_BYTES :][: end - at]
            if answer.status or not data:
                raise TransportError(f"{self._url}: {os.fsdecode(path)} became shorter while it was read")
            size.good()
            at += len(data)
            yield data


def _text(said: bytes) -> str:
    return " ".join(said.decode(errors="replace").split())[-300:]
