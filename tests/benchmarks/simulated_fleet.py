"""Devices of the simulator in a process of their own, which answers a benchmark's questions.

``python simulated_fleet.py --server URL --join-token T --devices 10000`` runs until its standard input ends,
and answers each line ``polls SECONDS`` or ``counts`` with one line of JSON. There is no telemetry, nothing is
fetched, and nothing is done between probation and commit.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import time
from collections import Counter
from typing import Any

from edgeml_devices.simulator.connection import Connection, endpoint_of
from edgeml_devices.simulator.fleet import Fleet, allow_connections, loop_factory
from edgeml_devices.simulator.plan import plan
from edgeml_devices.simulator.scenario import Group, Scenario, Telemetry
from edgeml_devices.simulator.world import World

DAY_S = 86400.0


async def polls(world: World, fleet: Fleet, seconds: float, connections: int = 64) -> dict[str, Any]:
    """Poll without waiting, as quickly as answers come, over some further connections."""
    until, counts = time.monotonic() + seconds, [0] * connections

    async def one(place: int) -> None:
        device = fleet.devices[place]
        connection = Connection(world.endpoint, device.token)
        headers = {"If-None-Match": f'"{device.generation}"'}
        while time.monotonic() < until:
            reply = await connection.call("GET", "/v1/agent/state?wait=0", headers=headers)
            assert reply.status in {200, 304}, reply
            counts[place] += 1
        connection.close()

    begun = time.monotonic()
    await asyncio.gather(*(one(place) for place in range(connections)))
    return {"polls": sum(counts), "seconds": time.monotonic() - begun}


def counts(world: World, fleet: Fleet) -> dict[str, Any]:
    """Say how many run which release, and when the first and the last was told (monotonic clock)."""
    running: Counter[str] = Counter()
    for device in fleet.devices:
        running.update(f"{model}/{status.running}" for model, status in device.models.items())
    times = [at for device in fleet.devices for at in device.told_at.values()]
    return {
        "running": running,
        "first": min(times, default=None),
        "last": max(times, default=None),
        "polling": sum(device.generation >= 0 for device in fleet.devices),
        "failed": list(world.refused)[:5],
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


async def main(arguments: argparse.Namespace) -> None:
    """Enrol, live, and answer questions from standard input."""
    group = Group(install_s=(0, 0))
    scenario = Scenario(
        devices=arguments.devices,
        duration_s=DAY_S,
        download=False,
        telemetry=Telemetry(window_s=0),
        groups=(group,),
    )
    allow_connections(scenario.devices)
    world = World(scenario, endpoint_of(arguments.server), "scale")
    fleet = Fleet(world, plan(scenario))
    begun = time.monotonic()
    await fleet.enrol(arguments.join_token)
    say({"enrolled": arguments.devices, "seconds": time.monotonic() - begun})
    fleet.start()
    questions = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(questions), sys.stdin
    )
    while line := (await questions.readline()).decode().split():
        say(await polls(world, fleet, float(line[1])) if line[0] == "polls" else counts(world, fleet))
    await fleet.close()


def say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True)
    parser.add_argument("--join-token", required=True)
    parser.add_argument("--devices", type=int, default=10_000)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main(parser.parse_args()))
