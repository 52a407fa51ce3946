"""Starts QEMU for a machine's folder, and waits until it, or the guest in it, answers."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeml.errors import EngineError
from edgeml_devices.emulator import programs
from edgeml_devices.emulator.boards import Board
from edgeml_devices.emulator.images.cache import hold
from edgeml_devices.emulator.images.image import Image
from edgeml_devices.emulator.machine import state
from edgeml_devices.emulator.machine.addresses import Addresses, read_addresses
from edgeml_devices.emulator.machine.command import MemoryFile, Place, command, overlay_command
from edgeml_devices.emulator.machine.qmp import Qmp, open_qmp
from edgeml_devices.emulator.qemu import Qemu

QEMU_WITHIN_S: Final = 60.0
"""For QEMU to open its ports; it takes 50 ms on a machine with nothing else to do."""
BOOT_WITHIN_S: Final = 300.0
"""For SSH to answer: 6 s on a quiet machine, ten times as long on a busy one."""
SSH_BANNER: Final = b"SSH-2.0-"
SSH_CONFIG: Final = "ssh_config"
"""In a machine's folder."""
_POLL_S: Final = 0.02
_TAIL_LINES: Final = 15
_NAMED: Final = 'echo $$ >"$0" && exec "$@"'
"""Writes the number of what it becomes into a file; we could be killed before we have."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What a machine is started as; the same each time."""

    qemu: Qemu
    board: Board
    image: Image
    memory_bytes: int
    card: Path | None = None
    """Where a :class:`~edgeml_devices.emulator.machine.card.Card` is served, in place of a disk."""

    @classmethod
    def of(cls, qemu: Qemu, board: Board, image: Image, memory_bytes: int | None = None) -> Setup:
        """Fill in the board's own memory."""
        return cls(qemu, board, image, memory_bytes or board.memory_bytes)


WITHOUT_SNAPSHOT: Final = (
    "boot without it: --fresh; or remove that folder and the machines that began with it"
)
"""What is left to do where one is damaged: disks of machines that are off may lie over its own."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a machine goes on from."""

    folder: Path

    @property
    def memory(self) -> Path:
        """QEMU opens it for writing, and writes none of it."""
        return self.folder / "memory"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def disk(self) -> Path:
        return self.folder / "disk.qcow2"


def make_disk(setup: Setup, base: Path, folder: Path) -> None:
    """Give a machine an empty layer over a disk; a card is one already.

    Raises:
        EdgemlError: qemu-img fails.
    """
    if setup.card is not None:
        return
    programs.run(overlay_command(base, Place(folder)), f"making the disk of {folder.name}")


def write_ssh_config(folder: Path, key: Path, port: int) -> None:
    """Write the configuration of SSH's client for a machine: ``ssh -F FOLDER/ssh_config NAME``.

    The host's key is the machine's own, and stays when its port changes.
    """
    lines = (
        f"Host {folder.name} 127.0.0.1",
        "User root",
        "HostName 127.0.0.1",
        f"Port {port}",
        f"HostKeyAlias {folder.name}",
        f'IdentityFile "{key}"',
        "IdentitiesOnly yes",
        "IdentityAgent none",
        f'UserKnownHostsFile "{folder / "known_hosts"}"',
        "GlobalKnownHostsFile /dev/null",
        "StrictHostKeyChecking accept-new",
        "LogLevel ERROR",
        "ConnectTimeout 15",
    )
    (folder / SSH_CONFIG).write_text("\n".join(lines) + "\n", encoding="utf-8")


def launch(setup: Setup, folder: Path, file: MemoryFile | None = None) -> subprocess.Popen[bytes]:
    """Start QEMU; it holds the image and the machine's lock until it ends.

    Args:
        setup: what it is to be.
        folder: the machine's.
        file: its memory. One that is not kept is a snapshot's: QEMU waits for the rest of the state then.

    Raises:
        EdgemlError: the image is gone, or the machine runs already.
    """
    argv = [
        *command(setup.qemu, setup.board, setup.image, Place(folder), setup.memory_bytes, file, setup.card)
    ]
    if file is not None and not file.kept:
        argv += ["-incoming", "defer"]
    with hold(setup.image) as image_lock, state.run_lock(folder) as lock, _log(folder).open("wb") as log:
        return subprocess.Popen(
            ["/bin/sh", "-c", _NAMED, state.RUNNING, *argv],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[image_lock, lock.fileno()],
            start_new_session=True,  # Ctrl-C at the terminal is for us, not for the machine
        )


def addresses(process: subprocess.Popen[bytes], folder: Path) -> Addresses:
    """Ask QEMU which ports it opened, as soon as it has.

    Raises:
        EngineError: it ended, and what it said; or it does not answer.
    """

    def ask() -> Addresses:
        with open_qmp(folder) as qmp:
            return _ask(qmp)

    deadline = time.monotonic() + QEMU_WITHIN_S
    while True:
        try:
            return ask()
        except EngineError as error:
            if process.poll() is not None:
                raise ended_early(process.returncode, folder) from error
            if time.monotonic() > deadline:
                raise
        time.sleep(_POLL_S)


def wait_for_ssh(
    port: Callable[[], int], is_running: Callable[[], bool], folder: Path, within_s: float = BOOT_WITHIN_S
) -> None:
    """Wait until the guest's SSH server greets; no key is made for that, and nobody logs in.

    Args:
        port: where it is at present.
        is_running: whether the machine is.
        folder: the machine's.
        within_s: how long.

    Raises:
        EngineError: the machine ended or is late; holds the last lines of its console.
    """
    deadline = time.monotonic() + within_s
    while not _greets(port()):
        if not is_running():
            raise EngineError(f"{folder.name} ended before SSH answered{tail(folder)}")
        if time.monotonic() > deadline:
            raise EngineError(f"{folder.name}: SSH does not answer after {within_s:g} s{tail(folder)}")
        time.sleep(_POLL_S)


def ended_early(code: int, folder: Path) -> EngineError:
    """Give the error for a QEMU that ended, with what it said."""
    return EngineError(f"{folder.name}: QEMU ended with exit code {code}{tail(folder)}")


def tail(folder: Path) -> str:
    """Give the last lines of QEMU and of the console, as an error shows them."""
    shown = ""
    for path in (_log(folder), Place(folder).console_log):
        with suppress(OSError):
            lines = [line.rstrip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
            shown += "".join(f"\n  {path.name}: {line}" for line in lines[-_TAIL_LINES:])
    return shown


def _ask(qmp: Qmp) -> Addresses:
    return read_addresses(qmp.execute("query-chardev"), qmp.monitor("info usernet"))


def _log(folder: Path) -> Path:
    return folder / "qemu.log"


def _greets(port: int) -> bool:
    # QEMU takes connections before the guest does: only the guest greets
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            return connection.recv(len(SSH_BANNER)) == SSH_BANNER
    except OSError:
        return False
