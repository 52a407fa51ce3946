"""What devices and people say of themselves is shown, and cannot act: no markup, no script, no template."""

from __future__ import annotations

import time
from dataclasses import replace
from urllib.parse import quote

import pytest
from edgeml_devices.server import audit
from edgeml_devices.server.pages.rendering import HEADERS
from edgeml_devices.server.rollouts.policy import Policy
from edgeml_devices.server.services import Services
from fastapi import FastAPI

from edgeml.telemetry.report import Sample
from tests.integration.pages.browser import Browser
from tests.integration.pages.document import Element
from tests.integration.pages.fleet import Fleet
from tests.integration.pages.telemetry import add_alert, publish, reference, report, window

pytestmark = pytest.mark.anyio
LONG = "\"'><script>alert(1)</script><img src=x onerror=alert(1)></title>{{'zq'*3}}"
SHORT = "'\"><i id=x>"
LINK = "javascript:alert(1)"
ELEMENTS = set(
    "html head meta title link body a header nav ul ol li form span bdi button main h1 h2 h3 section div "
    "table caption thead tbody tr th td code time p strong dl dt dd svg rect label input select option "
    "footer details summary figure figcaption path line text".split()
)


@pytest.fixture
async def hostile(services: Services, fleet: Fleet) -> str:
    """A fleet in which everything that can be chosen was chosen to break out of a page; its one device."""
    (device,) = await fleet.devices(
        [LONG],
        labels={LONG: LONG, "link": LINK},
        facts={
            "target": {"name": LONG, LONG: [LONG, {"a": LONG}], "x_bytes": LONG, "y_bytes": -1},
            "engines": {LONG: LONG},
            "system": LONG,
            "disk_free_bytes": 1e300,
        },
    )
    said = {"variant": LONG, "reason": SHORT, "detail": LONG, "rollout_id": SHORT}
    tested = {LONG: {"passed": True, "reason": LONG}}
    state = {"state": SHORT, "result": SHORT}
    await fleet.status(device, LONG, **said, **state, target=4, selftest=tested)
    await fleet.assignment(device, LONG, rollout_id=SHORT)
    await fleet.events(device, 2, **said, **state, model=LONG)
    await fleet.release(LONG, 1, family=LONG, published_by=LONG)
    await fleet.metadata(LONG, 1.0)
    policy = Policy(LONG, 3, group=LONG)
    await fleet.rollout("r1", policy, reason=LONG, created_by=LONG, approved_by=LONG, selector=LONG)
    await fleet.wave("r1", 1, {f"FAILED:{SHORT}": [device]})
    async with services.database.writing() as transaction:
        await audit.record(transaction, LONG, SHORT, LONG, {LONG: LONG})
    await hostile_telemetry(fleet, services, device)
    return device


async def hostile_telemetry(fleet: Fleet, services: Services, device: str) -> None:
    """Windows behind the collector's checks, as an older server may have let them in."""
    made = reference("kws", LONG)
    await publish(fleet, services, 9, made)
    at = time.time() - 60
    told = window(made, 9, at, latency_s=0.01, shift=2)
    said = Sample(at, "error", 0.01, LONG, 0.5, LONG)
    plain = replace(told, model=LONG, features={}, reference="", variant=LONG, samples=(said,))
    await report(services, device, [(at - 60, told), (at, plain)])
    await add_alert(fleet, LONG[:90], "firing", [["device", LONG], [LONG, LONG]])


def faults(document: Element) -> list[str]:
    """What of a page could act, or was not written by its template."""
    found = []
    for element in document.all():
        names = set(element.attributes)
        if element.tag not in ELEMENTS or "style" in names or any(name.startswith("on") for name in names):
            found.append(f"<{element.tag} {element.attributes}>")
        found += [
            f"{name}={element.attributes[name]}"
            for name in ("href", "action", "src", "formaction")
            if name in names and not element.attributes[name].startswith(("/console", "#", "?"))
        ]
        if element.attributes.get("id") == "x":
            found.append("an element of a device's own")
    return found


