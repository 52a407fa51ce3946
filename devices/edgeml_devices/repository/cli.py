"""``edgeml keys`` and ``edgeml repo``: who may sign what, and the metadata that says so."""

from __future__ import annotations

from edgeml_devices.repository.keys_cli import keys
from edgeml_devices.repository.repo_cli import repo

__all__ = ["keys", "repo"]
