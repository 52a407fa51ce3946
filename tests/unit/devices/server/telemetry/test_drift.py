"""Drift of a fleet: the published power, no more false findings than stated, the same in any order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from edgeml_devices.server.telemetry.drift import (
    DriftTally,
    adjust,
    divergences,
    fleet_drift,
    judge_counts,
    size_bucket,
)
from edgeml_devices.server.telemetry.slow_drift import SlowDriftWatch
from edgeml_devices.server.telemetry.store import WindowRow
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeml.drift_nulls import drawn, drawn_distance
from edgeml.reference_data import feature_reference, joint_reference
from edgeml.telemetry.cusum import HIGHEST, CusumState, cusum
from edgeml.telemetry.drift import FEWEST, joint_distance, judge_feature
from edgeml.telemetry.fourier import fourier_sums, frequencies
from edgeml.telemetry.reference import CONFIDENCE, FeatureReference, Reference, with_digest
from edgeml.telemetry.report import ModelWindow

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
CONTINUOUS: dict[str, Draw] = {
    "normal": lambda random, shape: random.normal(size=shape),
    "lognormal": lambda random, shape: random.lognormal(sigma=1.5, size=shape),
    "uniform": lambda random, shape: random.random(shape),
}
DISCRETE: dict[str, Draw] = {
    "poisson": lambda random, shape: random.poisson(4, shape).astype(float),
    "rare": lambda random, shape: (random.random(shape) < 0.03).astype(float),
}


def counts_of(reference: FeatureReference, values: np.ndarray) -> np.ndarray:
    """Count each row: [windows, bins]."""
    bins = len(reference.counts)
    places = np.searchsorted(reference.edges, values, side="right")
    flat = places + bins * np.arange(len(values))[:, None]
    return np.bincount(flat.ravel(), minlength=bins * len(values)).reshape(-1, bins)


def rates(
    draw: Draw,
    change: Callable[[np.ndarray], np.ndarray],
    *,
    n: int,
    m: int,
    references: int,
    windows: int,
    level: float,
) -> dict[str, float]:
    """Give how often each test speaks, over references and windows that are all drawn anew."""
    random = np.random.default_rng(n + m)
    found: dict[str, int] = {}
    for _ in range(references):
        reference = feature_reference("x", draw(random, (m,)), nulls=False)
        assert reference is not None
        for verdict in judge_counts(reference, counts_of(reference, change(draw(random, (windows, n))))):
            for one in verdict.tests:
                found[one.test] = found.get(one.test, 0) + (one.p <= level)
    return {test: count / (references * windows) for test, count in found.items()}


def same(values: np.ndarray) -> np.ndarray:
    return values


# --- power: notes of the design, n = 1800 against 20,000, 1 % false positives


@pytest.mark.parametrize(
    ("change", "test", "least"),
    [(lambda x: x + 0.1, "w1", 0.9), (lambda x: x * 1.1, "chi2", 0.8)],
    ids=["mean +0.1", "scale x1.1"],
)
def test_the_published_power_is_reached(change, test, least) -> None:
    found = rates(CONTINUOUS["normal"], change, n=1800, m=20_000, references=80, windows=12, level=0.01)
    print(found)
    assert found[test] >= least


def joint_rate(rho: float, *, dimensions: int, n: int, m: int, windows: int) -> float:
    random = np.random.default_rng(4)
    rows = random.normal(size=(m, dimensions))
    features = [feature_reference(f"x[{place}]", rows[:, place], nulls=False) for place in range(dimensions)]
    joint = joint_reference([one for one in features if one is not None], rows)
    assert joint is not None
    mean, std = (np.array([getattr(one, name) for one in features]) for name in ("mean", "std"))
    waves = np.array(frequencies(joint.seed, joint.frequencies, dimensions, joint.scale))
    found = 0
    for _ in range(windows):
        common = random.normal(size=(n, 1))
        values = np.sqrt(1 - rho) * random.normal(size=(n, dimensions)) + np.sqrt(rho) * common
        angles = np.clip((values - mean) / std, -8, 8) @ waves.T
        sums = np.concatenate([np.cos(angles), np.sin(angles)], 1).sum(0)
        distance, _ = joint_distance(joint, sums.tolist(), n)
        found += bool(drawn_distance(joint.spectrum).p_values(distance) <= 0.01)
    return found / windows


@pytest.mark.parametrize("dimensions", [32, 64])
def test_a_correlation_of_a_twentieth_is_found_by_all_features_together(dimensions: int) -> None:
    power = joint_rate(0.05, dimensions=dimensions, n=1800, m=20_000, windows=60)
    print(dimensions, power)
    assert power >= 0.85


def test_features_together_are_calm_without_drift() -> None:
    assert joint_rate(0.0, dimensions=16, n=300, m=20_000, windows=300) <= 0.03


# --- false positives


@pytest.mark.parametrize("name", DISCRETE)
@pytest.mark.parametrize("n", [50, 1000])
def test_discrete_features_have_no_more_false_positives_than_stated(name: str, n: int) -> None:
    found = rates(DISCRETE[name], same, n=n, m=2000, references=12, windows=100, level=0.05)
    print(name, n, found)
    assert max(found.values()) <= 0.07


@pytest.mark.parametrize("n", [50, 500])
def test_false_positives_are_as_many_as_stated(n: int) -> None:
    found = rates(CONTINUOUS["normal"], same, n=n, m=20_000, references=10, windows=400, level=0.05)
    print(n, found)
    # 5 % of 4,000: 0.7 points are two standard errors
    assert all(0.04 <= rate <= 0.06 for rate in found.values())


@pytest.mark.soak
@pytest.mark.parametrize("name", CONTINUOUS)
@pytest.mark.parametrize(("n", "m"), [(50, 500), (200, 2000), (1000, 500), (1800, 20_000), (100_000, 20_000)])
def test_false_positives_are_within_a_fifth_of_what_is_stated(name: str, n: int, m: int) -> None:
    references = 1000 if n <= 2000 else 400
    windows = 5 if m >= 10 * n else 1  # windows that share a reference share its error
    at5 = rates(
        CONTINUOUS[name], same, n=n, m=m, references=references * 4 // windows, windows=windows, level=0.05
    )
    print(name, n, m, at5)
    noise = 2.6 * np.sqrt(0.05 * 0.95 / (references * 4))
    assert all(0.04 - noise <= rate <= 0.06 + noise for rate in at5.values())


# --- fleets


@pytest.fixture(scope="module")
def reference() -> Reference:
    random = np.random.default_rng(2)
    rows = random.normal(size=(5000, 3))
    rows[:, 2] = np.round(rows[:, 2])
    features = [feature_reference(f"x[{place}]", rows[:, place]) for place in range(3)]
    known = [one for one in features if one is not None]
    return with_digest(
        Reference(
            5000,
            tuple(known),
            classes={"cat": 3000, "dog": 1500, "eel": 500},
            confidence=feature_reference(CONFIDENCE, random.beta(8, 2, 5000)),
            joint=joint_reference(known, rows),
        )
    )


def row(reference: Reference, device: str, seed: int, shift: float = 0.0, n: int = 200, **more) -> WindowRow:
    random = np.random.default_rng(seed)
    values = random.normal(size=(n, 3)) + np.array([shift, 0, 0])
    values[:, 2] = np.round(values[:, 2])
    features = {one.name: one.count(values[:, place]) for place, one in enumerate(reference.features)}
    assert reference.confidence is not None
    features[CONFIDENCE] = reference.confidence.count(random.beta(8, 2, n))
    labels = random.choice(["cat", "dog", "eel"], n, p=[0.6, 0.3, 0.1])
    sums, count = fourier_sums(reference, values[:50])
    window = ModelWindow(
        "kws",
        more.pop("release", 1),
        calls=n,
        classes={name: int((labels == name).sum()) for name in ("cat", "dog", "eel")},
        features=features,
        rff_sum=sums,
        rff_count=count,
        reference=reference.digest,
    )
    return WindowRow(60.0 * seed, 60.0, device, more.pop("target", "host"), replace(window, **more))


def fleet(reference: Reference, devices: int, shifted: str = "", windows: int = 3) -> Iterator[WindowRow]:
    for device in range(devices):
        for window in range(windows):
            name = f"d{device}"
            shift = 0.5 if name == shifted else 0.0
            yield row(reference, name, 1000 * device + window, shift, target=f"t{device % 2}")


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


# --- small drift that lasts


HOUR_S = 3600.0


def slow(watch: SlowDriftWatch, reference: Reference, hours: range, shift: float = 0.0) -> None:
    """Tell a device's hours, of six windows each."""
    for hour in hours:
        for place in range(6):
            at = HOUR_S * hour + 600.0 * (place + 1)
            watch.add([replace(row(reference, "d", 6 * hour + place, shift, n=20), at=at, seconds=600.0)])


