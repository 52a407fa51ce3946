"""What an operator types: plan, create, watch, and how they end, against a real server."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import httpx2
import pytest
from edgeml_devices.messages import Result
from edgeml_devices.server.database import Database

from tests.integration.rollouts.agents import HttpDevice, Outcome, always_works
from tests.integration.rollouts.publishing import publish
from tests.integration.server_process import ServerProcess

NAMES = ("pi-1", "pi-2", "pi-3")


@dataclass
class Shop:
    """A server with three devices at work, and its operator's command line."""

    server: ServerProcess
    folder: Path

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "edgeml", "rollout", *words]

    @property
    def environment(self) -> dict[str, str]:
        mine = {"EDGEML_SERVER": self.server.url, "EDGEML_TOKEN": self.server.admin_token, "COLUMNS": "100"}
        return os.environ | mine

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words),
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=180,
            check=False,
        )

    def do(self, *words: str) -> str:
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout


def never_works(name: str, release: int, attempt: int) -> Result:
    return Result.FAILED_ROLLBACK_COMPLETE


async def live(url: str, join: str, outcome: Outcome, stop: asyncio.Event) -> None:
    async with httpx2.AsyncClient(timeout=60) as client:
        devices = [HttpDevice(name, lambda: [url], client, outcome) for name in NAMES]
        for one in devices:
            await one.enrol(join)
        tasks = [asyncio.create_task(one.live()) for one in devices]
        await stop.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def publish_two(data: Path) -> None:
    database = await Database.open(f"sqlite:///{data / 'edgeml.db'}")
    await publish(database, data, 1, 2)
    await database.close()


@pytest.fixture
def shop(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Shop]:
    outcome: Outcome = getattr(request, "param", always_works)
    with ServerProcess(tmp_path / "server") as server:
        asyncio.run(publish_two(server.data))
        join = server.call("POST", "/v1/join-tokens", {"uses": 3})[1]["token"]
        loop, stop = asyncio.new_event_loop(), asyncio.Event()
        devices = Thread(target=loop.run_until_complete, args=(live(server.url, join, outcome, stop),))
        devices.start()
        shop = Shop(server, tmp_path)
        while len(server.call("GET", "/v1/devices")[1]["devices"]) < len(NAMES):
            pass
        yield shop
        loop.call_soon_threadsafe(stop.set)
        devices.join()
        loop.close()


def test_a_rollout_by_file_is_planned_started_and_watched_to_its_end(shop: Shop) -> None:
    rules = shop.folder / "rollout.toml"
    rules.write_text(
        'model = "kws"\nrelease = 2\nselector = ""\nsoak_s = 1\n[[waves]]\nselector = "name=pi-2"\n'
        "[[waves]]\npercent = 100\n"
    )
    planned = shop.do("plan", "--file", str(rules), "--devices")
    assert "1 × litert-int8" in planned
    assert "2 × litert-int8" in planned
    made = shop.do("create", "--file", str(rules), "--start").strip()
    watched = shop.run("watch", made)
    assert watched.returncode == 0
    lines = watched.stdout.splitlines()
    assert any(line.startswith(f"{made}: RUNNING, wave 1 of 2") for line in lines)
    assert lines[-1] == f"{made}: FINISHED, wave 2 of 2, 3 committed; all waves passed"
    assert "3 committed" not in lines[0]
    shown = json.loads(shop.do("show", made, "--devices", "--json"))
    assert sorted(one["name"] for one in shown["devices"] if one["wave"] == 1) == ["pi-2"]
    assert "name=pi-2" in shop.do("show", made, "--devices")
    listed = shop.do("list")
    assert made in listed
    assert "FINISHED" in listed


@pytest.mark.parametrize("shop", [never_works], indirect=True)
def test_watch_ends_with_exit_code_3_where_the_rollout_was_aborted(shop: Shop) -> None:
    made = shop.do("create", "kws/2", "--selector", "", "--on-error", "abort", "--start").strip()
    watched = shop.run("watch", made)
    assert watched.returncode == 3
    assert f"{made} is ABORTED: wave 1: 3 of 3 devices failed" in watched.stderr
    assert watched.stdout.count("attempt 1: heartbeat") == 3


@pytest.mark.parametrize("shop", [never_works], indirect=True)
def test_what_failed_is_tried_again_and_pardoned(shop: Shop) -> None:
    made = json.loads(shop.do("create", "kws/2", "--selector", "", "--start", "--json"))["id"]
    while json.loads(shop.do("show", made, "--json"))["state"] != "PAUSED":
        pass
    assert "3 waiting" in shop.do("retry", made)
    assert "RUNNING" in shop.do("resume", made)
    assert shop.do("pardon", "pi-1") == "pi-1 takes part in rollouts again\n"
    assert "ABORTING" in shop.do("abort", made, "--reason", "enough")


def test_an_unknown_key_of_the_file_is_an_error_that_names_it(shop: Shop) -> None:
    rules = shop.folder / "rollout.toml"
    rules.write_text('model = "kws"\nrelease = 2\nselector = ""\nsoak = 1\n')
    refused = shop.run("create", "--file", str(rules))
    assert refused.returncode == 1
    assert "unknown key 'soak'" in refused.stderr
    assert shop.run("create", "kws").returncode == 2
    assert shop.run("create", "kws/2", "--wave", "x%").returncode == 2


def test_a_rollout_that_needs_approval_is_created_though_it_cannot_start(shop: Shop) -> None:
    done = shop.run("create", "kws/2", "--selector", "", "--approval", "--start")
    assert done.returncode == 0, done.stderr
    made = done.stdout.strip()
    assert f"somebody else has to approve it: edgeml rollout approve {made}" in done.stderr
    assert f"then start it: edgeml rollout start {made}" in done.stderr
    assert json.loads(shop.do("show", made, "--json"))["state"] == "WAITING_FOR_APPROVAL"


def test_a_plan_for_nobody_says_so(shop: Shop) -> None:
    assert "no device is chosen" in shop.do("plan", "kws/2", "--selector", "site=nowhere")
