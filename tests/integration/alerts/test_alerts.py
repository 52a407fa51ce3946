"""Alerts from telemetry that devices sent to messages that somebody got: over HTTP, by mail, by a command."""

from __future__ import annotations

import asyncio
import json
import random
import socketserver
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
from edgeml_devices.server.alerts.measuring import Sources
from edgeml_devices.server.alerts.service import AlertService
from edgeml_devices.server.alerts.tables import alert_notices
from edgeml_devices.server.services import Services
from sqlalchemy import select

from edgeml.telemetry.exponential import histogram_of
from edgeml.telemetry.report import ModelWindow
from tests.integration.server.devices import Device, enrol
from tests.integration.telemetry.windows import Telemetry, post

pytestmark = pytest.mark.anyio


class Hook:
    """A webhook's server that remembers what it got; ``status`` is what it answers."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.tokens: list[str] = []
        self.status = 200
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if hook.status == 200:
                    hook.bodies.append(body)
                    hook.tokens.append(self.headers.get("Authorization", ""))
                self.send_response(hook.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def hook() -> Iterator[Hook]:
    hook = Hook()
    yield hook
    hook.server.shutdown()
    hook.server.server_close()


class Clock:
    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


class Watch:
    """An alert service on files of this test, and the time in its hands."""

    def __init__(self, services: Services, folder: Path) -> None:
        self.rules, self.receivers, self.clock = folder / "rules.yml", folder / "receivers.toml", Clock()
        self._sources = Sources(services.database, services.telemetry, services.references)
        self.receivers.write_text("receivers = []")
        self.restart()

    def restart(self) -> None:
        self.service = AlertService(self._sources, self.rules, self.receivers, self.clock)

    def rule(self, expression: str, name: str = "Failing", **fields: str) -> None:
        rule = {"alert": name, "expr": expression} | fields
        self.rules.write_text(json.dumps({"groups": [{"name": "g", "rules": [rule]}]}))

    async def tick(self, later_s: float = 60.0) -> None:
        self.clock.ahead_s += later_s
        await self.service.tick()


@pytest.fixture
def watch(services: Services, tmp_path: Path, hook: Hook) -> Watch:
    watch = Watch(services, tmp_path)
    (tmp_path / "token").write_text("secret\n")
    watch.receivers.write_text(
        f'[[receivers]]\nname = "ops"\nwebhook = "{hook.url}"\ntoken_file = "{tmp_path}/token"\n'
    )
    return watch


async def tell(client: httpx2.AsyncClient, device: Device, errors: int) -> None:
    telemetry = Telemetry(random.Random(device.id))  # noqa: S311 - made-up data
    latency = {"total": histogram_of([0.01] * (100 - errors))}
    failed = {"InferenceError": errors} if errors else {}
    window = ModelWindow("kws", 7, "int8", "litert", 100, failed, latency)
    report = telemetry.next(time.time() - 30, models=(window,))
    answer = await post(client, device.token, telemetry.batch([report], time.time()))
    assert answer.status_code == 200, answer.text


async def listed(client: httpx2.AsyncClient) -> dict[str, Any]:
    found: dict[str, Any] = (await client.get("/v1/alerts")).json()
    return found


BY_DEVICE = 'error_rate{by="device", window="6h", min_count="50"} > 0.2'


async def test_devices_that_fail_make_one_message_for_all_of_them(client, watch, hook) -> None:
    for number, errors in enumerate((30, 40, 1)):
        await tell(client, await enrol(client, f"pi-{number}"), errors)
    told = {"summary": "many calls fail", "description": "{{ $labels.device }}: {{ $value }}"}
    watch.rule(BY_DEVICE, annotations=told)
    await watch.tick()
    (body,) = hook.bodies
    assert body["commonAnnotations"] == {"summary": "many calls fail"}
    assert [one["annotations"]["description"] for one in body["alerts"]] == ["pi-0: 0.3", "pi-1: 0.4"]
    assert hook.tokens == ["Bearer secret"]
    assert body["status"] == "firing"
    assert [one["labels"]["device"] for one in body["alerts"]] == ["pi-0", "pi-1"]
    await watch.tick()
    assert len(hook.bodies) == 1


async def test_it_waits_as_long_as_the_rule_says_over_a_restart(client, watch, hook) -> None:
    await tell(client, await enrol(client, "pi"), 50)
    watch.rule(BY_DEVICE, **{"for": "5m"})
    await watch.tick()
    assert [one["state"] for one in (await listed(client))["alerts"]] == ["pending"]
    watch.restart()
    await watch.tick(290)
    assert hook.bodies == []
    watch.restart()
    await watch.tick(60)
    assert [one["state"] for one in (await listed(client))["alerts"]] == ["firing"]
    assert len(hook.bodies) == 1


async def test_an_end_is_told_once(client, watch, hook) -> None:
    device = await enrol(client, "pi")
    await tell(client, device, 50)
    watch.rule(BY_DEVICE)
    await watch.tick()
    await client.post("/v1/devices/pi/retire")
    watch.rule('error_rate{by="device", window="6h", device="pi", min_count="1000"} > 0.2')
    await watch.tick()
    await watch.tick()
    assert [body["status"] for body in hook.bodies] == ["firing", "resolved"]


async def test_a_message_that_does_not_get_through_is_tried_again(client, watch, hook) -> None:
    await tell(client, await enrol(client, "pi"), 50)
    watch.rule(BY_DEVICE)
    hook.status = 503
    await watch.tick()
    await watch.tick()
    (waiting,) = (await listed(client))["undelivered"]
    assert "HTTP 503" in waiting["error"]
    watch.restart()
    hook.status = 200
    await watch.tick(3600)
    assert len(hook.bodies) == 1
    assert (await listed(client))["undelivered"] == []


async def test_it_comes_again_after_hours_while_it_fires(client, watch, hook) -> None:
    await tell(client, await enrol(client, "pi"), 50)
    watch.rule('error_rate{window="2w"} > 0.2')
    await watch.tick()
    await watch.tick(2 * 3600)
    assert len(hook.bodies) == 1
    await watch.tick(2 * 3600)
    assert len(hook.bodies) == 2


async def test_two_processes_evaluate_a_rule_once_and_tell_it_once(client, services, watch, hook) -> None:
    await tell(client, await enrol(client, "pi"), 50)
    watch.rule(BY_DEVICE)
    sources = Sources(services.database, services.telemetry, services.references)
    others = [AlertService(sources, watch.rules, watch.receivers, watch.clock) for _ in range(4)]
    await asyncio.gather(*(one.tick() for one in others))
    assert len(hook.bodies) == 1


async def test_a_slip_in_the_file_leaves_what_was_read_before_and_is_shown(
    client, services, watch, hook
) -> None:
    await tell(client, await enrol(client, "pi"), 50)
    watch.rule("error_rate > 0.2", **{"for": "2m"})
    await watch.tick()
    watch.rules.write_text("groups: [{")
    await watch.tick(120)
    assert len(hook.bodies) == 1
    assert "not valid YAML" in watch.service.problems[0]


async def test_a_file_that_is_put_back_as_it_was_is_no_problem_any_more(client, watch) -> None:
    watch.rule("error_rate > 0.2")
    await watch.tick()
    away = watch.rules.rename(watch.rules.with_suffix(".away"))
    await watch.tick()
    assert watch.service.problems != []
    assert [rule.name for rule in watch.service.rules] == ["Failing"]
    away.rename(watch.rules)
    await watch.tick()
    assert watch.service.problems == []


async def test_a_rule_that_cannot_be_measured_leaves_the_others_alone(client, services, watch, hook) -> None:
    if services.database.dialect != "sqlite":
        pytest.skip("a file is taken away here")
    (services.settings.telemetry / "catalog.db").rename(services.settings.telemetry / "away")
    await enrol(client, "pi")
    rules = [
        {"alert": "Damaged", "expr": "error_rate > 0.2"},
        {"alert": "Silent", "expr": "silent_seconds >= 0"},
    ]
    watch.rules.write_text(json.dumps({"groups": [{"name": "g", "rules": rules}]}))
    await watch.tick()
    errors = {one["name"]: one["error"] for one in (await listed(client))["rules"]}
    assert "could not be measured" in errors["Damaged"]
    assert errors["Silent"] == ""
    assert [body["groupLabels"]["alertname"] for body in hook.bodies] == ["Silent"]


async def test_a_bound_that_is_not_known_decides_nothing(client, watch) -> None:
    """With one device there is no interval: its ends are infinite, which JSON has no word for."""
    telemetry, device = Telemetry(random.Random(1)), await enrol(client, "pi")  # noqa: S311 - made-up data
    latency = {"total": histogram_of([0.01] * 100)}
    models = tuple(ModelWindow("kws", release, "int8", "litert", 100, {}, latency) for release in (7, 8))
    report = telemetry.next(time.time() - 30, models=models)
    assert (await post(client, device.token, telemetry.batch([report], time.time()))).status_code == 200
    watch.rule('latency_ratio{model="kws", release="8", against="7", bound="high"} > 0.1')
    await watch.tick(1)
    found = await listed(client)
    assert (found["rules"][0]["error"], found["alerts"]) == ("", [])
    watch.rule('latency_ratio{model="kws", release="8", against="7"} > 0.1', name="Known")
    await watch.tick(1)
    assert [one["rule"] for one in (await listed(client))["alerts"]] == ["Known"]


async def test_a_rule_that_left_the_file_fires_no_more(client, watch) -> None:
    await tell(client, await enrol(client, "pi"), 50)
    watch.rule(BY_DEVICE)
    await watch.tick()
    watch.rule("error_rate > 0.9", name="Other")
    await watch.tick()
    found = await listed(client)
    assert [one["name"] for one in found["rules"]] == ["Other"]
    assert found["alerts"] == []


async def test_a_rule_about_a_group_that_is_gone_says_so_and_keeps_its_state(client, watch) -> None:
    await client.put("/v1/groups/g", json={"selector": ""})
    await tell(client, await enrol(client, "pi"), 50)
    watch.rule('error_rate{group="g"} > 0.2')
    await watch.tick()
    await client.delete("/v1/groups/g")
    await watch.tick()
    found = await listed(client)
    assert "g" in found["rules"][0]["error"]
    assert [one["state"] for one in found["alerts"]] == ["firing"]


@pytest.mark.parametrize(
    ("expression", "of"),
    [
        ('latency_seconds{q="0.5", by="release", window="6h"} > 0.001', {"release": "7"}),
        ('calls_per_second{window="1h"} < 1', {}),
        ('machine{quantity="temperature_celsius", by="device", window="6h"} > 60', {"device": "pi"}),
        ('energy_per_call_joules{window="6h"} > 0.1', {}),
        ('covered_share{by="device", window="1h"} < 0.9', {"device": "pi"}),
        ('missing_windows{by="device", window="1h"} >= 0', {"device": "pi"}),
        ('silent_seconds{selector="site=b"} >= 0', {"device": "pi"}),
    ],
)
async def test_every_question_can_be_a_rule(client, watch, expression, of) -> None:
    await tell(client, await enrol(client, "pi"), 0)
    await client.patch("/v1/devices/pi", json={"labels": {"site": "b"}})
    await enrol(client, "another")
    watch.rule(expression)
    await watch.tick(1)
    found = await listed(client)
    assert found["rules"][0]["error"] == ""
    assert of in [one["labels"] for one in found["alerts"]]


@pytest.mark.parametrize(
    "expression",
    [
        'covered_share{target="pi4", by="device"} <= 1',
        'missing_windows{target="pi4", by="device"} >= 0',
        'silent_seconds{target="pi4"} >= 0',
    ],
)
async def test_a_rule_about_one_kind_of_machine_is_about_no_other(client, watch, expression) -> None:
    for name, target in (("pi", "pi4"), ("another", "pi5")):
        await tell(client, await enrol(client, name, facts={"target": {"name": target}}), 0)
    watch.rule(expression)
    await watch.tick(1)
    assert [one["labels"] for one in (await listed(client))["alerts"]] == [{"device": "pi"}]


class Mailbox(socketserver.ThreadingTCPServer):
    """A mail server for one message at a time, as RFC 5321 has it."""

    allow_reuse_address = daemon_threads = True

    def __init__(self) -> None:
        self.messages: list[str] = []
        super().__init__(("127.0.0.1", 0), _Mail)


class _Mail(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.wfile.write(b"220 mailbox\r\n")
        while line := self.rfile.readline():
            word = line.split()[0].upper()
            if word == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                text = b""
                while (line := self.rfile.readline()) != b".\r\n":
                    text += line
                assert isinstance(self.server, Mailbox)
                self.server.messages.append(text.decode())
            self.wfile.write(b"221 bye\r\n" if word == b"QUIT" else b"250 ok\r\n")
            if word == b"QUIT":
                return


async def test_mail_and_a_command_get_the_same_news(client, watch, tmp_path) -> None:
    await tell(client, await enrol(client, "pi"), 50)
    with Mailbox() as mailbox:
        threading.Thread(target=mailbox.serve_forever, daemon=True).start()
        watch.receivers.write_text(
            "receivers = [\n"
            '  {name = "mail", email = {to = ["ops@example.org"], sender = "edgeml@example.org", '
            f'server = "smtp://127.0.0.1:{mailbox.server_address[1]}"}}}},\n'
            f'  {{name = "hook", command = ["sh", "-c", "cat > {tmp_path}/got.json"]}},\n'
            '  {name = "broken", command = ["sh", "-c", "echo no disk; exit 3"]},\n'
            "]\n"
        )
        watch.rule(BY_DEVICE, annotations={"summary": "many calls fail"})
        await watch.tick()
        mailbox.shutdown()
    (mail,) = mailbox.messages
    assert "Subject: [FIRING:1] Failing" in mail
    assert "summary: many calls fail" in mail
    assert "device=pi: 0.5" in mail
    assert json.loads((tmp_path / "got.json").read_text())["alerts"][0]["labels"]["device"] == "pi"
    (broken,) = (await listed(client))["undelivered"]
    assert broken["receiver"] == "broken"
    assert "ended with 3: no disk" in broken["error"]


async def test_messages_are_given_up_after_a_day(client, services, watch, hook) -> None:
    await tell(client, await enrol(client, "pi"), 50)
    watch.rule(BY_DEVICE)
    hook.status = 500
    await watch.tick()
    watch.rule('error_rate{window="2w", by="device"} > 0.2')
    await watch.tick(3 * 86400)
    async with services.database.reading() as connection:
        outcomes = (await connection.execute(select(alert_notices.c.outcome))).scalars().all()
    assert "given up" in outcomes or "superseded" in outcomes
