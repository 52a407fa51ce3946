"""Who is signed in: a signed cookie that names a token, never the token itself.

It ends after 12 hours, and at once when its token is revoked, as the token is looked up with each page.
"""

from __future__ import annotations

import hmac
import os
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fastapi import Request, Response
from sqlalchemy import select

from edgeml_devices.server.auth import Actor
from edgeml_devices.server.database import Database
from edgeml_devices.server.tables import tokens

LASTS_S: Final = 12 * 3600
_KEY_BYTES: Final = 32
_PURPOSE: Final = b"edgeml console session 1"
_LONGEST: Final = 200


@dataclass(frozen=True, slots=True)
class Sessions:
    """Makes and checks cookies with one key; every process of a server has the same."""

    key: bytes

    def make(self, token_id: str, token_sha256: str, now: float) -> str:
        """Give the cookie's value for whoever holds a token."""
        expires = int(now + LASTS_S)
        return f"{token_id}.{expires}.{self._seal(token_id, expires, token_sha256)}"

    async def actor(self, database: Database, value: str, now: float) -> Actor | None:
        """Give who is signed in; ``None``: the cookie is forged or over, or its token was revoked."""
        token_id, _, rest = value[:_LONGEST].partition(".")
        expires, _, seal = rest.partition(".")
        if not (expires.isascii() and expires.isdigit() and seal.isascii() and int(expires) > now):
            return None
        columns = (tokens.c.role, tokens.c.id, tokens.c.name, tokens.c.sha256)
        statement = select(*columns).where(tokens.c.id == token_id, tokens.c.revoked_at.is_(None))
        async with database.reading() as connection:
            row = (await connection.execute(statement)).first()
        if row is None or not hmac.compare_digest(seal, self._seal(token_id, int(expires), row.sha256)):
            return None
        actor = Actor(row.role, row.id, row.name)
        return actor if actor.may("viewer") else None

    def _seal(self, token_id: str, expires: int, token_sha256: str) -> str:
        text = f"{token_id}.{expires}.{token_sha256}".encode()
        return hmac.digest(self.key, _PURPOSE + b"\0" + text, "sha256").hex()


def session_key(folder: Path) -> bytes:
    """Give the key in a folder; the first process makes it, readable by its user alone."""
    path = folder / "console.key"
    with suppress(FileNotFoundError):
        return path.read_bytes()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    scratch = folder / f".console.key.{secrets.token_hex(6)}"
    handle = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(secrets.token_bytes(_KEY_BYTES))
        file.flush()
        os.fsync(handle)
    try:
        with suppress(FileExistsError):  # another process was first, and its key counts
            os.link(scratch, path)
    finally:
        scratch.unlink()
    return path.read_bytes()


# --- the cookie


def set_cookie(request: Request, response: Response, value: str) -> None:
    """Hand the cookie to a browser, for this host and for pages alone."""
    response.set_cookie(
        _name(request),
        value,
        max_age=LASTS_S,
        path="/",
        secure=_is_tls(request),
        httponly=True,
        samesite="strict",
    )


def drop_cookie(request: Request, response: Response) -> None:
    """Have a browser forget the cookie."""
    response.delete_cookie(
        _name(request), path="/", secure=_is_tls(request), httponly=True, samesite="strict"
    )


async def signed_in(request: Request, sessions: Sessions, database: Database) -> Actor | None:
    """Give who is signed in, by the request's cookie."""
    value = request.cookies.get(_name(request))
    return await sessions.actor(database, value, time.time()) if value else None


def _name(request: Request) -> str:
    # a browser takes __Host- from this very host over TLS only: no sibling can set it
    return "__Host-edgeml" if _is_tls(request) else "edgeml"


def _is_tls(request: Request) -> bool:
    return request.url.scheme == "https"
