"""An image booted by a command line written out here: images are tested without the code for machines."""

from __future__ import annotations

import json
import os
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
from edgeml_devices.emulator.images.image import HTTP_PORT, SSH_PORT, Image
from edgeml_devices.emulator.qemu import find_qemu

READY_WITHIN_S = 180.0
"""A busy machine takes ten times as long as a quiet one."""


@dataclass(frozen=True)
class HandBooted:
    image: Image
    folder: Path
    process: subprocess.Popen[bytes]
    console_port: int
    ssh_port: int
    http_port: int

    def ready(self) -> dict[str, Any]:
        """Wait for the page that says so."""
        deadline = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log()
            with suppress(OSError, ValueError):
                url = f"http://127.0.0.1:{self.http_port}/ready.json"
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
                *("ssh", "-i", self.image.ssh_key, "-p", str(self.ssh_port)),
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

    def type(self, line: str, until: str) -> str:
        """Type a line at the console; gives what comes back, up to a mark."""
        with socket.create_connection(("127.0.0.1", self.console_port), timeout=60) as console:
            console.sendall(f"\n{line}\n".encode())
            seen = b""
            while until.encode() not in seen:
                seen += console.recv(4096)
            return seen.decode(errors="replace")


@contextmanager
def booted(image: Image, board: Board, folder: Path) -> Iterator[HandBooted]:
    qemu = find_qemu()
    overlay, log = folder / "disk.qcow2", folder / "console.log"
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-b", image.disk, "-F", "qcow2", overlay], check=True
    )
    console, ssh, http = _free_ports(3)
    forwards = f"hostfwd=tcp:127.0.0.1:{ssh}-:{SSH_PORT},hostfwd=tcp:127.0.0.1:{http}-:{HTTP_PORT}"
    words = (
        f"console=ttyAMA0 quiet panic=-1 edgeml.target={board.name} "
        f"edgeml.model={board.model.replace(' ', '_')}"
    )
    argv = [
        *(qemu.program, "-machine", f"{qemu.machine},gic-version=3", "-cpu", board.cpu),
        *("-smp", str(min(board.cores, os.cpu_count() or 1)), "-m", str(board.memory_mib)),
        *("-display", "none", "-no-reboot", "-nodefaults"),
        *("-kernel", image.kernel, "-initrd", image.initrd, "-append", words),
        *("-chardev", f"socket,id=s0,host=127.0.0.1,port={console},server=on,wait=off,logfile={log}"),
        *("-serial", "chardev:s0"),
        *("-drive", f"file={overlay},if=none,id=d0,format=qcow2,cache=writeback,discard=unmap"),
        *("-device", "virtio-blk-pci,drive=d0"),
        *("-netdev", f"user,id=n0,{forwards}", "-device", "virtio-net-pci,netdev=n0,romfile="),
        *("-device", "virtio-rng-pci"),
    ]
    with hold(image) as descriptor:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, pass_fds=[descriptor])
    try:
        yield HandBooted(image, folder, process, console, ssh, http)
    finally:
        process.kill()
        process.wait()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
