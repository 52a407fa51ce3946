"""Device and server read the same report from the same bytes."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeml.errors import MessageError
from edgeml.telemetry.encoding import (
    acknowledged_from_json,
    batch_to_bytes,
    report_from_json,
    report_to_json,
)
from edgeml.telemetry.packed import pack_means, unpack_counts, unpack_means
from edgeml.telemetry.report import (
    CONTENT_JSON,
    CONTENT_MSGPACK,
    Acknowledged,
    Batch,
    ModelWindow,
    Report,
    Sample,
)
from tests.unit.core.telemetry.reports import REPORTS, window

HEAD = Batch("0" * 32, "boot", 12.5, 1.8e9)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(REPORTS)
def test_a_report_is_read_back_as_it_was(report: Report) -> None:
    assert report_from_json(report_to_json(report)) == report


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(REPORTS)
def test_the_servers_decoder_reads_the_devices_report(report: Report) -> None:
    assert msgspec.json.decode(report_to_json(report), type=Report) == report


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(REPORTS, max_size=3))
def test_a_batch_is_the_same_in_both_formats(reports: list[Report]) -> None:
    texts = [report_to_json(one) for one in reports]
    wanted = replace(HEAD, reports=tuple(reports))
    packed = batch_to_bytes(HEAD, texts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "msgspec", None)
        plain = batch_to_bytes(HEAD, texts)
    assert (packed.content_type, plain.content_type) == (CONTENT_MSGPACK, CONTENT_JSON)
    assert _unpacked(msgspec.msgpack.decode(zlib.decompress(packed.body))) == _rounded(wanted)
    assert msgspec.json.decode(zlib.decompress(plain.body), type=Batch) == wanted


def _unpacked(found: dict[str, Any]) -> Batch:
    for model in (model for report in found["reports"] for model in report.get("models", ())):
        for one in (*model.get("latency", {}).values(), model.get("confidence") or {}):
            if "counts" in one:
                one["counts"] = unpack_counts(one["counts"])
        model["features"] = {
            name: unpack_counts(counts) for name, counts in model.get("features", {}).items()
        }
        model["rff_sum"] = unpack_means(model.get("rff_sum", b""), model.get("rff_count", 0))
    return msgspec.convert(found, Batch)


def _rounded(batch: Batch) -> Batch:
    """Give it with sums as precise as bytes hold them."""

    def rounded(one: ModelWindow) -> ModelWindow:
        packed = pack_means(one.rff_sum, one.rff_count)
        return replace(one, rff_sum=unpack_means(packed, one.rff_count))

    reports = [replace(one, models=tuple(map(rounded, one.models))) for one in batch.reports]
    return replace(batch, reports=tuple(reports))


def test_without_msgspec_a_batch_is_json() -> None:
    code = (
        "import sys; sys.modules['msgspec'] = None\n"
        "from edgeml.telemetry.encoding import batch_to_bytes\n"
        "from edgeml.telemetry.report import Batch\n"
        "print(batch_to_bytes(Batch('e', 'b', 1.0, 2.0), [b'{}']).content_type)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == CONTENT_JSON


def test_what_holds_its_default_is_left_out() -> None:
    assert json.loads(report_to_json(Report(3, "ab", "boot", 1.0, 2.0, 3.0))) == {
        "seq": 3,
        "link": "ab",
        "boot_id": "boot",
        "start_s": 1.0,
        "end_s": 2.0,
        "at": 3.0,
    }


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_json_has_no_word_for_are_left_out(number: float) -> None:
    sample = Sample(1.0, "random", latency_s=number, features=(1.0, number))
    report = replace(window(0), energy_joules=number)
    report = replace(report, models=(replace(report.models[0], samples=(sample,)),))
    read = msgspec.json.decode(report_to_json(report), type=Report)
    assert read.energy_joules is None
    assert read.models[0].samples == (Sample(1.0, "random"),)


def test_what_a_later_version_adds_is_left_aside() -> None:
    found = json.loads(report_to_json(window(0)))
    found["later"] = 1
    found["models"][0]["later"] = {"a": 1}
    found["models"][0]["samples"][0]["later"] = 1
    assert report_from_json(json.dumps(found).encode()) == window(0)


@pytest.mark.parametrize("text", [b"", b"[]", b"3", b"{}", b'{"seq": 1}', b'{"models": [3]}', b"\xff"])
def test_what_is_no_report_is_refused(text: bytes) -> None:
    with pytest.raises(MessageError):
        report_from_json(text)


def test_the_servers_answer_is_read() -> None:
    answer = Acknowledged(7, ((1, 2), (4, 4)), 1.5)
    assert acknowledged_from_json(msgspec.json.encode(answer)) == answer


@pytest.mark.parametrize(
    "text", [b"<html>", b"{}", b'{"acked_through": "7"}', b'{"acked_through": true}', b"[]"]
)
def test_what_is_no_answer_of_a_server_is_refused(text: bytes) -> None:
    with pytest.raises(MessageError):
        acknowledged_from_json(text)
