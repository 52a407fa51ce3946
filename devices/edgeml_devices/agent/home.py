"""Where things lie on the device: docs/reference/fleet.md, "Files on the device"."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from edgeml.errors import FleetError, UsageError
from edgeml.installed import InstalledModel, installed_models
from edgeml_devices.agent.disk import make_folder


@dataclass(frozen=True, slots=True)
class Home:
    """``EDGEML_HOME``; nothing in it need exist."""

    path: Path

    @property
    def identity(self) -> Path:
        return self.path / "identity.json"

    @property
    def refused(self) -> Path:
        return self.path / "refused.json"

    @property
    def config(self) -> Path:
        return self.path / "agent.toml"

    @property
    def trust(self) -> Path:
        return self.path / "trust"

    @property
    def blobs(self) -> Path:
        return self.path / "blobs" / "sha256"

    @property
    def outbox(self) -> Path:
        return self.path / "outbox"

    @property
    def desired(self) -> Path:
        return self.path / "desired.json"

    @property
    def inbox(self) -> Path:
        return self.path / "inbox"

    @property
    def lock(self) -> Path:
        return self.path / "agent.lock"

    def model(self, name: str) -> InstalledModel:
        return InstalledModel(self.path, name)

    def models(self) -> tuple[InstalledModel, ...]:
        return installed_models(self.path)


def require_folder(home: Home) -> None:
    """See that the home is a folder, or can become one.

    Raises:
        UsageError: a file stands in its way.
    """
    there = next(place for place in (home.path, *home.path.parents) if os.path.lexists(place))
    if not there.is_dir():
        raise UsageError(
            f"{home.path} cannot hold the device's files: {there} is no folder; set EDGEML_HOME to another"
        )


def make_home(home: Home) -> None:
    """Make the home folder.

    Raises:
        FleetError: it cannot be made.
    """
    try:
        make_folder(home.path)
    except OSError as error:
        raise FleetError(
            f"{home.path}, where the device's files go, cannot be made: {error.strerror or error}; set "
            "EDGEML_HOME to a folder that this user may write"
        ) from error


def state_file(model: InstalledModel) -> Path:
    """Give the file that says where a model's state machine stands."""
    return model.folder / "state.json"


def committed_mark(model: InstalledModel, release: int) -> Path:
    """Give the empty file that says: this release was committed here."""
    return model.releases / f"{release}.committed"
