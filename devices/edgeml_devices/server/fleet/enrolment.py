"""Enrolment: a join token lets a device in; the device's own token is what it is known by afterwards."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError

from edgeml.errors import UsageError
from edgeml_devices.messages import Enrolled, EnrolRequest
from edgeml_devices.server import audit, auth
from edgeml_devices.server.database import Database
from edgeml_devices.server.fleet.columns import to_json
from edgeml_devices.server.fleet.labels import check_labels, check_name
from edgeml_devices.server.refusals import RefusalError
from edgeml_devices.server.tables import devices, join_tokens
from edgeml_devices.server.transaction import Transaction

_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{43,128}")
_TRIES: Final = 5
"""When others take the same name at the same moment."""


@dataclass(frozen=True, slots=True)
class Admission:
    """How a request to be let in ended."""

    enrolled: Enrolled
    is_new: bool


async def enrol(database: Database, request: EnrolRequest, now: float) -> Admission:
    """Let a device in, or recognise one that asks again because it lost the answer.

    Raises:
        RefusalError: 401: the join token is unknown, used up, expired or revoked, or the device was retired.
        UsageError: a device token that is too short, labels that cannot be.
    """
    if not _TOKEN.fullmatch(request.device_token):
        raise UsageError("device_token must be 43 to 128 characters of URL-safe base64: 256 random bits")
    check_labels(request.labels)
    for tries_left in reversed(range(_TRIES)):
        try:
            async with database.writing() as transaction:
                known = await _recognise(transaction, request)
                return known or await _admit(transaction, request, now)
        except IntegrityError:
            # the same device twice at once, or two devices with one wish for a name
            if not tries_left:
                raise
    raise AssertionError


async def _recognise(transaction: Transaction, request: EnrolRequest) -> Admission | None:
    sha256 = auth.hash_token(request.device_token).hex()
    statement = select(devices).where(devices.c.token_sha256 == sha256)
    row = (await transaction.connection.execute(statement)).first()
    if row is None:
        return None
    if row.retired_at is not None:
        raise RefusalError(401, "this device was retired; delete its identity to enrol it as another one")
    return Admission(Enrolled(row.id, row.name, row.labels), is_new=False)


async def _admit(transaction: Transaction, request: EnrolRequest, now: float) -> Admission:
    join = await _use(transaction, request.join_token, now)
    labels: Mapping[str, str] = {**request.labels, **join["labels"]}
    check_labels(labels)
    id_, name = secrets.token_hex(8), await _free_name(transaction, request.name)
    row = {
        "id": id_,
        "name": name,
        "token_sha256": auth.hash_token(request.device_token).hex(),
        "join_token_id": join["id"],
        "labels": dict(labels),
        "facts": None if request.facts is None else to_json(request.facts),
        "enrolled_at": now,
        "last_seen": now,
    }
    await transaction.connection.execute(insert(devices).values(row))
    transaction.changed.add(id_)
    await audit.record(
        transaction, f"device:{id_}", "device.enrol", id_, {"name": name, "join_token": join["id"]}
    )
    return Admission(Enrolled(id_, name, labels), is_new=True)


async def _use(transaction: Transaction, token: str, now: float) -> Any:
    """Use a join token once, or say why not."""
    sha256 = auth.hash_token(token).hex()
    mine = join_tokens.c.sha256 == sha256
    used = await transaction.connection.execute(
        update(join_tokens)
        .where(
            mine,
            join_tokens.c.uses_left > 0,
            join_tokens.c.expires_at > now,
            join_tokens.c.revoked_at.is_(None),
        )
        .values(uses_left=join_tokens.c.uses_left - 1)
        .returning(join_tokens.c.id, join_tokens.c.labels)
    )
    if (row := used.mappings().first()) is not None:
        return row
    found = (await transaction.connection.execute(select(join_tokens).where(mine))).first()
    if found is None:
        reason = "is unknown"
    elif found.revoked_at is not None:
        reason = "was revoked"
    elif found.expires_at <= now:
        reason = "has expired"
    else:
        reason = "is used up"
    raise RefusalError(401, f"the join token {reason}; ask for another one (edgeml tokens join)")


async def _free_name(transaction: Transaction, wanted: str) -> str:
    base = re.sub(r"[^A-Za-z0-9._-]+", "-", wanted).strip("-._")[:56] or "device"
    try:
        check_name("device", base)
    except UsageError:
        base = f"device-{base}"
    same = select(devices.c.name).where(devices.c.name == base)
    if (await transaction.connection.execute(same)).first() is None:
        return base
    alike = select(devices.c.name).where(devices.c.name.startswith(f"{base}-", autoescape=True))
    taken = set((await transaction.connection.execute(alike)).scalars())
    number = 2
    while f"{base}-{number}" in taken:
        number += 1
    return f"{base}-{number}"


async def rename(transaction: Transaction, device_id: str, name: str) -> None:
    """Give a device another name.

    Raises:
        UsageError: it cannot be a name.
        RefusalError: 409: another device has it.
    """
    check_name("device", name)
    statement = select(devices.c.id).where(devices.c.name == name, devices.c.id != device_id)
    if (await transaction.connection.execute(statement)).first() is not None:
        raise RefusalError(409, f"another device has the name {name}")
    await transaction.connection.execute(update(devices).where(devices.c.id == device_id).values(name=name))
