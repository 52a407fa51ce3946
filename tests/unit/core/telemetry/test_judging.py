"""A device judges its own models: calm where nothing changed, sure where something did, whatever fails."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeml.reference_data import feature_reference
from edgeml.telemetry.cusum import ALARM, HIGHEST, CusumState
from edgeml.telemetry.drift_file import DRIFT_FILE, ModelDrift, SlowDrift, read_drift, write_drift
from edgeml.telemetry.judging import EVERY_S, MOST_KEYS, Judging
from edgeml.telemetry.reference import FeatureReference, Reference, with_digest
from edgeml.telemetry.report import ModelWindow, Report

NOW = 1_800_000_000.0
MINUTE_S = 60.0


def feature(name: str, seed: int) -> FeatureReference:
    made = feature_reference(name, np.random.default_rng(seed).normal(size=20_000))
    assert made is not None
    return made


REFERENCE = with_digest(
    Reference(20_000, (feature("a", 1), feature("b", 2)), classes={"yes": 10_000, "no": 10_000})
)


def known(_model: str, _release: int) -> Reference:
    return REFERENCE


class Device:
    """Gives windows of a minute to what judges, as the loop of a device does."""

    def __init__(self, home: Path, references: Callable[[str, int], Reference | None] = known) -> None:
        self.home, self.references = home, references
        self.random = np.random.default_rng(7)
        self.now_s = 1000.0
        self.wall = NOW
        self.clock = "synced"
        self.start()

    def start(self) -> None:
        self.judging = Judging(self.home, self.references)

    def minutes(
        self, count: int, shift: float = 0.0, n: int = 60, model: str = "kws", release: int = 1
    ) -> None:
        for _ in range(count):
            self.add(self.window(shift, n, model, release))

    def window(
        self, shift: float = 0.0, n: int = 60, model: str = "kws", release: int = 1, **more: object
    ) -> ModelWindow:
        columns = {one.name: self.random.normal(shift, 1, n) for one in REFERENCE.features}
        counted = {one.name: one.count(columns[one.name]) for one in REFERENCE.features}
        given = {"features": counted, "reference": REFERENCE.digest} | more
        return ModelWindow(model, release, calls=n, **given)  # type: ignore[arg-type]

    def add(self, *models: ModelWindow, seconds: float = MINUTE_S) -> None:
        begin_s, self.now_s, self.wall = self.now_s, self.now_s + seconds, self.wall + seconds
        report = Report(0, "", "boot", begin_s, self.now_s, self.wall, clock=self.clock, models=models)  # type: ignore[arg-type]
        self.judging.add(report)

    def drift(self, model: str = "kws", release: int = 1) -> ModelDrift:
        found = {(one.model, one.release): one for one in read_drift(self.home) or ()}
        return found[model, release]


@pytest.fixture(autouse=True)
def heard(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Let what is logged be heard, whatever a test before it made of the process' logging."""
    for name in ("edgeml", "edgeml.telemetry"):
        monkeypatch.setattr(logging.getLogger(name), "disabled", False)
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
    caplog.set_level(logging.WARNING, "edgeml.telemetry")


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def names(drift: ModelDrift) -> list[str]:
    return sorted(one.name for one in drift.findings)


def test_data_as_the_references_are_not_judged_as_drifted(device: Device) -> None:
    device.minutes(60)
    drift = device.drift()
    assert (drift.judged, drift.values, drift.seconds, drift.at) == (2, 3600, 3600, device.wall)
    assert drift.findings == drift.slow() == ()


def test_shifted_data_are_and_no_more_an_hour_after_they_came_back(device: Device) -> None:
    device.minutes(60)
    device.minutes(10, shift=1)
    assert names(device.drift()) == ["a", "b"]
    assert {one.test for one in device.drift().findings} <= {"w1", "ks"}
    device.minutes(60)
    assert device.drift().findings == ()


def test_it_is_judged_every_five_minutes_and_not_before(device: Device) -> None:
    device.minutes(4, shift=1)
    assert read_drift(device.home) is None
    device.minutes(1, shift=1)
    assert names(device.drift()) == ["a", "b"]
    assert device.drift().seconds == EVERY_S


