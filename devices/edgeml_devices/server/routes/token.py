"""Tokens of people and programs, and join tokens for devices. A secret is shown once."""

from __future__ import annotations

import secrets
import time
from typing import Any

from fastapi import APIRouter
from sqlalchemy import insert, or_, select, update

from edgeml_devices.server import audit, auth
from edgeml_devices.server.auth import Admin
from edgeml_devices.server.fleet.labels import check_labels
from edgeml_devices.server.refusals import RefusalError, not_found
from edgeml_devices.server.routes.answers import (
    JoinTokenAnswer,
    JoinTokenBody,
    JoinTokenList,
    Name,
    NewJoinToken,
    NewToken,
    TokenAnswer,
    TokenBody,
    TokenList,
)
from edgeml_devices.server.services import ServicesOf
from edgeml_devices.server.tables import join_tokens, tokens

router = APIRouter(prefix="/v1", tags=["tokens"])


@router.get("/tokens")
async def list_tokens(services: ServicesOf, _admin: Admin) -> TokenList:
    """List all tokens of people and programs."""
    async with services.database.reading() as connection:
        rows = (await connection.execute(select(tokens).order_by(tokens.c.name))).mappings().all()
    return TokenList(tokens=[TokenAnswer(**row) for row in rows])


@router.post("/tokens", status_code=201)
async def create_token(services: ServicesOf, admin: Admin, body: TokenBody) -> NewToken:
    """Make a token."""
    async with services.database.writing() as tx:
        id_, secret = await auth.make_token(tx, admin, body.name, body.role)
        row = (await tx.connection.execute(select(tokens).where(tokens.c.id == id_))).mappings().one()
    return NewToken(**row, token=secret)


@router.delete("/tokens/{token}", status_code=204)
async def revoke_token(services: ServicesOf, admin: Admin, token: Name) -> None:
    """Revoke a token, by its id or name: it is refused from now on."""
    async with services.database.writing() as tx:
        mine = or_(tokens.c.id == token, tokens.c.name == token)
        row = (await tx.connection.execute(select(tokens).where(mine))).first()
        if row is None:
            raise not_found("token", token)
        if row.id == admin.id:
            raise RefusalError(409, "this is the token you are using; revoke it with another one")
        if row.revoked_at is None:
            await tx.connection.execute(update(tokens).where(mine).values(revoked_at=time.time()))
            await audit.record(tx, admin, "token.revoke", row.name, {"id": row.id})


@router.get("/join-tokens")
async def list_join_tokens(services: ServicesOf, _admin: Admin) -> JoinTokenList:
    """List all join tokens, the newest first."""
    async with services.database.reading() as connection:
        rows = (
            await connection.execute(select(join_tokens).order_by(join_tokens.c.created_at.desc()))
        ).mappings()
        return JoinTokenList(join_tokens=[JoinTokenAnswer(**row) for row in rows])


@router.post("/join-tokens", status_code=201)
async def create_join_token(services: ServicesOf, admin: Admin, body: JoinTokenBody) -> NewJoinToken:
    """Make a join token: it lets in so many devices, for so long, and gives them labels."""
    check_labels(body.labels)
    secret, now = auth.new_secret(), time.time()
    row: dict[str, Any] = {
        "id": secrets.token_hex(8),
        "labels": body.labels,
        "uses_left": body.uses,
        "created_at": now,
        "expires_at": now + body.ttl_s,
    }
    async with services.database.writing() as tx:
        await tx.connection.execute(insert(join_tokens).values(sha256=auth.hash_token(secret).hex(), **row))
        detail = {"uses": body.uses, "ttl_s": body.ttl_s, "labels": body.labels}
        await audit.record(tx, admin, "join_token.create", row["id"], detail)
    return NewJoinToken(**row, revoked_at=None, token=secret)


@router.delete("/join-tokens/{token}", status_code=204)
async def revoke_join_token(services: ServicesOf, admin: Admin, token: Name) -> None:
    """Revoke a join token: it lets nobody in from now on; who is in stays."""
    async with services.database.writing() as tx:
        mine = join_tokens.c.id == token
        row = (await tx.connection.execute(select(join_tokens).where(mine))).first()
        if row is None:
            raise not_found("join token", token)
        if row.revoked_at is None:
            await tx.connection.execute(update(join_tokens).where(mine).values(revoked_at=time.time()))
            await audit.record(tx, admin, "join_token.revoke", token)
