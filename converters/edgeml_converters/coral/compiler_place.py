"""Where the Edge TPU compiler runs: this machine, or another that a transport leads to; and finding it there.

It is the user's own, from Coral: edgeml neither ships it nor fetches it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Final, Protocol

from edgeml import plugins
from edgeml.errors import ConversionError, EngineError, EngineMissingError, TransportError
from edgeml.figures import readable_size
from edgeml.processes import run_command
from edgeml.remote import remote_folder, transferring
from edgeml.transport import CommandResult, ReportsProgress
from edgeml_converters.coral.compiler_output import read_version

PROGRAM: Final = "edgetpu_compiler"
VARIABLE: Final = "EDGEML_EDGETPU_COMPILER"
"""Names another program, by its name or path where it runs."""
PLACES: Final = ("/usr/bin", "/usr/local/bin")
"""Where it is looked for besides ``PATH``, which is short where nobody logs in."""
HERE: Final = "this machine"
_PLATFORM: Final = ("Linux", "x86_64")
_STEP_TIMEOUT_S: Final = 60.0
_FIND: Final = """uname -s; uname -m
for place in "$(command -v -- "$1")" "$@"
do [ -f "$place" ] && [ -x "$place" ] && { echo "$place"; exit; }; done; exit 0"""
_RUN: Final = 'cd "$1" || exit; TMPDIR=$1 LC_ALL=C; export TMPDIR LC_ALL; shift; exec "$@"'
_COMPILE: Final = r"""(ulimit -f "$1") 2>/dev/null && ulimit -f "$1"
most=$2; shift 2
"$@" >printed 2>errors
code=$?
for stat in /proc/[0-9]*/stat; do
  { read -r line <"$stat"; } 2>/dev/null || continue
  pid=${stat#/proc/}; pid=${pid%/stat}
  set -- ${line##*) }
  [ "$4" = $$ ] && [ "$pid" != $$ ] && kill -9 "$pid"
done 2>/dev/null
tail -c "$most" printed; tail -c "$most" errors >&2; rm -f printed errors; exit "$code"
"""
"""BLOCKS BYTES ARGV…: no file gets longer, the ends of what it prints come back, no child stays."""
_BLOCK_BYTES: Final = 512
MOST_PRINTED_BYTES: Final = 1 << 20
_INSTALL: Final = (
    "install Coral's package edgetpu-compiler (https://coral.ai/docs/edgetpu/compiler; edgeml does not)"
)


class RunsCommands(Protocol):
    """The part of a transport that is needed here."""

    def run(self, argv: Sequence[str], timeout_s: float) -> CommandResult: ...

    def put(self, local: Path, remote: str) -> None: ...

    def get(self, remote: str, local: Path) -> None: ...


@dataclass(frozen=True, slots=True)
class Place:
    """A machine, with a private temporary folder on it."""

    name: str
    """:data:`HERE`, or its URL."""
    commands: RunsCommands
    folder: str

    def run(self, argv: Sequence[str], timeout_s: float) -> CommandResult | None:
        """Run a command in the folder; ``None``: it did not end in time, and was killed with its children.

        Raises:
            TransportError: the machine was lost.
        """
        began = monotonic()
        try:
            return self.commands.run(["sh", "-c", _RUN, "sh", self.folder, *argv], timeout_s)
        except _LateError:
            return None
        except TransportError:
            if monotonic() - began < timeout_s:
                raise
            return None

    def compile(self, argv: Sequence[str], timeout_s: float, most_bytes: int) -> CommandResult | None:
        """Run the compiler as :meth:`run` does; gives the end of what it prints, kills what it leaves behind.

        A file that it writes beyond ``most_bytes`` costs it its life.
        """
        limits = (str(most_bytes // _BLOCK_BYTES), str(MOST_PRINTED_BYTES))
        return self.run(["sh", "-c", _COMPILE, "sh", *limits, *argv], timeout_s)

    def put(self, local: Path, name: str) -> None:
        """Copy a file into the folder."""
        self.commands.put(local, f"{self.folder}/{name}")

    def get(self, name: str, local: Path) -> bool:
        """Copy a file from the folder, if it is there and has something in it; say whether."""
        there = self.run(["test", "-f", name, "-a", "-s", name], _STEP_TIMEOUT_S)
        if there is None or there.exit_code:
            return False
        self.commands.get(f"{self.folder}/{name}", local)
        return True

    def free_bytes(self) -> int | None:
        """Give the room that is left where the folder is; ``None``: not known."""
        done = self.run(["df", "-Pk", "."], _STEP_TIMEOUT_S)
        words = done.stdout.split(b"\n")[1].split() if done is not None and done.stdout.count(b"\n") else []
        return int(words[3]) << 10 if len(words) > 3 and words[3].isdigit() else None  # noqa: PLR2004 - its column


@dataclass(frozen=True, slots=True)
class Compiler:
    """A compiler that was found."""

    path: str
    """On its machine."""
    version: str


class _LateError(Exception):
    """A command on this machine did not end in time."""


class _ThisMachine:
    """Commands as a transport runs them, without one."""

    def run(self, argv: Sequence[str], timeout_s: float) -> CommandResult:
        done = run_command(argv, timeout_s)
        if done is None:
            raise _LateError
        return done

    def put(self, local: Path, remote: str) -> None:
        shutil.copyfile(local, remote)

    def get(self, remote: str, local: Path) -> None:
        if Path(remote).is_symlink():
            shutil.copyfile(remote, local)
        else:
            shutil.move(remote, local)


@contextmanager
def open_place(url: str | None, show: Callable[[str], None]) -> Iterator[Place]:
    """Give a machine to compile on; its temporary folder is removed at the end, whatever the end is.

    Args:
        url: as any transport takes it; ``None``: this machine.
        show: takes a line that says what is going on.

    Raises:
        TransportError: it cannot be reached, or has no room for a temporary folder.
    """
    if url is None:
        with tempfile.TemporaryDirectory(prefix="edgeml-coral-", ignore_cleanup_errors=True) as folder:
            yield Place(HERE, _ThisMachine(), folder)
        return
    with plugins.transport(url) as transport:
        show(f"connecting to {url}")
        transport.connect()
        with remote_folder(url, transport) as folder:
            if isinstance(transport, ReportsProgress):
                transport.on_progress(lambda progress: show(transferring(progress)))
            yield Place(url, transport, folder)


def find_compiler(place: Place, named: str | None = None) -> Compiler:
    """Find the user's compiler on a machine.

    Args:
        place: the machine.
        named: the program's name or path there; only this one is tried then. By default what
            ``EDGEML_EDGETPU_COMPILER`` says, if it is set.

    Raises:
        EngineMissingError: it is not there; says where it was looked for and what to do.
        EngineError: what is there is no Edge TPU compiler, or cannot be run.
    """
    named = named or os.environ.get(VARIABLE) or None
    wanted = _absolute(named) if named is not None and place.name == HERE else named
    tried = [wanted] if wanted is not None else [PROGRAM, *(f"{one}/{PROGRAM}" for one in PLACES)]
    found = place.run(["sh", "-c", _FIND, "sh", *tried], _STEP_TIMEOUT_S)
    system, machine, path = [*_text(found).split("\n"), "", "", ""][:3]
    if not path:
        raise EngineMissingError(_missing(place, wanted, (system, machine)))
    said = place.run([path, "--version"], _STEP_TIMEOUT_S)
    version = read_version(_text(said))
    if version is not None:
        return Compiler(path, version)
    text = " ".join(_text(said, with_errors=True).split())[:200]
    where = "" if place.name == HERE else f" on {place.name}"
    raise EngineError(
        f"{path}{where} is no Edge TPU compiler that can be run: with --version it should say "
        f"'Edge TPU Compiler version …', and says {text!r}{_foreign((system, machine))}"
    )


def full_disk(place: Place, needed_bytes: int) -> ConversionError | None:
    """Make an error of a disk without so much room where the compiler works; ``None``: it has it."""
    free = place.free_bytes()
    if free is None or free >= needed_bytes:
        return None
    return ConversionError(
        f"the disk is full on {place.name}: {readable_size(free)} are left at {place.folder}, where the "
        f"compiler works and needs {readable_size(needed_bytes)}; free some, or set TMPDIR to another place"
    )


def _absolute(named: str) -> str:
    return str(Path(named).absolute()) if os.sep in named else named


def _missing(place: Place, wanted: str | None, platform: tuple[str, str]) -> str:
    what = wanted or f"{PROGRAM} (not in PATH, {', '.join(PLACES)})"
    remedies = [
        f"name it in {VARIABLE}",
        "have a machine compile that has it: --compiler-via ssh://USER@HOST",
    ]
    if platform == _PLATFORM:
        remedies.insert(0, _INSTALL)
    return f"{place.name} has no program {what}{_foreign(platform)}: {', or '.join(remedies)}"


def _foreign(platform: tuple[str, str]) -> str:
    if platform == _PLATFORM:
        return ""
    return f"; Coral's compiler runs on x86-64 Linux alone, and this is {' '.join(platform)}"


def _text(done: CommandResult | None, *, with_errors: bool = False) -> str:
    if done is None:
        return ""
    output = done.stdout + (done.stderr if with_errors else b"")
    return output.decode(errors="replace").strip()
