"""Refusals in the audit log: the same of the same caller once a minute, with its count."""

from __future__ import annotations

import time
from typing import Final

from edgeml_devices.server import audit
from edgeml_devices.server.database import Database

_MINUTE_S: Final = 60.0
_CALLERS: Final = 200
"""Different callers and reasons written a minute; the others are counted together."""


class RefusalLog:
    """Refusals on their way to the audit log, so few that a flood of them fills no disk."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._counts: dict[tuple[str, str], int] = {}
        self._begun = time.monotonic()

    async def note(self, actor: str, what: str, reason: str) -> None:
        """Write the first of a minute; count the others of the same actor and reason."""
        if time.monotonic() - self._begun > _MINUTE_S:
            await self.flush()
        key = (
            actor if len(self._counts) < _CALLERS or (actor, reason) in self._counts else "anonymous:many",
            reason,
        )
        self._counts[key] = self._counts.get(key, 0) + 1
        if self._counts[key] == 1:
            async with self._database.writing() as transaction:
                await audit.record(transaction, key[0], "refused", what, {"reason": reason})

    async def flush(self) -> None:
        """Write the counts of the minute that ends."""
        counts, self._counts, self._begun = self._counts, {}, time.monotonic()
        again = [(actor, reason, count - 1) for (actor, reason), count in counts.items() if count > 1]
        if again:
            async with self._database.writing() as transaction:
                for actor, reason, count in again:
                    await audit.record(
                        transaction, actor, "refused", "again", {"reason": reason, "count": count}
                    )
