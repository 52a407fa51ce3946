"""A scenario's releases and rollouts on a real server, as an operator has them made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar

from edgeml import manifest_json
from edgeml.choice import fitting
from edgeml.errors import BundleError, EngineError, ServerError, UsageError
from edgeml.installed import needed_files
from edgeml.targets import target_from_json
from edgeml_devices.api_answers import RefusedError
from edgeml_devices.api_client import ApiClient, endpoint
from edgeml_devices.http_pool import BUSY
from edgeml_devices.simulator.scenario import RUN_LABEL, Rollout, Scenario
from edgeml_devices.simulator.world import FACTS, File, Release, World
from edgeml_devices.tuf_words import manifest_path

T = TypeVar("T")
_EVERY_S: Final = 0.5
_GOING: Final = ("RUNNING", "ABORTING", "READY")


def resolve(client: ApiClient, scenario: Scenario) -> Scenario:
    """Give the scenario with the number of each release.

    Raises:
        UsageError: the server does not have it, or it was withdrawn.
        ServerError: no answer.
    """
    return replace(scenario, rollouts=tuple(_resolved(client, one) for one in scenario.rollouts))


def _resolved(client: ApiClient, rollout: Rollout) -> Rollout:
    found = client.get(endpoint("releases", rollout.model))["releases"]
    numbers = [one["release"] for one in found if one["withdrawn_at"] is None]
    wanted = max(numbers, default=None) if rollout.release is None else rollout.release
    if wanted is None or wanted not in numbers:
        what = rollout.model if wanted is None else f"{rollout.model}/{wanted}"
        raise UsageError(f"{client.server_url} has no release {what} to roll out; edgeml publish it first")
    return replace(rollout, release=wanted)


def offered(client: ApiClient, scenario: Scenario) -> dict[tuple[str, int], Release]:
    """Give what devices fetch of each release: its manifest and the files of the variant that fits best."""
    places = {(one.model, one.release or 0) for one in scenario.rollouts}
    return {(model, release): _offered(client, model, release, scenario) for model, release in places}


def _offered(client: ApiClient, model: str, release: int, scenario: Scenario) -> Release:
    sha256 = client.get(endpoint("releases", model, release))["manifest_sha256"]
    folder, _, name = manifest_path(model, release).rpartition("/")
    path = f"/v1/repository/targets/{folder}/{sha256}.{name}"
    content = client.get_bytes(path)
    manifest = manifest_json.loads(content, path)
    try:
        machine = target_from_json(FACTS.target, "facts.target")
        variant = fitting(manifest, machine, FACTS.engines)[0].variant.name
    except (BundleError, EngineError):
        return Release()  # the server will not give it to them
    files = tuple(
        File(endpoint("blobs", "sha256", one.sha256), one.sha256, one.size_bytes)
        for one in needed_files(manifest, [variant])
    )
    return Release(variant, (File(path, sha256, len(content)), *files) if scenario.download else ())


def check_rules(client: ApiClient, scenario: Scenario, run: str) -> None:
    """Have the server read the rules of all rollouts; nothing begins, nothing stays.

    Raises:
        ServerError: it refuses one.
    """
    for rollout in scenario.rollouts:
        client.post("/v1/rollouts/plan", _policy(rollout, run), idempotent=True)


async def direct(client: ApiClient, world: World, begun: list[str]) -> None:
    """Begin one rollout after the other: each at its time, and not before the one before ended or paused.

    A server that is away is asked again until this is cancelled: it may be restarting.

    Args:
        client: of an operator.
        world: whose devices they are for.
        begun: their ids are added to it.

    Raises:
        ServerError: the server refuses.
    """
    for rollout in world.scenario.rollouts:
        await asyncio.sleep(max(0.0, rollout.starts_s - world.now_s))
        begun.append(await _answered(partial(_made, client, _policy(rollout, world.run), tuple(begun))))
        await _answered(partial(_start, client, begun[-1]))
        while await _answered(partial(_goes_on, client, begun[-1])):  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(_EVERY_S)


async def _answered(call: Callable[[], T]) -> T:
    """Make a call, which must be one that can be made again, until the server answers."""
    while True:
        try:
            return await asyncio.to_thread(call)
        except ServerError as error:
            if isinstance(error, RefusedError) and error.status not in BUSY:
                raise
        await asyncio.sleep(_EVERY_S)


def _made(client: ApiClient, policy: Mapping[str, Any], others: Collection[str]) -> str:
    """Make a rollout, if it is not there: the answer may have been lost. Gives its id."""
    told = ("model", "release", "selector")
    for one in client.pages("/v1/rollouts", "rollouts"):
        if all(one[name] == policy[name] for name in told) and one["id"] not in others:
            return str(one["id"])
    return str(client.post("/v1/rollouts", policy)["id"])


def _start(client: ApiClient, rollout_id: str) -> None:
    if client.get(endpoint("rollouts", rollout_id))["started_at"] is None:
        client.post(endpoint("rollouts", rollout_id, "start"))


def _goes_on(client: ApiClient, rollout_id: str) -> bool:
    return client.get(endpoint("rollouts", rollout_id))["state"] in _GOING


def _policy(rollout: Rollout, run: str) -> dict[str, Any]:
    chosen = {"model": rollout.model, "release": rollout.release, "selector": f"{RUN_LABEL}={run}"}
    return {**rollout.rules, **chosen}
