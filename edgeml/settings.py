"""Where edgeml keeps its files: the defaults, then ``edgeml.toml`` from here upward, then ``EDGEML_*``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgeml.errors import SettingsError
from edgeml.toml_file import read_toml

FILE_NAME: Final = "edgeml.toml"
VARIABLES: Final = {
    "home": "EDGEML_HOME",
    "cache_dir": "EDGEML_CACHE_DIR",
    "workers_dir": "EDGEML_WORKERS_DIR",
}
"""Setting to the variable that overrides it."""
TELEMETRY: Final = "telemetry"
"""A table, read by :mod:`edgeml.telemetry.settings`."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Folders; they need not exist yet."""

    home: Path
    """Installed models; ``~/.local/share/edgeml`` by default."""
    cache_dir: Path
    """What can be made again; ``~/.cache/edgeml`` by default."""
    workers_dir: Path
    """Isolated frameworks; ``workers`` in ``home`` by default."""


def settings(folder: Path | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings that hold in ``folder`` (the working folder by default).

    Relative paths in the file are relative to it; those in variables to the working folder. An empty
    variable counts as not set.

    Raises:
        SettingsError: the file is not TOML, holds an unknown key or a value that is not a path.
    """
    environment = os.environ if environment is None else environment
    file = _find(Path.cwd() if folder is None else folder.absolute())
    given = {} if file is None else _read(file)
    for key, variable in VARIABLES.items():
        if environment.get(variable):
            given[key] = Path(environment[variable]).expanduser().absolute()
    home = given.get("home") or _xdg(environment, "XDG_DATA_HOME", ".local/share")
    return Settings(
        home=home,
        cache_dir=given.get("cache_dir") or _xdg(environment, "XDG_CACHE_HOME", ".cache"),
        workers_dir=given.get("workers_dir") or home / "workers",
    )


def origin(key: str, folder: Path | None = None, environment: Mapping[str, str] | None = None) -> str:
    """Say in a word or two where a setting's value comes from: a variable, a file, or the default."""
    environment = os.environ if environment is None else environment
    if environment.get(VARIABLES[key]):
        return f"set by {VARIABLES[key]}"
    file = _find(Path.cwd() if folder is None else folder.absolute())
    given = {} if file is None else _read(file)
    if key in given:
        return f"set in {file}"
    if key == "workers_dir":
        home = origin("home", folder, environment)
        return home if home == "the default" else f"workers in home, {home}"
    return "the default"


def telemetry_table(folder: Path | None = None) -> tuple[dict[str, Any], str]:
    """Give ``[telemetry]`` of the file that holds in ``folder``, and what to call it in a message.

    Raises:
        SettingsError: the file is not TOML, holds an unknown key, or ``telemetry`` is no table.
    """
    file = _find(Path.cwd() if folder is None else folder.absolute())
    if file is None:
        return {}, TELEMETRY
    table = read_toml(file, (*VARIABLES, TELEMETRY), SettingsError).get(TELEMETRY, {})
    if not isinstance(table, dict):
        raise SettingsError(f"{file}: {TELEMETRY} must be a table, got {table!r}")
    return table, f"{file}: {TELEMETRY}"


def _find(folder: Path) -> Path | None:
    for place in (folder, *folder.parents):
        with suppress(PermissionError):  # as by sudo -u from a folder that is another's
            if (place / FILE_NAME).is_file():
                return place / FILE_NAME
    return None


def _read(file: Path) -> dict[str, Path]:
    paths: dict[str, Path] = {}
    for key, value in read_toml(file, (*VARIABLES, TELEMETRY), SettingsError).items():
        if key == TELEMETRY:
            continue
        if not isinstance(value, str) or not value:
            raise SettingsError(f"{file}: {key} must be a path in quotes, got {value!r}")
        paths[key] = file.parent / Path(value).expanduser()
    return paths


def _xdg(environment: Mapping[str, str], variable: str, default: str) -> Path:
    given = environment.get(variable, "")
    # the XDG specification has relative paths ignored
    base = Path(given) if Path(given).is_absolute() else Path.home() / default
    return base / "edgeml"
