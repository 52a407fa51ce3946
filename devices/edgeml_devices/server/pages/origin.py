"""Whether a form was sent by a page of this server: the second guard, behind cookies with SameSite."""

from __future__ import annotations

from urllib.parse import urlsplit

from fastapi import Request


def is_own(request: Request) -> bool:
    """Say whether a browser sent the request from a page of this host.

    ``Sec-Fetch-Site`` cannot be set by a page; browsers without it send ``Origin`` with each form. A request
    without both is no browser's, and refused as well: the console's forms are for browsers.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc == request.headers.get("host")
