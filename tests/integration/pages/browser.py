"""A browser without scripts: keeps cookies, follows redirects, says where its forms come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2
from fastapi import FastAPI

from tests.integration.pages.document import Element, read_html


@dataclass(frozen=True)
class Shown:
    """A page as it was answered."""

    status: int
    path: str
    headers: Mapping[str, str]
    html: str

    @property
    def document(self) -> Element:
        return read_html(self.html)

    @property
    def main(self) -> Element:
        return self.document.one("main")

    @property
    def title(self) -> str:
        return self.document.one("h1").text


class Browser:
    """One browser of one person."""

    def __init__(self, app: FastAPI, *, scheme: str = "http", address: str = "192.0.2.7") -> None:
        self.origin = f"{scheme}://console.example"
        # an error in a route is an answer here, as it is for a person
        transport = httpx2.ASGITransport(app=app, client=(address, 50_000), raise_app_exceptions=False)
        self.client = httpx2.AsyncClient(transport=transport, base_url=self.origin, follow_redirects=True)

    async def open(self, path: str) -> Shown:
        return _shown(await self.client.get(path))

    async def submit(self, path: str, fields: Mapping[str, str], **headers: str) -> Shown:
        """Send a form, as one of this very site unless ``headers`` say otherwise."""
        sent = {"origin": self.origin} | headers
        return _shown(await self.client.post(path, data=dict(fields), headers=sent))

    async def sign_in(self, token: str, wanted: str = "") -> Shown:
        return await self.submit("/console/sign-in", {"token": token, "next": wanted})

    @property
    def cookies(self) -> dict[str, Any]:
        return {cookie.name: cookie for cookie in self.client.cookies.jar}


def _shown(response: httpx2.Response) -> Shown:
    return Shown(response.status_code, response.url.raw_path.decode(), response.headers, response.text)
