"""A machine behind a serial line: a real shell on a pseudo-terminal, behind a log-in and a bad cable."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from edgeml.testing.serial_lines import Noise, SerialCable, Wire

_LOGIN_PROGRAM = Path(__file__).with_name("login_program.py")


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


class SerialLine(SerialCable):
    """A cable with a machine on the other side."""

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
        self._machine_of = lambda: Machine(shell, user, password)
        self.machine = self._machine_of()
        super().__init__(folder, noise=noise, baud=baud, far=self.machine.master)

    def restart(self) -> None:
        """Cut the machine's power and switch it on again."""
        self.pull()
        self.machine.power_off()
        self.machine = self._machine_of()
        self.move(self.machine.master)

    def close(self) -> None:
        super().close()
        self.machine.power_off()


class SerialServer:
    """Consoles behind TCP, as terminal servers give them: a machine's shell for each connection."""

    def __init__(self, shell: list[str], *, user: str = "", password: str = "") -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._machine_of = lambda: Machine(shell, user, password)
        self._open: list[tuple[socket.socket, Machine, Wire]] = []
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
        for connection, machine, wire in gone:
            wire.pull()
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
            wire = Wire(connection.fileno(), machine.master, Noise(), None)
            with self._lock:
                self._open.append((connection, machine, wire))
