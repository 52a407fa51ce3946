"""A machine that runs, or was stopped: what one does with a board on the desk, and to it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self
from urllib.parse import quote

from edgeml.errors import EngineError, TransportError, UsageError
from edgeml.transport import CommandResult
from edgeml_devices.emulator.machine import keeper, launch, state
from edgeml_devices.emulator.machine.addresses import Addresses
from edgeml_devices.emulator.machine.command import DISK, NETWORK, MemoryFile
from edgeml_devices.emulator.machine.condition import UNPLUGGED, unreachable
from edgeml_devices.emulator.machine.launch import Setup, Snapshot
from edgeml_devices.emulator.machine.line import run_on_line
from edgeml_devices.emulator.machine.qmp import open_qmp
from edgeml_devices.emulator.machine.soundness import checked_memory
from edgeml_devices.emulator.machine.state import Record
from edgeml_devices.emulator.machine.waking import load_state, wake
from edgeml_devices.transports.ssh import SshTransport

COMMAND_WITHIN_S: Final = 600.0
"""For one command in it, unless the caller says otherwise: emulated, everything takes long."""
SHUTDOWN_WITHIN_S: Final = 30.0
_SHUTDOWN: Final = "if [ -d /run/systemd/system ]; then systemctl poweroff; else kill -USR2 1; fi"
_QDISC: Final = "cd /sys/class/net && set -- e* && tc qdisc {} dev $1 root {}"
_HEARD_WITHIN_S: Final = 20.0
"""Over SSH; what a machine sends may be lost or late."""


class Machine:
    """One machine in a folder of its own. Several run beside each other.

    Every reboot ends QEMU (``wait_ended``), so that none happens unseen; :meth:`restart` goes on with the
    disk as it was left.
    """

    def __init__(
        self,
        setup: Setup,
        folder: Path,
        record: Record,
        process: subprocess.Popen[bytes] | None = None,
        owner: IO[bytes] | None = None,
    ) -> None:
        """Take a machine that runs; ``owner`` is the lock of who started it."""
        self.setup = setup
        self.folder = folder
        self.record = record
        self._process = process
        self._owner = owner
        self._ssh: SshTransport | None = None

    @classmethod
    def start(
        cls,
        setup: Setup,
        *,
        name: str = "",
        snapshot: Snapshot | None = None,
        file: MemoryFile | None = None,
        wait: bool = True,
    ) -> Self:
        """Start a new machine on an empty layer over a disk; it ends when this process does.

        Args:
            setup: board, image and memory.
            name: the board's by default, with a number behind it where that one is taken.
            snapshot: goes on from it; by default it boots.
            file: what is to be its memory, to take a snapshot of.
            wait: until SSH answers.

        Raises:
            EngineError: QEMU or the guest does not come up; holds what they said last.
            UsageError: the name is taken.
        """
        folder, owner = state.new_folder(setup.board.name, name)
        try:
            keeper.watch(folder)
            if snapshot is None:
                launch.make_disk(setup, setup.image.disk, folder)
                process, record = _launched(setup, folder, file)
            else:
                process, record = _restored(setup, folder, snapshot)
        except BaseException:
            state.end(folder)
            owner.close()
            raise
        machine = cls(setup, folder, record, process, owner)
        if wait:
            try:
                machine.wait_ready()
            except BaseException:
                machine.close()
                raise
        return machine

    # --- what it is

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def ports(self) -> Addresses:
        """TCP ports on loopback; others after each start."""
        return self.record.ports

    @property
    def running(self) -> bool:
        """Whether QEMU runs, whoever started it; a paused machine does."""
        if self._process is not None and self._process.poll() is None:
            return True
        return state.is_running(self.folder)

    @property
    def found(self) -> state.Found:
        """What others find of it."""
        return state.Found(self.folder, self.record, self.running)

    @property
    def ssh_config(self) -> Path:
        """For ``ssh -F``: the key, the host's key of this machine alone."""
        return self.folder / launch.SSH_CONFIG

    @property
    def ssh_url(self) -> str:
        """For every command that takes a transport."""
        return f"ssh://root@127.0.0.1:{self.ports.ssh}?config={quote(str(self.ssh_config), safe='')}"

    @property
    def console_log(self) -> str:
        """All that came out of the first serial line since the last start."""
        with suppress(OSError):
            return (self.folder / "console.log").read_text(errors="replace")
        return ""

    def refresh(self) -> bool:
        """Look what others did to it: its ports may be others. Says whether it is still there."""
        record = state.read_record(self.folder)
        if record is not None and record != self.record:
            self.hang_up()
            self.record = record
        return record is not None

    # --- commands and files

    def run(self, argv: Sequence[str], timeout_s: float = COMMAND_WITHIN_S) -> CommandResult:
        """Run a command over SSH, as root.

        Raises:
            TransportError: see :meth:`edgeml.transport.Transport.run`.
        """
        return self._connected().run(argv, timeout_s)

    def sh(self, script: str, timeout_s: float = COMMAND_WITHIN_S) -> str:
        """Run a script of POSIX sh over SSH, and give what it prints.

        Raises:
            EngineError: it ended with another exit code than 0; holds what it said.
            TransportError: as :meth:`run`.
        """
        done = self.run(["sh", "-c", script], timeout_s)
        if done.exit_code != 0:
            said = done.stderr.decode(errors="replace").strip()[-500:]
            raise EngineError(f"{self.name}: {script!r:.200} ended with exit code {done.exit_code}: {said}")
        return done.stdout.decode(errors="replace")

    def put(self, local: Path, remote: str) -> None:
        """Copy a file into it."""
        self._connected().put(local, remote)

    def get(self, remote: str, local: Path) -> None:
        """Copy a file out of it."""
        self._connected().get(remote, local)

    def hang_up(self) -> None:
        """End the SSH connection that commands and files went by; the next one opens another. Idempotent."""
        if self._ssh is not None:
            self._ssh.close()
            self._ssh = None

    # --- power

    def wait_ready(self, within_s: float = launch.BOOT_WITHIN_S) -> None:
        """Wait until SSH answers, also where somebody starts it again meanwhile: on other ports.

        Raises:
            EngineError: it ended, or is late; holds the last lines of its console.
        """
        launch.wait_for_ssh(self._present_port, self._goes_on, self.folder, within_s)

    def wait_ended(self, within_s: float) -> bool:
        """Say whether it ended by itself in time: shut down, rebooted, or in a kernel's panic."""
        ended = state.ended_within(self.folder, within_s)
        if ended:
            self._reap()
        return ended

    def power_cut(self) -> None:
        """End it as if the plug were pulled: what was not synced to its disk is lost."""
        state.kill(self.folder)
        self._reap()

    def stop(self, within_s: float = SHUTDOWN_WITHIN_S) -> bool:
        """Shut it down; if that does not end it in time, cut its power. Says whether it was clean."""
        if not self.running:
            return True
        if unreachable(self.folder) is None:
            with suppress(TransportError):
                connection = self._connected()
                with suppress(TransportError):  # the end may come before the answer
                    connection.run(["sh", "-c", f"({_SHUTDOWN}) >/dev/null 2>&1 &"], within_s)
                if self.wait_ended(within_s):
                    return True
        self.power_cut()
        return False

    def restart(self, *, wait: bool = True) -> None:
        """Boot it on the disk that it has; cuts its power first, if it runs. Its ports are others then.

        Raises:
            EngineError: as :meth:`start`.
        """
        with state.changing(self.folder):
            self.power_cut()
            self._process, self.record = _launched(self.setup, self.folder, detached=self.record.detached)
        if wait:
            self.wait_ready()

    def close(self) -> None:
        """End it, and remove its folder with its disk. Idempotent."""
        if self.folder.is_dir():
            state.end(self.folder)
            self._reap()
        if self._owner is not None:
            self._owner.close()
            self._owner = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- what may happen to a board

    def hang(self) -> None:
        """Stop its CPUs: connections stay open, nothing answers."""
        self._qmp("stop")

    def resume(self) -> None:
        """Let it go on."""
        self._qmp("cont")

    def network(self, *, on: bool) -> None:
        """Pull the network cable, or put it back."""
        self._qmp("set_link", {"name": NETWORK, "up": on})
        if on:
            (self.folder / UNPLUGGED).unlink(missing_ok=True)
        else:
            (self.folder / UNPLUGGED).touch()

    def slow_network(self, *, bits_per_s: int = 0, delay_ms: int = 0, loss_percent: float = 0.0) -> None:
        """Make what it sends slow, late or lost; with nothing given, as before. Gone after a restart.

        Raises:
            EngineError: the kernel refuses.
        """
        words = [
            *(["rate", f"{bits_per_s}bit"] if bits_per_s else []),
            *(["delay", f"{delay_ms}ms"] if delay_ms else []),
            *(["loss", f"{loss_percent:g}%"] if loss_percent else []),
        ]
        if words:
            script = _QDISC.format("replace", f"netem {' '.join(words)}")
        else:
            script = f"{_QDISC.format('del', '2>/dev/null')} || true"
        try:
            self.sh(script, _HEARD_WITHIN_S)
        except TransportError:
            run_on_line(self.ports.serial, script, self.name)

    def slow_disk(self, *, bytes_per_s: int = 0, operations_per_s: int = 0) -> None:
        """Limit what its disk does; 0 is no limit. Gone after a restart."""
        limits: dict[str, object] = {"device": DISK, "bps": bytes_per_s, "iops": operations_per_s}
        none = {f"{kind}_{way}": 0 for kind in ("bps", "iops") for way in ("rd", "wr")}
        self._qmp("block_set_io_throttle", limits | none)

    def set_clock(self, seconds: float) -> None:
        """Set its clock, in seconds since 1970."""
        self.sh(f"date -s @{seconds:.3f}")

    def detach(self) -> None:
        """Let it outlive this process: ``edgeml emulate ps`` and ``stop`` find it by its name."""
        self.record = state.detached(self.folder, self.record)
        if self._owner is not None:
            self._owner.close()
            self._owner = None

    def _qmp(self, command: str, arguments: dict[str, object] | None = None) -> None:
        with open_qmp(self.folder) as qmp:
            qmp.execute(command, arguments)

    def _connected(self) -> SshTransport:
        if self._ssh is None:
            transport = SshTransport(self.ssh_url)
            transport.connect()
            self._ssh = transport
        elif not self._ssh.alive:
            self._ssh.connect()
        return self._ssh

    def _present_port(self) -> int:
        self.refresh()
        return self.ports.ssh

    def _goes_on(self) -> bool:
        if self.running:
            return True
        with (
            suppress(UsageError),
            state.changing(self.folder),
        ):  # who restarts it may be between end and start
            return self.running
        return False

    def _reap(self) -> None:
        self.hang_up()
        if self._process is not None:
            self._process.wait()


