"""What the device is to be: the server's last word, kept on the disk, and releases carried here by hand."""

from __future__ import annotations

import json
import logging
import math
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeml import typed_json
from edgeml.bundle_checks import is_bundle_name
from edgeml.errors import MessageError
from edgeml_devices.agent.deployment import Wish
from edgeml_devices.agent.disk import make_folder, read_file, sync_tree, write_file
from edgeml_devices.agent.home import Home
from edgeml_devices.agent.origins import Origin
from edgeml_devices.messages import Assignment, DesiredState

LOG: Final = logging.getLogger("edgeml.agent")
MODELS_LIMIT: Final = 200
"""Each is a thread, and a report tells of no more."""
_POLL_S: Final = DesiredState(0).poll_s
_SHORTEST_POLL_S: Final = 1.0
_LONGEST_POLL_S: Final = 3600.0


class Desired:
    """The server's desired state. Safe to use from several threads."""

    def __init__(self, home: Home, origin: Origin | None) -> None:
        self._home, self._path = home, home.desired
        self._origin = origin
        self._lock = threading.Lock()
        self._state = _read(self._path)
        self._received_at: float | None = None
        """By the monotonic clock; ``None``: before this start."""

    @property
    def generation(self) -> int | None:
        """Give the generation of the last answer of this start; the first poll asks without one."""
        return None if self._received_at is None or self._state is None else self._state.generation

    @property
    def poll_s(self) -> float:
        """Give how long to wait in the next poll, whatever the server said: 1 s to an hour."""
        said = _POLL_S if self._state is None else self._state.poll_s
        return min(max(said, _SHORTEST_POLL_S), _LONGEST_POLL_S) if math.isfinite(said) else _POLL_S

    def take(self, state: DesiredState) -> None:
        """Keep what the server said, before anything acts on it."""
        named = [name for name in state.models if is_bundle_name(name)]
        if len(named) < len(state.models):
            LOG.warning("the desired state names what cannot be a model; left aside")
        if len(named) > MODELS_LIMIT:
            here = {model.name for model in self._home.models()}
            named = sorted(named, key=lambda name: (name not in here, name))[:MODELS_LIMIT]
            LOG.error(
                "the server wants %d models of this device, which takes %d; left aside: all after %s",
                len(state.models),
                MODELS_LIMIT,
                named[-1],
            )
        kept = DesiredState(
            state.generation, {name: state.models[name] for name in named}, state.poll_s, state.schema
        )
        with self._lock:
            changed = self._state != kept
            self._state, self._received_at = kept, time.monotonic()
        if changed:
            with suppress(OSError):
                make_folder(self._path.parent)
                write_file(self._path, json.dumps(typed_json.write(kept), indent=1).encode() + b"\n")

    def models(self) -> frozenset[str]:
        with self._lock:
            return frozenset(self._state.models) if self._state is not None else frozenset()

    def wish(self, model: str) -> Wish | None:
        """Give what the server wants of a model; ``None``: nothing."""
        with self._lock:
            assignment = None if self._state is None else self._state.models.get(model)
            if assignment is None or self._origin is None:
                return None
            closes_at = None
            if assignment.open_for_s is not None:
                # after a restart nobody knows for how long it is open, and no number says it either
                closes_at = float("-inf")
                if self._received_at is not None and math.isfinite(assignment.open_for_s):
                    closes_at = self._received_at + assignment.open_for_s
            return Wish(assignment, self._origin, closes_at)


def _read(path: Path) -> DesiredState | None:
    try:
        return typed_json.read(DesiredState, typed_json.parse(read_file(path), str(path)), str(path))
    except FileNotFoundError:
        return None
    except (OSError, MessageError) as error:
        LOG.warning("%s cannot be read: %s; the server is asked anew", path, error)
        return None


# --- carried here


@dataclass(frozen=True, slots=True)
class Carried:
    """A release in a folder that was exported elsewhere."""

    folder: Path
    model: str
    release: int


def carried_in(folder: Path) -> tuple[Carried, ...]:
    """List the releases of an exported folder, by the names of its manifests."""
    found = []
    for path in sorted((folder / "targets" / "models").glob("*/*.json")):
        release = path.name.split(".")[1] if path.name.count(".") > 1 else ""
        if is_bundle_name(path.parent.name) and release.isdecimal():
            found.append(Carried(folder, path.parent.name, int(release)))
    return tuple(found)


class Inbox:
    """``inbox/``: exported folders for a running agent; each is removed when it was dealt with."""

    def __init__(self, home: Home, origin: Callable[[Path], Origin]) -> None:
        self._folder = home.inbox
        self._origin = origin
        self._lock = threading.Lock()
        self._wishes: dict[str, Wish] = {}
        self._carried: dict[str, Carried] = {}

    def look(self, attempt: Callable[[Carried], int]) -> frozenset[str]:
        """Take up what came; give the models that it is for."""
        with suppress(OSError):
            for folder in sorted(self._folder.iterdir()):
                if folder.name.startswith(".") or not folder.is_dir():
                    continue
                found = carried_in(folder)
                for one in sorted(found, key=lambda one: one.release, reverse=True):
                    with self._lock:
                        if one.model not in self._wishes:
                            assignment = Assignment(one.release, attempt(one))
                            self._wishes[one.model] = Wish(assignment, self._origin(folder))
                            self._carried[one.model] = one
                if not found:
                    LOG.warning("%s holds no release; removed", folder)
                    shutil.rmtree(folder, ignore_errors=True)
        with self._lock:
            return frozenset(self._wishes)

    def wish(self, model: str) -> Wish | None:
        with self._lock:
            return self._wishes.get(model)

    def done(self, model: str) -> None:
        """Remove what was dealt with."""
        with self._lock:
            self._wishes.pop(model, None)
            carried = self._carried.pop(model, None)
            if carried is not None and carried.folder not in {one.folder for one in self._carried.values()}:
                shutil.rmtree(carried.folder, ignore_errors=True)


def put_in_inbox(home: Home, folder: Path) -> Path:
    """Copy an exported folder to where the running agent looks; it appears there whole.

    Raises:
        OSError: it could not be copied.
    """
    make_folder(home.inbox)
    name = f"{folder.absolute().name}-{time.time_ns():x}"
    scratch = home.inbox / f".{name}"
    shutil.copytree(folder, scratch)
    sync_tree(scratch)
    return scratch.rename(home.inbox / name)
