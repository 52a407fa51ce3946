"""``POST /v1/reports``: stored once and for ever, or refused as a whole."""

from __future__ import annotations

import random
import time
from dataclasses import replace

import pytest
from edgeml_devices.server.telemetry.store import Selection

from tests.integration.server.devices import enrol
from tests.integration.telemetry.windows import Telemetry, post

pytestmark = pytest.mark.anyio
ALL = Selection(0, 4e9)


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry(random.Random(5))  # noqa: S311 - made-up data


async def rows(services) -> list:
    return [row async for piece in services.telemetry.windows(ALL) for row in piece]


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("encoding", ["", "deflate", "gzip"])
async def test_a_batch_is_stored_and_acknowledged(client, services, telemetry, as_json, encoding) -> None:
    device = await enrol(client)
    now = time.time()
    reports = [telemetry.next(now - 60 * ago) for ago in (2, 1, 0)]
    answer = await post(
        client, device.token, telemetry.batch(reports, now), as_json=as_json, encoding=encoding
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["acked_through"] == 2
    assert answer.json()["want"] == ["samples"]
    found = await rows(services)
    assert [row.device_id for row in found] == [device.id] * 3
    assert [row.at for row in found] == pytest.approx([report.at for report in reports])
    sent = reports[0].models[0]
    got = replace(found[0].window, rff_sum=sent.rff_sum, samples=sent.samples)
    assert got == sent
    assert found[0].window.rff_sum == pytest.approx(sent.rff_sum, rel=1e-3)
    assert [one.label for one in found[0].window.samples] == [one.label for one in sent.samples]
