"""A serial cable between two pseudo-terminals: with a baud rate, with noise, and to be pulled out.

```python
with SerialCable(tmp_path, baud=115200, noise=Noise(flipped=1e-4)) as cable:
    device = serial.Serial(str(cable.far_port))
    host = serial.Serial(str(cable.port))
```

Its far end may also be a console behind TCP, as QEMU and terminal servers give them. POSIX only.
"""

from __future__ import annotations

import os
import pty
import random
import select
import socket
import threading
import time
import tty
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

BITS_PER_BYTE: Final = 10
"""8 data bits, a start and a stop bit."""
KERNEL_MESSAGE: Final = b"[  %d.%06d] usb 1-1: new high-speed USB device number %d using dwc2\r\n"
_UNPACED_BYTES: Final = 4096
_SLICES_PER_S: Final = 200
_BURST_S: Final = 0.02
"""What a busy machine may catch up with."""


@dataclass
class Noise:
    """What a cable does to bytes, each with a probability; and how often the kernel speaks up."""

    dropped: float = 0.0
    doubled: float = 0.0
    flipped: float = 0.0
    """One bit of the byte."""
    messages_per_byte: float = 0.0
    """Of what the far end sends: there is the machine, whose kernel prints on its console."""
    seed: int = 1
    random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)  # noqa: S311 - noise

    def on(self, data: bytes, *, from_machine: bool) -> bytes:
        """Give what arrives of what was sent."""
        if not (self.dropped or self.doubled or self.flipped or self.messages_per_byte):
            return data
        out = bytearray()
        for byte in data:
            if from_machine and self.random.random() < self.messages_per_byte:
                number = self.random.randrange(1000)
                out += KERNEL_MESSAGE % (number, number * 7, number)
            chance = self.random.random()
            if chance < self.dropped:
                continue
            chance -= self.dropped
            if chance < self.doubled:
                out += bytes([byte, byte])
                continue
            chance -= self.doubled
            out.append(byte ^ (1 << self.random.randrange(8)) if chance < self.flipped else byte)
        return bytes(out)


class Wire:
    """Carries bytes between two file descriptors at a rate, with noise, and counts them."""

    def __init__(self, near: int, far: int, noise: Noise, baud: int | None) -> None:
        self.sent_bytes = 0
        """To the far end, before noise."""
        self.received_bytes = 0
        """From the far end, before noise."""
        self._stop_read, self._stop_write = os.pipe()
        self._noise = noise
        self._baud = baud
        self._threads = [
            threading.Thread(target=self._carry, args=(near, far, False), daemon=True),
            threading.Thread(target=self._carry, args=(far, near, True), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def pull(self) -> None:
        """Carry nothing more."""
        os.write(self._stop_write, b"x")
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()
        os.close(self._stop_read)
        os.close(self._stop_write)

    def _carry(self, source: int, target: int, from_machine: bool) -> None:
        at_once = _UNPACED_BYTES
        if self._baud is not None:
            at_once = max(1, self._baud // BITS_PER_BYTE // _SLICES_PER_S)
        due = time.monotonic()
        while True:
            ready, _, _ = select.select([source, self._stop_read], [], [])
            if self._stop_read in ready:
                return
            try:
                data = os.read(source, at_once)
            except OSError:
                return
            if not data:
                return
            self._count(len(data), from_machine=from_machine)
            if self._baud is not None:
                due = max(due, time.monotonic() - _BURST_S) + len(data) * BITS_PER_BYTE / self._baud
                time.sleep(max(0.0, due - time.monotonic()))
            data = self._noise.on(data, from_machine=from_machine)
            with suppress(OSError):
                while data:
                    if self._stop_read in select.select([self._stop_read], [target], [])[0]:
                        return
                    data = data[os.write(target, data) :]

    def _count(self, size_bytes: int, *, from_machine: bool) -> None:
        if from_machine:
            self.received_bytes += size_bytes
        else:
            self.sent_bytes += size_bytes


class SerialCable:
    """A port on this side that can be pulled out and put in again, and what is on the far side.

    Give :attr:`port` or :attr:`url` to the program under test, and :attr:`far_port` to what plays the device.
    """

    def __init__(
        self,
        folder: Path,
        *,
        baud: int | None = None,
        noise: Noise | None = None,
        far: int | tuple[str, int] | None = None,
    ) -> None:
        """Plug in a cable.

        Args:
            folder: where the names of its ports stand.
            baud: bits per second; by default as fast as it goes.
            noise: what becomes of bytes on the way.
            far: what is at the far end: a file descriptor, host and port of a TCP server, or by default a
                port of its own.
        """
        self.port = folder / "ttyUSB0"
        self.far_port: Path | None = None
        self.noise = noise or Noise()
        self._baud = baud
        self._near: _Port | None = None
        self._wire: Wire | None = None
        self._carried = (0, 0)
        self._close_far: Callable[[], None] | None = None
        self._far = self._far_end(folder, far)
        self.plug_in()

    @property
    def url(self) -> str:
        """For every command that takes a transport; options go behind ``?``."""
        return f"serial://{self.port}"

    @property
    def sent_bytes(self) -> int:
        """What went in on this side since the cable was made."""
        return self._carried[0] + (0 if self._wire is None else self._wire.sent_bytes)

    @property
    def received_bytes(self) -> int:
        """What went in on the far side since the cable was made."""
        return self._carried[1] + (0 if self._wire is None else self._wire.received_bytes)

    def plug_in(self) -> None:
        """Give the port anew; the far side does not notice."""
        self._near = _Port(self.port)
        self._wire = Wire(self._near.master, self._far, self.noise, self._baud)

    def pull(self) -> None:
        """Take the port away from whoever has it open."""
        if self._wire is None or self._near is None:
            return
        self._wire.pull()
        self._carried = (self.sent_bytes, self.received_bytes)
        self._wire = None
        self._near.close()
        self._near = None

    def cut(self) -> None:
        """Pull the port out and put it in again: who had it open has lost it."""
        self.pull()
        self.plug_in()

    def move(self, far: int | tuple[str, int]) -> None:
        """Plug the far end into something else, a machine that was started anew for example; cuts it."""
        self.pull()
        if self._close_far is not None:
            self._close_far()
            self._close_far = None
        self._far = self._far_end(self.port.parent, far)
        self.plug_in()

    def close(self) -> None:
        """Take both ends away. Idempotent."""
        self.pull()
        if self._close_far is not None:
            self._close_far()
            self._close_far = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _far_end(self, folder: Path, far: int | tuple[str, int] | None) -> int:
        if isinstance(far, int):
            return far
        if far is not None:
            connection = socket.create_connection(far, timeout=10)
            connection.settimeout(None)
            self._close_far = connection.close
            return connection.fileno()
        port = _Port(folder / "ttyAMA0")
        self.far_port = port.path
        self._close_far = port.close
        return port.master


class _Port:
    """A pseudo-terminal with a name that stays."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.master, self._kept_open = pty.openpty()  # a pseudo-terminal that nobody has open ends
        tty.setraw(self._kept_open)
        tty.setraw(self.master)
        path.unlink(missing_ok=True)
        path.symlink_to(os.ttyname(self._kept_open))

    def close(self) -> None:
        self.path.unlink(missing_ok=True)
        os.close(self._kept_open)
        os.close(self.master)
