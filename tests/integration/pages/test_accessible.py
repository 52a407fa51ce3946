"""Pages for everybody: read aloud, by keyboard, in both themes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

import pytest
from edgeml_devices.server.pages.rendering import STYLE
from edgeml_devices.server.rollouts.policy import Gates, Policy
from edgeml_devices.server.services import Services

from tests.integration.pages.browser import Browser, Shown
from tests.integration.pages.document import Element
from tests.integration.pages.fleet import Fleet
from tests.integration.pages.telemetry import tell

HEADINGS = ("h1", "h2", "h3", "h4")


@pytest.fixture
async def pages(fleet: Fleet, services: Services, viewer: Browser, stranger: Browser) -> list[Shown]:
    """Every page, with something in every list."""
    (device,) = await fleet.devices(["a"], labels={"site": "berlin"})
    told = await tell(fleet, services)
    failed = {"target": 4, "result": "FAILED_NO_STATE_CHANGE", "reason": "parity"}
    await fleet.status(device, **failed, selftest={"v": {"passed": False, "reason": "parity"}})
    await fleet.assignment(device, rollout_id="r1")
    await fleet.events(device, 60)
    await fleet.release("kws", 3)
    await fleet.metadata("root", 99.0)
    await fleet.rollout("r1", Policy("kws", 3, selector="", gates=Gates(selftest_failed_share=0.1)))
    await fleet.wave("r1", 1, {"FAILED:parity": [device]})
    names = (
        "",
        "/devices",
        f"/devices/{device}",
        "/releases",
        "/rollouts",
        "/rollouts/r1",
        "/audit",
        "/telemetry",
        "/release?model=kws&release=8",
        f"/devices/{told.ids[0]}",
        "/none",
        "/release?model=none&release=1",
    )
    shown = [await viewer.open(f"/console{name}") for name in names]
    faulty = await viewer.open("/console/devices?selector=((")
    return [*shown, faulty, await stranger.open("/console"), await stranger.sign_in("wrong")]


@pytest.mark.anyio
async def test_pages_can_be_read_aloud_and_used_by_keyboard(pages: list[Shown]) -> None:
    for page in pages:
        assert list(faults(page.document)) == [], page.path
    titles = [page.document.one("title").text for page in pages[:10]]
    assert len(set(titles)) == len(titles)


def faults(document: Element) -> Iterator[str]:
    html = document.one("html")
    ids = [one.attributes["id"] for one in document.all() if "id" in one.attributes]
    if html.attributes.get("lang") != "en":
        yield "the language is not said"
    if len(ids) != len(set(ids)):
        yield f"an id is used twice: {ids}"
    viewport = document.one("meta", name="viewport").attributes["content"]
    if "width=device-width" not in viewport or "maximum-scale" in viewport:
        yield "cannot be zoomed"
    skip = next(document.one("body").all("a"))
    if skip.attributes["href"].lstrip("#") not in ids:
        yield "the first link leads past the navigation to nowhere"
    yield from heading_faults(document)
    yield from table_faults(document, ids)
    yield from form_faults(document, ids)
    yield from picture_faults(document)
    for link in document.all("a"):
        if not link.text:
            yield f"a link without text: {link.attributes}"


def picture_faults(document: Element) -> Iterator[str]:
    for picture in document.all("svg"):
        if picture.attributes.get("role") != "img" or not picture.attributes.get("aria-label"):
            yield "a picture without words"
    for figure in document.all("figure"):
        if not figure.one("figcaption").text:
            yield "a figure without title"


def heading_faults(document: Element) -> Iterator[str]:
    levels = [HEADINGS.index(one.tag) + 1 for one in document.all() if one.tag in HEADINGS]
    if levels.count(1) != 1 or levels[0] != 1:
        yield f"one h1 comes first: {levels}"
    if any(later > former + 1 for former, later in pairwise(levels)):
        yield f"a level of headings is left out: {levels}"


def table_faults(document: Element, ids: list[str]) -> Iterator[str]:
    for region in document.all("div", **{"class": "scroll"}):
        labelled = region.attributes.get("aria-labelledby") in ids
        if (
            region.attributes.get("tabindex") != "0"
            or region.attributes.get("role") != "region"
            or not labelled
        ):
            yield "a table that scrolls cannot be reached by keyboard"
    for table in document.all("table"):
        if not table.one("caption").text:
            yield "a table without caption"
        head = table.one("thead")
        columns = len(list(head.all("th")))
        if any(cell.attributes.get("scope") != "col" for cell in head.all("th")):
            yield "a head without scope"
        for row in table.one("tbody").all("tr"):
            cells = [one for one in row.children if isinstance(one, Element)]
            if len(cells) != columns:
                yield f"a row with {len(cells)} of {columns} cells: {row.text}"
            if any(cell.tag == "th" and cell.attributes.get("scope") != "row" for cell in cells):
                yield "a head without scope"


def form_faults(document: Element, ids: list[str]) -> Iterator[str]:
    labels = {label.attributes["for"] for label in document.all("label") if label.text}
    for field in [*document.all("input"), *document.all("select")]:
        if field.attributes.get("type") != "hidden" and field.attributes.get("id") not in labels:
            yield f"a field without label: {field.attributes}"
        described = field.attributes.get("aria-describedby", "").split()
        yield from (f"described by {one}, which is not there" for one in described if one not in ids)
    for button in document.all("button"):
        if not button.text:
            yield "a button without text"


# --- colours


def themes() -> dict[str, dict[str, str]]:
    light, dark = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
    return {
        name: dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{3,6});", block))
        for name, block in (("light", light), ("dark", dark))
    }


def luminance(colour: str) -> float:
    """Relative luminance of WCAG 2.2."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * one for one in colour[1:])
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_texts_stand_out_from_what_is_behind_them(theme: str) -> None:
    colours = themes()[theme]
    states = ("good", "bad", "busy", "held", "skipped")
    pairs = [(text, ground) for text in ("text", "faint", "link") for ground in ("ground", "raised")]
    pairs += [("on-main", "main"), ("faint", "quiet-soft"), ("text", "bad-soft")]
    pairs += [(state, f"{state}-soft") for state in states]
    low = {pair: contrast(colours[pair[0]], colours[pair[1]]) for pair in pairs}
    assert {pair: ratio for pair, ratio in low.items() if ratio < 4.5} == {}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_both_themes_have_the_same_colours(theme: str) -> None:
    assert themes()[theme].keys() == themes()["light"].keys()
    used = set(re.findall(r"var\(--([a-z-]+)\)", STYLE))
    assert used == set(themes()[theme])
