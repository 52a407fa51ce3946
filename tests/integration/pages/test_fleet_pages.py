"""What the overview, the devices, the releases and the audit log show."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from edgeml_devices import audit_chain
from edgeml_devices.server import audit
from edgeml_devices.server.pages.queries.audit import broken_rows
from edgeml_devices.server.rollouts.policy import Policy
from edgeml_devices.server.services import Services
from edgeml_devices.server.tables import audit as audit_table
from sqlalchemy import select

from tests.integration.pages.browser import Browser
from tests.integration.pages.fleet import DAY_S, Fleet

pytestmark = pytest.mark.anyio

# --- overview


async def test_an_empty_server_says_what_to_do_next(viewer: Browser) -> None:
    shown = await viewer.open("/console")
    assert "edgeml repo init" in shown.main.text
    for page in ("devices", "releases", "rollouts"):
        assert (await viewer.open(f"/console/{page}")).status == 200


async def test_the_overview_counts_devices_by_when_they_were_seen(fleet: Fleet, viewer: Browser) -> None:
    await fleet.devices(["a", "b", "c"])
    await fleet.devices(["late"], last_seen=fleet.now - 600)
    await fleet.devices(["new", "newer"], last_seen=None)
    await fleet.devices(["old"], retired_at=fleet.now - DAY_S)
    main = (await viewer.open("/console")).main
    tiles = [tile.text for tile in main.one("ul", **{"class": "tiles"}).all("li")]
    assert tiles == ["3 online", "1 silent", "2 never seen", "1 retired"]
    silent = await viewer.open(main.link("1 silent"))
    assert [row[0] for row in silent.main.table("Devices")] == ["late"]


async def test_the_overview_shows_releases_and_states_of_each_model(fleet: Fleet, viewer: Browser) -> None:
    a, b, c = await fleet.devices(["a", "b", "c"])
    (retired,) = await fleet.devices(["old"], retired_at=fleet.now)
    await fleet.status(a, running=3)
    await fleet.status(b, running=3, state="PROBATION")
    await fleet.status(c, running=None, state="QUARANTINED")
    await fleet.status(c, "occupancy", running=1)
    await fleet.status(retired, running=2)
    main = (await viewer.open("/console")).main
    kws, occupancy = main.table("What devices run")
    assert kws[:2] == ["kws", "3"]
    assert kws[2] == "release 3 : 2 nothing: 1"
    assert all(f"{state} 1" in kws[3] for state in ("IDLE", "PROBATION", "QUARANTINED"))
    assert occupancy[0] == "occupancy"
    listed = await viewer.open(main.link("QUARANTINED"))
    assert [row[0] for row in listed.main.table("Devices")] == ["c"]


async def test_the_overview_counts_failures_by_reason(fleet: Fleet, viewer: Browser) -> None:
    for name, reason in (("a", "latency"), ("b", "latency"), ("c", "parity")):
        (device,) = await fleet.devices([name])
        await fleet.status(device, target=4, result="FAILED_ROLLBACK_COMPLETE", reason=reason)
    (fine,) = await fleet.devices(["d"])
    await fleet.status(fine, target=3, result="SUCCESSFUL")
    main = (await viewer.open("/console")).main
    rows = main.table("Devices by release and reason")
    assert rows == [["kws/4", "latency", "2"], ["kws/4", "parity", "1"]]


async def test_the_overview_warns_before_signatures_expire(fleet: Fleet, viewer: Browser) -> None:
    await fleet.metadata("root", 300 * DAY_S)
    await fleet.metadata("kws", -5.0, version=1)
    await fleet.metadata("kws", 12 * DAY_S, version=2)
    await fleet.metadata("targets", -5.0)
    await fleet.metadata("timestamp", 0.5 * DAY_S)
    rows = (await viewer.open("/console")).main.table("Signed metadata")
    assert [(row[0], row[1], row[3]) for row in rows] == [
        ("targets", "1", "expired"),
        ("timestamp", "1", "valid"),  # the server itself signs it anew
        ("kws", "2", "soon"),
        ("root", "1", "valid"),
    ]


async def test_the_overview_lists_rollouts_that_are_not_over(fleet: Fleet, viewer: Browser) -> None:
    await fleet.rollout("r1", Policy("kws", 3, selector=""), reason="wave 1: waits for a friend")
    await fleet.rollout("r2", Policy("kws", 2, selector=""), state="FINISHED")
    main = (await viewer.open("/console")).main
    assert "kws/3 RUNNING" in main.text
    assert "waits for a friend" in main.text
    assert "kws/2" not in main.text


# --- devices


async def test_devices_are_listed_by_name_on_pages(fleet: Fleet, viewer: Browser) -> None:
    await fleet.devices(f"d{number:03d}" for number in range(101))
    seen, path, pages = [], "/console/devices", 0
    while path:
        main = (await viewer.open(path)).main
        assert "101 devices" in main.text
        seen += [row[0] for row in main.table("Devices")]
        pages += 1
        path = main.link("Next page") if "Next page" in main.text else ""
    assert seen == [f"d{number:03d}" for number in range(101)]
    assert pages == 3


async def test_a_page_keeps_the_filter(fleet: Fleet, viewer: Browser) -> None:
    await fleet.devices((f"b{number:03d}" for number in range(60)), labels={"site": "berlin"})
    await fleet.devices((f"l{number:03d}" for number in range(60)), labels={"site": "lyon"})
    first = (await viewer.open("/console/devices?selector=site%3Dberlin")).main
    second = (await viewer.open(first.link("Next page"))).main
    assert [row[0] for row in second.table("Devices")] == [f"b{number:03d}" for number in range(50, 60)]
    assert second.one("input", id="selector").attributes["value"] == "site=berlin"
    assert second.link("First page") == "/console/devices?selector=site%3Dberlin&seen=&runs=&state="


async def test_devices_can_be_chosen_by_label_state_release_and_when_they_were_seen(
    fleet: Fleet, viewer: Browser
) -> None:
    a, b = await fleet.devices(["a", "b"], labels={"site": "berlin"})
    (c,) = await fleet.devices(["c"], labels={"site": "lyon"}, last_seen=fleet.now - 999)
    await fleet.devices(["gone"], labels={"site": "berlin"}, retired_at=fleet.now)
    await fleet.status(a, running=3)
    await fleet.status(b, running=2, state="FAILED")
    await fleet.status(c, running=3, state="FAILED")

    async def names(query: str) -> list[str]:
        main = (await viewer.open(f"/console/devices?{query}")).main
        return [row[0] for row in main.table("Devices")] if list(main.all("table")) else []

    assert await names("") == ["a", "b", "c"]
    assert await names("selector=site%3Dberlin") == ["a", "b"]
    assert await names("state=FAILED") == ["b", "c"]
    assert await names("runs=kws/3") == ["a", "c"]
    assert await names("runs=kws") == ["a", "b", "c"]
    assert await names("runs=kws/3&state=FAILED&selector=site%3Dlyon") == ["c"]
    assert await names("runs=other/3") == []
    assert await names("seen=silent") == ["c"]
    assert await names("seen=retired") == ["gone"]


async def test_a_filter_that_cannot_be_read_is_explained(viewer: Browser) -> None:
    for query in ("selector=((", "runs=kws/x", "runs=kws/99999999999999999999"):
        shown = await viewer.open(f"/console/devices?{query}")
        assert shown.status == 400, query
        assert shown.main.one("p", role="alert").text
        field = shown.main.one("input", id="selector")
        assert field.attributes["value"] == ("((" if "selector" in query else "")


async def test_a_device_shows_facts_and_what_is_desired_beside_what_is_reported(
    fleet: Fleet, viewer: Browser
) -> None:
    (device,) = await fleet.devices(
        ["pi-7"], labels={"site": "berlin"}, generation=8, reported_generation=7, clock_offset_s=-7200.0
    )
    await fleet.assignment(device, "kws", release=4, attempt=2, rollout_id="r1")
    tested = {"litert-int8": {"passed": False, "reason": "latency", "p95_ms": 31.25}}
    failed = {"target": 4, "result": "FAILED_ROLLBACK_COMPLETE", "reason": "latency", "selftest": tested}
    await fleet.status(device, "kws", running=3, variant="litert-float32", **failed)
    await fleet.assignment(device, "new", release=1)
    await fleet.status(device, "by-hand", running=9)
    shown = await viewer.open(f"/console/devices/{device}")
    assert shown.title == "pi-7"
    text = shown.main.text
    for part in (
        "online site=berlin",
        "generation 8, the device works on 7",
        "Clock 2 h behind",
        "21 GB free of 31 GB",
        "engine litert 2.0.3",
        "memory_bytes 4 GB",
    ):
        assert part in text
    by_hand, kws, new = shown.main.table("Desired and reported")
    assert by_hand[:3] == ["by-hand", "not assigned", "release 9"]
    assert kws[:3] == ["kws", "release 4 by a rollout", "release 3 litert-float32"]
    assert kws[4] == "release 4 FAILED_ROLLBACK_COMPLETE latency"
    assert new[:3] == ["new", "release 1", "not reported"]
    (row,) = shown.main.table("Self-test of kws/4")
    assert row == ["litert-int8", "failed latency", "", "31.2", "", "", ""]
    by_name = await viewer.open("/console/devices/pi-7")
    assert by_name.title == "pi-7"


async def test_a_devices_history_is_there_from_the_newest_to_the_first(fleet: Fleet, viewer: Browser) -> None:
    mine, other = await fleet.devices(["mine", "other"])
    await fleet.events(mine, 120)
    await fleet.events(other, 3)
    seen, path = [], f"/console/devices/{mine}"
    while path:
        main = (await viewer.open(path)).main
        seen += [row[5] for row in main.table("Changes of state")]
        path = main.link("Older") if "Older" in main.text else ""
    assert seen == [f"event {number}." for number in reversed(range(120))]


async def test_what_is_not_there_is_a_page_that_says_so(viewer: Browser) -> None:
    for path in ("devices/none", "rollouts/none", "nothing", "devices/a/b"):
        shown = await viewer.open(f"/console/{path}")
        assert (shown.status, shown.title) == (404, "Not found"), path


# --- releases


async def test_releases_show_how_many_devices_run_them_and_are_to(fleet: Fleet, viewer: Browser) -> None:
    for number in (1, 2, 10):
        await fleet.release("kws", number, withdrawn_at=fleet.now if number == 2 else None)
    await fleet.release("occupancy", 1)
    a, b, c = await fleet.devices(["a", "b", "c"])
    for device in (a, b):
        await fleet.status(device, running=1)
    await fleet.status(c, running=10)
    await fleet.assignment(a, release=10)
    main = (await viewer.open("/console/releases")).main
    assert [row[:4] for row in main.table("Releases")] == [
        ["kws/10", "1", "1", "1.25 MB"],
        ["kws/2 withdrawn", "0", "0", "1.25 MB"],
        ["kws/1", "2", "0", "1.25 MB"],
        ["occupancy/1", "0", "0", "1.25 MB"],
    ]


async def test_releases_come_on_pages(fleet: Fleet, viewer: Browser) -> None:
    for number in range(1, 61):
        await fleet.release("kws", number)
    await fleet.release("zoom", 1)
    first = (await viewer.open("/console/releases")).main
    second = (await viewer.open(first.link("Next page"))).main
    names = [row[0] for page in (first, second) for row in page.table("Releases")]
    assert names == [*(f"kws/{number}" for number in range(60, 0, -1)), "zoom/1"]


# --- audit log


async def test_the_audit_log_comes_on_pages_and_is_checked(
    services: Services, fleet: Fleet, viewer: Browser
) -> None:
    async with services.database.writing() as transaction:
        for number in range(70):
            await audit.record(transaction, "operator:grace", "test", f"object {number}", {"n": number})
    first = (await viewer.open("/console/audit")).main
    assert "are an unbroken chain of hashes" in first.text
    second = (await viewer.open(first.link("Older"))).main
    assert "Rows 1 to" in second.text
    rows = [*first.table("What was done"), *second.table("What was done")]
    ids = [int(row[0]) for row in rows]
    assert ids == list(range(ids[0], 0, -1))
    assert rows[0][1:4] == ["test", "object 69", "operator:grace"]
    assert rows[0][5] == '{"n": 69}'


async def test_what_is_long_is_folded_and_ends_somewhere(
    services: Services, fleet: Fleet, viewer: Browser
) -> None:
    """A tick that moved 500 devices names them all in its row."""
    ids = [f"{number:016x}" for number in range(500)]
    async with services.database.writing() as transaction:
        await audit.record(transaction, "server", "rollout.outcome", "r1", {"devices": ids})
    (device,) = await fleet.devices(["a"])
    await fleet.events(device, 1, detail="why " * 1000)
    shown = await viewer.open("/console/audit")
    folded = shown.main.one("details")
    assert len(folded.one("summary").text) < 130
    assert ids[100] in folded.text
    assert len(shown.html) < 15_000
    history = (await viewer.open(f"/console/devices/{device}")).main
    assert history.one("details").text.count("why") == 1000 + 30


async def test_a_row_that_was_changed_or_left_out_is_noticed(services: Services, viewer: Browser) -> None:
    async with services.database.writing() as transaction:
        for number in range(4):
            await audit.record(transaction, "operator:grace", "test", number)
    async with services.database.reading() as connection:
        rows = list(await connection.execute(select(audit_table).order_by(audit_table.c.id.desc())))
    newest = rows[0].id
    assert broken_rows(rows, whole=True) == frozenset()
    assert broken_rows(rows[:3], whole=False) == frozenset()
    changed = [rows[0], SimpleNamespace(**{**rows[1]._mapping, "actor": "operator:mallory"}), *rows[2:]]
    assert broken_rows(changed, whole=True) == {newest - 1}
    assert broken_rows([rows[0], *rows[2:]], whole=True) == {newest}
    # without its first row a log is not whole, and a row that hangs in the air is not verified
    assert broken_rows(rows[:-1], whole=True) == {rows[-2].id}


async def test_rows_that_are_missing_are_noticed_though_the_hashes_fit(services: Services) -> None:
    async with services.database.writing() as transaction:
        await audit.record(transaction, "operator:grace", "test", 1)
    async with services.database.reading() as connection:
        rows = list(await connection.execute(select(audit_table).order_by(audit_table.c.id.desc())))
    values = {"id": rows[0].id + 2, "at": 1.0, "actor": "a", "action": "b", "object": "c", "detail": {}}
    sha256 = audit_chain.row_sha256(rows[0].sha256, values)
    late = SimpleNamespace(**values, previous_sha256=rows[0].sha256, sha256=sha256)
    assert broken_rows([late, *rows], whole=True) == {late.id}


async def test_a_forged_row_is_shown_as_broken(services: Services, viewer: Browser) -> None:
    row = {"id": 1000, "at": time.time(), "actor": "admin:eve", "action": "x", "object": "y", "detail": {}}
    async with services.database.writing() as transaction:
        forged = row | {"previous_sha256": "0" * 64, "sha256": "1" * 64}
        await transaction.connection.execute(audit_table.insert().values(forged))
    shown = await viewer.open("/console/audit")
    assert "1 of the rows below is not as written." in shown.main.one("p", role="alert").text
    assert shown.main.table("What was done")[0][0] == "1000 broken"
