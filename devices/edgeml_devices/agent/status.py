"""One model as it is now: for the server's report, and for who asks on the device."""

from __future__ import annotations

from contextlib import suppress

from edgeml.errors import BundleError
from edgeml.installed import Installation, InstalledModel, read_installation
from edgeml_devices.agent.deployment import Deployment
from edgeml_devices.agent.record import StateRecord
from edgeml_devices.messages import ModelStatus, State


def model_status(
    model: InstalledModel, record: StateRecord, *, ready: bool = False, note: str = ""
) -> ModelStatus:
    """Say where a model stands."""
    running = model.running()
    installation = None if running is None else _installation(model, running)
    ended = record.state in {State.IDLE, State.COMMITTED, State.FAILED, State.QUARANTINED}
    return ModelStatus(
        state=record.state,
        running=running,
        manifest_sha256=None if installation is None else installation.manifest_sha256,
        variant=None if installation is None else installation.variants[0],
        target=record.target,
        attempt=record.attempt,
        result=record.result if ended else None,
        reason=record.reason,
        detail=note or record.detail,
        rollout=record.rollout,
        ready=ready,
        selftest=record.tested,
    )


def status_of(deployment: Deployment) -> ModelStatus:
    """Say where the model of a deployment stands, and what it waits for."""
    return model_status(deployment.model, deployment.record, ready=deployment.ready, note=deployment.note)


def _installation(model: InstalledModel, release: int) -> Installation | None:
    with suppress(BundleError):
        return read_installation(model.release_folder(release))
    return None
