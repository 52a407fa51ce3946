"""Drift of a fleet: whose windows are added up, what is said of them, the same in any order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from edgeml_devices.server.telemetry.drift import (
    DriftTally,
    adjust,
    divergences,
    judge_counts,
    size_bucket,
)
from edgeml_devices.server.telemetry.store import WindowRow
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeml.drift_nulls import drawn
from edgeml.telemetry.drift import FEWEST, judge_feature
from edgeml.telemetry.reference import Reference, with_digest
from edgeml.telemetry.report import ModelWindow
from tests.unit.devices.server.telemetry.drifting_fleet import fleet, fleet_drift, row


def test_one_device_of_many_is_found_and_no_other(reference: Reference) -> None:
    found = fleet_drift({reference.digest: reference}, fleet(reference, 20, "d7"))
    drifted = [one for one in found if one.drifted]
    assert {one.group.name for one in drifted} == {"d7"}
    assert {one.feature for one in drifted} <= {"x[0]", "joint"}
    first = next(one for one in drifted if one.feature == "x[0]")
    assert first.n == 600
    assert first.shift == pytest.approx(0.5, abs=0.15)
    assert first.strongest is not None
    assert first.strongest.matters
    assert sum(first.counts) == 600
    assert (type(first.q), type(first.drifted), type(first.counts[0])) == (float, bool, int)
    # three inputs, the confidence, the classes and all together, of each device
    assert len(found) == 20 * 6


@pytest.mark.parametrize(
    ("by", "groups"), [("device", {"d0", "d1", "d2", "d3"}), ("target", {"t0", "t1"}), ("fleet", {""})]
)
def test_windows_are_added_up_as_asked(reference: Reference, by, groups) -> None:
    found = fleet_drift({reference.digest: reference}, fleet(reference, 4), by=by)
    assert {one.group.name for one in found} == groups
    assert sum(one.n for one in found if one.feature == "x[0]") == 4 * 3 * 200
    assert sum(one.devices for one in found if one.feature == "x[0]") == 4


def test_releases_are_told_apart(reference: Reference) -> None:
    rows = [row(reference, "d", seed, release=seed % 2 + 7) for seed in range(4)]
    found = fleet_drift({reference.digest: reference}, rows, by="release")
    assert {one.group.release for one in found} == {7, 8}


def test_order_and_pieces_change_nothing(reference: Reference) -> None:
    rows = list(fleet(reference, 6, "d2"))
    tally = DriftTally({reference.digest: reference})
    for start in range(0, len(rows), 5):
        tally.add(reversed(rows[start : start + 5]))
    ours, theirs = tally.findings(), fleet_drift({reference.digest: reference}, rows)
    assert [(one.group, one.feature, one.n, one.counts) for one in ours] == [
        (one.group, one.feature, one.n, one.counts) for one in theirs
    ]
    assert [one.q for one in ours] == pytest.approx([one.q for one in theirs])


def test_one_class_only_is_drift_of_the_classes(reference: Reference) -> None:
    stuck = row(reference, "d", 4, classes={"cat": 200})
    found = fleet_drift({reference.digest: reference}, [stuck])
    assert [one.feature for one in found if one.drifted] == ["classes"]


def test_a_class_that_the_reference_never_saw_counts_as_other(reference: Reference) -> None:
    strange = row(reference, "d", 4, classes={"cat": 100, "dog": 50, "eel": 10, "newt": 40})
    (classes,) = [one for one in fleet_drift({reference.digest: reference}, [strange]) if one.drifted]
    assert classes.feature == "classes"
    assert classes.counts == (100, 50, 10, 40)


def test_a_reference_of_one_class_is_no_trouble() -> None:
    alone = with_digest(Reference(100, classes={"cat": 100}))
    calm = WindowRow(0, 60, "d", "t", ModelWindow("m", 1, classes={"cat": 90}, reference=alone.digest))
    (one,) = fleet_drift({alone.digest: alone}, [calm])
    assert not one.drifted
    other = replace(calm, window=replace(calm.window, classes={"cat": 60, "dog": 30}))
    (one,) = fleet_drift({alone.digest: alone}, [other])
    assert one.drifted


def test_empty_and_tiny_windows_say_nothing(reference: Reference) -> None:
    references = {reference.digest: reference}
    assert fleet_drift(references, []) == ()
    empty = WindowRow(0, 60, "d", "t", ModelWindow("m", 1, reference=reference.digest))
    zeros = replace(empty.window, features={"x[0]": (0,) * len(reference.features[0].counts)})
    few = row(reference, "d", 1, n=FEWEST - 1)
    assert fleet_drift(references, [empty, replace(empty, window=zeros), few]) == ()


def test_windows_for_an_unknown_reference_are_counted_not_judged(reference: Reference) -> None:
    tally = DriftTally({})
    tally.add(fleet(reference, 2))
    assert tally.findings() == ()
    assert tally.without_reference == 6


def test_counts_that_fit_no_reference_are_left_aside(reference: Reference) -> None:
    odd = row(reference, "d", 1, features={"x[0]": (300,), "y": (1, 2)}, rff_sum=(1.0,), classes={})
    assert fleet_drift({reference.digest: reference}, [odd]) == ()


def test_what_no_device_can_have_counted_changes_nothing(reference: Reference) -> None:
    calm = row(reference, "d", 4)
    bins = len(reference.features[0].counts)
    lies = [
        replace(calm.window, features={"x[0]": (2**53 - 1,) * bins}, classes={"cat": 2**53 - 1}),
        replace(calm.window, features={}, classes={}, rff_sum=(1e308,) * 128, rff_count=40),
        replace(calm.window, features={}, classes={}, rff_sum=(0.0,) * 128, rff_count=2**53 - 1),
        replace(calm.window, features={}, classes={}, rff_sum=(float("nan"),) * 128, rff_count=40),
    ]
    lies = [replace(one, rff_sum=one.rff_sum if one.rff_sum != calm.window.rff_sum else ()) for one in lies]
    rows = [calm, *(replace(calm, window=one) for one in lies * 3000)]
    assert fleet_drift({reference.digest: reference}, rows) == fleet_drift(
        {reference.digest: reference}, [calm]
    )


@pytest.mark.parametrize("name", ["x[0]", "x[2]"])
def test_server_and_device_say_the_same(reference: Reference, name: str) -> None:
    one = next(one for one in reference.features if one.name == name)
    counts = np.array([one.count(np.random.default_rng(n).normal(0.1, 1, n)) for n in (100, 1000, 10_000)])
    if name == "x[2]":
        counts = np.array(
            [one.count(np.random.default_rng(n).integers(-2, 3, n)) for n in (100, 1000, 10_000)]
        )
    for ours, row_ in zip(judge_counts(one, counts), counts.tolist(), strict=True):
        theirs = judge_feature(one, row_)
        assert ours.n == theirs.n
        for a, b in zip(ours.tests, theirs.tests, strict=True):
            assert a.effect == pytest.approx(b.effect)
            # what travels is straight between levels: that errs where it does not matter, above 0.1,
            # and on the safe side where few values are rare
            if b.p < 0.05:
                assert max(a.p, 1e-8) <= 2 * max(b.p, 1e-8)
            assert (a.p < 1e-4) >= (b.p < 1e-5)


@given(st.lists(st.integers(0, 300), min_size=5, max_size=5).filter(any), st.integers(1, 50))
@settings(max_examples=50)
def test_effects_for_people_are_none_for_the_reference_itself(counts: list[int], times: int) -> None:
    _, js = divergences(counts, [count * times for count in counts])
    assert js == pytest.approx(0, abs=1e-9)
    assert divergences(counts, counts)[0] == pytest.approx(0, abs=1e-9)


def test_psi_of_a_small_window_without_drift_is_large_and_no_finding(reference: Reference) -> None:
    """The textbook's 0.1 and 0.2 fire here: that is why nothing is decided by it."""
    found = fleet_drift({reference.digest: reference}, [row(reference, "d", 3, n=100)])
    one = next(one for one in found if one.feature == "x[0]")
    assert one.psi is not None
    assert one.psi > 0.1
    assert not one.drifted


@given(st.integers(1, 10**9))
def test_a_null_serves_sizes_near_its_own(n: int) -> None:
    assert size_bucket(n) == pytest.approx(n, rel=0.05)


def test_sizes_share_few_nulls() -> None:
    assert len({size_bucket(n) for n in range(1000, 2000)}) <= 10


def test_adjusted_p_values_are_those_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    p = np.random.default_rng(0).random(50) ** 3
    assert adjust(p) == pytest.approx(stats.false_discovery_control(p))


def test_nulls_are_the_same_in_every_process(reference: Reference) -> None:
    one = reference.features[0]
    first = drawn.__wrapped__(one.counts, (1.0,) * len(one.edges), 100, discrete=False)["w1"].critical()
    again = drawn.__wrapped__(one.counts, (1.0,) * len(one.edges), 100, discrete=False)["w1"].critical()
    assert first == again
