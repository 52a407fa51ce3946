"""Health gates: the new release against the old one in the same period; missing data never passes."""

from __future__ import annotations

import pytest
from edgeml_devices.server.alerts.tables import alert_rules, alerts
from sqlalchemy import delete, insert

from edgeml.targets import target, target_to_json
from tests.integration.rollouts.fleet import Fleet

pytestmark = pytest.mark.anyio
WAVES = [{"count": 2}, {"percent": 100}]


async def begin(fleet: Fleet, **policy) -> tuple[str, list[str], list[str]]:
    """Give a rollout whose first wave of two devices has committed; those devices, and the others."""
    ids = await fleet.add(6)
    rollout = await fleet.start(waves=WAVES, **policy)
    await fleet.tick()
    new = await fleet.in_wave(rollout, 1)
    await fleet.commit(*new)
    return rollout, new, [one for one in ids if one not in new]


async def test_the_wave_waits_while_data_are_missing_and_then_pauses(fleet: Fleet) -> None:
    rollout, new, _ = await begin(fleet, gates={"latency_p95_ratio": 1.2, "timeout_s": 600})
    await fleet.measure(new[0], 2, calls=500)
    await fleet.tick(2)
    found = await fleet.rollout(rollout)
    assert found.wave == 1
    assert found.reason == (
        "wave 1 waits: latency_p95_ratio has no data: "
        "raspberry-pi-4: 0 calls of the release before, 100 are needed"
    )
    await fleet.tick(599)
    assert await fleet.state(rollout) == "RUNNING"
    await fleet.tick(2)
    assert await fleet.state(rollout) == "PAUSED"


async def test_a_release_as_quick_as_the_old_one_passes(fleet: Fleet) -> None:
    rollout, new, old = await begin(fleet, gates={"latency_p95_ratio": 1.2})
    await fleet.measure(new[0], 2, calls=500, latency_ms=10)
    await fleet.measure(old[0], 1, calls=500, latency_ms=10)
    await fleet.tick(2)
    assert (await fleet.rollout(rollout)).wave == 2


async def test_a_slower_release_pauses(fleet: Fleet) -> None:
    rollout, new, old = await begin(fleet, gates={"latency_p95_ratio": 1.2})
    await fleet.measure(new[0], 2, calls=500, latency_ms=20)
    await fleet.measure(old[0], 1, calls=500, latency_ms=10)
    await fleet.tick(2)
    found = await fleet.rollout(rollout)
    assert found.state == "PAUSED"
    assert found.reason.startswith("wave 1: latency_p95_ratio is 2, at most 1.2")


async def test_more_errors_than_before_abort_where_that_is_the_rule(fleet: Fleet) -> None:
    gates = {"error_rate_difference": 0.01}
    rollout, new, old = await begin(fleet, gates=gates, on_error="abort")
    await fleet.measure(new[0], 2, calls=200, errors=4)
    await fleet.measure(old[0], 1, calls=200, errors=1)
    await fleet.tick(2)
    await fleet.tick()
    assert await fleet.state(rollout) == "ABORTED"


async def test_health_of_before_the_wave_does_not_count(fleet: Fleet) -> None:
    ids = await fleet.add(6)
    await fleet.measure(ids[0], 1, calls=500)
    fleet.now += 10
    rollout = await fleet.start(waves=WAVES, gates={"latency_p95_ratio": 1.2})
    await fleet.tick()
    await fleet.commit(*await fleet.in_wave(rollout, 1))
    await fleet.measure((await fleet.in_wave(rollout, 1))[0], 2, calls=500)
    await fleet.tick(2)
    assert (await fleet.rollout(rollout)).wave == 1


async def test_kinds_of_machines_are_compared_with_their_like(fleet: Fleet) -> None:
    slow = {"target": target_to_json(target("raspberry-pi-zero-2w")), "engines": {"litert": "2.1.0"}}
    zeros = await fleet.add(2, facts=slow, labels={"kind": "zero"})
    pis = await fleet.add(2)
    waves = [{"selector": "kind=zero"}, {"percent": 100}]
    rollout = await fleet.start(waves=waves, gates={"latency_p95_ratio": 1.2})
    await fleet.tick()
    await fleet.commit(*zeros)
    await fleet.measure(zeros[0], 2, calls=500, latency_ms=50)
    await fleet.measure(pis[0], 1, calls=500, latency_ms=10)
    await fleet.tick(2)
    found = await fleet.rollout(rollout)
    assert found.state == "RUNNING", "five times slower than another kind of machine is no fault"
    assert found.wave == 1
    assert "raspberry-pi-zero-2w: 0 calls of the release before" in found.reason


