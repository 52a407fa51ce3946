"""What the pages of telemetry show: the fleet, one release, one device."""

from __future__ import annotations

import random
import time

import pytest
from edgeml_devices.server.pages.queries.sampling import MOST
from edgeml_devices.server.services import Services
from edgeml_devices.server.telemetry.store import Incoming

from tests.integration.pages.browser import Browser
from tests.integration.pages.document import Element
from tests.integration.pages.fleet import Fleet
from tests.integration.pages.telemetry import FEATURE, Told, tell
from tests.integration.telemetry.windows import Telemetry, model_window

pytestmark = pytest.mark.anyio


@pytest.fixture
async def told(fleet: Fleet, services: Services) -> Told:
    return await tell(fleet, services)


def pictures(main: Element, title: str) -> list[Element]:
    """Both forms of the picture with this title."""
    found = [one for one in main.all("figure") if one.one("figcaption").text.startswith(title)]
    assert len(found) == 1, (title, [one.text for one in main.all("figcaption")])
    return [one for one in found[0].all("svg") if "chart" in one.attributes["class"].split()]


# --- nothing there yet


async def test_without_telemetry_the_pages_say_what_to_do(fleet: Fleet, viewer: Browser) -> None:
    (device,) = await fleet.devices(["a"])
    text = (await viewer.open("/console/telemetry")).main.text
    assert "edgeml agent run" in text
    assert "--alert-rules FILE" in text
    assert "edgeml convert" in text
    assert "edgeml rollout start" in (await viewer.open("/console/release?model=kws&release=3")).main.text
    assert "edgeml agent status" in (await viewer.open(f"/console/devices/{device}")).main.text


# --- the fleet


@pytest.mark.usefixtures("told")
async def test_the_fleet_is_shown_by_release_with_what_is_not_known(viewer: Browser) -> None:
    main = (await viewer.open("/console/telemetry")).main
    later, earlier = main.table("Latency of calls")
    assert (later[0], earlier[0]) == ("kws/8", "kws/7")
    assert later[1].startswith("2,880")
    assert later[5].startswith("10 % ")
    assert earlier[5].startswith("0 % 0 %–0.")
    assert later[6].startswith("drifted")
    assert earlier[6] == "as expected"


@pytest.mark.usefixtures("told")
async def test_alerts_that_fire_lead_to_their_device(viewer: Browser) -> None:
    main = (await viewer.open("/console/telemetry")).main
    rows = main.table("Alerts that fire")
    assert [row[:3] for row in rows] == [
        ["SlowDevice", "firing", "pi-5"],
        ["ManyErrors", "pending", "the fleet"],
    ]
    assert (await viewer.open(main.link("pi-5"))).title == "pi-5"
    overview = (await viewer.open("/console")).main
    assert (await viewer.open(overview.link("1 alert fires"))).title == "Telemetry"


async def test_what_is_missing_is_counted_and_named(told: Told, viewer: Browser) -> None:
    main = (await viewer.open("/console/telemetry")).main
    days = main.table("What came, by day")
    assert sum(int(row[3]) for row in days) == 3
    (worst,) = main.table("Devices of which something is missing")
    assert worst[0] == "pi-0"
    device = (await viewer.open(f"/console/devices/{told.ids[0]}")).main
    rows = device.table("What came, by day")
    assert "1–3" in [row[9] for row in rows]


@pytest.mark.usefixtures("told")
async def test_devices_that_are_silent_are_counted(fleet: Fleet, viewer: Browser) -> None:
    await fleet.devices(["mute", "muter"])
    assert "2 enrolled devices sent nothing" in (await viewer.open("/console/telemetry")).main.text


# --- one release


@pytest.mark.usefixtures("told")
async def test_a_release_is_held_against_the_one_before_it(viewer: Browser) -> None:
    main = (await viewer.open("/console/release?model=kws&release=8")).main
    rows = {row[0]: row for row in main.table("This release by")}
    assert rows["latency p50"][3] == "slower"
    assert 1.4 < float(rows["latency p50"][1].removeprefix("×")) < 1.6
    assert rows["error rate, difference in points"][1] == "10"
    assert rows["error rate, difference in points"][3] == "more errors"
    first = (await viewer.open("/console/release?model=kws&release=7")).main
    assert "No earlier release of kws ran" in first.text


@pytest.mark.usefixtures("told")
async def test_the_heat_map_has_the_hours_and_buckets_that_were_counted(viewer: Browser) -> None:
    main = (await viewer.open("/console/release?model=kws&release=8")).main
    wide, narrow = pictures(main, "Latency of calls")
    cells = list(wide.all("rect"))
    assert len(cells) == len(list(narrow.all("rect"))) > 8
    assert {one.attributes["x"] for one in cells} == {cells[0].attributes["x"]}  # all in one hour
    assert max(float(one.attributes["fill-opacity"]) for one in cells) == 1.0
    assert "p95" in wide.attributes["aria-label"]
    (hour,) = main.table("Latency and errors")
    assert hour[1] == "2,880"


