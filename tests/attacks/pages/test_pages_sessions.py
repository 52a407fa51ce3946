"""Stealing, forging and riding on somebody's being signed in."""

from __future__ import annotations

import time

import pytest
from edgeml_devices.server.auth import hash_token, make_token
from edgeml_devices.server.pages import attempts
from edgeml_devices.server.pages.session import LASTS_S, Sessions
from edgeml_devices.server.services import Services
from edgeml_devices.server.tables import audit, tokens
from fastapi import FastAPI
from sqlalchemy import func, select, update

from tests.integration.pages.browser import Browser
from tests.integration.pages.fleet import Fleet

pytestmark = pytest.mark.anyio
ARABIC = {ord("0") + digit: 0x660 + digit for digit in range(10)}


async def token_row(services: Services, name: str) -> tuple[str, str]:
    async with services.database.reading() as connection:
        statement = select(tokens.c.id, tokens.c.sha256).where(tokens.c.name == name)
        return tuple((await connection.execute(statement)).one())


async def opens(browser: Browser, cookie: str) -> bool:
    """Whether a page is shown to whoever has this cookie and nothing else."""
    browser.client.cookies.clear()
    response = await browser.client.get(
        "/console", headers={b"cookie": f"edgeml={cookie}".encode()}, follow_redirects=False
    )
    assert response.status_code in {200, 303}
    return response.status_code == 200


async def test_only_a_cookie_of_this_server_opens_a_page(
    services: Services,
    viewer: Browser,
) -> None:
    good = viewer.cookies["edgeml"].value
    token_id, expires, seal = good.split(".")
    assert await opens(viewer, good)
    async with services.database.writing() as transaction:
        await make_token(transaction, "server", "root", "admin")
    admin_id, admin_sha256 = await token_row(services, "root")
    forged = {
        "another seal": f"{token_id}.{expires}.{'0' * 64}",
        "no seal": f"{token_id}.{expires}.",
        "a longer life": f"{token_id}.{int(expires) + 3600}.{seal}",
        "another token": f"{admin_id}.{expires}.{seal}",
        "another key": Sessions(b"\0" * 32).make(admin_id, admin_sha256, time.time()),
        "numbers of other scripts": f"{token_id}.{expires.translate(ARABIC)}.{seal}",
        "a negative end": f"{token_id}.-1.{seal}",
        "more parts": f"{good}.x",
        "no parts": "x",
        "nothing": "",
        "very much": "a" * 20_000,
        "the token's hash": admin_sha256,
    }
    opened = [name for name, cookie in forged.items() if await opens(viewer, cookie)]
    assert opened == []


async def test_a_cookie_ends_by_the_servers_clock(
    services: Services,
    viewer: Browser,
    app: FastAPI,
) -> None:
    row, now = await token_row(services, "ada"), time.time()
    sessions = app.state.console.sessions
    assert await opens(viewer, sessions.make(*row, now - LASTS_S + 60))
    assert not await opens(viewer, sessions.make(*row, now - LASTS_S - 1))


async def test_a_cookie_is_of_one_secret_not_of_its_name(
    services: Services,
    viewer: Browser,
) -> None:
    """A token that was made anew under the same id does not revive cookies of the old one."""
    good = viewer.cookies["edgeml"].value
    async with services.database.writing() as transaction:
        statement = update(tokens).where(tokens.c.name == "ada").values(sha256=hash_token("other").hex())
        await transaction.connection.execute(statement)
    assert not await opens(viewer, good)


async def test_the_cookie_is_no_bearer_token_and_no_token_is_a_cookie(
    viewer: Browser,
    viewer_token: str,
) -> None:
    cookie = viewer.cookies["edgeml"].value
    sent = {"authorization": f"Bearer {cookie}"}
    assert (await viewer.client.get("/v1/devices", headers=sent)).status_code == 401
    # the API does not look at cookies: no other site can use it through a browser
    assert (await viewer.client.get("/v1/devices")).status_code == 401
    assert not await opens(viewer, viewer_token)


async def test_a_device_cannot_sign_in(
    services: Services,
    fleet: Fleet,
    stranger: Browser,
) -> None:
    (device,) = await fleet.devices(["pi"])
    shown = await stranger.sign_in("token of pi")
    assert shown.status == 403
    assert not stranger.cookies
    async with services.database.reading() as connection:
        rows = list(await connection.execute(select(audit).where(audit.c.actor == f"device:{device}")))
    assert [row.action for row in rows] == ["refused"]


