"""The tables of alerts, beside those of the server. Times are Unix seconds, UTC."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, Float, Index, Integer, String, Table, Text

from edgeml_devices.server.tables import METADATA

alert_rules = Table(
    "alert_rules",
    METADATA,
    Column("name", String(100), primary_key=True),
    Column("expression", Text, nullable=False),
    Column("evaluated_at", Float),
    Column("claimed_until", Float, nullable=False),  # by the process that evaluates it
    Column("error", Text, nullable=False, default=""),  # why it could not be evaluated
    Column("left_out", Integer, nullable=False, default=0),  # instances beyond those that are held
)

alerts = Table(
    "alerts",
    METADATA,
    Column("rule", String(100), primary_key=True),
    Column("key_sha256", String(64), primary_key=True),
    Column("key", JSON, nullable=False),  # pairs of dimension and value
    Column("state", String(16), nullable=False),
    Column("value", Float, nullable=False),
    Column("since", Float, nullable=False),
    Column("held_at", Float, nullable=False),
    Column("fired_at", Float),
    Column("resolved_at", Float),
)

alert_notices = Table(
    "alert_notices",
    METADATA,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("rule", String(100), nullable=False),
    Column("receiver", String(100), nullable=False),
    Column("body", JSON, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("next_at", Float, nullable=False),  # of the next try
    Column("attempts", Integer, nullable=False, default=0),
    Column("ended_at", Float),
    Column("outcome", String(16)),  # delivered, superseded or given up
    Column("error", Text, nullable=False, default=""),  # of the last try
    Index("ix_alert_notices_next", "ended_at", "next_at"),
)
