"""All devices of a run: they join, live and come to an end together."""

from __future__ import annotations

import asyncio
import resource
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import Final

from edgeml.errors import ServerError
from edgeml_devices.simulator.device import Device, RefusedError
from edgeml_devices.simulator.plan import PlannedDevice
from edgeml_devices.simulator.world import World

_SPARE_FILES: Final = 500
_FINISHING_AT_ONCE: Final = 200
_ANSWER_S: Final = 120.0
"""How long devices wait to be let in, since the last one that was."""
_LAST_WORDS_S: Final = 120.0
"""How long devices have at the end to bring to an end what they are at, since the last one that did."""


def allow_connections(devices: int) -> None:
    """Allow this process as many open files as its devices need.

    Raises:
        ServerError: the system allows fewer.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * devices + _SPARE_FILES
    if hard != resource.RLIM_INFINITY and hard < devices + _SPARE_FILES:
        raise ServerError(
            f"{devices} devices need {devices + _SPARE_FILES} open files, this system allows {hard}; "
            "raise the limit (ulimit -Hn, LimitNOFILE) or simulate fewer (--devices)"
        )
    soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (max(soft, resource.getrlimit(resource.RLIMIT_NOFILE)[0]), hard)
    )


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Give what makes the quickest event loop that is installed; ``None``: the standard library's."""
    try:
        import uvloop
    except ModuleNotFoundError:
        return None
    return uvloop.new_event_loop


async def _wait(tasks: Collection[asyncio.Task[None]]) -> None:
    """Wait for all, as long as some come to an end: a server that is busy is not gone."""
    left = set(tasks)
    while left:
        before = len(left)
        _, left = await asyncio.wait(left, timeout=_LAST_WORDS_S)
        if len(left) == before:
            return


class Fleet:
    """Devices of one world."""

    def __init__(self, world: World, planned: Iterable[PlannedDevice]) -> None:
        self._world = world
        self.devices = [Device(one, world) for one in planned]
        self._lives: dict[Device, asyncio.Task[None]] = {}

    async def enrol(self, join_token: str, joined: Callable[[], None] = lambda: None) -> None:
        """Have all join.

        Raises:
            ServerError: one was refused, or none of them was answered for a while.
        """

        async def one(device: Device) -> None:
            await device.enrol(join_token)
            joined()

        tasks = left = {asyncio.create_task(one(device)) for device in self.devices}
        try:
            while left:
                done, left = await asyncio.wait(left, timeout=_ANSWER_S, return_when=asyncio.FIRST_EXCEPTION)
                if not done:
                    raise ServerError(
                        f"{self._world.endpoint.host}:{self._world.endpoint.port} lets nobody in: no answer "
                        f"for {_ANSWER_S:.0f} s, and {len(left)} devices wait; is the server running?"
                    )
                for task in done:
                    task.result()
        except RefusedError as error:
            raise ServerError(str(error)) from error
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def start(self) -> None:
        """Start the clock, and have all live until :meth:`stop`, those that go until then."""
        self._world.begin()
        self._lives = {device: asyncio.create_task(self._live(device)) for device in self.devices}

    async def _live(self, device: Device) -> None:
        gone_at = device.planned.gone_at(self._world.scenario.duration_s)
        try:
            async with asyncio.timeout(gone_at), asyncio.TaskGroup() as group:
                group.create_task(device.live())
                group.create_task(device.measure())
        except TimeoutError:
            device.close()

    async def stop(self, until_s: float) -> list[str]:
        """Have all bring to an end what they are at, and send what waits.

        Args:
            until_s: when the run is over, seconds since it began.

        Returns:
            What did not succeed, and on how many devices.
        """
        self._world.stopping.set()
        gone = {device for device in self.devices if device.planned.gone_at(until_s) is not None}
        for device, task in self._lives.items():
            if device in gone:  # also one that would come back later than the run lasts now
                task.cancel()
            device.stop_waiting()
        lives = [task for device, task in self._lives.items() if device not in gone]
        await _wait(lives)
        problems = Counter(self._problem(task) for task in lives)
        gate = asyncio.Semaphore(_FINISHING_AT_ONCE)

        async def finish(device: Device) -> None:
            async with gate:
                await device.finish_telemetry(until_s)

        last = [asyncio.create_task(finish(device)) for device in self._lives if device not in gone]
        await _wait(last)
        problems.update(self._problem(task) for task in last)
        await self.close()
        return [f"{number} devices: {problem}" for problem, number in problems.items() if problem]

    @staticmethod
    def _problem(task: asyncio.Task[None]) -> str:
        if not task.done():
            task.cancel()
            return f"not done {_LAST_WORDS_S:.0f} s after the last one that was"
        error = task.exception()
        if isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        return "" if error is None else f"{type(error).__name__}: {error}"

    async def close(self) -> None:
        """End all connections."""
        for task in self._lives.values():
            task.cancel()
        await asyncio.gather(*self._lives.values(), return_exceptions=True)
        for device in self.devices:
            device.close()
