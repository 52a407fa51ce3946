"""A machine behind a serial line: a real shell on a pseudo-terminal, behind a log-in and a bad cable."""

from __future__ import annotations

import os
import pty
import random
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import tty
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

BITS_PER_BYTE = 10
_LOGIN_PROGRAM = Path(__file__).with_name("login_program.py")
KERNEL_MESSAGE = b"[  %d.%06d] usb 1-1: new high-speed USB device number %d using dwc2\r\n"


@dataclass
class Noise:
    """What a cable does to bytes, each with a probability; and how often the kernel speaks up."""

    dropped: float = 0.0
    doubled: float = 0.0
    flipped: float = 0.0
    messages_per_byte: float = 0.0
    """Of what the machine sends."""
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


class Machine:
    """A shell on a pseudo-terminal, given again when it ends; ``master`` is its UART."""

    def __init__(self, shell: list[str], user: str = "", password: str = "") -> None:
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-S", str(_LOGIN_PROGRAM), user, password, *shell],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)

    def end_session(self) -> None:
        """Kill the shell: the console asks for a log-in, as after a restart."""
        argv = ["ps", "-o", "pid=", "--ppid", str(self.process.pid)]
        for pid in subprocess.run(argv, check=False, capture_output=True).stdout.split():
            os.kill(int(pid), signal.SIGKILL)

    def power_off(self) -> None:
        """End it; its shell is hung up on."""
        with suppress(OSError):
            os.close(self.master)
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


class Cable:
    """Carries bytes between two file descriptors at a rate, with noise; counts what goes to the machine."""

    def __init__(self, host: int, machine: int, noise: Noise, baud: int | None) -> None:
        self.to_machine_bytes = 0
        self._stop_read, self._stop_write = os.pipe()
        self._noise = noise
        self._baud = baud
        self._threads = [
            threading.Thread(target=self._carry, args=(host, machine, False), daemon=True),
            threading.Thread(target=self._carry, args=(machine, host, True), daemon=True),
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
        at_once = 4096 if self._baud is None else max(1, self._baud // BITS_PER_BYTE // 200)
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
            if not from_machine:
                self.to_machine_bytes += len(data)
            if self._baud is not None:
                due = max(due, time.monotonic() - 0.02) + len(data) * BITS_PER_BYTE / self._baud
                time.sleep(max(0.0, due - time.monotonic()))
            data = self._noise.on(data, from_machine=from_machine)
            with suppress(OSError):
                while data:
                    if self._stop_read in select.select([self._stop_read], [target], [])[0]:
                        return
                    data = data[os.write(target, data) :]


class SerialLine:
    """A port on this side that can be pulled out and put in again, and the machine on the other side."""

    def __init__(
        self,
        folder: Path,
        shell: list[str],
        *,
        user: str = "",
        password: str = "",
        noise: Noise | None = None,
        baud: int | None = None,
    ) -> None:
        self.port = folder / "ttyUSB0"
        self.noise = noise or Noise()
        self._sent_bytes = 0
        self._machine_of = lambda: Machine(shell, user, password)
        self._baud = baud
        self._host: int | None = None
        self._cable: Cable | None = None
        self.machine = self._machine_of()
        self.plug_in()

    @property
    def url(self) -> str:
        return f"serial://{self.port}"

    def plug_in(self) -> None:
        """Give the port anew; the machine did not notice."""
        self._host, name = pty.openpty()
        tty.setraw(name)
        tty.setraw(self._host)
        self.port.unlink(missing_ok=True)
        self.port.symlink_to(os.ttyname(name))
        self._kept_open = name  # a pseudo-terminal that nobody has open ends
        self._cable = Cable(self._host, self.machine.master, self.noise, self._baud)

    def pull(self) -> None:
        """Take the port away from whoever has it open."""
        if self._cable is None or self._host is None:
            return
        self._cable.pull()
        self._sent_bytes += self._cable.to_machine_bytes
        os.close(self._kept_open)
        os.close(self._host)
        self._cable = self._host = None

    def cut(self) -> None:
        """Pull the port out and put it in again: who had it open has lost it."""
        self.pull()
        self.plug_in()

    def restart(self) -> None:
        """Cut the machine's power and switch it on again."""
        self.pull()
        self.machine.power_off()
        self.machine = self._machine_of()
        self.plug_in()

    def sent_to_machine_bytes(self) -> int:
        """Count what went into the cable on this side."""
        return self._sent_bytes + (0 if self._cable is None else self._cable.to_machine_bytes)

    def close(self) -> None:
        self.pull()
        self.machine.power_off()


class SerialServer:
    """Consoles behind TCP, as terminal servers give them: a machine's shell for each connection."""

    def __init__(self, shell: list[str], *, user: str = "", password: str = "") -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._machine_of = lambda: Machine(shell, user, password)
        self._open: list[tuple[socket.socket, Machine, Cable]] = []
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"serial:socket://127.0.0.1:{self._listener.getsockname()[1]}"

    def cut(self) -> None:
        """Take the consoles away from all who are connected; their shells are hung up on."""
        with self._lock:
            gone, self._open = self._open, []
        for connection, machine, cable in gone:
            cable.pull()
            connection.close()
            machine.power_off()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            machine = self._machine_of()
            cable = Cable(connection.fileno(), machine.master, Noise(), None)
            with self._lock:
                self._open.append((connection, machine, cable))
