"""``emulator:BOARD`` — a whole emulated machine, as a transport: its commands and files go over SSH."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from edgeml.errors import EngineError, EngineMissingError, TransportError, UsageError
from edgeml_devices.emulator.images.image import ImageRequest
from edgeml_devices.emulator.machine.condition import unreachable
from edgeml_devices.emulator.machine.starting import Wanted, find_machine, start_machine
from edgeml_devices.emulator.progress_bars import told
from edgeml_devices.transports.ssh import SshTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from types import TracebackType

    from edgeml.transport import CommandResult, Progress
    from edgeml_devices.emulator.address import EmulatorAddress
    from edgeml_devices.emulator.machine.machine import Machine


class MachineTransport:
    """Starts a machine and ends it with the connection, or takes one that runs and leaves it running.

    When a machine that it started has lost its power, ``connect`` boots it again on the disk as it was left.
    """

    def __init__(self, address: EmulatorAddress) -> None:
        self._address = address
        self._machine: Machine | None = None
        self._ssh: SshTransport | None = None
        self._progress: Callable[[Progress], None] | None = None

    @property
    def machine(self) -> Machine:
        """What is connected to: to cut its power, to pull its network, to find its ports.

        Raises:
            TransportError: not connected.
        """
        if self._machine is None:
            raise self._unconnected()
        return self._machine

    def on_progress(self, callback: Callable[[Progress], None] | None) -> None:
        """Have each transfer reported."""
        self._progress = callback
        if self._ssh is not None:
            self._ssh.on_progress(callback)

    def connect(self) -> None:
        if self._ssh is not None and self._ssh.alive:
            return
        if self._ssh is not None:
            self._ssh.close()
        is_new = self._machine is None
        try:
            self._machine = self._running()
        except EngineMissingError:
            raise
        except EngineError as error:
            raise TransportError(f"{self._address.url}: {error}") from error
        try:
            self._ssh = SshTransport(self._machine.ssh_url)
            self._ssh.on_progress(self._progress)
            self._ssh.connect()
        except BaseException:
            if is_new:
                self.close()
            raise

    def run(self, argv: Sequence[str], timeout_s: float) -> CommandResult:
        return self._connected().run(argv, timeout_s)

    def put(self, local: Path, remote: str) -> None:
        self._connected().put(local, remote)

    def get(self, remote: str, local: Path) -> None:
        self._connected().get(remote, local)

    def close(self) -> None:
        ssh, self._ssh = self._ssh, None
        machine, self._machine = self._machine, None
        try:
            if ssh is not None:
                ssh.close()
        finally:
            if machine is not None and self._address.machine is None:
                machine.close()

    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _running(self) -> Machine:
        """Give the machine, started where it has to be.

        Raises:
            EngineError: it does not come up.
            TransportError: somebody else's has ended.
            UsageError: there is none of that name, or it is another board.
        """
        if self._address.machine is not None:
            return _of_somebody(self._address, self._address.machine)
        if self._machine is None:
            engines = self._address.engines
            image = ImageRequest(engines) if engines else None
            wanted = Wanted(self._address.board, image)
            return start_machine(wanted, fresh=self._address.fresh, report=told(self._address.url))
        if not self._machine.running:
            self._machine.restart()
        return self._machine

    def _connected(self) -> SshTransport:
        if self._ssh is None:
            raise self._unconnected()
        return self._ssh

    def _unconnected(self) -> TransportError:
        return TransportError(
            f"{self._address.url}: not connected; call connect() first, or use it in a with statement"
        )


def _of_somebody(address: EmulatorAddress, name: str) -> Machine:
    machine = find_machine(name)
    if machine.setup.board != address.board:
        raise UsageError(f"{address.url}: {name} is a {machine.setup.board.name}")
    why = unreachable(machine.folder)
    if why is not None:
        raise TransportError(f"{address.url}: {why}")
    return machine
