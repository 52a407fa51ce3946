"""Reports that would stop a rollout or a list of devices for everybody are refused, and name the field."""

from __future__ import annotations

from typing import Any

import pytest
from edgeml_devices.messages import Report
from edgeml_devices.server.fleet.checking import check

from edgeml import typed_json
from edgeml.errors import MessageError

WINDOW = {
    "seq": 1,
    "at": 1.0,
    "duration_s": 10.0,
    "model": "kws",
    "release": 1,
    "variant": "v",
    "processes": 1,
}
EVENT = {"seq": 1, "at": 1.0, "model": "kws", "release": 1, "attempt": 1, "state": "FAILED"}


def report(**fields: Any) -> Report:
    data = {"device_id": "d", "epoch": "e", "seq": 1, "at": 1e9} | fields
    return typed_json.read(Report, data, "the body")


def test_what_a_sound_device_says_is_taken() -> None:
    check(report(health=[WINDOW | {"calls": 3, "errors": 1, "latency_counts": {"-3": 2}}], events=[EVENT]))


@pytest.mark.parametrize(
    ("window", "says"),
    [
        ({"calls": 3, "errors": 0, "latency_counts": {"abc": 1}}, "buckets"),
        ({"calls": 3, "errors": 0, "latency_counts": {"1": -1}}, "count"),
        ({"calls": 3, "errors": 0, "latency_counts": {"1": 4}}, "latency_counts: more than calls"),
        ({"calls": 3, "errors": 4}, "4 errors in 3 calls"),
        ({"calls": 2**63 - 1, "errors": 0}, "cannot be"),
    ],
)
def test_windows_of_health_that_no_gate_could_read(window: dict[str, Any], says: str) -> None:
    with pytest.raises(MessageError, match=says):
        check(report(health=[WINDOW | window]))


@pytest.mark.parametrize("field", [{"attempt": 2**31 - 1}, {"at": 1e300}])
def test_events_that_no_database_or_page_could_hold(field: dict[str, Any]) -> None:
    with pytest.raises(MessageError, match=rf"events\[0\].{next(iter(field))}"):
        check(report(events=[EVENT | field]))


@pytest.mark.parametrize("value", ["nan", "inf", -1.0])
def test_measured_times_that_no_page_could_show(value: Any) -> None:
    tested = {"v": {"passed": True, "p50_ms": value}}
    with pytest.raises(MessageError, match=r"selftest.v.p50_ms"):
        check(report(models={"kws": {"state": "COMMITTED", "selftest": tested}}))


def test_facts_that_would_make_every_list_of_devices_long() -> None:
    with pytest.raises(MessageError, match=r"facts: .* at most 65536"):
        check(report(facts={"target": {"name": "x" * 70_000}}))
