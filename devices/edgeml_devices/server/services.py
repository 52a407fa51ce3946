"""What one server process holds while it runs; routes get it by :data:`ServicesOf`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request

from edgeml_devices.server.database import Database
from edgeml_devices.server.directory import Directory
from edgeml_devices.server.settings import ServerSettings

if TYPE_CHECKING:
    from edgeml_devices.server.auth import RefusalLog


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of a running server."""

    settings: ServerSettings
    database: Database
    directory: Directory
    refusals: RefusalLog


def get_services(request: Request) -> Services:
    """Give the services of the app that serves a request."""
    services: Services = request.app.state.services
    return services


ServicesOf = Annotated[Services, Depends(get_services)]
