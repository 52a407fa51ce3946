"""What a rollout would do: which device gets which variant, and how many bytes, before anything moves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from sqlalchemy import RowMapping, select
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeml.errors import EdgemlError
from edgeml.installed import needed_files
from edgeml.manifest import Manifest
from edgeml_devices.server.database import pieces
from edgeml_devices.server.rollouts.fit import Fit, Fitting
from edgeml_devices.server.rollouts.members import Member, division
from edgeml_devices.server.rollouts.policy import Policy
from edgeml_devices.server.rollouts.service import ManifestOf
from edgeml_devices.server.tables import assignments, devices, statuses

_UNKNOWN: Final = "not known yet"
"""In place of a variant, of a device that has not said what it is."""


@dataclass(frozen=True, slots=True)
class Planned:
    """What would become of one device."""

    device_id: str
    name: str
    wave: int | None
    variants: tuple[str, ...] = ()
    """Those that it would fetch; it runs the first, or the quickest where there are several."""
    size_bytes: int | None = 0
    """Of what it would have to load; ``None``: not known."""
    skipped: str | None = None
    detail: str = ""
    target: str | None = None
    """Kind of machine, as its facts say it."""


@dataclass(slots=True)
class _Contents:
    """Which files are on a device: those of the variants of the releases that it runs."""

    connection: AsyncConnection
    manifest_of: ManifestOf
    _manifests: dict[tuple[str, int], Manifest | None] = field(default_factory=dict)
    _hashes: dict[tuple[str, int, str], frozenset[str]] = field(default_factory=dict)

    async def of(self, running: tuple[tuple[str, int, str], ...]) -> frozenset[str]:
        found: frozenset[str] = frozenset()
        for one in running:
            if one not in self._hashes:
                self._hashes[one] = await self._read(*one)
            found |= self._hashes[one]
        return found

    async def _read(self, model: str, release: int, variant: str) -> frozenset[str]:
        if (model, release) not in self._manifests:
            try:
                manifest: Manifest | None = await self.manifest_of(self.connection, model, release)
            except EdgemlError:
                manifest = None  # a release that came another way
            self._manifests[model, release] = manifest
        manifest = self._manifests[model, release]
        if manifest is None:
            return frozenset()
        try:
            return frozenset(entry.sha256 for entry in needed_files(manifest, (variant,)))
        except EdgemlError:
            return frozenset()


async def plan(
    connection: AsyncConnection, policy: Policy, selector: str, manifest_of: ManifestOf, now: float
) -> tuple[Planned, ...]:
    """Plan a rollout over the devices that are in the group now, in the order in which they are taken."""
    fit = Fit(await manifest_of(connection, policy.model, policy.release))
    contents = _Contents(connection, manifest_of)
    members = sorted(await division(connection, policy, selector), key=lambda one: (one.wave or 0, one.place))
    sizes: dict[Any, int] = {}
    found = []
    for piece in pieces(members):
        rows = await _devices(connection, policy, piece)
        running = await _running(connection, piece)
        for member in piece:
            row, runs = rows[member.device_id], running.get(member.device_id, ())
            skipped = _skip(policy, fit.of(row["facts"]), row, member, now)
            begun = partial(Planned, member.device_id, row["name"], member.wave, target=row["target"])
            if skipped is not None:
                found.append(begun(skipped=skipped[0], detail=skipped[1]))
                continue
            variants = fit.of(row["facts"]).variants
            key = (variants, runs)
            if key not in sizes and variants:
                sizes[key] = _missing_bytes(fit.manifest, variants, await contents.of(runs))
            found.append(begun(variants=variants, size_bytes=sizes.get(key)))
    return tuple(found)


def _skip(
    policy: Policy, fitting: Fitting, row: RowMapping, member: Member, now: float
) -> tuple[str, str] | None:
    if member.wave is None:
        return "in_no_wave", ""
    if row["penalty_until"] is not None and row["penalty_until"] > now:
        return "penalty_box", f"until {int(row['penalty_until'])}"
    is_asked_else = row["has_assignment"] is not None and row["release"] != policy.release
    if row["running"] == policy.release and not is_asked_else:
        return "already_running", ""
    return ("incompatible", fitting.unfit) if fitting.unfit else None


def _missing_bytes(manifest: Manifest, variants: Sequence[str], here: frozenset[str]) -> int:
    entries = {entry.sha256: entry.size_bytes for entry in needed_files(manifest, variants)}
    return sum(size for sha256, size in entries.items() if sha256 not in here)


async def _devices(
    connection: AsyncConnection, policy: Policy, members: Sequence[Member]
) -> dict[str, RowMapping]:
    statement = (
        select(
            devices.c.id,
            devices.c.name,
            devices.c.facts,
            devices.c.facts[("target", "name")].as_string().label("target"),
            devices.c.penalty_until,
            statuses.c.running,
            assignments.c.device_id.label("has_assignment"),
            assignments.c.release,
        )
        .select_from(devices)
        .join(
            statuses,
            (statuses.c.device_id == devices.c.id) & (statuses.c.model == policy.model),
            isouter=True,
        )
        .join(
            assignments,
            (assignments.c.device_id == devices.c.id) & (assignments.c.model == policy.model),
            isouter=True,
        )
        .where(devices.c.id.in_([one.device_id for one in members]))
    )
    return {row["id"]: row for row in (await connection.execute(statement)).mappings()}


async def _running(
    connection: AsyncConnection, members: Sequence[Member]
) -> dict[str, tuple[tuple[str, int, str], ...]]:
    statement = (
        select(statuses.c.device_id, statuses.c.model, statuses.c.running, statuses.c.variant)
        .where(
            statuses.c.device_id.in_([one.device_id for one in members]),
            statuses.c.running.is_not(None),
            statuses.c.variant.is_not(None),
        )
        .order_by(statuses.c.device_id, statuses.c.model)
    )
    found: dict[str, tuple[tuple[str, int, str], ...]] = {}
    for row in await connection.execute(statement):
        found[row.device_id] = (*found.get(row.device_id, ()), (row.model, row.running, row.variant))
    return found


def plan_document(policy: Policy, selector: str, planned: Sequence[Planned], limit: int) -> dict[str, Any]:
    """Give a plan as JSON: sums by wave, and single devices up to a limit."""
    waves = []
    for number, wave in enumerate(policy.waves, 1):
        inside = [one for one in planned if one.wave == number]
        going = [one for one in inside if one.skipped is None]
        variants: dict[str, int] = {}
        for one in going:
            name = one.variants[0] if one.variants else _UNKNOWN
            variants[name] = variants.get(name, 0) + 1
        waves.append(
            {
                "wave": number,
                "what": str(wave),
                "devices": len(going),
                "skipped": len(inside) - len(going),
                "variants": dict(sorted(variants.items())),
                "size_bytes": sum(one.size_bytes or 0 for one in going),
                "unknown_sizes": sum(one.size_bytes is None for one in going),
            }
        )
    skipped: dict[str, int] = {}
    for one in planned:
        if one.skipped is not None:
            skipped[one.skipped] = skipped.get(one.skipped, 0) + 1
    going = [one for one in planned if one.skipped is None]
    return {
        "model": policy.model,
        "release": policy.release,
        "selector": selector,
        "waves": waves,
        "size_bytes": sum(one.size_bytes or 0 for one in planned),
        "skipped": dict(sorted(skipped.items())),
        "targets": dict(sorted(Counter(one.target or _UNKNOWN for one in going).items())),
        "devices": [
            {
                "device": one.device_id,
                "name": one.name,
                "wave": one.wave,
                "variants": list(one.variants),
                "size_bytes": one.size_bytes,
                "target": one.target,
                "skipped": one.skipped,
                "detail": one.detail,
            }
            for one in planned[:limit]
        ],
        "left_off": max(0, len(planned) - limit),
    }
