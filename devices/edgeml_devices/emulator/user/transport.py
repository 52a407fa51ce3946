"""``emulator:BOARD?mode=user`` — the image's programs, under an emulated processor, as a transport."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import uuid
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, Self

from edgeml.atomic import replacing_file
from edgeml.errors import TransportError
from edgeml.processes import ended_within, kill_session
from edgeml.transport import CommandResult
from edgeml_devices.emulator import tools
from edgeml_devices.emulator.images.cache import hold
from edgeml_devices.emulator.images.choice import fullest_image
from edgeml_devices.emulator.own_folder import own_folder
from edgeml_devices.emulator.user import canary
from edgeml_devices.emulator.user.root import EXCHANGE, OWN, WRITABLE, PrivateRoot
from edgeml_devices.transports.posix_shell import PROGRAM, plain_path, quoted, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    from edgeml_devices.emulator.address import EmulatorAddress
    from edgeml_devices.emulator.images.image import Image

_CANARY_TIMEOUT_S: Final = 120.0
_proven: Final[set[tuple[str, str, str]]] = set()
"""Image, processor and QEMU that passed the canary in this process."""
_STEP_TIMEOUT_S: Final = 300.0
"""For a file to be moved; emulated time is no measure."""
_ENDS_WITHIN_S: Final = 0.1
"""What is still there so long after a command was left in the background by it."""
_KILLED_WITHIN_S: Final = 5.0
_MISSING: Final = "missing"
_JOB: Final = f"""{PROGRAM}
if program "$1"; then
  (exec "$@") </dev/null; code=$?
else
  code={_MISSING}
fi
echo "$code" >&0
"""
"""Runs a command and says how it ended: standard input is a pipe to us, which children do not get."""
_PUT: Final = f"""
folder=$(cd "$(dirname "$2")" && pwd -P) || exit
case $folder/ in
  {"|".join(f"{place}/*" for place in WRITABLE)}) ;;
  *)
    echo "$folder belongs to the image, which others use; take a place in {" ".join(WRITABLE)}" >&2
    exit 1 ;;