def attach(found: state.Found, setup: Setup) -> Machine:
    """Give a machine that another process started, or this one before; closing it ends it all the same."""
    return Machine(setup, found.folder, found.record)


def _launched(
    setup: Setup, folder: Path, file: MemoryFile | None = None, *, detached: bool = False
) -> tuple[subprocess.Popen[bytes], Record]:
    (folder / UNPLUGGED).unlink(missing_ok=True)
    process = launch.launch(setup, folder, file)
    try:
        ports = launch.addresses(process, folder)
        launch.write_ssh_config(folder, setup.image.ssh_key, ports.ssh)
        record = Record(
            board=setup.board.name,
            image=setup.image.key,
            memory_bytes=setup.memory_bytes,
            ports=ports,
            detached=detached,
            started_s=time.time(),
            restored=file is not None and not file.kept,
        )
        state.write_record(folder, record)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return process, record


def _restored(setup: Setup, folder: Path, snapshot: Snapshot) -> tuple[subprocess.Popen[bytes], Record]:
    launch.make_disk(setup, snapshot.disk, folder)
    process, record = _launched(setup, folder, MemoryFile(snapshot.memory, kept=False))
    try:
        with checked_memory(snapshot, process):
            load_state(folder, snapshot.state)
            wake(record.ports.serial, setup.image, folder.name)
    except BaseException as error:
        process.kill()
        process.wait()
        if not isinstance(error, EngineError):
            raise
        raise EngineError(
            f"{error}{launch.tail(folder)}\n"
            f"it was to go on from the snapshot {snapshot.folder}; {launch.WITHOUT_SNAPSHOT}"
        ) from error
    return process, record
