"""Agents of OpenTelemetry send their metrics as they do everywhere."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from edgeml_devices.server.settings import ServerSettings
from edgeml_devices.server.telemetry.opening import open_store
from edgeml_devices.server.telemetry.otlp import CONTENT_JSON, CONTENT_PROTOBUF
from edgeml_devices.server.telemetry.store import Point

from tests.integration.server.devices import enrol
from tests.integration.telemetry.senders import enrolled

pytestmark = pytest.mark.anyio


def test_the_exporter_of_the_opentelemetry_sdk_can_send(server, database_url) -> None:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View

    exporter = OTLPMetricExporter(
        f"{server.url}/v1/metrics", headers={"Authorization": f"Bearer {enrolled(server, 'foreign')}"}
    )
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)
    views = [View(instrument_name="fine", aggregation=ExponentialBucketHistogramAggregation())]
    provider = MeterProvider([reader], views=views)
    meter = provider.get_meter("test")
    meter.create_counter("parts", "1").add(3, {"line": "a"})
    meter.create_gauge("temperature", "Cel").set(61.5)
    meter.create_histogram("coarse", "s").record(0.25)
    meter.create_histogram("fine", "s").record(0.25)
    assert provider.force_flush()
    provider.shutdown()
    server.stop()
    stored = asyncio.run(_stored(ServerSettings(server.data, database_url)))
    assert {point.name: (point.kind, point.value) for point in stored} == {
        "parts": ("sum", 3.0),
        "temperature": ("gauge", 61.5),
        "coarse": ("histogram", 0.25),
        "fine": ("exponential_histogram", 0.25),
    }


async def _stored(settings: ServerSettings) -> list[Point]:
    store = await open_store(settings)
    try:
        names = ("parts", "temperature", "coarse", "fine")
        return [point for name in names for point in await store.points(name, 0, 4e9, 10)]
    finally:
        await store.close()


async def test_points_can_be_asked_for_by_their_name(client, request_body) -> None:
    device = await enrol(client, "foreign")
    headers = device.headers | {"Content-Type": CONTENT_JSON}
    sent = await client.post("/v1/metrics", content=json.dumps(request_body), headers=headers)
    assert sent.status_code == 200
    (one,) = (await client.get("/v1/telemetry/points", params={"name": "parts"})).json()["answers"]
    assert (one["device"], one["value"], one["kind"], one["buckets"]) == ("foreign", 3.0, "sum", None)
    assert one["attributes"]["line"] == "a"
    (wide,) = (await client.get("/v1/telemetry/points", params={"name": "coarse"})).json()["answers"]
    assert wide["buckets"]["count"] == 2
    for query in ({"device": "foreign"}, {"model": "kws"}):
        answer = await client.get("/v1/telemetry/points", params={"name": "parts", **query})
        assert answer.status_code == 400
    assert (await client.get("/v1/telemetry/points", params={"name": "no"})).json()["answers"] == []


@pytest.fixture
def request_body() -> dict:
    point = {
        "timeUnixNano": str(time.time_ns()),
        "attributes": [{"key": "line", "value": {"stringValue": "a"}}],
    }
    histogram = {"count": "2", "sum": 3.5, "min": 1.5, "max": 2.0, **point}
    metrics = [
        {"name": "temperature", "unit": "Cel", "gauge": {"dataPoints": [{"asDouble": 61.5, **point}]}},
        {"name": "parts", "sum": {"aggregationTemporality": 2, "dataPoints": [{"asInt": "3", **point}]}},
        {
            "name": "coarse",
            "histogram": {
                "aggregationTemporality": 1,
                "dataPoints": [{"explicitBounds": [1.75], "bucketCounts": ["1", "1"], **histogram}],
            },
        },
        {
            "name": "fine",
            "exponentialHistogram": {
                "aggregationTemporality": 1,
                "dataPoints": [
                    {"scale": 3, "positive": {"offset": 4, "bucketCounts": ["1", "0", "1"]}, **histogram}
                ],
            },
        },
        {"name": "old", "summary": {"dataPoints": [{"count": "1", **point}]}},
    ]
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "press"}}]}
    return {"resourceMetrics": [{"resource": resource, "scopeMetrics": [{"metrics": metrics}]}]}


async def test_points_are_stored_with_what_they_are(client, services, request_body) -> None:
    device = await enrol(client)
    headers = device.headers | {"Content-Type": CONTENT_JSON}
    answer = await client.post("/v1/metrics", content=json.dumps(request_body), headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.json()["partialSuccess"]["rejectedDataPoints"] == "1"
    found = {
        name: await services.telemetry.points(name, 0, 4e9, 10)
        for name in ("temperature", "parts", "coarse", "fine", "old")
    }
    assert [len(points) for points in found.values()] == [1, 1, 1, 1, 0]
    gauge, counter = found["temperature"][0], found["parts"][0]
    assert (gauge.device_id, gauge.kind, gauge.unit, gauge.value) == (device.id, "gauge", "Cel", 61.5)
    assert json.loads(gauge.attributes) == {"line": "a", "resource.service.name": "press"}
    assert (counter.kind, counter.temporality, counter.value) == ("sum", "cumulative", 3)
    fine = found["fine"][0]
    assert (fine.temporality, fine.value) == ("delta", 3.5)
    assert json.loads(fine.buckets)["positive"] == {"offset": 4, "counts": [1, 0, 1]}
    assert json.loads(found["coarse"][0].buckets)["bounds"] == [1.75]


async def test_points_go_when_they_are_old(client, services, request_body) -> None:
    device = await enrol(client)
    headers = device.headers | {"Content-Type": CONTENT_JSON}
    await client.post("/v1/metrics", content=json.dumps(request_body), headers=headers)
    await services.telemetry.prune(time.time() + 1, 0)
    assert await services.telemetry.points("parts", 0, 4e9, 10) == []


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        (CONTENT_PROTOBUF, b"\xff\xff", 400),
        (CONTENT_JSON, b"{", 400),
        (CONTENT_JSON, b'{"a":' * 100_000, 400),
        (CONTENT_JSON, b"\xff", 400),
        ("text/plain", b"", 415),
        (CONTENT_PROTOBUF, b"\0" * 2_000_000, 413),
    ],
)
async def test_what_is_no_otlp_is_refused(client, content_type, body, status) -> None:
    device = await enrol(client)
    headers = device.headers | {"Content-Type": content_type}
    answer = await client.post("/v1/metrics", content=body, headers=headers)
    assert answer.status_code == status, answer.text


async def test_a_viewer_sends_nothing(client, request_body) -> None:
    answer = await client.post("/v1/tokens", json={"name": "eyes", "role": "viewer"})
    headers = {"Authorization": f"Bearer {answer.json()['token']}"}
    assert (await client.post("/v1/metrics", json=request_body, headers=headers)).status_code == 403
