"""What a process records, and where: ``[telemetry]`` in ``edgeml.toml``, then ``EDGEML_TELEMETRY*``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Final, Literal

from edgeml import typed_json
from edgeml.errors import MessageError, SettingsError
from edgeml.settings import settings, telemetry_table
from edgeml.telemetry.folder import ring_folder
from edgeml.telemetry.ring import LEAST_SLOTS, MOST_SLOTS
from edgeml.toml_file import reject_unknown

SWITCH: Final = "EDGEML_TELEMETRY"
SAMPLES: Final = "EDGEML_TELEMETRY_SAMPLES"
FOLDER: Final = "EDGEML_TELEMETRY_FOLDER"


@dataclass(frozen=True, slots=True)
class TelemetrySettings:
    """How a process records."""

    record: Literal["on", "off"] = "on"
    samples: Literal["metadata", "raw"] = "metadata"
    """Whether inputs themselves may be kept as examples, or only what was said of them."""
    raw_budget_bytes: int = 1024 * 1024
    """Of inputs that one process keeps for one model until they are fetched."""
    slots: int = 16384
    """Inferences that a ring holds until they are fetched, 56 bytes each; a power of 2."""
    folder: str = ""
    """Of the rings; by default one in shared memory, by the home folder."""


def telemetry_settings(
    folder: Path | None = None, environment: Mapping[str, str] | None = None
) -> TelemetrySettings:
    """Read the settings that hold in ``folder`` (the working folder by default).

    ``EDGEML_TELEMETRY`` is ``on`` or ``off``, ``EDGEML_TELEMETRY_SAMPLES`` ``metadata`` or ``raw``,
    ``EDGEML_TELEMETRY_FOLDER`` a path. An empty variable counts as not set.

    Raises:
        SettingsError: an unknown key, or a value that cannot be.
    """
    environment = os.environ if environment is None else environment
    table, where = telemetry_table(folder)
    reject_unknown(table, [one.name for one in fields(TelemetrySettings)], where, SettingsError)
    given = dict(table)
    for key, variable in (("record", SWITCH), ("samples", SAMPLES), ("folder", FOLDER)):
        if environment.get(variable):
            given[key] = environment[variable]
            where = f"{where}, {variable}"
    try:
        found = typed_json.read(TelemetrySettings, given, where)
    except MessageError as error:
        raise SettingsError(str(error)) from error
    if not LEAST_SLOTS <= found.slots <= MOST_SLOTS or found.slots & (found.slots - 1):
        raise SettingsError(
            f"{where}: slots: must be a power of 2 from {LEAST_SLOTS} to {MOST_SLOTS}, got {found.slots}"
        )
    if found.raw_budget_bytes < 0:
        raise SettingsError(f"{where}: raw_budget_bytes: must be 0 or more, got {found.raw_budget_bytes}")
    place = found.folder and str(Path(found.folder).expanduser().absolute())
    return replace(found, folder=place or str(ring_folder(settings(folder, environment).home)))
