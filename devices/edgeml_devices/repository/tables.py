"""What ``edgeml repo`` shows: who signs what, for how long, and what a signature would vouch for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from tuf.api.metadata import Root, Targets

from edgeml.terminal import Column, open_console, print_table
from edgeml_devices.repository import metadata as md
from edgeml_devices.repository.changes import Change
from edgeml_devices.repository.keys import key_name
from edgeml_devices.repository.state import RepositoryState
from edgeml_devices.tuf_words import FLOOR_FIELD


def role_rows(state: RepositoryState, now: datetime) -> list[dict[str, Any]]:
    """Give a row for each role."""
    present: dict[str, Any] = {
        "root": state.root,
        "targets": state.targets,
        **state.families,
        "snapshot": state.snapshot,
        "timestamp": state.timestamp,
    }
    rows = []
    for role, metadata in present.items():
        delegator = state.root.signed if md.delegator_type(role) == "root" else state.targets.signed
        signers = md.signers_of(delegator, role)
        expires = metadata.signed.expires
        rows.append(
            {
                "role": role,
                "version": metadata.signed.version,
                "expires": expires.isoformat(),
                "days_left": round((expires - now).total_seconds() / 86400),
                "expired": expires <= now,
                "threshold": signers.threshold,
                "keys": [{"name": key_name(key), "keyid": key.keyid} for key in signers.keys],
                "problem": state.problems.get(role),
            }
        )
    return rows


def family_rows(state: RepositoryState) -> list[dict[str, Any]]:
    """Give a row for each family."""
    targets = state.targets.signed
    return [
        {
            "family": name,
            "models": md.family_models(role),
            "floors": role.unrecognized_fields.get(FLOOR_FIELD, {}),
            "releases": len(state.families[name].signed.targets) if name in state.families else 0,
        }
        for name, role in md.families(targets).items()
    ]


def print_status(roles: Sequence[dict[str, Any]], families: Sequence[dict[str, Any]]) -> None:
    """Print both tables."""
    console = open_console()
    signers = [
        f"{row['threshold']} of {len(row['keys'])}: {', '.join(key['name'] for key in row['keys'])}"
        for row in roles
    ]
    columns = [
        Column("role", [row["role"] for row in roles], is_name=True),
        Column("version", [str(row["version"]) for row in roles]),
        Column("days\nleft", [str(row["days_left"]) for row in roles]),
        Column("expires", [row["expires"][:10] for row in roles], leaves=2, is_word=True),
        Column("signed by", signers, leaves=1, is_word=True),
    ]
    styles = ["red" if row["expired"] or row["problem"] else "" for row in roles]
    print_table(console, columns, styles)
    console.print()
    floors = [_floors(row["floors"]) or "–" for row in families]
    models = [", ".join("all others" if name == "*" else name for name in row["models"]) for row in families]
    columns = [
        Column("family", [row["family"] for row in families], is_name=True),
        Column("models", models, is_word=True),
        Column("releases", [str(row["releases"]) for row in families]),
        Column("floors", floors, leaves=1, is_word=True),
    ]
    print_table(console, columns)


def print_content(file: Path, change: Change) -> None:
    """Print what a signature would vouch for."""
    signed = change.metadata.signed
    click.echo(f"{file}: {change.role}, version {signed.version}, until {signed.expires:%Y-%m-%d}")
    if isinstance(signed, Root):
        for top_level in signed.roles:
            click.echo(f"  {top_level}: {_who(signed, top_level)}")
    elif change.role == Targets.type:
        for name, role in md.families(signed).items():
            click.echo(f"  {name} signs {', '.join(md.family_models(role))}: {_who(signed, name)}")
            click.echo(f"    floors: {_floors(role.unrecognized_fields.get(FLOOR_FIELD, {})) or 'none'}")
    else:
        for path, target in signed.targets.items():
            click.echo(f"  {path} {target.hashes.get('sha256', '?')[:16]}")


def _who(delegator: Root | Targets, role: str) -> str:
    signers = md.signers_of(delegator, role)
    names = ", ".join(f"{key_name(key)} ({key.keyid[:12]})" for key in signers.keys)
    return f"{signers.threshold} of {names}"


def _floors(floors: Mapping[str, int]) -> str:
    return ", ".join(f"{model} {low}" for model, low in floors.items())
