"""``ssh://user@host:port`` — a machine behind an SSH server, through the OpenSSH client."""

from __future__ import annotations

import os
import secrets
import subprocess
import tempfile
from typing import IO, TYPE_CHECKING, Final, Self

from edgeml.errors import TransportError
from edgeml.processes import ended_within, kill_session
from edgeml.transport import CommandResult
from edgeml_devices.transports.openssh import LOST, SshClient, ssh_address
from edgeml_devices.transports.partial_file import Meter, PartialFile, file_size_and_sha256
from edgeml_devices.transports.posix_shell import (
    FILE_STATE,
    FINISH_PUT,
    KEEP,
    PART_STATE,
    kept,
    part_path,
    plain_path,
    quoted,
    read_state,
    shown,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from edgeml.transport import Progress

KILLED_WITHIN_S: Final = 10.0
"""How long the machine may take to say that it has killed a command."""
RESUME_FROM_BYTES: Final = 1 << 16
"""Smaller files are sent without asking what an earlier transfer left."""
_CHUNK_BYTES: Final = 1 << 16
_JOB: Final = f"""{KEEP}
main() {{
  trap '' HUP PIPE
  exec 3<&0 </dev/null
  job=$(umask 077; mktemp -d) || {{ echo "$word nofolder 0 0"; exit; }}
  keep "$job" "$@"
  code=$(cat "$job/code")
  echo "$word $code $(($(wc -c <"$job/out"))) $(($(wc -c <"$job/err")))"
  cat "$job/out" "$job/err"
  forget "$job"
  exit
}}
"""
"""Runs a command with its output in files: a child left in the background would hold the channel open."""


class SshTransport:
    """Runs commands as channels of one connection; a command ends with its time or its connection."""

    def __init__(self, url: str) -> None:
        self._client = SshClient(ssh_address(url))
        self._url = url
        self._opened = False
        self._progress: Callable[[Progress], None] | None = None

    def on_progress(self, callback: Callable[[Progress], None] | None) -> None:
        """Have each transfer reported."""
        self._progress = callback

    def connect(self) -> None:
        self._client.open()
        self._opened = True

    @property
    def alive(self) -> bool:
        """Whether the connection stands, as far as was noticed."""
        return self._opened and self._client.alive

    def run(self, argv: Sequence[str], timeout_s: float) -> CommandResult:
        self._require_open()
        word = f"edgeml-{secrets.token_hex(8)}"
        script = f"word={word} guarded=1\n{_JOB}\nmain {kept(timeout_s, argv)}\n"
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as said:
            process = self._client.start("exec sh -s", stdin=subprocess.PIPE, stdout=out, stderr=said)
            try:
                _send(process, os.fsencode(script))
                late = not ended_within(process, timeout_s)
            except BaseException:
                _stop(process)
                raise
            if late:
                _stop(process)
            _end_input(process)
            out.seek(0)
            said.seek(0)
            return self._result(argv, timeout_s, _after(out, word.encode()), said.read(), late=late)

    def put(self, local: Path, remote: str) -> None:
        self._require_open()
        target = plain_path(remote)
        doing = f"{local} could not be copied to {remote}"
        try:
            with local.open("rb") as file:
                size, sha256 = file_size_and_sha256(file)
                part = part_path(target, sha256)
                begin = self._part_size(file, part, size, doing) if size >= RESUME_FROM_BYTES else 0
                file.seek(begin)
                meter = Meter(remote, begin, size, self._progress)
                append = ">>" if begin else ">"
                script = f'cat {append}"$1" || {{ rm -f "$1"; exit 74; }}\n{FINISH_PUT}'
                self._script(script, [part, target, str(size), sha256], doing, source=file, meter=meter)
        except OSError as error:
            raise TransportError(f"{self._url}: {doing}: {error.strerror}") from error

    def get(self, remote: str, local: Path) -> None:
        self._require_open()
        source = plain_path(remote)
        doing = f"{remote} could not be copied to {local}"
        state = read_state(self._script(FILE_STATE, [source], doing).decode(errors="replace"), self._url)
        if state is None:
            raise TransportError(f"{self._url}: {doing}: the machine did not say what it is")
        try:
            with PartialFile(local, *state) as part:
                meter = Meter(remote, part.size_bytes, part.whole_bytes, self._progress)
                for data in self._stream(
                    'tail -c "+$2" "$1"', [source, str(part.size_bytes + 1)], doing, part.missing_bytes
                ):
                    part.write(data)
                    meter.add(len(data))
                part.finish(f"{self._url}: {doing}")
        except OSError as error:
            raise TransportError(f"{self._url}: {doing}: {error.strerror}") from error

    def close(self) -> None:
        self._opened = False
        self._client.close()

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
        if not self._client.alive:
            raise TransportError(f"{self._url}: the connection was lost; connect() again")

    def _result(
        self, argv: Sequence[str], timeout_s: float, answer: bytes | None, said: bytes, *, late: bool
    ) -> CommandResult:
        """Read the answer of :data:`_JOB`: a line, then what the command printed."""
        over = f"{self._url}: {shown(argv)} did not end within {timeout_s:g} s"
        head, newline, body = (answer or b"").partition(b"\n")
        fields = head.decode(errors="replace").split()
        if not newline or len(fields) != 3:  # noqa: PLR2004 - code and two sizes
            if late:
                self._client.close()
                raise TransportError(
                    f"{over}, and the machine no longer answers; when it lives, the command is killed there"
                )
            raise self._client.lost(said, f"the connection was lost while {shown(argv)} ran")
        code, out_bytes, err_bytes = fields[0], int(fields[1]), int(fields[2])
        if code == "late":
            raise TransportError(f"{over} and was killed; give it more time or find out what it waits for")
        if code == "missing":
            raise TransportError(
                f"{self._url}: {shown(argv)} could not be started: {argv[0]!r} is no program there"
            )
        if not code.isdigit():
            raise TransportError(
                f"{self._url}: {shown(argv)} could not be started: no temporary folder can be made there"
            )
        if len(body) != out_bytes + err_bytes:
            raise self._client.lost(said, f"the connection was lost after {shown(argv)} had run")
        return CommandResult(int(code), body[:out_bytes], body[out_bytes:])

    def _part_size(self, file: IO[bytes], part: str, size: int, doing: str) -> int:
        """Give how many bytes of the file the machine holds from an earlier transfer."""
        state = read_state(self._script(PART_STATE, [part], doing).decode(errors="replace"), self._url)
        if state is None or state[0] > size:
            return 0
        file.seek(0)
        held, sha256 = file_size_and_sha256(file, state[0])
        return held if sha256 == state[1] else 0

    def _script(
        self,
        script: str,
        arguments: list[str],
        doing: str,
        *,
        source: IO[bytes] | None = None,
        meter: Meter | None = None,
    ) -> bytes:
        """Run a short script to its end, fed from a file, and give its output.

        Raises:
            TransportError: it failed; holds what it said.
        """
        word = f"edgeml-{secrets.token_hex(8)}"
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as said:
            process = self._client.start(
                _command(word, script, arguments), stdin=subprocess.PIPE, stdout=out, stderr=said
            )
            try:
                while source is not None and (data := source.read(_CHUNK_BYTES)) and _feed(process, data):
                    if meter is not None:
                        meter.add(len(data))
                _end_input(process)
                process.wait()
            except BaseException:
                _end_input(process)
                kill_session(process)
                raise
            out.seek(0)
            said.seek(0)
            self._check(process.returncode, said.read(), doing)
            return _after(out, word.encode() + b"\n") or b""

    def _stream(self, script: str, arguments: list[str], doing: str, limit: int) -> Iterator[bytes]:
        """Give the output of a script as it comes, and no more than ``limit`` bytes of it."""
        word = f"edgeml-{secrets.token_hex(8)}"
        with tempfile.TemporaryFile() as said:
            process = self._client.start(
                _command(word, script, arguments),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=said,
            )
            assert process.stdout is not None  # noqa: S101 - it was asked for
            try:
                for line in process.stdout:
                    if line.endswith(word.encode() + b"\n"):
                        break
                while limit > 0 and (data := process.stdout.read(min(_CHUNK_BYTES, limit))):
                    limit -= len(data)
                    yield data
                process.stdout.close()
                code = process.wait()
            finally:
                process.stdout.close()
                kill_session(process)
            said.seek(0)
            if limit > 0:
                self._check(code or LOST, said.read(), doing)

    def _check(self, exit_code: int, said: bytes, doing: str) -> None:
        if exit_code == LOST or exit_code < 0:
            raise self._client.lost(said, doing)
        if exit_code:
            text = " ".join(said.decode(errors="replace").split())[-300:]
            raise TransportError(f"{self._url}: {doing}: {text or f'exit code {exit_code}'}")


def _command(word: str, script: str, arguments: list[str]) -> str:
    """Give the command line of a script; what the log-in prints stands before a line with the word."""
    return "exec " + quoted(["sh", "-c", f"echo; echo {word}\n{script}", "sh", *arguments])


def _after(out: IO[bytes], word: bytes) -> bytes | None:
    """Give what follows the word in the output, which may begin with what a log-in prints."""
    _, found, answer = out.read().partition(word)
    return answer if found else None


def _send(process: subprocess.Popen[bytes], data: bytes) -> None:
    """Write to a process and leave its input open: its end is what kills the command."""
    if _feed(process, data) and process.stdin is not None:
        try:
            process.stdin.flush()
        except BrokenPipeError:
            return


def _feed(process: subprocess.Popen[bytes], data: bytes) -> bool:
    """Write to a process; False when it takes no more, and its exit code says why."""
    assert process.stdin is not None  # noqa: S101 - it was asked for
    try:
        process.stdin.write(data)
    except BrokenPipeError:
        return False
    return True


def _end_input(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None  # noqa: S101 - it was asked for
    try:
        process.stdin.close()
    except BrokenPipeError:
        return


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Have the machine kill the command, and wait until it says so; then end the client."""
    try:
        _end_input(process)
        ended_within(process, KILLED_WITHIN_S)
    finally:
        kill_session(process)
