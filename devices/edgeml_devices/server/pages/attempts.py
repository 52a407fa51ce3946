"""How often an address may fail to sign in: tokens cannot be guessed, and nobody should try at full speed."""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from typing import Final

MOST: Final = 10
"""Failures within :data:`PERIOD_S`."""
PERIOD_S: Final = 300.0
_ADDRESSES: Final = 10_000
"""Remembered at once; the oldest goes first."""


class Attempts:
    """Counts by address, of one process."""

    def __init__(self) -> None:
        self._counts: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def begin(self, address: str, now: float) -> float | None:
        """Count an attempt; give the seconds to wait if it is one too many."""
        key = _network(address)
        count, ends = self._counts.get(key, (0, 0.0))
        if ends <= now:
            self._counts.pop(key, None)
            count, ends = 0, now + PERIOD_S
        if count >= MOST:
            return math.ceil(ends - now)
        self._counts[key] = (count + 1, ends)
        if len(self._counts) > _ADDRESSES:
            self._counts.popitem(last=False)
        return None

    def succeeded(self, address: str) -> None:
        """Take an attempt back: it was right."""
        key = _network(address)
        if key in self._counts:
            count, ends = self._counts[key]
            self._counts[key] = (count - 1, ends)


def _network(address: str) -> str:
    """Give what one caller has: an IPv4 address, or an IPv6 network of 64 bits."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if found.version == 4:  # noqa: PLR2004 - of IP
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((int(found) >> 64 << 64, 64)))
