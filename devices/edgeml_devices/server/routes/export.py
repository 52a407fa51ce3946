"""``GET /v1/telemetry/export``: windows as a Parquet file."""

from __future__ import annotations

import tempfile
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse
from starlette.background import BackgroundTask

from edgeml_devices.server.auth import Viewer
from edgeml_devices.server.routes.telemetry import Asked
from edgeml_devices.server.services import ServicesOf
from edgeml_devices.server.telemetry.export import export_parquet

router = APIRouter(prefix="/v1/telemetry", tags=["telemetry"])
_PARQUET = "application/vnd.apache.parquet"


@router.get("/export", response_class=FileResponse, responses={200: {"content": {_PARQUET: {}}}})
async def export(services: ServicesOf, _viewer: Viewer, asked: Asked) -> FileResponse:
    """Windows as a Parquet file, a row for each model in each; the server needs pyarrow for it."""
    # beside the data: the system's temporary folder may be memory
    folder = tempfile.TemporaryDirectory(prefix="export-", dir=services.settings.data)
    file = Path(folder.name) / "telemetry.parquet"
    try:
        await export_parquet(services.telemetry, asked, file)
    except BaseException:
        folder.cleanup()
        raise
    return FileResponse(
        file, media_type=_PARQUET, filename=file.name, background=BackgroundTask(folder.cleanup)
    )