async def test_nothing_that_was_chosen_by_others_can_act(viewer: Browser, hostile: str) -> None:
    pages = ("", "/devices", f"/devices/{hostile}", "/releases", "/rollouts", "/rollouts/r1", "/audit")
    pages += ("/telemetry", f"/release?model={quote(LONG)}&release=9", "/release?model=kws&release=9")
    for page in pages:
        shown = await viewer.open(f"/console{page}")
        assert shown.status == 200, page
        assert faults(shown.document) == [], page
        # it was shown, as text, and no template was run over it
        assert "<script>alert(1)</script>" in shown.main.text, page
        assert "{{'zq'*3}}" in shown.main.text, page
        assert "zqzqzq" not in shown.html, page


async def test_nothing_in_an_address_can_act(viewer: Browser) -> None:
    hostile = "%22%27%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E"
    for page in (
        f"/devices?selector={hostile}&seen={hostile}&runs={hostile}&state={hostile}&after={hostile}",
        f"/devices?after={hostile}",
        f"/devices/{hostile}",
        f"/releases?after={hostile}/3",
        f"/releases?after={hostile}",
        f"/rollouts?before={hostile}",
        f"/rollouts/{hostile}",
        f"/audit?before={hostile}",
        f"/{hostile}",
    ):
        shown = await viewer.open(f"/console{page}")
        assert shown.status in {200, 400, 404}, page
        assert faults(shown.document) == [], page


async def test_a_stranger_gets_no_script_back_from_the_sign_in(app: FastAPI) -> None:
    stranger = Browser(app)
    async with stranger.client:
        shown = await stranger.open("/console/sign-in?next=/console/%22%3E%3Cscript%3E")
        assert faults(shown.document) == []
        answered = await stranger.sign_in("<script>", '/console/"><script>')
        assert faults(answered.document) == []


async def test_clocks_and_numbers_beyond_all_measure_are_shown(
    viewer: Browser,
    fleet: Fleet,
) -> None:
    """A device's clock may say anything; nobody's page may fail by it."""
    (device,) = await fleet.devices(["a"], enrolled_at=1e300, clock_offset_s=-1e300, generation=2**62)
    await fleet.status(device, running=2**62, reported_at=-1e300, selftest={"v": {"passed": True}})
    await fleet.events(device, 1, received_at=1e18)
    for page in ("", "/devices", f"/devices/{device}"):
        assert (await viewer.open(f"/console{page}")).status == 200, page


async def test_every_answer_forbids_scripts_frames_and_other_sites(viewer: Browser) -> None:
    for page in ("", "/sign-in", "/devices", "/devices/none", "/style.css", "/audit?before=x"):
        response = await viewer.client.get(f"/console{page}", follow_redirects=False)
        for name, value in HEADERS.items():
            assert response.headers[name] == value, (page, name)
    rules = {rule.split()[0]: rule.split()[1:] for rule in HEADERS["Content-Security-Policy"].split("; ")}
    assert rules["default-src"] == ["'self'"]
    assert rules["script-src"] == rules["frame-ancestors"] == rules["base-uri"] == ["'none'"]
    assert rules["form-action"] == ["'self'"]
    assert "unsafe" not in HEADERS["Content-Security-Policy"]
    assert HEADERS["X-Content-Type-Options"] == "nosniff"


async def test_a_page_needs_nothing_from_elsewhere(viewer: Browser) -> None:
    for page in ("", "/sign-in", "/devices", "/audit"):
        shown = await viewer.open(f"/console{page}")
        assert "://" not in shown.html.replace(f"{viewer.origin}", ""), page
        assert "<script" not in shown.html
        assert "<style" not in shown.html
    style = await viewer.open("/console/style.css")
    assert "url(" not in style.html
    assert "@import" not in style.html
