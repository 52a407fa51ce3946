"""The tables of rollouts, beside those of the server. Times are Unix seconds, UTC."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
)

from edgeml_devices.server.tables import METADATA

_ROLLOUT: Final = "rollouts.id"

rollouts = Table(
    "rollouts",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("model", String(128), nullable=False),
    Column("release", BigInteger, nullable=False),
    Column("policy", JSON, nullable=False),  # policy.Policy by field
    Column("selector", Text, nullable=False),  # the group's, as it was when the rollout was created
    Column("priority", Integer, nullable=False, default=0),
    Column("state", String(24), nullable=False),
    Column("reason", Text, nullable=False, default=""),  # why it is in this state, or what it waits for
    Column("wave", Integer, nullable=False, default=0),  # the last that was released; 0: none
    Column("created_at", Float, nullable=False),
    Column("created_by", String(160), nullable=False),
    Column("creator_id", String(32), nullable=False),  # of the token: somebody else must approve
    Column("approved_by", String(160)),
    Column("started_at", Float),
    Column("changed_at", Float, nullable=False),  # when the state last changed
    Column("ended_at", Float),
    Column("health_id", BigInteger, nullable=False, default=0),  # health rows up to here are in the tallies
    Index(None, "state"),
)

rollout_waves = Table(
    "rollout_waves",
    METADATA,
    Column("rollout_id", String(32), ForeignKey(_ROLLOUT), primary_key=True),
    Column("wave", Integer, primary_key=True),  # from 1
    Column("released_at", Float, nullable=False),
    Column("measured_from", Float, nullable=False),  # when its health counts from: later, if it was resumed
    Column("reached_at", Float),  # since when the success threshold holds
    Column("data_missing_since", Float),  # since when the wave waits for the gates' data alone
)

rollout_devices = Table(
    "rollout_devices",
    METADATA,
    Column("rollout_id", String(32), ForeignKey(_ROLLOUT), primary_key=True),
    Column("device_id", String(32), ForeignKey("devices.id"), primary_key=True),
    Column("wave", Integer),  # null: in none
    Column("place", BigInteger, nullable=False),  # order within the rollout: a hash, the same on every run
    Column("late", Boolean, nullable=False, default=False),  # entered the group after the start
    Column("state", String(16), nullable=False),
    Column("reason", String(32)),
    Column("detail", Text, nullable=False, default=""),
    Column("forgiven", Boolean, nullable=False, default=False),  # failed before the operator resumed
    Column("attempt", Integer),
    Column("former", JSON),  # the assignment before this one
    Column("ran", BigInteger),  # the release that ran before
    Column("assigned_at", Float),
    Column("ended_at", Float),
    Index(None, "rollout_id", "state", "wave", "place"),
    Index(None, "device_id", "state"),
)

rollout_failures = Table(
    "rollout_failures",
    METADATA,
    Column("rollout_id", String(32), ForeignKey(_ROLLOUT), primary_key=True),
    Column("device_id", String(32), ForeignKey("devices.id"), primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("at", Float, nullable=False),
    Column("reason", String(32), nullable=False),
    Column("detail", Text, nullable=False, default=""),
    Column("pardoned", Boolean, nullable=False, default=False),  # no longer counts for the penalty box
    Index(None, "device_id", "at"),
)

rollout_tallies = Table(
    "rollout_tallies",
    METADATA,
    Column("rollout_id", String(32), ForeignKey(_ROLLOUT), primary_key=True),
    Column("side", String(8), primary_key=True),  # new, old
    Column("target", String(128), primary_key=True),  # the device's kind of machine
    Column("calls", BigInteger, nullable=False),
    Column("errors", BigInteger, nullable=False),
    Column("latency_counts", JSON, nullable=False),
)
"""Health since the current wave was released, or the rollout resumed: merged, not kept row by row."""