esac
[ ! -d "$2" ] || {{ echo "$2: is a folder" >&2; exit 1; }}
mv -f "$1" "$2"
"""
_GET: Final = """
[ -f "$1" ] || { echo "$1: there is no such file" >&2; exit 1; }
cp "$1" "$2"
"""


class UserTransport:
    """Runs each command under a proot of its own; what is written stays in the private folder."""

    def __init__(self, address: EmulatorAddress) -> None:
        self._address = address
        self._root: PrivateRoot | None = None
        self._held = ExitStack()
        self._left: list[subprocess.Popen[bytes]] = []

    def connect(self) -> None:
        if self._root is not None:
            return
        image = fullest_image()
        with ExitStack() as held:
            held.enter_context(hold(image))
            folder = self._address.folder
            if folder is None:
                folder = held.enter_context(own_folder(OWN))
            root = PrivateRoot(image, self._address.board, folder)
            root.prefix()
            try:
                root.fill()
            except OSError as error:
                raise TransportError(f"{self._url}: {folder} cannot be filled: {error}") from error
            self._root = root
            try:
                self._prove(image)
            except BaseException:
                self._root = None
                raise
            self._held = held.pop_all()

    def run(self, argv: Sequence[str], timeout_s: float) -> CommandResult:
        root = self._opened()
        quoted(argv)  # refuses what no machine takes
        # Files, not pipes: a child left in the background would hold a pipe open. In memory, since a full
        # disk here would cut off what a program says there.
        with _file_in_memory("out") as out, _file_in_memory("err") as err:
            code = self._run(root, argv, timeout_s, out, err)
            out.seek(0)
            err.seek(0)
            if code == _MISSING:
                raise TransportError(
                    f"{self._url}: {shown(argv)} could not be started: {argv[0]!r} is no program there"
                )
            if not code.isdigit():
                said = " ".join(err.read().decode(errors="replace").split())[-300:]
                raise TransportError(f"{self._url}: {shown(argv)} could not be run: {said or 'proot ended'}")
            return CommandResult(int(code), out.read(), err.read())

    def put(self, local: Path, remote: str) -> None:
        root = self._opened()
        doing = f"{local} could not be copied to {remote}"
        with _exchanged(root) as file:
            try:
                shutil.copyfile(local, file)
            except OSError as error:
                raise TransportError(f"{self._url}: {doing}: {error.strerror}") from error
            self._step(_PUT, f"{EXCHANGE}/{file.name}", plain_path(remote), doing)

    def get(self, remote: str, local: Path) -> None:
        root = self._opened()
        doing = f"{remote} could not be copied to {local}"
        with _exchanged(root) as file:
            self._step(_GET, plain_path(remote), f"{EXCHANGE}/{file.name}", doing)
            try:
                with replacing_file(local) as scratch:
                    shutil.copyfile(file, scratch)
            except OSError as error:
                raise TransportError(f"{self._url}: {doing}: {error.strerror}") from error

    def close(self) -> None:
        self._root = None
        while self._left:
            _end(self._left.pop())
        self._held.close()

    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _url(self) -> str:
        return self._address.url

    def _opened(self) -> PrivateRoot:
        if self._root is None:
            raise TransportError(
                f"{self._url}: not connected; call connect() first, or use it in a with statement"
            )
        return self._root

    def _prove(self, image: Image) -> None:
        """See that the emulator computes rightly, where the engine is there that has shown it wrong.

        Raises:
            TransportError: it does not.
        """
        root = self._opened()
        subject = (image.key, root.board.cpu, str(tools.find(tools.QEMU_USER)))
        if "litert" not in image.engines or subject in _proven:
            return
        place = root.exchange / canary.MODEL.name
        shutil.copyfile(canary.MODEL, place)
        argv = ["python3", "-P", "-c", canary.SCRIPT, f"{EXCHANGE}/{place.name}"]
        done = self.run(argv, _CANARY_TIMEOUT_S)
        fault = canary.fault(done.exit_code, done.stdout, done.stderr)
        if fault is not None:
            raise TransportError(f"{self._url}: the emulated {root.board.cpu} is not sound: {fault}")
        _proven.add(subject)

    def _run(
        self, root: PrivateRoot, argv: Sequence[str], timeout_s: float, out: IO[bytes], err: IO[bytes]
    ) -> str:
        """Run a command; gives its exit code as text, or else what became of it."""
        answer, told = os.pipe()
        with open(answer, "rb", buffering=0) as answers:  # noqa: PTH123 - a descriptor
            try:
                process = subprocess.Popen(
                    [*root.prefix(), "/bin/sh", "-c", _JOB, "sh", *argv],
                    stdin=told,
                    stdout=out,
                    stderr=err,
                    env=root.environment(),
                    start_new_session=True,
                )
            except OSError as error:
                raise TransportError(
                    f"{self._url}: {shown(argv)} could not be started: {error.strerror}"
                ) from error
            finally:
                os.close(told)
            try:
                ready, _, _ = select.select([answers], [], [], timeout_s)
                code = answers.read(64).decode().strip() if ready else ""
            except BaseException:
                _end(process)
                raise
        if not ready:
            _end(process)
            raise TransportError(
                f"{self._url}: {shown(argv)} did not end within {timeout_s:g} s and was killed; "
                "give it more time or find out what it waits for"
            )
        if not ended_within(process, _ENDS_WITHIN_S):
            self._left.append(process)
        return code

    def _step(self, script: str, source: str, target: str, doing: str) -> None:
        done = self.run(["sh", "-c", script, "sh", source, target], _STEP_TIMEOUT_S)
        if done.exit_code:
            said = " ".join(done.stderr.decode(errors="replace").split())[-300:]
            raise TransportError(f"{self._url}: {doing}: {said or f'exit code {done.exit_code}'}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a launcher with all that runs under it; what left its session is for it to find."""
    process.terminate()
    try:
        ended_within(process, _KILLED_WITHIN_S)
    finally:
        if process.returncode is None:
            kill_session(process)


def _file_in_memory(name: str) -> IO[bytes]:
    return open(os.memfd_create(f"edgeml-{name}"), "w+b")  # noqa: PTH123 - a descriptor


@contextmanager
def _exchanged(root: PrivateRoot) -> Iterator[Path]:
    """Give a name for a file that passes through, and remove it afterwards."""
    file = root.exchange / uuid.uuid4().hex
    try:
        yield file
    finally:
        file.unlink(missing_ok=True)