async def test_where_no_device_is_left_on_the_old_release_the_earlier_waves_are_the_control(
    fleet: Fleet,
) -> None:
    rollout, new, old = await begin(fleet, gates={"latency_p95_ratio": 1.2})
    await fleet.measure(new[0], 2, calls=500)
    await fleet.measure(old[0], 1, calls=500)
    await fleet.tick(2)
    await fleet.tick()
    await fleet.commit(*old)
    await fleet.measure(old[0], 2, calls=500)
    await fleet.tick(2)
    assert await fleet.state(rollout) == "FINISHED"


async def test_a_wave_may_do_without_gates(fleet: Fleet) -> None:
    await fleet.add(2)
    waves = [{"percent": 100, "gates": False}]
    rollout = await fleet.start(waves=waves, gates={"latency_p95_ratio": 1.2})
    await fleet.tick()
    await fleet.commit("d000", "d001")
    await fleet.tick()
    assert await fleet.state(rollout) == "FINISHED"


async def test_failed_self_tests_are_a_gate_of_their_own(fleet: Fleet) -> None:
    await fleet.add(10)
    gates = {"selftest_failed_share": 0.1}
    rollout = await fleet.start(gates=gates, max_failed_share=1.0, success_threshold=0.1)
    await fleet.tick()
    await fleet.fail("d000", reason="parity")
    await fleet.fail("d001", reason="heartbeat")
    await fleet.tick()
    assert await fleet.state(rollout) == "RUNNING", "one of two outcomes is below the sample"
    await fleet.commit("d002", "d003")
    await fleet.fail("d004", reason="latency")
    await fleet.tick()
    found = await fleet.rollout(rollout)
    assert found.reason == "wave 1: selftest_failed_share is 0.4, at most 0.1 (2 of 5 devices)"


@pytest.mark.parametrize(
    "bad",
    [
        {"calls": 5, "latency_counts": {"abc": 1}},
        {"calls": 5, "latency_counts": [1]},
        {"calls": 5, "latency_counts": {"1": 2**63 - 1, "2": 2**63 - 1}},
        {"calls": 2**63 - 1, "latency_counts": {}},
        {"calls": 5, "errors": 2**62, "latency_counts": {}},
        {"calls": -5, "latency_counts": {}},
    ],
)
async def test_a_health_row_that_cannot_be_counts_in_no_gate(fleet: Fleet, bad: dict) -> None:
    rollout, new, old = await begin(fleet, gates={"latency_p95_ratio": 1.2, "error_rate_difference": 0.01})
    for _ in range(2):
        await fleet.measure(new[0], 2, **bad)
    await fleet.measure(new[0], 2, calls=500)
    await fleet.measure(old[0], 1, calls=500)
    await fleet.tick(2)
    found = await fleet.rollout(rollout)
    assert (found.wave, found.state) == (2, "RUNNING")


# --- alert rules


async def evaluated(fleet: Fleet, *firing: dict[str, str], error: str = "") -> None:
    """Write what an evaluation of the rule ``Slow`` leaves behind."""
    async with fleet.database.writing() as tx:
        await tx.connection.execute(delete(alert_rules))
        await tx.connection.execute(delete(alerts))
        rule = {"name": "Slow", "expression": "error_rate > 1", "claimed_until": 0, "left_out": 0}
        await tx.connection.execute(
            insert(alert_rules).values(rule | {"evaluated_at": fleet.now, "error": error})
        )
        for place, key in enumerate(firing):
            row = {"rule": "Slow", "key_sha256": str(place), "key": list(key.items()), "state": "firing"}
            times = dict.fromkeys(("value", "since", "held_at"), 1.0)
            await tx.connection.execute(insert(alerts).values(row | times))


async def test_a_wave_waits_until_its_alert_rules_were_evaluated(fleet: Fleet) -> None:
    rollout, _, _ = await begin(fleet, gates={"alerts": ["Slow"]})
    await fleet.tick(2)
    found = await fleet.rollout(rollout)
    assert "alert Slow has no data: the server has no such alert rule" in found.reason
    await evaluated(fleet, error="no device pi")
    await fleet.tick(2)
    assert "it cannot be evaluated: no device pi" in (await fleet.rollout(rollout)).reason
    await evaluated(fleet)
    await fleet.tick(1)
    assert (await fleet.rollout(rollout)).wave == 2


@pytest.mark.parametrize(
    ("key", "fails"),
    [
        ({"model": "kws", "release": "2"}, True),
        ({"device": "pi-1"}, True),
        ({}, True),
        ({"model": "kws", "release": "1"}, False),
        ({"model": "another", "release": "2"}, False),
    ],
)
async def test_an_alert_that_fires_for_the_release_pauses(
    fleet: Fleet, key: dict[str, str], fails: bool
) -> None:
    rollout, _, _ = await begin(fleet, gates={"alerts": ["Slow"]})
    await evaluated(fleet, key)
    await fleet.tick(1)
    found = await fleet.rollout(rollout)
    if fails:
        assert found.state == "PAUSED"
        assert found.reason.startswith("wave 1: alert Slow is 1, at most 0")
    else:
        assert (found.state, found.wave) == ("RUNNING", 2)