def test_small_drift_that_lasts_is_found_and_dated(reference: Reference) -> None:
    watch = SlowDriftWatch({reference.digest: reference})
    slow(watch, reference, range(50))
    assert watch.found() == ()
    slow(watch, reference, range(50, 250), 0.2)
    (alarm,) = watch.found()
    assert (alarm.group.name, alarm.feature, alarm.direction, alarm.lasts) == ("d", "x[0]", "up", True)
    assert 40 * HOUR_S <= alarm.since <= 120 * HOUR_S
    assert alarm.since < alarm.at < 240 * HOUR_S


def test_slow_drift_that_is_over_says_so(reference: Reference) -> None:
    watch = SlowDriftWatch({reference.digest: reference})
    slow(watch, reference, range(150), 0.4)
    slow(watch, reference, range(150, 350))
    assert [(one.feature, one.direction, one.lasts) for one in watch.found()] == [("x[0]", "up", False)]


def test_the_server_sums_up_hours_as_the_device_does_its_five_minutes(reference: Reference) -> None:
    watch = SlowDriftWatch({reference.digest: reference})
    state = CusumState()
    one = reference.features[0]
    for hour in range(20):
        window = replace(row(reference, "d", hour, 0.4), at=HOUR_S * (hour + 1))
        half = replace(window, at=window.at - 1800)
        watch.add([half, window])
        counts = [2 * count for count in window.window.features[one.name]]
        state = cusum(one, state, counts, half.at - half.seconds)
    watch.found()
    (sums,) = watch._sums.values()
    assert sums.values[0, :4] == pytest.approx([min(HIGHEST, value) for value in state.sums])
    assert sums.since[0, :4] == pytest.approx(state.since)


