"""``--on URL``: edgeml on another machine, reached through a transport."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from edgeml import plugins
from edgeml.bundle import is_bundle
from edgeml.errors import EngineError, TransportError, UsageError
from edgeml.figures import readable_size
from edgeml.formats import identify
from edgeml.transport import ReportsProgress
from edgeml.wire import onnx_external_data

if TYPE_CHECKING:
    from edgeml.transport import CommandResult, Progress, Transport

RUN_TIMEOUT_S: Final = 86_400.0
"""For ``edgeml run``: a folder of images on a small board takes its time."""
_STEP_TIMEOUT_S: Final = 60.0
_FOLDER: Final = re.compile(r"/\S*/edgeml\.[A-Za-z0-9]{6,}")
_USAGE: Final = 2
_FIND = """own="$HOME/.local/share/edgeml/venv/bin/edgeml"
for place in "$(command -v edgeml)" /opt/edgeml/bin/edgeml "$own"
do [ -x "$place" ] && { echo "$place"; exit; }; done; exit 1"""


class RemoteEdgeml:
    """edgeml on another machine, and a private folder there for what it works on."""

    def __init__(self, url: str, transport: Transport, program: str, folder: str) -> None:
        self.url = url
        self._transport = transport
        self._program = program
        self._folder = folder
        self._count = 0
        self._names: dict[str, str] = {}
        self._made: set[str] = set()

    def put(self, path: Path) -> str:
        """Copy a file with what belongs to it, or a folder; gives its path there."""
        self._count += 1
        place = f"{self._folder}/{self._count}"
        root = path.parent
        files = sorted(path.rglob("*")) if path.is_dir() else [path, *companions(path)]
        for file in files:
            if file.is_file():
                target = f"{place}/{file.relative_to(root).as_posix()}"
                self._make_folder(str(PurePosixPath(target).parent))
                self._transport.put(file, target)
        there = f"{place}/{path.name}"
        self._names[there] = str(path)
        return there

    def scratch(self, name: str) -> str:
        """Give a path there for a file that a command writes."""
        return f"{self._folder}/{name}"

    def get(self, there: str, path: Path) -> None:
        """Copy a file from there."""
        self._transport.get(there, path)

    def edgeml(self, arguments: Sequence[str], timeout_s: float) -> CommandResult:
        """Run edgeml there."""
        return self._transport.run([self._program, *arguments], timeout_s)

    def named(self, text: str) -> str:
        """Give a text with the paths there replaced by the user's own."""
        for there, here in self._names.items():
            text = text.replace(there, here)
        return text

    def failure(self, done: CommandResult) -> EngineError | UsageError:
        """Make an error of what edgeml said there."""
        said = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
        text = (
            said[-1].removeprefix("error: ").removeprefix("Error: ")
            if said
            else f"exit code {done.exit_code}"
        )
        kind = UsageError if done.exit_code == _USAGE else EngineError
        return kind(f"on {self.url}: {self.named(text)}")

    def _make_folder(self, folder: str) -> None:
        if folder in self._made:
            return
        done = self._transport.run(["mkdir", "-p", folder], _STEP_TIMEOUT_S)
        if done.exit_code:
            text = " ".join(done.stderr.decode(errors="replace").split())
            raise TransportError(f"{self.url}: {folder} could not be made: {text}")
        self._made.add(folder)


@contextmanager
def remote_edgeml(url: str, show: Callable[[str], None]) -> Iterator[RemoteEdgeml]:
    """Connect to a machine and find edgeml there; the folder there is removed at the end, also on Ctrl-C.

    Args:
        url: of the machine, as any transport takes it.
        show: takes a line that says what is going on.

    Raises:
        EngineError: there is no edgeml; says how to bring it there.
        TransportError: the machine cannot be reached.
    """
    show(f"connecting to {url}")
    with plugins.transport(url) as transport:
        found = transport.run(["sh", "-c", _FIND], _STEP_TIMEOUT_S)
        if found.exit_code:
            raise EngineError(
                f"there is no edgeml on {url}; bring it there: edgeml devices provision {url}, "
                "or there: pip install 'edgeml-core[device]'"
            )
        with remote_folder(url, transport) as folder:
            if isinstance(transport, ReportsProgress):
                transport.on_progress(lambda progress: show(transferring(progress)))
            yield RemoteEdgeml(url, transport, found.stdout.decode().strip(), folder)


@contextmanager
def remote_folder(url: str, transport: Transport) -> Iterator[str]:
    """Make a private temporary folder on a machine; it is removed at the end, also on Ctrl-C.

    Raises:
        TransportError: none can be made there.
    """
    made = transport.run(["sh", "-c", 'mktemp -d "${TMPDIR:-/tmp}/edgeml.XXXXXX"'], _STEP_TIMEOUT_S)
    folder = made.stdout.decode(errors="replace").strip()
    if made.exit_code or not _FOLDER.fullmatch(folder):
        raise TransportError(f"{url}: no temporary folder can be made there: {folder or 'it says nothing'}")
    try:
        yield folder
    finally:
        with suppress(TransportError):  # a machine that is lost keeps it in its temporary folder
            transport.run(["rm", "-rf", "--", folder], _STEP_TIMEOUT_S)


def transferring(progress: Progress) -> str:
    """Say how far a transfer is and how fast it goes."""
    name = PurePosixPath(progress.name).name
    done, whole = readable_size(progress.done_bytes), readable_size(progress.whole_bytes)
    return f"{name}: {done} of {whole}, {readable_size(round(progress.bytes_per_second))}/s"


def companions(path: Path) -> list[Path]:
    """Give the files beside a model, or a declaration, without which it cannot be read."""
    if path.suffix == ".toml":
        labels = tomllib.loads(path.read_text()).get("labels")
        named = [path.parent / labels] if isinstance(labels, str) else []
    elif path.suffix == ".xml":
        named = [path.with_suffix(".bin")]
    elif not is_bundle(path) and path.suffix == ".onnx" and identify(path) == "onnx":
        named = [path.parent / part.location for part in onnx_external_data(path, path.read_bytes())]
    else:
        named = []
    # what lies elsewhere would be written outside of the folder there
    return [
        one
        for one in dict.fromkeys(named)
        if one.is_file() and one.resolve().is_relative_to(path.parent.resolve())
    ]
