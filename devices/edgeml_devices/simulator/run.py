"""A run: devices against a real server, rollouts meanwhile, and in the end what the server holds of it."""

from __future__ import annotations

import asyncio
import resource
import secrets
import signal
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from edgeml.errors import ServerError
from edgeml_devices.api_client import ApiClient
from edgeml_devices.simulator import rollouts
from edgeml_devices.simulator.check import Line, ask, compare
from edgeml_devices.simulator.connection import endpoint_of
from edgeml_devices.simulator.fleet import Fleet, allow_connections, loop_factory
from edgeml_devices.simulator.plan import PlannedDevice, foresee, plan
from edgeml_devices.simulator.said import said_by
from edgeml_devices.simulator.scenario import RUN_LABEL, Scenario
from edgeml_devices.simulator.world import World

Tell = Callable[[str], None]
"""Called with a line about how far a run is."""
_SETTLES_S: Final = 30.0
"""How long a server may take to hold what it was told: rollouts are looked at each second."""
_AGAIN_S: Final = 1.0
_JOINING_TTL_S: Final = 86400
_TOLD_EACH: Final = 1000
"""Devices that joined, between two lines about it."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of a run."""

    run: str
    server: str
    scenario: Scenario
    lines: tuple[Line, ...]
    problems: tuple[str, ...]
    """Of devices that did not come to an end."""
    is_whole: bool
    """Else it was interrupted."""
    lasted_s: float
    joining_s: float
    windows_sent_again: int
    further_epochs: int
    """Begun since two machines sent as one device."""
    answers_lost: int
    downloaded_bytes: int
    refused: tuple[tuple[str, int], ...]
    """What the server answered that was no good, and how often; it was tried again."""
    peak_memory_bytes: int
    """Of this process."""

    @property
    def is_good(self) -> bool:
        return not self.problems and all(line.is_good for line in self.lines)


def simulate(
    scenario: Scenario,
    client: ApiClient,
    *,
    join_token: str | None = None,
    ca_file: Path | None = None,
    tell: Tell = lambda _: None,
) -> Ran:
    """Run a scenario against a server, and check what the server holds.

    An interrupt (SIGINT) ends the run early, and checks what came so far; a second one ends at once.

    Args:
        scenario: what happens.
        client: of an operator where something is rolled out, else of a viewer; of an admin where there is no
            ``join_token``.
        join_token: lets devices in; ``None``: one is made.
        ca_file: authorities that sign the server's certificate.
        tell: what is said meanwhile.

    Raises:
        UsageError: the server has not got a release of the scenario.
        ServerError: it does not answer, or refuses; or the system has too few open files.
    """
    allow_connections(scenario.devices)
    resolved, run = rollouts.resolve(client, scenario), secrets.token_hex(4)
    ask(client, run, (), time.time())  # whoever may not, or cannot, is told before the run
    rollouts.check_rules(client, resolved, run)
    world = World(
        resolved,
        endpoint_of(client.server_url, ca_file),
        run,
        releases=rollouts.offered(client, resolved),
    )
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_run(world, plan(resolved), client, join_token, tell))


async def _run(
    world: World, planned: list[PlannedDevice], client: ApiClient, join_token: str | None, tell: Tell
) -> Ran:
    scenario, begun, problems = world.scenario, list[str](), list[str]()
    fleet, until_s = Fleet(world, planned), 0.0
    with _interrupts() as interrupted:
        joining = time.monotonic()
        if join_token is None:
            join_token = await asyncio.to_thread(_make_join_token, client, scenario, world.run)
        if await _unless(interrupted, fleet.enrol(join_token, _counted(len(planned), tell))):
            joining_s = time.monotonic() - joining
            tell(f"all have joined, after {joining_s:.0f} s; the run lasts {scenario.duration_s:.0f} s")
            fleet.start()
            until_s = await _live(world, client, begun, interrupted)
            tell("the devices bring to an end what they are at")
        else:
            joining_s = time.monotonic() - joining
            world.begin()
        problems += await fleet.stop(until_s)
    tell("the server is asked what it holds")
    said = said_by(fleet.devices, until_s)
    foreseen = foresee(replace(scenario, duration_s=until_s), planned)
    known = dict(zip(begun, scenario.rollouts, strict=False))
    lines = await _settled(
        lambda: compare(
            ask(client, world.run, begun, world.began_at), said, foreseen, known, world.telemetry_model
        )
    )
    return Ran(
        world.run,
        client.server_url,
        scenario,
        tuple(lines),
        tuple(problems),
        not interrupted.is_set(),
        until_s,
        joining_s,
        said.again,
        said.epochs,
        world.lost,
        world.downloaded_bytes,
        tuple(world.refused.most_common()),
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


async def _live(world: World, client: ApiClient, begun: list[str], interrupted: asyncio.Event) -> float:
    """Let time pass and roll out; give when the run was over, seconds since it began."""
    duration_s = world.scenario.duration_s
    directing = asyncio.create_task(rollouts.direct(client, world, begun))
    over = asyncio.create_task(interrupted.wait())
    try:
        while not interrupted.is_set() and (left_s := duration_s - world.now_s) > 0:
            waiting = {over} if directing.done() else {over, directing}
            await asyncio.wait(waiting, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            if directing.done():
                directing.result()
    finally:
        over.cancel()
        directing.cancel()
    return min(world.now_s, duration_s)


async def _settled(look: Callable[[], list[Line]]) -> list[Line]:
    """Look until all is good, or it was given time enough; a server that restarts has as long.

    Raises:
        ServerError: it does not answer.
    """
    deadline = time.monotonic() + _SETTLES_S
    while True:
        is_late = time.monotonic() > deadline
        try:
            lines = await asyncio.to_thread(look)
        except ServerError:
            if is_late:
                raise
        else:
            if is_late or all(line.is_good for line in lines):
                return lines
        await asyncio.sleep(_AGAIN_S)


async def _unless(interrupted: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Say whether something was done before the interrupt that cancels it."""
    tasks = asyncio.create_task(work), asyncio.create_task(interrupted.wait())
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    is_done = tasks[0].done()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    if is_done:
        tasks[0].result()
    return is_done


@contextmanager
def _interrupts() -> Iterator[asyncio.Event]:
    """Give what is set by the first SIGINT; the second one is as it always is."""
    loop, interrupted = asyncio.get_running_loop(), asyncio.Event()

    def note() -> None:
        interrupted.set()
        loop.remove_signal_handler(signal.SIGINT)

    try:
        loop.add_signal_handler(signal.SIGINT, note)
    except (ValueError, RuntimeError):  # not the main thread: nobody interrupts it
        yield interrupted
        return
    try:
        yield interrupted
    finally:
        loop.remove_signal_handler(signal.SIGINT)


def _make_join_token(client: ApiClient, scenario: Scenario, run: str) -> str:
    body = {"uses": scenario.devices, "ttl_s": _JOINING_TTL_S, "labels": {RUN_LABEL: run}}
    token: str = client.post("/v1/join-tokens", body)["token"]
    return token


def _counted(devices: int, tell: Tell) -> Callable[[], None]:
    joined = 0

    def one() -> None:
        nonlocal joined
        joined += 1
        if joined % _TOLD_EACH == 0 and joined < devices:
            tell(f"{joined} of {devices} devices have joined")

    return one
