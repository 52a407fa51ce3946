"""Signing in with a token, staying signed in, and being signed out."""

from __future__ import annotations

import time

import pytest
from edgeml_devices.server.auth import make_token
from edgeml_devices.server.pages.session import LASTS_S
from edgeml_devices.server.services import Services
from edgeml_devices.server.tables import audit, tokens
from fastapi import FastAPI
from sqlalchemy import select, update

from tests.integration.pages.browser import Browser

pytestmark = pytest.mark.anyio
PAGES = ("", "/devices", "/devices/x", "/releases", "/rollouts", "/rollouts/x", "/audit", "/nothing")


async def test_a_stranger_is_asked_to_sign_in_whatever_the_page(stranger: Browser) -> None:
    for page in PAGES:
        shown = await stranger.open(f"/console{page}")
        assert shown.title == "Sign in", page
        assert shown.path.startswith("/console/sign-in")


async def test_the_servers_address_leads_to_the_console(stranger: Browser) -> None:
    assert (await stranger.open("/")).title == "Sign in"


async def test_every_role_of_people_may_look(services: Services, stranger: Browser) -> None:
    for role in ("viewer", "operator", "admin"):
        async with services.database.writing() as transaction:
            _, token = await make_token(transaction, "server", f"grace-{role}", role)
        shown = await stranger.sign_in(f"  {token}\n")
        assert shown.title == "Overview"
        assert f"grace-{role} ({role})" in shown.document.one("header").text


async def test_signing_in_leads_to_the_page_that_was_asked_for(stranger: Browser, viewer_token: str) -> None:
    asked = await stranger.open("/console/devices?selector=site%3Dberlin%2Cring+in+%28a%2C+b%29&seen=online")
    form = asked.main.one("form", action="/console/sign-in")
    hidden = form.one("input", type="hidden")
    shown = await stranger.sign_in(viewer_token, hidden.attributes["value"])
    assert shown.title == "Devices"
    assert shown.main.one("input", id="selector").attributes["value"] == "site=berlin,ring in (a, b)"


async def test_who_is_signed_in_need_not_sign_in_again(viewer: Browser) -> None:
    assert (await viewer.open("/console/sign-in?next=/console/audit")).title == "Audit log"


async def test_a_wrong_token_is_refused_in_words_and_in_the_audit_log(
    services: Services, stranger: Browser
) -> None:
    shown = await stranger.sign_in("wrong")
    assert shown.status == 401
    fault = shown.main.one("p", role="alert")
    assert fault.text == "This token is unknown, or it was revoked."
    assert "fault" in shown.main.one("input", id="token").attributes["aria-describedby"].split()
    assert not stranger.cookies
    async with services.database.reading() as connection:
        row = (await connection.execute(select(audit).where(audit.c.action == "refused"))).one()
    assert (row.actor, row.object) == ("anonymous:192.0.2.7", "POST /console/sign-in")


async def test_signing_in_is_in_the_audit_log(services: Services, viewer: Browser) -> None:
    async with services.database.reading() as connection:
        row = (await connection.execute(select(audit).where(audit.c.action == "console.sign_in"))).one()
    assert (row.actor, row.detail) == ("viewer:ada", {"address": "192.0.2.7"})


async def test_signing_out_ends_it(viewer: Browser) -> None:
    shown = await viewer.submit("/console/sign-out", {})
    assert shown.title == "Sign in"
    assert not viewer.cookies
    assert (await viewer.open("/console")).title == "Sign in"


async def test_revoking_the_token_ends_it_at_once(services: Services, viewer: Browser) -> None:
    async with services.database.writing() as transaction:
        statement = update(tokens).where(tokens.c.name == "ada").values(revoked_at=time.time())
        await transaction.connection.execute(statement)
    assert (await viewer.open("/console/devices")).title == "Sign in"


async def test_it_outlives_the_process(services: Services, app: FastAPI, viewer: Browser) -> None:
    del app.state.console  # as a process that was started anew, on the same data folder
    assert (await viewer.open("/console")).title == "Overview"


async def test_the_key_of_the_sessions_is_the_servers_alone(services: Services, viewer: Browser) -> None:
    key = services.settings.keys / "console.key"
    assert key.stat().st_mode & 0o077 == 0
    assert len(key.read_bytes()) == 32
    assert [path.name for path in key.parent.glob("*console*")] == ["console.key"]


async def test_the_cookie_is_for_this_host_and_no_script(app: FastAPI, viewer_token: str) -> None:
    browser = Browser(app, scheme="https")
    async with browser.client:
        response = await browser.client.post(
            "/console/sign-in",
            data={"token": viewer_token},
            headers={"origin": browser.origin},
            follow_redirects=False,
        )
    name, _, rest = response.headers["set-cookie"].partition("=")
    assert name == "__Host-edgeml"
    attributes = {one.strip().lower() for one in rest.split(";")[1:]}
    assert attributes == {"httponly", "path=/", "samesite=strict", "secure", f"max-age={LASTS_S}"}
    assert LASTS_S == 12 * 3600
    assert viewer_token not in response.headers["set-cookie"]
