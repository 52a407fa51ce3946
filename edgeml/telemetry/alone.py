"""Telemetry of a device that has no agent: one of its processes reads, keeps and sends for all."""

from __future__ import annotations

import atexit
import json
import os
import threading
from contextlib import closing
from pathlib import Path
from typing import Self

from edgeml.errors import UsageError
from edgeml.settings import settings
from edgeml.telemetry.device import LEAST_WINDOW_S, MOST_WINDOW_S, WINDOW_S, plan_of, run_telemetry
from edgeml.telemetry.posting import Poster
from edgeml.telemetry.settings import telemetry_settings
from edgeml.telemetry.spool import BUDGET_BYTES, LEAST_BUDGET_BYTES
from edgeml.telemetry.spool_files import Durability

_STOP_S = 5.0


class Sending:
    """What :func:`start` began; ``with`` stops it, as does the end of the process."""

    def __init__(self, thread: threading.Thread, stop: threading.Event) -> None:
        self._thread, self._ended, self._pid = thread, stop, os.getpid()
        atexit.register(self.stop)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Keep the last window on the disk, and end. Does nothing in the child of a fork."""
        if os.getpid() != self._pid:
            return  # the thread is not here, and it may have held the event's lock
        self._ended.set()
        self._thread.join(_STOP_S)
        atexit.unregister(self.stop)


def start(
    server: str | None = None,
    token_file: str | Path | None = None,
    *,
    home: str | Path | None = None,
    ca_file: str | Path | None = None,
    window_s: float = WINDOW_S,
    budget_bytes: int = BUDGET_BYTES,
    durability: Durability = "window",
) -> Sending:
    """Keep and send what processes record where this one does, in a thread of this one.

    Any number of processes may call this: one owns the spool, and when it ends another takes its place.
    Where an agent runs, nothing is to be called. Without a server and a token the device is who
    ``edgeml agent enrol`` made it in ``home``.

    Args:
        server: its address, ``https://HOST``.
        token_file: holds the device's token.
        home: folder whose ``spool`` keeps what waits; by default ``EDGEML_HOME``.
        ca_file: authorities that sign the server's certificate; by default the enrolment's.
        window_s: how long one report is, seconds.
        budget_bytes: of disk; beyond it windows are merged, then the oldest are given up.
        durability: ``relaxed`` writes less, and loses up to ten windows in a power cut.

    Raises:
        SettingsError: the settings hold something wrong.
        UsageError: no server's address, no token that can be read, the device is not enrolled, or a number
            that cannot be.
    """
    if not LEAST_WINDOW_S <= window_s <= MOST_WINDOW_S:
        raise UsageError(f"window_s: from {LEAST_WINDOW_S:g} to {MOST_WINDOW_S:g}, got {window_s:g}")
    if budget_bytes < LEAST_BUDGET_BYTES:
        raise UsageError(f"budget_bytes: {LEAST_BUDGET_BYTES} or more, got {budget_bytes}")
    folder = settings().home if home is None else Path(home)
    if (server is None) != (token_file is None):
        raise UsageError("give server and token_file both, or neither: an enrolled device knows them")
    if server is None or token_file is None:
        server, token, enrolled_ca = _enrolled(folder / "identity.json")
        ca_file = ca_file or enrolled_ca
    else:
        token = _token(Path(token_file))
    post = Poster(server, token, None if ca_file is None else Path(ca_file))
    rings = Path(telemetry_settings().folder)
    plan = plan_of(folder, rings, window_s=window_s, budget_bytes=budget_bytes, durability=durability)
    stop = threading.Event()

    def work() -> None:
        with closing(post):
            run_telemetry(plan, post, stop)

    thread = threading.Thread(target=work, name="edgeml-telemetry", daemon=True)
    thread.start()
    return Sending(thread, stop)


def _enrolled(path: Path) -> tuple[str, str, str | None]:
    """Read what enrolling left: server, token, file of authorities."""
    try:
        found = json.loads(path.read_bytes())
        if found["device_id"]:
            return str(found["server"]), str(found["token"]), found.get("ca_file")
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    raise UsageError(
        f"{path.parent} is not enrolled: run the command that `edgeml tokens join` prints, or give server "
        "and token_file"
    )


def _token(path: Path) -> str:
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: no token that can be read: {error}") from error
    if not token or not token.isprintable() or " " in token:
        raise UsageError(f"{path}: holds no token: one word is wanted")
    return token
