"""The hash chain of the audit log: who writes rows and who checks them count the same. Light to import."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

START: Final = "0" * 64
"""``previous_sha256`` of the first row."""
FIELDS: Final = ("id", "at", "actor", "action", "object", "detail")
"""What a row's hash covers, in this order, behind the hash of the row before."""


def row_sha256(previous_sha256: str, row: Mapping[str, Any]) -> str:
    """Give the hash of a row: SHA-256 over the previous hash (hex) and its fields as compact JSON.

    Args:
        previous_sha256: of the row before; :data:`START` for the first.
        row: has :data:`FIELDS`; ``id`` is an int, ``at`` a float, ``detail`` what JSON gave or will give back
            (no keys but text, no NaN), so that it is the same after a database or a network.
    """
    text = json.dumps(
        [row[name] for name in FIELDS],
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
    )
    return hashlib.sha256(f"{previous_sha256}{text}".encode()).hexdigest()
