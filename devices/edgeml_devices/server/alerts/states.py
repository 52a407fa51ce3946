"""From what holds now and what was before to what is pending, firing and resolved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from edgeml_devices.server.alerts.rules import Rule

Key = tuple[tuple[str, str], ...]
"""An instance of a rule: dimension and value."""
FORGET_AFTER_S: Final = 86400.0
"""A resolved alert is shown so long."""
MOST_INSTANCES: Final = 1000
"""Of one rule; more are counted and not held."""


class AlertState(StrEnum):
    """Where an alert is."""

    PENDING = "pending"
    FIRING = "firing"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class Alert:
    """One instance of a rule."""

    key: Key
    state: AlertState
    value: float
    """When it held last."""
    since: float
    """When it began to hold without a pause."""
    held_at: float
    """When it held last."""
    fired_at: float | None = None
    resolved_at: float | None = None


def advance(
    rule: Rule, before: Mapping[Key, Alert], values: Mapping[Key, float], now: float
) -> dict[Key, Alert]:
    """Give a rule's alerts after an evaluation.

    Args:
        rule: whose alerts.
        before: as they were.
        values: the instances for which the expression holds now, and what they measure.
        now: the time.
    """
    after: dict[Key, Alert] = {}
    for key, value in values.items():
        alert = before.get(key)
        if alert is None or alert.state is AlertState.RESOLVED:
            alert = Alert(key, AlertState.PENDING, value, now, now)
        alert = replace(alert, value=value, held_at=now)
        if alert.state is AlertState.PENDING and now - alert.since >= rule.for_s:
            alert = replace(alert, state=AlertState.FIRING, fired_at=now)
        after[key] = alert
    for key, alert in before.items():
        if key not in values:
            kept = _no_more(rule, alert, now)
            if kept is not None:
                after[key] = kept
    return after


def _no_more(rule: Rule, alert: Alert, now: float) -> Alert | None:
    match alert.state:
        case AlertState.PENDING:
            return None
        case AlertState.FIRING if now - alert.held_at < rule.keep_firing_s:
            return alert
        case AlertState.FIRING:
            return replace(alert, state=AlertState.RESOLVED, resolved_at=now)
        case _:
            return alert if now - (alert.resolved_at or now) < FORGET_AFTER_S else None


def is_news(before: Mapping[Key, Alert], after: Mapping[Key, Alert]) -> bool:
    """Say whether somebody has to hear of it: an alert began to fire, or ended."""
    return any(
        alert.state is not AlertState.PENDING
        and (
            key not in before
            or before[key].state is not alert.state
            or before[key].fired_at != alert.fired_at
        )
        for key, alert in after.items()
    )