async def test_forms_of_other_sites_are_refused(viewer: Browser, viewer_token: str) -> None:
    for headers in (
        {"origin": "http://evil.example"},
        {"origin": "http://console.example.evil.example"},
        {"origin": "http://console.example:81"},
        {"origin": "null"},
        {"origin": ""},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
    ):
        signed_out = await viewer.submit("/console/sign-out", {}, **headers)
        assert signed_out.status == 403, headers
        assert (await viewer.open("/console")).title == "Overview", headers
        signed_in = await viewer.submit("/console/sign-in", {"token": viewer_token}, **headers)
        assert (signed_in.status, signed_in.title) == (403, "Refused"), headers


async def test_a_form_without_origin_is_refused(stranger: Browser, viewer_token: str) -> None:
    response = await stranger.client.post("/console/sign-in", data={"token": viewer_token})
    assert response.status_code == 403


async def test_browsers_behind_a_proxy_that_changes_the_host_are_believed(
    stranger: Browser,
    viewer_token: str,
) -> None:
    """``Sec-Fetch-Site`` is set by the browser, and says what the changed Host hides."""
    fields = {"token": viewer_token}
    proxied = {"sec-fetch-site": "same-origin", "host": "10.0.0.1:8350"}
    shown = await stranger.submit("/console/sign-in", fields, **proxied)
    assert shown.title == "Overview"


async def test_signing_in_leads_nowhere_but_to_the_console(stranger: Browser, viewer_token: str) -> None:
    for wanted in (
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "/console@evil.example",
        "/console.evil.example",
        "/console//evil.example",
        "/console\r\nSet-Cookie: a=b",
        "/console/\tx",
        "/v1/devices",
        "javascript:alert(1)",
        "/console/sign-in?next=/console",
        "",
    ):
        response = await stranger.client.post(
            "/console/sign-in",
            data={"token": viewer_token, "next": wanted},
            headers={"origin": stranger.origin},
            follow_redirects=False,
        )
        assert (response.status_code, response.headers["location"]) == (303, "/console"), wanted


async def test_an_address_that_keeps_failing_has_to_wait(
    app: FastAPI,
    services: Services,
    viewer_token: str,
) -> None:
    guesser, other = Browser(app, address="198.51.100.1"), Browser(app, address="198.51.100.2")
    async with guesser.client, other.client:
        for _ in range(attempts.MOST):
            assert (await guesser.sign_in("guess")).status == 401
        shown = await guesser.sign_in(viewer_token)
        assert (shown.status, shown.title) == (429, "Too many attempts")
        assert 0 < int(shown.headers["retry-after"]) <= attempts.PERIOD_S
        assert not guesser.cookies
        assert (await other.sign_in(viewer_token)).title == "Overview"
    async with services.database.reading() as connection:
        refused = select(func.count()).where(audit.c.action == "refused").select_from(audit)
        # one row for each reason, however often: guesses do not fill the log
        assert (await connection.execute(refused)).scalar() == 2


async def test_people_who_sign_in_often_need_not_wait(stranger: Browser, viewer_token: str) -> None:
    for _ in range(2 * attempts.MOST):
        assert (await stranger.sign_in(viewer_token)).title == "Overview"


async def test_a_sign_in_that_is_too_long_or_unreadable_is_refused(stranger: Browser) -> None:
    assert (await stranger.sign_in("x" * 10_000)).status == 413
    sent = {"origin": stranger.origin}
    for content in (b"\xff\xfe", b"&".join(b"token=x" for _ in range(20)), b"token=%ff", b"", b"=&=&="):
        response = await stranger.client.post("/console/sign-in", content=content, headers=sent)
        assert response.status_code in {400, 401}, content


async def test_looking_changes_nothing(
    services: Services,
    viewer: Browser,
    fleet: Fleet,
) -> None:
    """No page writes, and nothing but the two forms can be sent."""
    (device,) = await fleet.devices(["a"])

    async def rows() -> int:
        async with services.database.reading() as connection:
            return (await connection.execute(select(func.count()).select_from(audit))).scalar_one()

    before = await rows()
    pages = ("", "/devices", f"/devices/{device}", "/releases", "/rollouts", "/audit", "/sign-in")
    for page in pages:
        await viewer.open(f"/console{page}")
    assert await rows() == before
    for page in pages[:-1]:
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            response = await viewer.client.request(
                method, f"/console{page}", headers={"origin": viewer.origin}
            )
            assert response.status_code == 405, (method, page)
