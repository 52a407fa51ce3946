"""Alerts: the rules of the server's file, what fires, and which messages did not get through."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from sqlalchemy import select

from edgeml_devices.server.alerts.tables import alert_notices, alert_rules, alerts
from edgeml_devices.server.auth import Viewer
from edgeml_devices.server.services import ServicesOf

router = APIRouter(prefix="/v1/alerts", tags=["alerts"])
_MOST = 1000


@router.get("")
async def list_alerts(services: ServicesOf, _viewer: Viewer) -> dict[str, Any]:
    """List rules with their alerts, firing ones first, and messages that wait or were given up."""
    async with services.database.reading() as connection:
        rules = (await connection.execute(select(alert_rules).order_by(alert_rules.c.name))).mappings().all()
        rows = (
            (await connection.execute(select(alerts).order_by(alerts.c.state, alerts.c.since).limit(_MOST)))
            .mappings()
            .all()
        )
        undelivered = select(alert_notices).where(
            alert_notices.c.error != "",
            alert_notices.c.outcome.is_(None) | (alert_notices.c.outcome == "given up"),
        )
        notices = (
            (await connection.execute(undelivered.order_by(alert_notices.c.id).limit(100))).mappings().all()
        )
    labels = {rule.name: rule for rule in services.alerts.rules}
    return {
        "problems": services.alerts.problems,
        "rules": [
            {
                "name": row["name"],
                "expression": row["expression"],
                "labels": dict(labels[row["name"]].labels) if row["name"] in labels else {},
                "evaluated_at": row["evaluated_at"],
                "error": row["error"],
                "left_out": row["left_out"],
            }
            for row in rules
        ],
        "alerts": [
            {
                "rule": row["rule"],
                "labels": dict(row["key"]),
                **{name: row[name] for name in ("state", "value", "since", "fired_at", "resolved_at")},
            }
            for row in rows
        ],
        "undelivered": [
            {name: row[name] for name in ("rule", "receiver", "created_at", "attempts", "outcome", "error")}
            for row in notices
        ],
    }