def test_without_new_data_nothing_is_written(device: Device) -> None:
    device.minutes(5)
    (device.home / DRIFT_FILE).unlink()
    for _ in range(10):
        device.add()
    assert read_drift(device.home) is None


def test_small_drift_that_lasts_is_summed_up_across_restarts(device: Device) -> None:
    began = device.wall
    for _ in range(12):
        device.minutes(50, shift=0.12)
        device.judging.finish()
        device.start()
    drift = device.drift()
    assert {(one.name, one.direction) for one in drift.slow()} == {("a", "up"), ("b", "up")}
    assert all(one.since is not None and abs(one.since - began) < 100 * MINUTE_S for one in drift.slow())


def test_a_sum_has_a_ceiling_from_which_a_feature_comes_back(device: Device) -> None:
    device.minutes(60, shift=1, n=600)
    assert max(device.drift().sums["a"].sums) == HIGHEST
    device.minutes(30, n=600)
    assert device.drift().slow() == ()


def test_a_restart_keeps_the_last_judgement_until_there_is_another(device: Device) -> None:
    device.minutes(5, shift=1)
    before = device.drift()
    device.start()
    device.minutes(5, n=2)
    assert replace(device.drift(), sums={}) == replace(before, sums={})
    device.minutes(20)
    assert device.drift().findings == ()


def test_what_was_not_judged_at_the_end_is_judged_then(device: Device) -> None:
    device.minutes(3, shift=1)
    device.judging.finish()
    assert names(device.drift()) == ["a", "b"]


def test_of_few_values_nothing_is_said_but_how_many_there_are(device: Device) -> None:
    device.minutes(5, n=2)
    drift = device.drift()
    assert (drift.judged, drift.values, drift.at, drift.findings) == (0, 10, None, ())


def test_of_few_values_the_sums_reach_back_until_there_are_enough(device: Device) -> None:
    for _ in range(60):
        device.add(device.window(n=1), seconds=EVERY_S)
    for _ in range(60):
        device.add(device.window(shift=2, n=1), seconds=EVERY_S)
    drift = device.drift()
    assert 30 <= drift.values <= 36
    assert drift.seconds == drift.values * EVERY_S
    assert names(drift) == ["a", "b"]


def test_windows_of_several_processes_and_variants_are_one_release(device: Device) -> None:
    for _ in range(5):
        device.add(device.window(variant="a", runtime="litert"), device.window(variant="b"))
    (drift,) = read_drift(device.home) or ()
    assert drift.values == 600


def test_each_release_is_judged_by_itself(device: Device) -> None:
    device.minutes(5, shift=1, release=1)
    device.minutes(5, release=2)
    assert names(device.drift(release=1)) == ["a", "b"]
    assert device.drift(release=2).findings == ()
    assert max(device.drift(release=2).sums["a"].sums) < ALARM


def test_classes_are_judged(device: Device) -> None:
    for _ in range(5):
        device.add(device.window(classes={"yes": 55, "no": 5}))
    assert names(device.drift()) == ["classes"]


@pytest.mark.parametrize("jump_s", [-1e8, 1e7], ids=["back", "ahead"])
def test_a_wall_clock_that_jumps_changes_no_judgement(device: Device, jump_s: float) -> None:
    device.minutes(7)
    device.wall += jump_s
    device.minutes(8)
    drift = device.drift()
    assert (drift.values, drift.seconds, drift.at) == (900, 900, device.wall)


def test_a_clock_that_was_never_set_dates_nothing(device: Device) -> None:
    device.wall, device.clock = 1000.0, "unsynced"
    device.minutes(60, shift=0.3)
    drift = device.drift()
    assert (drift.judged, drift.at) == (2, None)
    assert SlowDrift("a", "up", None) in drift.slow()


def test_a_day_of_judgements_without_drift_has_no_finding(device: Device) -> None:
    for _ in range(288):
        device.add(device.window(n=100), seconds=EVERY_S)
        assert device.drift().findings == ()


def test_what_has_no_reference_is_not_judged(device: Device) -> None:
    device.references = lambda _model, _release: None
    device.start()
    device.minutes(5, shift=1)
    assert device.drift().judged == 0
    for _ in range(5):
        device.add(device.window(shift=1, model="other", reference=""))
    assert {one.model for one in read_drift(device.home) or ()} == {"kws"}


