"""The options that lead to the server, by the name that operators' commands know."""

from __future__ import annotations

from edgeml_devices.connection import Connection, server_options

__all__ = ["Connection", "server_options"]
