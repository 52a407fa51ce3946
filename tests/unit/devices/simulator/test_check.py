"""What is compared between devices and a server, and what is forgiven."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import pytest
from edgeml_devices.messages import ModelStatus, Result, State
from edgeml_devices.simulator.check import Held, compare
from edgeml_devices.simulator.plan import Foreseen
from edgeml_devices.simulator.said import Bounds, Said, Statuses, Sums
from edgeml_devices.simulator.scenario import Rollout

BEFORE = ModelStatus(State.PROBATION, target=2, rollout="r")
AFTER = ModelStatus(State.COMMITTED, running=2, target=2, result=Result.SUCCESSFUL, rollout="r")
SUMS = Sums(Bounds(7, 7), Bounds(1, 1), {2: Bounds(70, 70)}, {2: Bounds(3, 3)})
SAID = Said(
    Bounds(2, 2),
    {"a": Statuses("sim-0", {"m": AFTER}, {"m": AFTER}), "b": Statuses("sim-1", {"m": BEFORE}, {"m": AFTER})},
    {"r": {Result.SUCCESSFUL: Bounds(1, 2)}},
    SUMS,
    SUMS,
    again=0,
    epochs=0,
)
FORESEEN = Foreseen(2, 2, ({"SUCCESSFUL": 2},), 7, 70, 3, 1)
ROLLOUT = {"state": "FINISHED", "reason": "", "counts": {"succeeded": 2, "failed": 0, "forgiven": 0}}


def device(status: ModelStatus) -> dict[str, Any]:
    return {"models": {"m": {"assigned": None, "status": asdict(status)}}}


DIGITS = Rollout("m", 2)
HELD = Held(
    {"a": device(AFTER), "b": device(AFTER)},
    {"r": ROLLOUT},
    {("m", 2): (70, 3)},
    {"received": 7, "missing": 1, "evicted": 0, "damaged": 0},
)


def wrong(held: Held, said: Said = SAID, rollout: Rollout = DIGITS) -> Mapping[str, tuple[str, ...]]:
    lines = compare(held, said, FORESEEN, {"r": rollout}, "m")
    return {line.what: line.examples for line in lines if not line.is_good}


@pytest.mark.parametrize("last", [BEFORE, AFTER])
def test_a_device_that_died_unanswered_may_have_been_heard_or_not(last: ModelStatus) -> None:
    succeeded = 2 if last is AFTER else 1
    rollout = ROLLOUT | {"counts": {"succeeded": succeeded, "failed": 0, "forgiven": 0}}
    held = replace(HELD, devices={"a": device(AFTER), "b": device(last)}, rollouts={"r": rollout})
    assert wrong(held) == {}


def test_a_state_that_no_device_said_is_shown_with_its_device() -> None:
    failed = replace(AFTER, state=State.FAILED, result=Result.FAILED_ROLLBACK_COMPLETE)
    found = wrong(replace(HELD, devices={"a": device(failed), "b": device(AFTER)}))
    assert found == {"states of devices": ("sim-0: state of m is FAILED, it said COMMITTED",)}


def test_a_device_that_is_not_there_is_named() -> None:
    found = wrong(replace(HELD, devices={"a": device(AFTER)}))
    assert found["states of devices"] == ("sim-1 is not there",)
    assert "devices" in found


def test_one_window_or_inference_more_or_less_differs() -> None:
    assert list(wrong(replace(HELD, coverage=HELD.coverage | {"received": 8}))) == ["windows"]
    assert list(wrong(replace(HELD, coverage=HELD.coverage | {"evicted": 1}))) == ["windows that were lost"]
    assert list(wrong(replace(HELD, rates={("m", 2): (69, 3)}))) == ["inferences of m/2"]
    assert list(wrong(replace(HELD, rates={}))) == ["inferences of m/2", "failed inferences of m/2"]
    assert list(wrong(replace(HELD, rates={**HELD.rates, ("x", 1): (1, 0)}))) == ["other models"]


def test_what_was_said_must_be_what_was_foreseen() -> None:
    fewer = replace(SUMS, windows=Bounds(6, 6))
    found = wrong(HELD, replace(SAID, of_those_staying=fewer))
    assert list(found) == ["windows of devices that stay"]


def test_a_rollout_in_another_state_than_expected_shows_its_reason() -> None:
    paused = {"state": "PAUSED", "reason": "too many failed"}
    held = replace(HELD, rollouts={"r": ROLLOUT | paused})
    assert wrong(held, rollout=Rollout("m", 2, expect="FINISHED")) == {"rollout of m/2": ("too many failed",)}
    assert wrong(held, rollout=Rollout("m", 2, expect="PAUSED")) == {}