def test_a_release_that_is_gone_is_forgotten_at_the_next_start(device: Device) -> None:
    device.minutes(5, model="gone")
    device.references = lambda model, _release: None if model == "gone" else REFERENCE
    device.start()
    device.minutes(5)
    assert [one.model for one in read_drift(device.home) or ()] == ["kws"]


def test_another_reference_of_the_same_release_begins_anew(device: Device) -> None:
    device.minutes(5, shift=1)
    write_drift(device.home, (replace(device.drift(), reference="0" * 16),))
    device.start()
    device.minutes(5)
    assert device.drift().findings == device.drift().slow() == ()


def test_more_releases_than_are_watched_are_told_once(
    device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(20):
        device.add(*(device.window(model=f"m{place:02}") for place in range(MOST_KEYS + 3)))
    assert [one.model for one in read_drift(device.home) or ()] == [f"m{p:02}" for p in range(MOST_KEYS)]
    assert len(caplog.messages) == 1
    for _ in range(70):
        device.add(device.window(model="new"))
    assert "new" in {one.model for one in read_drift(device.home) or ()}
    assert len(read_drift(device.home) or ()) == MOST_KEYS


DAMAGED = {
    "empty": b"",
    "cut": b'{"schema": 1, "models": [{"model": "k',
    "a list": b"[]",
    "later": b'{"schema": 2}',
    "one sum": b'{"models": [{"model": "kws", "release": 1, "reference": "", "sums": {"a": {"sums": [1]}}}]}',
    "sums without bound": b'{"models": [{"model": "kws", "release": 1, "reference": "", "sums": '
    b'{"a": {"sums": ["inf", 0, 0, 0]}}}]}',
    "no time": b'{"models": [{"model": "kws", "release": 1, "reference": "", "at": 1e300}]}',
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_told_once_and_begun_anew(
    device: Device, text: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (device.home / DRIFT_FILE).write_bytes(text)
    device.start()
    device.minutes(5)
    assert device.drift().judged == 2
    assert len(caplog.records) == 1
    assert DRIFT_FILE in caplog.text


def test_a_pipe_in_place_of_the_file_stops_nothing(device: Device) -> None:
    os.mkfifo(device.home / DRIFT_FILE)
    device.start()
    device.minutes(5)
    assert device.drift().judged == 2


def test_a_file_that_cannot_be_written_is_told_once_and_tried_again(
    device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    (device.home / DRIFT_FILE).mkdir()
    device.start()
    device.minutes(15)
    assert len(caplog.records) == 2  # neither read nor written
    (device.home / DRIFT_FILE).rmdir()
    device.minutes(5)
    assert device.drift().values == 1200
    assert [path.name for path in device.home.iterdir()] == [DRIFT_FILE]


def test_an_error_in_one_model_stops_neither_the_others_nor_telemetry(
    device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(model: str, _release: int) -> Reference:
        if model == "bad":
            raise RuntimeError("no")
        return REFERENCE

    device.references = failing
    device.start()
    for _ in range(15):
        device.add(device.window(model="bad"), device.window(shift=1))
    assert names(device.drift()) == ["a", "b"]
    assert [one.getMessage() for one in caplog.records if one.exc_info] == [
        "bad 1: its drift cannot be judged"
    ]


def test_drift_is_logged_when_it_begins_and_when_it_ends(
    device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "edgeml.telemetry")
    device.minutes(60)
    assert caplog.messages == []
    device.minutes(10, shift=1)
    assert [text for text in caplog.messages if "slowly" not in text] == ["kws 1: drifted: b, a"]
    device.minutes(120)
    assert caplog.messages[-1] == "kws 1: drifts no more"


def test_the_file_keeps_what_is_written(tmp_path: Path) -> None:
    state = CusumState((ALARM, 1.0, 0.0, 2.5), (NOW, math.nan, math.nan, 5.0))
    drift = ModelDrift("kws", 1, "0" * 16, 3, NOW, 3600.0, 500, 1e-4, sums={"a": state})
    write_drift(tmp_path, (drift,))
    (read,) = read_drift(tmp_path) or ()
    assert replace(read, sums={}) == replace(drift, sums={})
    assert read.sums["a"].sums == state.sums
    assert read.slow() == (SlowDrift("a", "up", NOW),)
