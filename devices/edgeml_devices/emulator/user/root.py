"""The root that user mode's programs see: the image's, the board's files over it, folders to write to."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeml.atomic import replacing_file
from edgeml.cpu import EMULATOR_IMAGE
from edgeml.errors import UsageError
from edgeml_devices.emulator import tools
from edgeml_devices.emulator.boards import Board, system_files
from edgeml_devices.emulator.images.cache import remove_tree
from edgeml_devices.emulator.images.image import SITE, Image
from edgeml_devices.emulator.user import launcher

ENVIRONMENT: Final[Mapping[str, str]] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    # the image's folders are other users' too
    "PYTHONDONTWRITEBYTECODE": "1",
}
EXCHANGE: Final = "/run/edgeml-exchange"
"""Where files wait that were brought here, or that are fetched."""
_COPIED: Final = ("etc", "home", "root", "var")
_EMPTY: Final = ("media", "mnt", "opt", "run", "srv", "tmp")
WRITABLE: Final = tuple(f"/{name}" for name in sorted((*_COPIED, *_EMPTY)))
"""The rest belongs to the image, which other connections use."""
_FROM_HOST: Final = ("/dev", "/proc")
OWN: Final = "edgeml-user-mode."
"""How the name of a private folder begins that goes with its connection."""
_SYSTEM: Final = ".system"
"""In the private folder: the board's own files below ``/proc`` and ``/sys``."""


@dataclass(frozen=True, slots=True)
class PrivateRoot:
    """A board's root: an image and the folder that holds what is written."""

    image: Image
    board: Board
    folder: Path

    @property
    def exchange(self) -> Path:
        """:data:`EXCHANGE`, seen from this machine."""
        return self.folder / EXCHANGE.removeprefix("/")

    def fill(self) -> None:
        """Make what of the private folder is not there yet."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in _COPIED:
            if not (self.folder / name).exists():
                _copy(self.image.root / name, self.folder / name)
        for name in (*_EMPTY, ".proot", EXCHANGE.removeprefix("/")):
            (self.folder / name).mkdir(exist_ok=True)
        (self.folder / "tmp").chmod(0o1777)
        mark = self.folder / EMULATOR_IMAGE.relative_to("/")
        _keep(mark, f"{self.image.key}\n".encode())
        for name, content in system_files(self.board).items():
            path = self.folder / _SYSTEM / name
            path.parent.mkdir(parents=True, exist_ok=True)
            _keep(path, content)

    def environment(self) -> dict[str, str]:
        """Give the whole environment of a command."""
        return dict(ENVIRONMENT) | {"PROOT_TMP_DIR": str(self.folder / ".proot")}

    def prefix(self) -> tuple[str, ...]:
        """Give what stands before a command: the processor is named here, for children as well.

        Raises:
            EngineMissingError: proot or QEMU is missing.
            UsageError: a folder's name holds what proot takes for its end: programs would write elsewhere.
        """
        tools.require(*tools.TO_RUN_IN_USER_MODE)
        system = self.folder / _SYSTEM
        binds = [(place, place) for place in _FROM_HOST]
        binds += [(str(self.folder / name.removeprefix("/")), name) for name in WRITABLE]
        binds += [(str(system / name), f"/{name}") for name in ("proc/cpuinfo", "proc/device-tree", "sys")]
        binds.append((str(self.image.site), f"/{SITE}"))
        for here in (self.folder, self.image.site):
            if ":" in str(here):
                raise UsageError(
                    f"{here}: user mode takes no folder with ':' in its name; choose another one "
                    "(&folder=FOLDER, TMPDIR, EDGEML_CACHE_DIR)"
                )
        return (
            *(sys.executable, "-I", "-S", launcher.__file__, str(os.getpid())),
            *(str(tools.find(tools.PROOT)), "-v", "-1", "-0"),
            *("-q", f"{tools.find(tools.QEMU_USER)} -cpu {self.board.cpu}"),
            *("-r", str(self.image.root), "-w", ENVIRONMENT["HOME"]),
            *(word for here, there in binds for word in ("-b", f"{here}:{there}")),
        )


def _copy(source: Path, target: Path) -> None:
    """Copy a folder, whole or not at all; where another connection was quicker, its copy stays."""
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        shutil.copytree(source, scratch, symlinks=True, dirs_exist_ok=True)
        try:
            scratch.rename(target)
        except OSError:
            if not target.is_dir():
                raise
    except shutil.Error as error:  # a list of all that failed
        _, _, why = error.args[0][0]
        raise OSError(str(why).partition(": '")[0]) from error
    finally:
        remove_tree(scratch)


def _keep(file: Path, content: bytes) -> None:
    """Write a file, where it is another: programs of other connections may be reading it."""
    if not file.is_file() or file.read_bytes() != content:
        with replacing_file(file) as scratch:
            scratch.write_bytes(content)
            scratch.chmod(0o644)