@pytest.mark.usefixtures("told")
async def test_what_drifted_is_drawn_against_the_reference(viewer: Browser) -> None:
    main = (await viewer.open("/console/release?model=kws&release=8")).main
    rows = {row[0]: row for row in main.table("Features against")}
    assert rows[FEATURE][2] == "drifted"
    assert 0.8 < float(rows[FEATURE][5]) < 1.2
    assert rows["classes"][2] == "as expected"
    wide, _ = pictures(main, f"{FEATURE} of kws/8")
    assert len(list(wide.all("rect"))) > 20
    assert len(list(wide.all("path"))) == 1
    assert "it drifted" in wide.attributes["aria-label"]


@pytest.mark.usefixtures("told")
async def test_kept_samples_name_their_device(viewer: Browser) -> None:
    main = (await viewer.open("/console/release?model=kws&release=8")).main
    rows = main.table("The newest inferences")
    assert len(rows) == 20
    assert rows[0][1].startswith("pi-")
    assert rows[0][2:5] == ["unsure", "yes", "0.51"]


@pytest.mark.usefixtures("told")
async def test_pages_lead_to_each_other(viewer: Browser) -> None:
    listed = (await viewer.open("/console/releases")).main
    shown = await viewer.open(listed.link("kws/8"))
    assert shown.title == "kws/8"
    longer = await viewer.open(shown.main.link("last 7 days"))
    assert "Calls in the last 7 days" in longer.main.text
    assert (await viewer.open(longer.main.link("kws/7"))).title == "kws/7"
    fleet = await viewer.open(shown.main.link("Telemetry"))
    assert fleet.title == "Telemetry"


async def test_a_release_or_time_that_cannot_be_read_is_refused(viewer: Browser) -> None:
    for query in ("model=kws&release=x", "model=kws&release=1&span=1y", "model=kws"):
        assert (await viewer.open(f"/console/release?{query}")).status == 400


# --- one device


async def test_a_device_shows_its_models_and_its_machine(told: Told, viewer: Browser) -> None:
    main = (await viewer.open(f"/console/devices/{told.ids[5]}")).main
    assert [row[0] for row in main.table("Latency of calls")] == ["kws/8", "kws/7"]
    assert main.table("Alerts that fire")[0][0] == "SlowDevice"
    latency, _ = pictures(main, "Latency of kws")
    assert len([one for one in latency.all("path") if "stroke" in one.attributes["class"]]) == 3
    assert pictures(main, "Error rate of kws")
    temperature, _ = pictures(main, "Temperature by hour")
    assert "greatest 70.5" in temperature.attributes["aria-label"]
    assert pictures(main, "Time in which the machine was slowed down")
    readings = {row[0]: row for row in main.table("Readings")}
    assert readings["throttled"][2] == "25 %"
    assert readings["temperature celsius"][3] == "70.5 °C"
    assert "Energy by inference, of the whole machine: 2 J" in main.text


async def test_another_devices_telemetry_is_not_shown(told: Told, viewer: Browser) -> None:
    main = (await viewer.open(f"/console/devices/{told.ids[1]}")).main
    assert "SlowDevice" not in main.text
    assert main.table("Latency of calls")[0][1].startswith("480")


# --- bounds


async def test_a_large_fleet_is_judged_on_some_of_its_devices(
    fleet: Fleet, services: Services, viewer: Browser
) -> None:
    told = await tell(fleet, services, devices=MOST + 10)
    assert len(told.ids) == MOST + 10
    shown = await viewer.open("/console/release?model=kws&release=8")
    assert f"of {MOST} devices out of {MOST + 10}" in shown.main.text
    assert f"{MOST} devices, 24,000 calls against 21,000" in shown.main.text


async def test_a_device_with_many_models_is_not_drawn_whole(
    fleet: Fleet, services: Services, viewer: Browser
) -> None:
    (device,) = await fleet.devices(["a"])
    telemetry = Telemetry(random.Random(1))  # noqa: S311 - made-up data
    at = time.time() - 60
    models = tuple(model_window(telemetry.chance, 10, model=f"m{number}") for number in range(9))
    report = telemetry.next(at, models=models)
    await services.telemetry.append([Incoming(device, telemetry.epoch, report, at, at, "pi")])
    shown = await viewer.open(f"/console/devices/{device}")
    assert "5 more models are not drawn." in shown.main.text
    assert len(shown.main.table("Latency of calls")) == 9
