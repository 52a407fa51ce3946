"""What one server process holds while it runs; routes get it by :data:`ServicesOf`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeml.manifest import Manifest
from edgeml_devices.server import releases
from edgeml_devices.server.alerts.service import AlertService
from edgeml_devices.server.blobs import BlobStore
from edgeml_devices.server.database import Database
from edgeml_devices.server.fleet.directory import Directory
from edgeml_devices.server.fleet.reports import ReportQueue
from edgeml_devices.server.refusal_log import RefusalLog
from edgeml_devices.server.settings import ServerSettings
from edgeml_devices.server.signed.repository import Repository
from edgeml_devices.server.telemetry.drifting import References
from edgeml_devices.server.telemetry.quotas import Quotas
from edgeml_devices.server.telemetry.store import TelemetryStore
from edgeml_devices.server.telemetry.writer import GroupWriter


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of a running server."""

    settings: ServerSettings
    database: Database
    directory: Directory
    refusals: RefusalLog
    reports: ReportQueue
    blobs: BlobStore
    repository: Repository
    telemetry: TelemetryStore
    collector: GroupWriter
    """By it devices' reports get into ``telemetry``."""
    quotas: Quotas
    references: References
    """Of the data that models were made with."""
    alerts: AlertService

    async def manifest_of(self, connection: AsyncConnection, model: str, release: int) -> Manifest:
        """Give a listed release's manifest, see :func:`edgeml_devices.server.releases.manifest`."""
        return await releases.manifest(connection, self.blobs, model, release)


def get_services(request: Request) -> Services:
    """Give the services of the app that serves a request."""
    services: Services = request.app.state.services
    return services


ServicesOf = Annotated[Services, Depends(get_services)]
