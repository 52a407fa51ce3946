"""The tables of the server, the same on SQLite and PostgreSQL. Times are Unix seconds, UTC.

Rows of ``audit`` are only ever added; triggers refuse anything else (see the first migration).
"""

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
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

METADATA: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)
_BIG: Final = BigInteger().with_variant(Integer, "sqlite")
"""SQLite counts up INTEGER primary keys only."""

tokens = Table(
    "tokens",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("name", String(128), nullable=False, unique=True),
    Column("role", String(16), nullable=False),  # admin, operator, viewer
    Column("sha256", String(64), nullable=False, unique=True),
    Column("created_at", Float, nullable=False),
    Column("revoked_at", Float),
)

join_tokens = Table(
    "join_tokens",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("sha256", String(64), nullable=False, unique=True),
    Column("labels", JSON, nullable=False),
    Column("uses_left", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("revoked_at", Float),
)

devices = Table(
    "devices",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("name", String(128), nullable=False, unique=True),
    Column("token_sha256", String(64), nullable=False, unique=True),
    Column("join_token_id", String(32), ForeignKey("join_tokens.id")),
    Column("labels", JSON, nullable=False),
    Column("facts", JSON),
    Column("enrolled_at", Float, nullable=False),
    Column("retired_at", Float),
    Column("last_seen", Float),  # coalesced: written every few seconds
    Column("generation", BigInteger, nullable=False, default=0),  # of the desired state
    Column("reported_generation", BigInteger),
    Column("report_epoch", String(32)),
    Column("report_seq", BigInteger),  # of the newest report: an older one changes no status
    Column("past_epochs", JSON),  # those before report_epoch, the oldest first: what they say is old
    Column("clock_offset_s", Float),  # the device's clock minus the server's, at its last report
    Column("penalty_until", Float),  # the penalty box: no rollout takes it before
)

assignments = Table(
    "assignments",
    METADATA,
    Column("device_id", String(32), ForeignKey("devices.id"), primary_key=True),
    Column("model", String(128), primary_key=True),
    Column("release", BigInteger),  # null: to be removed
    Column("attempt", Integer, nullable=False, default=1),
    Column("hold", Boolean, nullable=False, default=False),
    Column("open_until", Float),  # the maintenance window's end: to switch after it needs another answer
    Column("on_abort", String(16), nullable=False, default="finish"),
    Column("rollout_id", String(32)),
    Column("changed_at", Float, nullable=False),
    Index(None, "rollout_id"),
)

statuses = Table(
    "statuses",
    METADATA,
    Column("device_id", String(32), ForeignKey("devices.id"), primary_key=True),
    Column("model", String(128), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("running", BigInteger),
    Column("manifest_sha256", String(64)),
    Column("ready", Boolean, nullable=False, default=False),
    Column("selftest", JSON),
    Column("variant", String(128)),
    Column("target", BigInteger),
    Column("attempt", Integer, nullable=False, default=1),
    Column("result", String(32)),
    Column("reason", String(32)),
    Column("detail", Text, nullable=False, default=""),
    Column("rollout_id", String(32)),
    Column("reported_at", Float, nullable=False),
    Index(None, "model", "running"),
)

events = Table(
    "events",
    METADATA,
    Column("id", _BIG, primary_key=True, autoincrement=True),
    Column("device_id", String(32), ForeignKey("devices.id"), nullable=False),
    Column("epoch", String(32), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("at", Float, nullable=False),  # the device's clock
    Column("received_at", Float, nullable=False),
    Column("model", String(128), nullable=False),
    Column("release", BigInteger),
    Column("attempt", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("result", String(32)),
    Column("reason", String(32)),
    Column("detail", Text, nullable=False, default=""),
    Column("rollout_id", String(32)),
    Column("variant", String(128)),
    UniqueConstraint("device_id", "epoch", "seq"),
)

health = Table(
    "health",
    METADATA,
    Column("id", _BIG, primary_key=True, autoincrement=True),
    Column("device_id", String(32), ForeignKey("devices.id"), nullable=False),
    Column("epoch", String(32), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("at", Float, nullable=False),  # the window's end, by the server's clock: received - (sent - end)
    Column("received_at", Float, nullable=False),
    Column("duration_s", Float, nullable=False),
    Column("model", String(128), nullable=False),
    Column("release", BigInteger, nullable=False),
    Column("variant", String(128), nullable=False),
    Column("processes", Integer, nullable=False),
    Column("calls", BigInteger, nullable=False),
    Column("errors", BigInteger, nullable=False),
    Column("latency_counts", JSON, nullable=False),
    Column("detail", Text, nullable=False, default=""),
    UniqueConstraint("device_id", "epoch", "seq"),
    Index(None, "model", "release", "received_at"),
)

groups = Table(
    "groups",
    METADATA,
    Column("name", String(128), primary_key=True),
    Column("selector", Text, nullable=False),
    Column("created_at", Float, nullable=False),
)

releases = Table(
    "releases",
    METADATA,
    Column("model", String(128), primary_key=True),
    Column("release", BigInteger, primary_key=True),
    Column("family", String(128), nullable=False),
    Column("manifest_sha256", String(64), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),  # of all files together
    Column("published_at", Float, nullable=False),
    Column("published_by", String(128), nullable=False),
    Column("withdrawn_at", Float),
)

signed_metadata = Table(
    "signed_metadata",
    METADATA,
    Column("role", String(128), primary_key=True),
    Column("version", BigInteger, primary_key=True),
    Column("content", LargeBinary, nullable=False),  # as signed, byte for byte
    Column("expires_at", Float, nullable=False),
    Column("stored_at", Float, nullable=False),
)

audit = Table(
    "audit",
    METADATA,
    Column("id", _BIG, primary_key=True, autoincrement=False),  # consecutive from 1
    Column("at", Float, nullable=False),
    Column("actor", String(160), nullable=False),  # "admin:NAME", "device:ID", "server", "anonymous:ADDRESS"
    Column("action", String(64), nullable=False),  # "device.enrol", "rollout.start", "refused" …
    Column("object", String(256), nullable=False),
    Column("detail", JSON, nullable=False),
    Column("previous_sha256", String(64), nullable=False),
    Column("sha256", String(64), nullable=False),
)
