"""Agents as processes of their own: started, killed, started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Device:
    """One home folder, and the agent that works in it."""

    def __init__(self, home: Path, url: str, **environment: str) -> None:
        self.home = home
        self._environment = environment
        self.url = url
        self.log = home.with_suffix(".log")
        self.process: subprocess.Popen[bytes] | None = None

    def command(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run ``edgeml agent …``."""
        done = subprocess.run(
            [sys.executable, "-P", "-m", "edgeml", "agent", *arguments],
            env=self.environment(),
            cwd=self.home.parent,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"{arguments} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done

    def environment(self) -> dict[str, str]:
        return (
            os.environ
            | {"EDGEML_HOME": str(self.home), "NO_PROXY": "127.0.0.1", "COLUMNS": "200"}
            | self._environment
        )

    def enrol(self, root: bytes, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Join with the token ``join``, where no option says otherwise."""
        file = self.home.parent / "root.json"
        file.write_bytes(root)
        arguments = ["--server", self.url, "--join-token", "join", "--root", str(file)]
        return self.command("enrol", *arguments, *options, check=check)

    def join(self, token: Mapping[str, Any], name: str) -> None:
        """Enrol with what ``edgeml tokens join`` gave."""
        arguments = ["--server", self.url, "--join-token", token["token"], "--name", name]
        self.command("enrol", *arguments, "--root-sha256", token["root_sha256"])

    def start(self) -> None:
        # a file: nobody reads a pipe while the test waits
        with self.log.open("a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "edgeml", "agent", "run", "--verbose"],
                env=self.environment(),
                cwd=self.home.parent,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def kill(self) -> None:
        """Kill it as a power cut does."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def stop(self) -> tuple[int, str]:
        """Ask it to stop; give its exit code and what it logged."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=60)
        self.process = None
        return code, self.log.read_text(encoding="utf-8")

    def status(self) -> dict[str, Any]:
        shown: dict[str, Any] = json.loads(self.command("status", "--json").stdout)
        return shown

    def record(self, model: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.home / "models" / model / "state.json").read_text())
        return found

    def current(self, model: str) -> str | None:
        try:
            return str((self.home / "models" / model / "current").readlink())
        except FileNotFoundError:
            return None

    def wait(self, condition: Any, timeout_s: float = 120.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {timeout_s:g} s; {self.status()}")
            time.sleep(0.02)
