"""One device cannot fill the disk or the pages; one that was away for weeks is not held up."""

from __future__ import annotations

import pytest
from edgeml_devices.server.refusals import RefusalError
from edgeml_devices.server.telemetry.quotas import BURST_BYTES, BYTES_PER_S, MOST_SERIES, Quotas

from edgeml.errors import MessageError
from edgeml.telemetry.report import Batch, ModelWindow, Report


class Clock:
    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        return self.now


def batch(*models: str, reports: int = 1) -> Batch:
    windows = tuple(ModelWindow(model, 1) for model in models)
    made = [Report(seq, "0" * 16, "b", 0.0, 60.0, 1.0, models=windows) for seq in range(reports)]
    return Batch("0" * 32, "b", 60.0, 1.0, tuple(made))


def test_a_device_that_names_ever_more_models_is_refused_and_others_are_not() -> None:
    quotas = Quotas(clock := Clock())
    for number in range(MOST_SERIES):
        quotas.check("hostile", "pi", batch(f"m{number}"), 100)
    with pytest.raises(MessageError, match="report 0: models"):
        quotas.check("hostile", "pi", batch("one more"), 100)
    with pytest.raises(MessageError):
        quotas.check("hostile", "another kind of machine", batch("m1"), 100)
    quotas.check("hostile", "pi", batch("m1"), 100)
    quotas.check("honest", "pi", batch("one more"), 100)
    clock.now += 86400
    quotas.check("hostile", "pi", batch("of the next day"), 100)


def test_a_spool_of_weeks_is_taken_at_once_and_a_flood_is_not() -> None:
    quotas = Quotas(clock := Clock())
    for _ in range(40 * 24 * 60 // 64):
        quotas.check("late", "pi", batch("kws", reports=64), 64 * 1600)
    for _ in range(BURST_BYTES // 201_000):
        quotas.check("hostile", "pi", batch("kws"), 200_000)
    with pytest.raises(RefusalError) as caught:
        quotas.check("hostile", "pi", batch("kws"), 200_000)
    assert caught.value.status == 429
    wait_s = int(caught.value.headers["Retry-After"])
    assert 0 < wait_s <= 200_000 // BYTES_PER_S + 1
    clock.now += wait_s
    quotas.check("hostile", "pi", batch("kws"), 200_000)
