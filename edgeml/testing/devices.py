"""Emulated devices for tests: a whole Raspberry Pi, fresh for each test, that may lose its power.

The fixtures ``emulated_device`` and ``power_cut`` are made of these; use them to give a device another scope:

```python
@pytest.fixture(scope="module")
def board():
    with emulated_device("raspberry-pi-4") as device:
        yield device
```
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, cast

from edgeml import plugins
from edgeml.errors import EngineMissingError, TransportError, UsageError
from edgeml.testing import missing
from edgeml.transport import CommandResult, Transport

DEFAULT_BOARD = "raspberry-pi-4"
COMMAND_WITHIN_S = 600.0
"""For one command, unless the caller says otherwise: emulated, everything takes long."""


class EmulatedMachine(Protocol):
    """What may be done to an emulated machine, besides working on it."""

    @property
    def name(self) -> str:
        """By which ``edgeml emulate`` knows it."""
        ...

    @property
    def ports(self) -> Any:
        """TCP ports on loopback: ``ssh``, ``http``, ``console``, ``serial``; others after each start."""
        ...

    @property
    def ssh_url(self) -> str:
        """For every command that takes a transport."""
        ...

    @property
    def console_log(self) -> str:
        """All that came out of the first serial line since the last start."""
        ...

    @property
    def running(self) -> bool:
        """Whether it has power."""
        ...

    def power_cut(self) -> None:
        """End it as if the plug were pulled: what was not synced to its disk is lost."""
        ...

    def restart(self, *, wait: bool = True) -> None:
        """Boot it on the disk that it has, until it answers; cuts its power first, if it runs."""
        ...

    def wait_ended(self, within_s: float) -> bool:
        """Say whether it ended by itself in time: shut down, rebooted, or in a kernel's panic."""
        ...

    def hang(self) -> None:
        """Stop its CPUs: connections stay open, nothing answers."""
        ...

    def resume(self) -> None:
        """Let it go on."""
        ...

    def network(self, *, on: bool) -> None:
        """Pull the network cable, or put it back."""
        ...

    def slow_network(self, *, bits_per_s: int = 0, delay_ms: int = 0, loss_percent: float = 0.0) -> None:
        """Make what it sends slow, late or lost; with nothing given, as before."""
        ...

    def slow_disk(self, *, bytes_per_s: int = 0, operations_per_s: int = 0) -> None:
        """Limit what its disk does; 0 is no limit."""
        ...

    def set_clock(self, seconds: float) -> None:
        """Set its clock, in seconds since 1970."""
        ...


class _MachineTransport(Transport, Protocol):
    @property
    def machine(self) -> EmulatedMachine: ...


class EmulatedDevice:
    """A machine that runs, and the way to it."""

    def __init__(self, board: str, transport: _MachineTransport) -> None:
        self.board = board
        self.is_lost = False
        """Its power was cut, and is not to come back yet: commands do not boot it."""
        self._transport = transport

    @property
    def machine(self) -> EmulatedMachine:
        """For what happens to boards: power, network, disk, clock."""
        return self._transport.machine

    @property
    def url(self) -> str:
        """For every command that takes a machine: ``edgeml run --on``, ``edgeml deploy --to``."""
        return f"emulator:{self.board}?machine={self.machine.name}"

    def run(self, argv: Sequence[str], timeout_s: float = COMMAND_WITHIN_S) -> CommandResult:
        """Run a command as root.

        Raises:
            TransportError: it could not be run to its end.
        """
        self._connect()
        return self._transport.run(argv, timeout_s)

    def sh(self, script: str, timeout_s: float = COMMAND_WITHIN_S) -> str:
        """Run a script of POSIX sh, and give what it prints.

        Raises:
            AssertionError: it ended with another exit code than 0.
            TransportError: as :meth:`run`.
        """
        done = self.run(["sh", "-c", script], timeout_s)
        said = done.stderr.decode(errors="replace")
        assert done.exit_code == 0, f"{script!r} ended with exit code {done.exit_code}: {said}"
        return done.stdout.decode(errors="replace")

    def put(self, local: Path, remote: str) -> None:
        """Copy a file into it."""
        self._connect()
        self._transport.put(local, remote)

    def get(self, remote: str, local: Path) -> None:
        """Copy a file out of it."""
        self._connect()
        self._transport.get(remote, local)

    def _connect(self) -> None:
        if self.is_lost:
            raise TransportError(f"{self.url}: its power was cut")
        self._transport.connect()


@contextmanager
def emulated_device(
    board: str = DEFAULT_BOARD, engines: Sequence[str] = (), *, fresh: bool = False
) -> Iterator[EmulatedDevice]:
    """Start a machine, and end it; skips the test where emulation is not installed.

    Args:
        board: which; ``edgeml emulate boards`` lists them.
        engines: of its image, which is built if there is none; by default those of the image with the most.
        fresh: boot it, in place of going on from a snapshot.
    """
    options = [f"engines={','.join(engines)}"] if engines else []
    options += ["fresh=yes"] if fresh else []
    try:
        made = plugins.transport(f"emulator:{board}" + ("?" if options else "") + "&".join(options))
    except UsageError as error:
        if "emulator" in plugins.names(plugins.TRANSPORT_GROUP):
            raise
        missing(f"emulated_device needs edgeml-devices: {error}")
    transport = cast("_MachineTransport", made)
    try:
        transport.connect()
    except EngineMissingError as error:
        missing(str(error))
    try:
        yield EmulatedDevice(board, transport)
    finally:
        transport.close()


class PowerCut:
    """Cuts the power of a device and boots it again, on the disk as it was left."""

    def __init__(self, device: EmulatedDevice) -> None:
        self._device = device

    def __call__(self) -> None:
        """Cut it now, and wait until the device has booted."""
        self._device.machine.power_cut()
        self._device.machine.restart()

    @contextmanager
    def after(self, delay_s: float) -> Iterator[None]:
        """Cut it so long after the block has begun; goes on when the device has booted.

        That the device is lost in the middle of the block is no error.
        """
        device, machine = self._device, self._device.machine

        def cut() -> None:
            device.is_lost = True
            machine.power_cut()

        timer = threading.Timer(delay_s, cut)
        timer.start()
        try:
            yield
        except TransportError:
            if not device.is_lost:
                timer.cancel()
                raise
        except BaseException:
            timer.cancel()
            raise
        finally:
            timer.join()
            device.is_lost = False
        machine.restart()


def cut_moments(count: int, within_s: float, seed: int = 1) -> list[float]:
    """Give moments for :meth:`PowerCut.after`, the same ones each time, in seconds with two decimals.

    ``@pytest.mark.parametrize("moment_s", cut_moments(5, within_s=3))``
    """
    draw = random.Random(seed)  # noqa: S311 - moments
    return [round(draw.uniform(0, within_s), 2) for _ in range(count)]
