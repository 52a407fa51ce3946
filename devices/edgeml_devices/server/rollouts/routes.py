"""``/v1/rollouts``: docs/how-to/rollouts.md has the rules, docs/reference/fleet.md the calls."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import Field

from edgeml.errors import UsageError
from edgeml_devices.server.auth import Operator, Viewer
from edgeml_devices.server.bodies import Body
from edgeml_devices.server.refusals import RefusalError
from edgeml_devices.server.releases import require_deployable
from edgeml_devices.server.rollouts import actions, documents, records
from edgeml_devices.server.rollouts.plan import plan, plan_document
from edgeml_devices.server.rollouts.policy import DeviceState, RolloutState, read_policy
from edgeml_devices.server.rollouts.records import Rollout
from edgeml_devices.server.services import Services, ServicesOf

router = APIRouter(prefix="/v1", tags=["rollouts"])
Limit = Annotated[int, Query(ge=1, le=1000)]


class Why(Body):
    """Why, for people."""

    reason: Annotated[str, Field(max_length=1000)] = ""


class Retried(Body):
    """Which devices: ids or names; none: all that failed."""

    devices: list[str] = Field(default_factory=list, max_length=10_000)


@router.get("/rollouts")
async def list_rollouts(
    services: ServicesOf,
    _: Viewer,
    model: str | None = None,
    state: RolloutState | None = None,
    after: str | None = None,
    limit: Limit = 100,
) -> dict[str, Any]:
    """List rollouts, the newest first; `after`: the last id of the page before."""
    async with services.database.reading() as connection:
        return await documents.rollout_list(
            connection, model=model, state=None if state is None else state.value, after=after, limit=limit
        )


@router.post("/rollouts", status_code=201)
async def create_rollout(request: Request, services: ServicesOf, actor: Operator) -> dict[str, Any]:
    """Create a rollout from its rules; it moves nothing before it is started."""
    policy = read_policy(await _json(request))
    async with services.database.reading() as connection:
        await require_deployable(connection, services.repository, policy.model, policy.release)
    async with services.database.writing() as tx:
        rollout_id = await actions.create(tx, actor, policy)
    return await _document(services, rollout_id)


@router.post("/rollouts/plan")
async def plan_rollout(
    request: Request, services: ServicesOf, _: Viewer, limit: Annotated[int, Query(ge=0, le=100_000)] = 1000
) -> dict[str, Any]:
    """Say which devices would get which variant, and how many bytes."""
    policy = read_policy(await _json(request))
    async with services.database.reading() as connection:
        await require_deployable(connection, services.repository, policy.model, policy.release)
        selector = await actions.group_selector(connection, policy)
        planned = await plan(connection, policy, selector, services.manifest_of, time.time())
    return plan_document(policy, selector, planned, limit)


@router.get("/rollouts/{rollout_id}")
async def show_rollout(services: ServicesOf, _: Viewer, rollout_id: str) -> dict[str, Any]:
    """Show a rollout: its waves, gates, progress and latest failures."""
    return await _document(services, rollout_id)


@router.get("/rollouts/{rollout_id}/devices")
async def list_rollout_devices(
    services: ServicesOf,
    _: Viewer,
    rollout_id: str,
    state: DeviceState | None = None,
    after: str | None = None,
    limit: Limit = 100,
) -> dict[str, Any]:
    """List a rollout's devices by name; `after`: the last name of the page before."""
    async with services.database.reading() as connection:
        return await documents.device_list(
            connection,
            _found(await records.find(connection, rollout_id), rollout_id),
            state=None if state is None else state.value,
            after=after,
            limit=limit,
        )


@router.post("/rollouts/{rollout_id}/start")
async def start_rollout(services: ServicesOf, actor: Operator, rollout_id: str) -> dict[str, Any]:
    """Let the first wave begin."""
    async with services.database.writing() as tx:
        await actions.start(tx, actor, rollout_id)
    return await _document(services, rollout_id)


@router.post("/rollouts/{rollout_id}/approve")
async def approve_rollout(services: ServicesOf, actor: Operator, rollout_id: str) -> dict[str, Any]:
    """Approve a rollout that somebody else created."""
    async with services.database.writing() as tx:
        await actions.approve(tx, actor, rollout_id)
    return await _document(services, rollout_id)


@router.post("/rollouts/{rollout_id}/deny")
async def deny_rollout(
    services: ServicesOf, actor: Operator, rollout_id: str, why: Why | None = None
) -> dict[str, Any]:
    """End a rollout before it began."""
    async with services.database.writing() as tx:
        await actions.deny(tx, actor, rollout_id, _text(why))
    return await _document(services, rollout_id)


@router.post("/rollouts/{rollout_id}/pause")
async def pause_rollout(
    services: ServicesOf, actor: Operator, rollout_id: str, why: Why | None = None
) -> dict[str, Any]:
    """Start no device any more; those under way go on."""
    async with services.database.writing() as tx:
        await actions.pause(tx, actor, rollout_id, _text(why))
    return await _document(services, rollout_id)


@router.post("/rollouts/{rollout_id}/resume")
async def resume_rollout(services: ServicesOf, actor: Operator, rollout_id: str) -> dict[str, Any]:
    """Go on; failures so far are forgiven."""
    async with services.database.writing() as tx:
        await actions.resume(tx, actor, rollout_id)
    return await _document(services, rollout_id)


@router.post("/rollouts/{rollout_id}/abort")
async def abort_rollout(
    services: ServicesOf, actor: Operator, rollout_id: str, why: Why | None = None
) -> dict[str, Any]:
    """End a rollout: devices that have not switched get back what they had."""
    async with services.database.writing() as tx:
        await actions.abort(tx, actor, rollout_id, _text(why))
    return await _document(services, rollout_id)


@router.post("/rollouts/{rollout_id}/next")
async def advance_rollout(services: ServicesOf, actor: Operator, rollout_id: str) -> dict[str, Any]:
    """Let the next wave begin whatever thresholds and gates say; after the last, finish."""
    async with services.database.writing() as tx:
        await actions.advance(tx, actor, rollout_id)
    return await _document(services, rollout_id)


@router.post("/rollouts/{rollout_id}/retry")
async def retry_rollout(
    services: ServicesOf, actor: Operator, rollout_id: str, what: Retried | None = None
) -> dict[str, Any]:
    """Try devices again that failed, or that were skipped for what may have changed."""
    async with services.database.writing() as tx:
        number = await actions.retry(tx, actor, rollout_id, [] if what is None else what.devices)
    return await _document(services, rollout_id) | {"retried": number}


@router.delete("/devices/{device}/penalty")
async def pardon_device(services: ServicesOf, actor: Operator, device: str) -> dict[str, Any]:
    """Let a device out of the penalty box; ID or name."""
    async with services.database.writing() as tx:
        return {"device": await actions.pardon(tx, actor, device), "penalty_until": None}


async def _json(request: Request) -> Any:
    try:
        return json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the rollout is not valid JSON: {error}") from error


async def _document(services: Services, rollout_id: str) -> dict[str, Any]:
    async with services.database.reading() as connection:
        rollout = _found(await records.find(connection, rollout_id), rollout_id)
        return await documents.rollout_document(connection, rollout)


def _found(rollout: Rollout | None, rollout_id: str) -> Rollout:
    if rollout is None:
        raise RefusalError(404, f"no rollout {rollout_id!r}; edgeml rollout list")
    return rollout


def _text(why: Why | None) -> str:
    return "" if why is None else why.reason
