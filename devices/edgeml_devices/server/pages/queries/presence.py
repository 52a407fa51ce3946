"""Which devices are heard of: the same words on each page."""

from __future__ import annotations

from typing import Final

from sqlalchemy import ColumnElement, and_, case, select

from edgeml_devices.server.tables import devices

ONLINE_S: Final = 180.0
"""Last seen within three polls."""
PRESENCES: Final = ("online", "silent", "never seen", "retired")


def presence(now: float) -> ColumnElement[str]:
    """Give the one of :data:`PRESENCES` that a row of ``devices`` is in."""
    return case(
        (devices.c.retired_at.is_not(None), "retired"),
        (devices.c.last_seen.is_(None), "never seen"),
        (devices.c.last_seen >= now - ONLINE_S, "online"),
        else_="silent",
    )


def of_present(device_id: ColumnElement[str]) -> ColumnElement[bool]:
    """Give the condition that a row's device is not retired.

    Few are: to look each up in their list costs less than to join all devices.
    """
    return device_id.not_in(select(devices.c.id).where(devices.c.retired_at.is_not(None)))


def is_present(word: str, now: float) -> ColumnElement[bool]:
    """Give the condition of one of them; of any other word: not retired."""
    here = devices.c.retired_at.is_(None)
    match word:
        case "online":
            return and_(here, devices.c.last_seen >= now - ONLINE_S)
        case "silent":
            return and_(here, devices.c.last_seen < now - ONLINE_S)
        case "never seen":
            return and_(here, devices.c.last_seen.is_(None))
        case "retired":
            return devices.c.retired_at.is_not(None)
        case _:
            return here
