"""Checks the server's audit log: the chain of rows, the head that it signed, the head that was seen before.

The last is what a server cannot talk its way out of: it could write the whole chain anew and sign it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgeml.atomic import replacing_file
from edgeml.errors import ServerError
from edgeml_devices.api_client import ApiClient
from edgeml_devices.audit_chain import FIELDS, START, row_sha256
from edgeml_devices.repository.remote import fetch_metadata
from edgeml_devices.repository.state import make_private, read_state

HEAD_FIELD: Final = "edgeml_audit"
"""In the timestamp: id and hash of the last row when it was signed."""
_SEEN: Final = "audit.json"
_SEEN_HERE: Final = "seen here before"
_PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class Head:
    """A row that stands for the log up to it."""

    id: int
    sha256: str


@dataclass(frozen=True, slots=True)
class AuditCheck:
    """What was found."""

    rows: int
    sha256: str
    """Of the last row."""
    signed_id: int
    """The row up to which the server's signature goes; 0: none."""
    faults: list[str]


def check_audit(client: ApiClient, trust: Path, *, after_restore: bool = False) -> AuditCheck:
    """Read the whole log and check it; a sound head is remembered in ``trust``.

    Args:
        client: of a viewer.
        trust: what this machine saw before.
        after_restore: the server was restored from a back-up, and a person looked: the head that was seen
            here before is not asked for.

    Raises:
        TrustError: the repository's metadata is not to be believed.
        ServerError: the server cannot be reached, or answers with no audit log.
    """
    state = read_state(fetch_metadata(client), trust)
    faults = []
    if "timestamp" in state.problems:
        faults.append(f"the timestamp is not signed by the server's key: {state.problems['timestamp']}")
    heads = {
        "signed": _head(state.timestamp.signed.unrecognized_fields.get(HEAD_FIELD)),
        _SEEN_HERE: None if after_restore else _seen(trust / _SEEN),
    }
    rows = client.pages("/v1/audit", "audit", {"limit": _PAGE})
    last, broken = _follow(rows, {name: head for name, head in heads.items() if head is not None})
    faults += broken
    if not faults:
        make_private(trust)
        with replacing_file(trust / _SEEN) as scratch:
            scratch.write_text(json.dumps({"id": last.id, "sha256": last.sha256}))
    signed = heads["signed"]
    return AuditCheck(last.id, last.sha256, 0 if signed is None else signed.id, faults)


def _follow(rows: Iterable[Mapping[str, Any]], heads: Mapping[str, Head]) -> tuple[Head, list[str]]:
    """Compute the chain; give its last row, and what does not fit."""
    faults, last = [], Head(0, START)
    waiting = dict(heads)
    for name, head in heads.items():
        if head == last:
            del waiting[name]
    try:
        for row in rows:
            if row["id"] != last.id + 1:
                faults.append(f"row {row['id']} follows row {last.id}")
            sha256 = row_sha256(row["previous_sha256"], {name: row[name] for name in FIELDS})
            if row["previous_sha256"] != last.sha256:
                faults.append(f"row {row['id']} does not continue row {last.id}")
            if row["sha256"] != sha256:
                faults.append(f"row {row['id']} is not what was written: its hash is another")
            last = Head(row["id"], row["sha256"])
            reached = {
                name: waiting.pop(name) for name in heads if name in waiting and waiting[name].id == last.id
            }
            faults += [
                f"row {last.id} is not the one that was {name}" for name in reached if reached[name] != last
            ]
    except (KeyError, TypeError, ValueError) as error:
        raise ServerError(f"the server's audit log cannot be read: {error}") from error
    faults += [f"row {head.id}, {name}, is gone: the log ends at {last.id}" for name, head in waiting.items()]
    if any(_SEEN_HERE in fault for fault in faults):
        faults.append(
            "if the server was restored from a back-up since, look at what follows it (edgeml audit list "
            "--action server.restore), then: edgeml audit verify --after-restore"
        )
    return last, faults


def _head(value: object) -> Head | None:
    if not isinstance(value, dict):
        return None
    id_, sha256 = value.get("id"), value.get("sha256")
    return Head(id_, sha256) if isinstance(id_, int) and isinstance(sha256, str) else None


def _seen(file: Path) -> Head | None:
    if not file.is_file():
        return None
    try:
        return _head(json.loads(file.read_bytes()))
    except ValueError:
        return None
