"""Gates that are alert rules: none of those named may fire for the release that is rolled out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeml_devices.server.alerts.states import AlertState
from edgeml_devices.server.alerts.tables import alert_rules, alerts
from edgeml_devices.server.rollouts.engine import GateState, Reading
from edgeml_devices.server.rollouts.policy import Policy

_FRESH_S: Final = 300.0
"""A rule that was not evaluated for so long says nothing."""


async def read_alert_gates(
    connection: AsyncConnection, policy: Policy, since: float, now: float
) -> tuple[Reading, ...]:
    """Read the rules that a rollout names.

    Args:
        connection: to read with.
        policy: of the rollout.
        since: when the wave began; a rule must have been evaluated after it.
        now: Unix seconds.
    """
    names = policy.gates.alerts
    if not names:
        return ()
    found = await connection.execute(select(alert_rules).where(alert_rules.c.name.in_(names)))
    rules = {row.name: row for row in found}
    firing = select(alerts).where(alerts.c.rule.in_(names), alerts.c.state == AlertState.FIRING.value)
    rows = (await connection.execute(firing)).all()
    return tuple(
        _read(
            name,
            rules.get(name),
            [row for row in rows if row.rule == name],
            policy,
            max(since, now - _FRESH_S),
        )
        for name in names
    )


def _read(name: str, rule: Row[Any] | None, firing: list[Row[Any]], policy: Policy, since: float) -> Reading:
    gate = f"alert {name}"
    if rule is None:
        return Reading(gate, GateState.MISSING, 0, None, "the server has no such alert rule")
    if rule.error:
        return Reading(gate, GateState.MISSING, 0, None, f"it cannot be evaluated: {rule.error}")
    if rule.evaluated_at is None or rule.evaluated_at < since:
        return Reading(gate, GateState.MISSING, 0, None, "it was not evaluated yet")
    about = [dict(row.key) for row in firing if _is_about(dict(row.key), policy)]
    if not about:
        return Reading(gate, GateState.PASSED, 0, 0)
    first = ", ".join(f"{key}={value}" for key, value in about[0].items()) or "the fleet"
    return Reading(gate, GateState.FAILED, 0, len(about), first)


def _is_about(key: Mapping[str, str], policy: Policy) -> bool:
    """Say whether an instance tells of the release; one that names neither model nor release may."""
    return key.get("model", policy.model) == policy.model and key.get("release", str(policy.release)) == str(
        policy.release
    )
