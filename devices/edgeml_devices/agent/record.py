"""Where one model stands, as one small file that is replaced whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from edgeml import typed_json
from edgeml.errors import MessageError
from edgeml.installed import InstalledModel
from edgeml_devices.agent.disk import make_folder, read_file, write_file
from edgeml_devices.agent.home import state_file
from edgeml_devices.messages import Result, State, Tested

_SIZE_LIMIT_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class StateRecord:
    """``models/NAME/state.json``."""

    model: str
    state: State
    entry: int = 0
    """Counts the states entered, over all attempts: each becomes one event."""
    at: float = 0.0
    """When the state was entered, by the device's clock."""
    target: int | None = None
    """The release on its way, or the last that was tried; ``None`` with an attempt: the model's removal."""
    attempt: int = 0
    """0: nothing was ever tried."""
    rollout: str | None = None
    previous: int | None = None
    """What ran before: where a rollback leads. ``None``: the factory's, or nothing."""
    manifests: Mapping[str, str] = field(default_factory=dict)
    """Of releases that are here, as text: the hash of the manifest that was verified."""
    candidates: tuple[str, ...] = ()
    """Variants to fetch and test."""
    variant: str | None = None
    """The one that the self-test chose."""
    tested: Mapping[str, Tested] = field(default_factory=dict)
    """What the self-test found, by variant."""
    offline: bool = False
    """Installed from a file: the server is not waited for."""
    expects_beats: bool = False
    """A process reported this model shortly before the switch."""
    steps: int = 0
    """States entered and restarts in this attempt."""
    starts: int = 0
    """Restarts in PROBATION."""
    fetched_bytes: int = 0
    """What of the release was here at the last restart in FETCHING."""
    result: Result | None = None
    reason: str | None = None
    detail: str = ""
    failed: Mapping[str, int] = field(default_factory=dict)
    """Release, as text, to the attempt that failed: not tried again by itself."""
    overruled: str | None = None
    """The server's assignment, as ``RELEASE/ATTEMPT``, that an install from a file took the place of."""
    schema: int = 1

    @property
    def manifest_sha256(self) -> str:
        """Of the target's manifest; empty before it is verified."""
        return self.manifests.get(str(self.target), "")


def new_record(model: str) -> StateRecord:
    """Give the record of a model that nothing was done with yet."""
    return StateRecord(model, State.IDLE)


def write_record(model: InstalledModel, record: StateRecord) -> None:
    """Put a record on the disk.

    Raises:
        OSError: the one that was there is still there.
    """
    make_folder(model.folder)
    write_file(state_file(model), json.dumps(typed_json.write(record), indent=1).encode() + b"\n")


def read_record(model: InstalledModel) -> StateRecord | None:
    """Read a model's record; ``None`` if it has none.

    Raises:
        MessageError: it is damaged, or another model's.
        OSError: it cannot be read.
    """
    path = state_file(model)
    try:
        text = read_file(path, _SIZE_LIMIT_BYTES)
    except FileNotFoundError:
        return None
    record = typed_json.read(StateRecord, typed_json.parse(text, str(path)), str(path))
    if record.model != model.name:
        raise MessageError(f"{path} is of the model {record.model!r:.80}")
    return record
