"""What is packed comes back: counts exactly, the rest as nearly as is said."""

from __future__ import annotations

import dataclasses
import random
from dataclasses import replace

import msgspec
import pytest
from edgeml_devices.server.telemetry import bounds, packing, wire, wire_types
from edgeml_devices.server.telemetry.packing import TOTAL, Codes
from edgeml_devices.server.telemetry.rolling import Key, Piece, add_up
from hypothesis import given
from hypothesis import strategies as st

from edgeml.telemetry import report as contract
from edgeml.telemetry.encoding import batch_to_bytes, report_to_json
from edgeml.telemetry.exponential import ROLLUP_SCALE, ExponentialHistogram, histogram_of, merge
from edgeml.telemetry.report import Batch, ModelWindow, Report, Sample, Summary
from tests.integration.telemetry.windows import model_window

HISTOGRAMS = st.builds(
    histogram_of, st.lists(st.floats(0, 1e8), max_size=30), st.sampled_from([5, 5, 3, 2, 8])
)


@given(HISTOGRAMS, st.integers(0, 2**90))
def test_histograms_come_back(histogram: ExponentialHistogram, sum_nano: int) -> None:
    whole = replace(histogram, sum_nano=sum_nano)
    assert packing.unpack_histogram(packing.pack_histogram(whole)) == whole


@given(st.lists(HISTOGRAMS, min_size=1, max_size=6))
def test_hours_add_up_as_histograms_merge(histograms: list[ExponentialHistogram]) -> None:
    key = Key(1, "d", "m", 1, "v", "t")
    found = add_up(Piece(key, 1, 0, packing.pack_histogram(one)) for one in histograms)[key]
    assert found.latency == merge(histograms, ROLLUP_SCALE)
    assert found.calls == len(histograms)


@pytest.mark.parametrize("calls", [0, 3, 60, 30_000])
@pytest.mark.parametrize("coded", [False, True])
def test_a_window_comes_back(calls: int, coded: bool) -> None:
    window = model_window(random.Random(calls), calls)  # noqa: S311 - made-up data
    report = Report(0, "", "", 0, 60, 1e9, models=(window,))
    texts = sorted(packing.texts_of(report)) if coded else []
    codes = Codes((text, place) for place, text in enumerate(texts))
    found = _round_trip(window, codes)
    assert replace(found, rff_sum=(), samples=()) == replace(window, rff_sum=(), samples=())
    assert found.rff_sum == pytest.approx(window.rff_sum, rel=1e-3, abs=1e-5)


def _round_trip(window: ModelWindow, codes: Codes) -> ModelWindow:
    total = window.latency.get(TOTAL)
    name = (window.model, window.release, window.variant, window.runtime, window.reference)
    return packing.unpack_window(
        name,
        window.calls,
        None if total is None else packing.pack_histogram(total),
        packing.pack_window(window, codes),
        packing.pack_samples(window.samples, codes, 1e9),
        {place: text for text, place in codes.items()},
        1e9,
    )


def test_counts_and_sums_that_came_as_bytes_are_kept_as_they_came() -> None:
    window = model_window(random.Random(5), 60)  # noqa: S311 - made-up data
    report = Report(0, "0" * 16, "b", 0, 60, 1e9, models=(window,))
    batch = batch_to_bytes(Batch("0" * 32, "b", 0, 0), [report_to_json(report)])
    found = wire.decode(batch.body, batch.content_type, batch.content_encoding)
    bounds.check(found)
    assert isinstance(found.reports[0].models[0].features["feature_0"], bytes)
    assert packing.pack_window(found.reports[0].models[0], Codes()) == packing.pack_window(window, Codes())


def test_samples_come_back_by_the_repaired_clock() -> None:
    samples = (
        Sample(90.0, "random", 0.0125, "yes", 0.875),
        Sample(99.5, "error", None, None, None, "InferenceError", (0.1, 2.0), b"raw"),
    )
    packed = packing.pack_samples(samples, Codes(yes=3), 100.0)
    assert packed is not None
    first, second = packing.unpack_samples(packed, {3: "yes"}, 5000.0)
    assert first == replace(samples[0], at=4990.0)
    assert second == replace(samples[1], at=4999.5)


def test_what_a_machine_says_comes_back_to_seven_digits() -> None:
    system = {"temperature_celsius": Summary(61.3, 62.25, 64.1, 12), "memory_bytes": Summary(1e9, 2e9, 3e9)}
    report = Report(0, "", "", 0, 60, 0, system=system, energy_joules=81.27)
    packed = packing.pack_system(report, Codes(memory_bytes=7))
    assert packing.unpack_system(packed, {7: "memory_bytes"}) == (system, 81.27)
    assert packing.unpack_system(packing.pack_system(Report(0, "", "", 0, 60, 0), Codes()), {}) == ({}, None)


@pytest.mark.parametrize(
    "name", ["ExponentialHistogram", "Summary", "Sample", "ModelWindow", "Lost", "Report", "Batch"]
)
def test_types_on_the_wire_have_the_fields_of_the_contract(name: str) -> None:
    def default(one: dataclasses.Field[object]) -> object:
        made = one.default_factory
        return one.default if made is dataclasses.MISSING else made()

    ours = {
        field.name: msgspec.NODEFAULT if default(field) is dataclasses.MISSING else default(field)
        for field in dataclasses.fields(getattr(contract, name))
    }
    wire = {
        one.name: one.default if one.default_factory is msgspec.NODEFAULT else one.default_factory()
        for one in msgspec.structs.fields(getattr(wire_types, name))
    }
    for fields in (ours, wire):
        fields.pop("lost", None)
        fields.pop("reports", None)
    assert wire == ours