def test_pieces_of_an_hour_change_nothing(reference: Reference) -> None:
    rows = [
        replace(row(reference, f"d{device}", device + 9 * hour, 0.3), at=HOUR_S * (hour + 1))
        for hour in range(60)
        for device in range(9)
    ]
    found = []
    for size in (1, 7, 1000):
        watch = SlowDriftWatch({reference.digest: reference})
        for start in range(0, len(rows), size):
            watch.add(rows[start : start + size])
        found.append(watch.found())
    assert found[0]
    assert found[0] == found[1] == found[2]


def test_groups_beyond_the_most_are_counted_not_watched(reference: Reference) -> None:
    watch = SlowDriftWatch({reference.digest: reference}, "release", most_groups=2)
    watch.add(row(reference, "d", 1, release=release) for release in (1, 2, 3, 4, 1))
    assert (watch.groups, watch.left_aside) == (2, 2)


def test_a_window_that_fits_no_reference_starts_no_sum(reference: Reference) -> None:
    empty = with_digest(Reference(1, classes={"cat": 1}))
    watch = SlowDriftWatch({empty.digest: empty})
    other = row(reference, "d", 1)
    watch.add([other, replace(other, window=replace(other.window, reference=empty.digest))])
    assert (watch.found(), watch.groups, watch.without_reference) == ((), 0, 1)


