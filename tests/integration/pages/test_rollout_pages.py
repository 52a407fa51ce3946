"""What the pages of rollouts show."""

from __future__ import annotations

import pytest
from edgeml_devices.server.rollouts.policy import Gates, Policy, Wave

from tests.integration.pages.browser import Browser, Shown
from tests.integration.pages.document import Element
from tests.integration.pages.fleet import Fleet

pytestmark = pytest.mark.anyio
WAVES = (Wave(count=4, soak_s=600.0), Wave(percent=100.0))


def cards(shown: Shown) -> list[Element]:
    return [one for one in shown.main.one("ol").children if isinstance(one, Element)]


def widths(bar: Element) -> list[tuple[str, float]]:
    """The parts of a bar, as (look, share in per cent)."""
    rects = [one.attributes for one in bar.all("rect") if one.attributes["class"] != "ground"]
    return [(one["class"], round(float(one["width"]) / 10, 1)) for one in rects]


async def test_a_rollout_shows_its_waves_by_state(fleet: Fleet, viewer: Browser) -> None:
    ids = await fleet.devices(f"d{number}" for number in range(10))
    policy = Policy("kws", 3, selector="site=berlin", waves=WAVES)
    await fleet.rollout("r1", policy, reason="wave 1 soaks for 400 s more")
    await fleet.wave("r1", 1, {"SUCCEEDED": ids[:3], "FAILED:latency": ids[3:4]})
    await fleet.members("r1", 2, {"WAITING": ids[4:]})
    shown = await viewer.open("/console/rollouts/r1")
    assert shown.title == "kws/3 RUNNING"
    assert "wave 1 soaks for 400 s more" in shown.main.text
    first, second = cards(shown)
    assert "Wave 1 4 devices, current" in first.text
    assert "SUCCEEDED 3 (75 %)" in first.text
    assert "FAILED 1 (25 %)" in first.text
    assert "Passes when 90 % have committed, for 10 min." in first.text
    assert first.attributes["aria-current"] == "step"
    assert widths(first) == [("good", 75.0), ("bad", 25.0)]
    assert "Wave 2 up to 100 %" in second.text
    assert "Not released yet" in second.text
    assert widths(second) == [("quiet", 100.0)]
    assert widths(next(shown.main.all("svg"))) == [("good", 30.0), ("bad", 10.0), ("quiet", 60.0)]


async def test_gates_show_their_values_and_why_they_wait(fleet: Fleet, viewer: Browser) -> None:
    ids = await fleet.devices(f"d{number}" for number in range(4))
    gates = Gates(latency_p95_ratio=1.1, error_rate_difference=0.01, selftest_failed_share=0.1)
    await fleet.rollout("r1", Policy("kws", 3, selector="", gates=gates))
    await fleet.wave("r1", 1, {"SUCCEEDED": ids})
    await fleet.tally("r1", "new", 34, 4.0)
    await fleet.tally("r1", "old", 500, 4.0)

    async def rows() -> list[list[str]]:
        return (await viewer.open("/console/rollouts/r1")).main.table("Gates of wave 1")

    latency, errors, selftests = await rows()
    why = "raspberry-pi-4: 34 calls of release 3, 100 are needed"
    assert latency == [f"latency_p95_ratio {why}", "MISSING", "no data", "1.1"]
    assert errors == [f"error_rate_difference {why}", "MISSING", "no data", "0.01"]
    assert selftests == ["selftest_failed_share 0 of 4 devices", "PASSED", "0", "0.1"]


async def test_a_gate_that_failed_says_so(fleet: Fleet, viewer: Browser) -> None:
    ids = await fleet.devices(["a"])
    await fleet.rollout("r1", Policy("kws", 3, selector="", gates=Gates(latency_p95_ratio=1.1)))
    await fleet.wave("r1", 1, {"SUCCEEDED": ids})
    await fleet.tally("r1", "new", 200, 8.0)
    await fleet.tally("r1", "old", 200, 4.0)
    (row,) = (await viewer.open("/console/rollouts/r1")).main.table("Gates of wave 1")
    assert row[1:] == ["FAILED", "2", "1.1"]
    assert "200 against 200 calls" in row[0]


async def test_failures_are_counted_by_reason_and_the_last_are_named(fleet: Fleet, viewer: Browser) -> None:
    ids = await fleet.devices(f"d{number}" for number in range(6))
    await fleet.rollout("r1", Policy("kws", 3, selector=""))
    states = {"FAILED:latency": ids[:3], "FAILED:parity": ids[3:4], "SKIPPED:silent": ids[4:5]}
    await fleet.wave("r1", 1, states | {"ASSIGNED": ids[5:]})
    main = (await viewer.open("/console/rollouts/r1")).main
    assert main.table("Devices that failed") == [
        ["FAILED", "latency", "3"],
        ["FAILED", "parity", "1"],
        ["SKIPPED", "silent", "1"],
    ]
    last = main.table("The last devices that failed")
    assert sorted(row[0] for row in last) == ["d0", "d1", "d2", "d3"]
    assert {row[2] for row in last} == {"latency", "parity"}
    assert f"latency of {ids[0]}" in {row[4] for row in last}


async def test_devices_under_way_are_counted_by_what_they_reported(fleet: Fleet, viewer: Browser) -> None:
    a, b, c = await fleet.devices(["a", "b", "c"])
    await fleet.rollout("r1", Policy("kws", 3, selector=""))
    await fleet.wave("r1", 1, {"ASSIGNED": [a, b, c]})
    await fleet.status(a, state="PROBATION", target=3)
    await fleet.status(b, state="FETCHING", target=3)
    text = (await viewer.open("/console/rollouts/r1")).main.text
    for part in ("1 PROBATION", "1 FETCHING", "1 not heard of yet"):
        assert part in text


async def test_a_rollout_that_runs_loads_itself_again_until_that_is_stopped(
    fleet: Fleet, viewer: Browser
) -> None:
    await fleet.rollout("r1", Policy("kws", 3, selector=""))

    def refreshes(shown: Shown) -> bool:
        return bool(list(shown.document.all("meta", **{"http-equiv": "refresh"})))

    shown = await viewer.open("/console/rollouts/r1")
    assert refreshes(shown)
    stopped = await viewer.open(f"/console/rollouts/r1{shown.main.link('Stop that')}")
    assert not refreshes(stopped)
    assert stopped.main.link("Keep it up to date") == "?"


async def test_a_rollout_that_is_over_does_not_load_itself_again(fleet: Fleet, viewer: Browser) -> None:
    await fleet.rollout("r1", Policy("kws", 3, selector=""), state="FINISHED", ended_at=fleet.now)
    shown = await viewer.open("/console/rollouts/r1")
    assert 'http-equiv="refresh"' not in shown.html
    assert "loads itself" not in shown.main.text


async def test_rollouts_are_listed_newest_first_on_pages(fleet: Fleet, viewer: Browser) -> None:
    for number in range(45):
        # two of the same moment each: a page must neither repeat nor miss one
        created_at = fleet.now - 10_000 + number // 2
        await fleet.rollout(f"r{number:02d}", Policy("kws", number + 1, selector=""), created_at=created_at)
    seen, path = [], "/console/rollouts"
    while path:
        main = (await viewer.open(path)).main
        seen += [heading.one("a").text for heading in main.all("h2")]
        path = main.link("Older") if "Older" in main.text else ""
    assert seen == [f"kws/{number}" for number in range(45, 0, -1)]
