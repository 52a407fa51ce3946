"""Merged reports hold what their parts held."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeml.telemetry.exponential import merge
from edgeml.telemetry.merging import SAMPLES_OF_MERGED, add_counts, can_merge, merge_reports
from edgeml.telemetry.report import OTHER, Report, Sample
from tests.unit.core.telemetry.reports import REPORTS, window

ADJACENT = st.lists(REPORTS, min_size=2, max_size=6).map(
    lambda several: [replace(one, seq=place, first=None, boot_id="b") for place, one in enumerate(several)]
)


def totals(reports: list[Report]) -> dict[str, object]:
    """Give every sum that a merge must keep, by release of a model."""
    found: Counter[object] = Counter()
    for report in reports:
        for name in ("overwritten", "evicted", "damaged"):
            found[name] += getattr(report.lost, name)
        for one in report.models:
            key = (one.model, one.release, one.variant, one.runtime)
            found[key, "calls"] += one.calls
            found[key, "killed"] += one.killed
            found[key, "rff"] += one.rff_count
            for kind in ("errors", "classes"):
                found[key, kind] += sum(getattr(one, kind).values())
            for feature, counts in one.features.items():
                for place, count in enumerate(counts):
                    found[key, feature, place] += count
            for stage, histogram in [*one.latency.items(), ("confidence", one.confidence)]:
                if histogram is not None:
                    found[key, stage, "sum"] += histogram.sum_nano
                    found[key, stage, "zero"] += histogram.zero
                    for place, count in enumerate(histogram.counts, histogram.offset):
                        found[key, stage, place] += count
    return {str(name): count for name, count in found.items() if count}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ADJACENT)
def test_a_merge_keeps_every_sum(reports: list[Report]) -> None:
    assert totals([merge_reports(reports)]) == totals(reports)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ADJACENT, st.data())
def test_merges_of_merges_are_the_merge_of_all(reports: list[Report], data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(reports) - 1))
    by_halves = merge_reports([merge_reports(reports[:cut]), merge_reports(reports[cut:])])
    at_once = merge_reports(reports)
    assert totals([by_halves]) == totals([at_once])
    for name in ("seq", "begins", "prev", "link", "windows", "start_s", "end_s", "lost"):
        assert getattr(by_halves, name) == getattr(at_once, name)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ADJACENT)
def test_a_merge_reaches_from_the_first_to_the_last(reports: list[Report]) -> None:
    made, first, last = merge_reports(reports), reports[0], reports[-1]
    assert (made.begins, made.seq, made.prev, made.link) == (first.seq, last.seq, first.prev, last.link)
    assert (made.start_s, made.end_s, made.at, made.windows) == (
        first.start_s,
        last.end_s,
        last.at,
        len(reports),
    )
    assert made.lost.merged == sum(one.lost.merged for one in reports) + len(reports)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ADJACENT)
def test_means_are_weighted_and_bounds_are_kept(reports: list[Report]) -> None:
    made = merge_reports(reports).system
    for name, summary in made.items():
        parts = [one.system[name] for one in reports if name in one.system]
        assert summary.count == sum(one.count for one in parts)
        assert math.isclose(
            summary.mean * summary.count, math.fsum(one.mean * one.count for one in parts), abs_tol=1e-6
        )
        assert (summary.min, summary.max) == (min(one.min for one in parts), max(one.max for one in parts))


def test_merged_histograms_are_those_of_all_values() -> None:
    reports = [window(number) for number in range(7)]
    made = merge_reports(reports).models[0].latency["total"]
    assert made == merge(one.models[0].latency["total"] for one in reports)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.dictionaries(st.text(max_size=3), st.integers(0, 99), max_size=9), max_size=5),
    st.integers(2, 6),
)
def test_rare_names_are_counted_together(several: list[dict[str, int]], most: int) -> None:
    made = add_counts(several, most)
    assert sum(made.values()) == sum(sum(one.values()) for one in several)
    assert len(made) <= most
    kept = [count for name, count in made.items() if name != OTHER]
    whole: Counter[str] = Counter()
    for one in several:
        whole.update(one)
    gone = [count for name, count in whole.items() if name not in made]
    assert not gone or min(kept, default=0) >= max(gone)


def test_samples_of_every_kind_stay_in_order() -> None:
    kinds = ["random"] * 60 + ["error"] * 30 + ["unsure"] * 3
    samples = tuple(Sample(float(place), why) for place, why in enumerate(kinds))  # type: ignore[arg-type]
    halves = [
        replace(window(number), models=(replace(window(0).models[0], samples=samples),)) for number in (0, 1)
    ]
    made = merge_reports(halves).models[0].samples
    assert len(made) == SAMPLES_OF_MERGED
    assert {one.why for one in made} == {"random", "error", "unsure"}
    assert all(one.at <= other.at for one, other in pairwise(made))


def test_only_one_boot_and_one_state_of_the_clock_is_merged() -> None:
    one, other = window(0), window(1)
    assert can_merge(one, other, 600)
    assert not can_merge(one, replace(other, boot_id="another"), 600)
    assert not can_merge(one, replace(other, clock="unknown"), 600)
    assert not can_merge(one, window(10), 600)
