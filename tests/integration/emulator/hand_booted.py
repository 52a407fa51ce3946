"""An image booted, and nothing more: images are tested without the code for machines."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeml_devices.emulator.boards import Board
from edgeml_devices.emulator.images.cache import hold
from edgeml_devices.emulator.images.image import Image
from edgeml_devices.emulator.machine.addresses import Addresses
from edgeml_devices.emulator.machine.command import Place, command, overlay_command
from edgeml_devices.emulator.machine.launch import addresses
from edgeml_devices.emulator.qemu import find_qemu

READY_WITHIN_S = 180.0
"""A busy machine takes ten times as long as a quiet one."""


@dataclass(frozen=True)
class HandBooted:
    image: Image
    folder: Path
    process: subprocess.Popen[bytes]
    addresses: Addresses

    def ready(self) -> dict[str, Any]:
        """Wait for the page that says so."""
        deadline = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log()
            with suppress(OSError, ValueError):
                url = f"http://127.0.0.1:{self.addresses.http}/ready.json"
                with urllib.request.urlopen(url, timeout=2) as answer:
                    return json.load(answer)
            time.sleep(0.1)
        raise AssertionError(f"not ready after {READY_WITHIN_S} s\n{self.log()}")

    def log(self) -> str:
        return (self.folder / "console.log").read_text(errors="replace")[-4000:]

    def run(self, command: str, stdin: bytes = b"") -> str:
        """Run a command over SSH."""
        options = (
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            "BatchMode=yes",
        )
        done = subprocess.run(
            [
                *("ssh", "-i", self.image.ssh_key, "-p", str(self.addresses.ssh)),
                *(part for option in options for part in ("-o", option)),
                *("root@127.0.0.1", command),
            ],
            input=stdin,
            check=False,
            capture_output=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def type(self, line: str, until: str, port: int | None = None) -> str:
        """Type a line at the console, or at another line; gives what comes back, up to a mark."""
        with socket.create_connection(("127.0.0.1", port or self.addresses.console), timeout=60) as console:
            console.sendall(f"\n{line}\n".encode())
            seen = b""
            while until.encode() not in seen:
                seen += console.recv(4096)
            return seen.decode(errors="replace")


@contextmanager
def booted(image: Image, board: Board, folder: Path) -> Iterator[HandBooted]:
    place = Place(folder)
    subprocess.run(overlay_command(image.disk, place), check=True)
    with hold(image) as descriptor:
        process = subprocess.Popen(
            command(find_qemu(), board, image, place),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            pass_fds=[descriptor],
        )
    try:
        yield HandBooted(image, folder, process, addresses(process, folder))
    finally:
        process.kill()
        process.wait()
