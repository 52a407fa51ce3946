"""Texts and numbers that a database refuses are the caller's mistake, on every route and both databases."""

from __future__ import annotations

import re
import secrets
from typing import Any

import pytest

from tests.integration.server.devices import Device, enrol, join_token

pytestmark = pytest.mark.anyio
NUL, HALF, RAW_HALF, HUGE = b'"a\\u0000b"', b'"a\\ud800b"', b'"a\xed\xa0\x80b"', b"1" + b"0" * 30


async def send(client: Any, method: str, path: str, body: bytes, token: str = "") -> int:
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    status: int = (await client.request(method, path, content=body, headers=headers)).status_code
    return status


@pytest.mark.parametrize("text", [NUL, HALF, RAW_HALF, HUGE])
async def test_what_operators_send(client, text: bytes) -> None:
    await enrol(client, "a")
    for method, path, body in [
        ("PUT", "/v1/groups/g", b'{"selector": %b}'),
        ("PUT", "/v1/groups/g", b"{%b: 1}"),
        ("PATCH", "/v1/devices/a", b'{"labels": {"site": %b}}'),
        ("PATCH", "/v1/devices/a", b'{"labels": {%b: "x"}}'),
        ("PATCH", "/v1/devices/a", b'{"name": %b}'),
        ("POST", "/v1/tokens", b'{"name": %b, "role": "viewer"}'),
        ("POST", "/v1/join-tokens", b'{"labels": {"site": %b}}'),
        ("PUT", "/v1/devices/a/models/kws", b'{"release": %b}'),
        ("POST", "/v1/releases", b'{"model": %b, "release": 1}'),
        ("POST", "/v1/rollouts", b'{"model": %b, "release": 1}'),
        ("POST", "/v1/rollouts/r/pause", b'{"reason": %b}'),
    ]:
        status = await send(client, method, path, body % text)
        assert 400 <= status < 500, (method, path, body % text, status)


@pytest.mark.parametrize("text", [NUL, HALF, RAW_HALF])
async def test_what_devices_say_is_kept_with_signs_replaced(client, text: bytes) -> None:
    """It may be a piece of a log: a sound device must not be kept from reporting."""
    device = await enrol(client, "a")
    event = b'{"seq":0,"at":1,"model":"kws","release":1,"attempt":1,"state":"FAILED","detail":%b}' % text
    body = b'{"device_id":"%b","epoch":"e","seq":1,"at":1,"events":[%b]}' % (device.id.encode(), event)
    assert await send(client, "POST", "/v1/agent/reports", body, device.token) == 200
    (stored,) = (await client.get("/v1/devices/a/events")).json()["events"]
    assert stored["detail"] in {"a\ufffdb", "a?b"}


@pytest.mark.parametrize("text", [NUL, HALF, RAW_HALF])
async def test_a_device_that_enrols_under_such_a_name(client, text: bytes) -> None:
    token = (await join_token(client)).encode()
    own = secrets.token_urlsafe(32).encode()
    body = b'{"join_token": "%b", "device_token": "%b", "name": %b}' % (token, own, text)
    assert await send(client, "POST", "/v1/enrol", body) in {201, 400}


async def test_reports_of_a_device_are_stored_after_such_a_one(client) -> None:
    device: Device = await enrol(client, "a")
    assert (await device.send(device.report())).status_code == 200


@pytest.mark.parametrize("text", ["%00", "%ED%A0%80", "1" + "0" * 30, "nan"])
async def test_what_stands_in_an_address_fails_no_call_of_the_interface(client, text: str) -> None:
    await enrol(client, "a")
    paths = (await client.get("/v1/openapi.json")).json()["paths"]
    calls = [
        (method.upper(), path, chosen["name"], chosen["in"])
        for path, methods in paths.items()
        for method, call in methods.items()
        for chosen in call.get("parameters", [])
    ]
    assert {place for *_, place in calls} >= {"path", "query"}
    for method, path, name, place in calls:
        address = path.replace("{device}", "a") if name != "device" else path
        address = re.sub(
            r"{\w+}", lambda found, name=name: text if found[0] == f"{{{name}}}" else "1", address
        )
        if place == "query":
            address += f"?{name}={text}"
        assert await send(client, method, address, b"{}") < 500, (method, address)
