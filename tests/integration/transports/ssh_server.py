"""A real sshd on a free loopback port, with a host key and an authorized key in a folder of its own."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from tests.conftest import require

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


@dataclass
class SshServer:
    """Where it listens, and what a client needs."""

    folder: Path
    port: int
    user: str
    process: subprocess.Popen[bytes]

    @property
    def config(self) -> Path:
        """The client's configuration: knows the key and the host."""
        return self.folder / "ssh_config"

    @property
    def url(self) -> str:
        return f"ssh://{self.user}@127.0.0.1:{self.port}?config={quote(str(self.config), safe='')}"

    def configure(self, *lines: str) -> str:
        """Write another client configuration; gives the URL that uses it."""
        config = self.folder / "other_config"
        config.write_text("\n".join(lines) + "\n")
        return f"ssh://{self.user}@127.0.0.1:{self.port}?config={quote(str(config), safe='')}"

    def children(self) -> list[int]:
        """Give the processes that serve connections."""
        return _children(self.process.pid)

    def cut(self) -> None:
        """Kill what serves the connections with its shells; what these started is left to find out."""
        for pid in self.children():
            for process in (*_children(pid), pid):
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)


@contextmanager
def ssh_server(folder: Path, *more: str, through: Sequence[str] = ()) -> Iterator[SshServer]:
    """Start sshd for whoever runs the tests; ``more`` are lines of its configuration.

    ``through`` is a command that starts it, in another name space for example.
    """
    require(SSHD, "no sshd; install openssh-server")
    assert SSHD is not None
    for name in ("host_key", "key"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(folder / name)], check=True
        )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd of root insists
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    lines = [
        f"Port {port}",
        "ListenAddress 127.0.0.1",
        f"HostKey {folder}/host_key",
        f"AuthorizedKeysFile {folder}/key.pub",
        f"PidFile {folder}/pid",
        "StrictModes no",
        "UsePAM no",
        "PasswordAuthentication no",
        "PermitRootLogin prohibit-password",
        "MaxStartups 100",
        *more,
    ]
    (folder / "sshd_config").write_text("\n".join(lines) + "\n")
    host_key = (folder / "host_key.pub").read_text().strip()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}\n")
    client = [
        f"UserKnownHostsFile {folder}/known_hosts",
        "GlobalKnownHostsFile /dev/null",
        f"IdentityFile {folder}/key",
        "IdentitiesOnly yes",
        "IdentityAgent none",
    ]
    (folder / "ssh_config").write_text("\n".join(client) + "\n")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*through, SSHD, "-D", "-e", "-f", str(folder / "sshd_config")],
            stdin=subprocess.DEVNULL,
            stderr=log,
        )
    server = SshServer(folder, port, getpass.getuser(), process)
    try:
        _wait_for(port, process, folder / "log")
        yield server
    finally:
        server.cut()
        process.terminate()
        process.wait()


def _children(pid: int) -> list[int]:
    argv = ["ps", "-o", "pid=", "--ppid", str(pid)]
    return [int(word) for word in subprocess.run(argv, check=False, capture_output=True).stdout.split()]


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise AssertionError(log.read_text())