# --- false alarms of whole fleets


def false_alarms(devices: int, days: int, features: int, per_day: int) -> int:
    """Give on how many days anything was found in a fleet that does not drift, one reference for all."""
    random = np.random.default_rng(11)
    known = [feature_reference(f"x[{place}]", random.normal(size=20_000)) for place in range(features)]
    reference = with_digest(Reference(20_000, tuple(one for one in known if one is not None)))
    shares = [np.diff(_normal_cdf(one.edges), prepend=0, append=1) for one in reference.features]
    found = 0
    for day in range(days):
        windows = [random.multinomial(per_day, share, devices) for share in shares]
        rows = (
            WindowRow(
                86400.0 * day,
                86400.0,
                f"d{device}",
                "host",
                ModelWindow(
                    "m",
                    1,
                    features={
                        one.name: tuple(counts[device].tolist())
                        for one, counts in zip(reference.features, windows, strict=True)
                    },
                    reference=reference.digest,
                ),
            )
            for device in range(devices)
        )
        found += any(one.drifted for one in fleet_drift({reference.digest: reference}, rows))
    return found


def _normal_cdf(edges: tuple[float, ...]) -> np.ndarray:
    from scipy.stats import norm

    return np.asarray(norm.cdf(edges))


def test_a_small_fleet_without_drift_has_no_false_alarm_in_a_week() -> None:
    assert false_alarms(devices=50, days=7, features=4, per_day=1440) == 0


@pytest.mark.soak
def test_a_thousand_devices_have_no_more_false_alarms_in_thirty_days_than_stated() -> None:
    """One question a day, a false discovery rate of 1 %: 0.3 days of 30; 3 come up once in 300 times."""
    found = false_alarms(devices=1000, days=30, features=20, per_day=1440)
    print(found, "days of 30")
    assert found <= 2


def slow_alarms(devices: int, hours: int, features: int, per_hour: int) -> SlowDriftWatch:
    """Watch a fleet that does not drift, each device by itself, one reference for all."""
    random = np.random.default_rng(12)
    known = [
        feature_reference(f"x[{place}]", random.normal(size=20_000), nulls=False) for place in range(features)
    ]
    reference = with_digest(Reference(20_000, tuple(one for one in known if one is not None)))
    shares = [np.diff(_normal_cdf(one.edges), prepend=0, append=1) for one in reference.features]
    names = [one.name for one in reference.features]
    watch = SlowDriftWatch({reference.digest: reference})
    for hour in range(1, hours + 1):
        counted = [random.multinomial(per_hour, share, devices).tolist() for share in shares]
        for device in range(devices):
            counts = {name: tuple(one[device]) for name, one in zip(names, counted, strict=True)}
            window = ModelWindow("m", 1, features=counts, reference=reference.digest)
            watch.add([WindowRow(HOUR_S * hour, HOUR_S, f"d{device}", "host", window)])
    return watch


def test_a_small_fleet_without_drift_has_no_slow_drift_in_thirty_days() -> None:
    watch = slow_alarms(devices=20, hours=720, features=4, per_hour=600)
    assert watch.found() == ()
    assert watch.false_alarms_at_most == pytest.approx(20 * 720 * 4 * 4 / 1e8)


@pytest.mark.soak
def test_a_thousand_devices_without_drift_have_no_slow_drift_in_thirty_days() -> None:
    """Stated are 0.58 in the mean at most, where all 20 references err as much as is allowed for."""
    watch = slow_alarms(devices=1000, hours=720, features=20, per_hour=60)
    print(watch.false_alarms_at_most)
    assert len(watch.found()) <= 2


def test_nulls_are_the_same_in_every_process(reference: Reference) -> None:
    one = reference.features[0]
    first = drawn.__wrapped__(one.counts, (1.0,) * len(one.edges), 100, discrete=False)["w1"].critical()
    again = drawn.__wrapped__(one.counts, (1.0,) * len(one.edges), 100, discrete=False)["w1"].critical()
    assert first == again
