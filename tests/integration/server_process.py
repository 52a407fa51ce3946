"""A server in a process of its own, on a free loopback port, as `edgeml server run` starts it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self
from urllib.error import HTTPError
from urllib.request import Request, urlopen


class ServerProcess:
    """Started by ``with``; ``admin_token`` is the one that the first start printed."""

    def __init__(
        self, data: Path, database_url: str = "", *, options: Sequence[str] = (), admin_token: str = ""
    ) -> None:
        self.data = data
        self.admin_token = admin_token
        self.url = ""
        self.output: list[str] = []
        """What it printed, line by line; what it logs as well."""
        self._database_url = database_url
        self._options = options
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self.stop()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, *, port: int = 0, timeout_s: float = 120.0) -> None:
        command = [
            sys.executable,
            "-m",
            "edgeml",
            "server",
            "run",
            "--data",
            str(self.data),
            "--port",
            str(port),
        ]
        environment = os.environ | {"EDGEML_DATABASE": self._database_url, "PYTHONUNBUFFERED": "1"}
        self._process = subprocess.Popen(
            [*command, *self._options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            start_new_session=True,
        )
        listening = threading.Event()
        threading.Thread(target=self._read, args=(self._process, listening), daemon=True).start()
        deadline = time.monotonic() + timeout_s
        while not (listening.is_set() and self._answers()):
            assert self._process.poll() is None, "the server ended:\n" + "\n".join(self.output)
            assert time.monotonic() < deadline, "the server did not start:\n" + "\n".join(self.output)
            time.sleep(0.02)

    def stop(self, timeout_s: float = 60.0) -> int:
        """End it by SIGTERM; give its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        """End it and its workers by SIGKILL, as a power cut would."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def printed(self, wanted: str, timeout_s: float = 30.0) -> bool:
        """Wait for a line that holds this: what it prints is read behind what it answers."""
        deadline = time.monotonic() + timeout_s
        while not any(wanted in line for line in self.output):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        headers: Mapping[str, str] = {},
    ) -> tuple[int, Any]:
        """Make one request; give its status and its JSON, or its bytes where it is none."""
        content = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Authorization": f"Bearer {self.admin_token if token is None else token}"}
        if content is not None and content is not body:
            sent["Content-Type"] = "application/json"
        sent |= headers
        request = Request(f"{self.url}{path}", content, sent, method=method)  # noqa: S310 - http, as set up above
        try:
            with urlopen(request, timeout=70) as response:  # noqa: S310 - as above
                return response.status, _decoded(response.read())
        except HTTPError as error:
            with error:
                return error.code, _decoded(error.read())

    def _read(self, process: subprocess.Popen[str], listening: threading.Event) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self.output.append(line.rstrip("\n"))
                if found := re.search(r"EDGEML_TOKEN=(\S+)", line):
                    self.admin_token = found[1]
                if found := re.search(r"listens on (https?://\S+?);", line):
                    self.url = found[1]
                    listening.set()

    def _answers(self) -> bool:
        try:
            self.call("GET", "/v1/agent/state", token="")
        except OSError:
            return self.url.startswith("https:")  # its certificate may be of nobody's
        return True


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body
