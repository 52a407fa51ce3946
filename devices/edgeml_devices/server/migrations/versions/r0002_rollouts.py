"""The tables of rollouts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables of rollouts."""
    op.create_table(
        "rollouts",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("model", sa.String(length=128), nullable=False),
        sa.Column("release", sa.BigInteger(), nullable=False),
        sa.Column("policy", sa.JSON(), nullable=False),
        sa.Column("selector", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=24), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("wave", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("created_by", sa.String(length=160), nullable=False),
        sa.Column("creator_id", sa.String(length=32), nullable=False),
        sa.Column("approved_by", sa.String(length=160), nullable=True),
        sa.Column("started_at", sa.Float(), nullable=True),
        sa.Column("changed_at", sa.Float(), nullable=False),
        sa.Column("ended_at", sa.Float(), nullable=True),
        sa.Column("health_id", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rollouts")),
    )
    op.create_index(op.f("ix_rollouts_state"), "rollouts", ["state"])
    _make_waves()
    _make_devices()
    op.create_table(
        "rollout_tallies",
        sa.Column("rollout_id", sa.String(length=32), nullable=False),
        sa.Column("side", sa.String(length=8), nullable=False),
        sa.Column("target", sa.String(length=128), nullable=False),
        sa.Column("calls", sa.BigInteger(), nullable=False),
        sa.Column("errors", sa.BigInteger(), nullable=False),
        sa.Column("latency_counts", sa.JSON(), nullable=False),
        _of_rollout("rollout_tallies"),
        sa.PrimaryKeyConstraint("rollout_id", "side", "target", name=op.f("pk_rollout_tallies")),
    )


def _make_waves() -> None:
    op.create_table(
        "rollout_waves",
        sa.Column("rollout_id", sa.String(length=32), nullable=False),
        sa.Column("wave", sa.Integer(), nullable=False),
        sa.Column("released_at", sa.Float(), nullable=False),
        sa.Column("measured_from", sa.Float(), nullable=False),
        sa.Column("reached_at", sa.Float(), nullable=True),
        sa.Column("data_missing_since", sa.Float(), nullable=True),
        _of_rollout("rollout_waves"),
        sa.PrimaryKeyConstraint("rollout_id", "wave", name=op.f("pk_rollout_waves")),
    )


def _make_devices() -> None:
    op.create_table(
        "rollout_devices",
        sa.Column("rollout_id", sa.String(length=32), nullable=False),
        sa.Column("device_id", sa.String(length=32), nullable=False),
        sa.Column("wave", sa.Integer(), nullable=True),
        sa.Column("place", sa.BigInteger(), nullable=False),
        sa.Column("late", sa.Boolean(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=32), nullable=True),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("forgiven", sa.Boolean(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=True),
        sa.Column("former", sa.JSON(), nullable=True),
        sa.Column("ran", sa.BigInteger(), nullable=True),
        sa.Column("assigned_at", sa.Float(), nullable=True),
        sa.Column("ended_at", sa.Float(), nullable=True),
        _of_rollout("rollout_devices"),
        _of_device("rollout_devices"),
        sa.PrimaryKeyConstraint("rollout_id", "device_id", name=op.f("pk_rollout_devices")),
    )
    op.create_index(
        op.f("ix_rollout_devices_rollout_id_state_wave_place"),
        "rollout_devices",
        ["rollout_id", "state", "wave", "place"],
    )
    op.create_index(op.f("ix_rollout_devices_device_id_state"), "rollout_devices", ["device_id", "state"])
    op.create_table(
        "rollout_failures",
        sa.Column("rollout_id", sa.String(length=32), nullable=False),
        sa.Column("device_id", sa.String(length=32), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("reason", sa.String(length=32), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("pardoned", sa.Boolean(), nullable=False),
        _of_rollout("rollout_failures"),
        _of_device("rollout_failures"),
        sa.PrimaryKeyConstraint("rollout_id", "device_id", "attempt", name=op.f("pk_rollout_failures")),
    )
    op.create_index(op.f("ix_rollout_failures_device_id_at"), "rollout_failures", ["device_id", "at"])


def _of_rollout(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["rollout_id"], ["rollouts.id"], name=op.f(f"fk_{table}_rollout_id_rollouts")
    )


def _of_device(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["device_id"], ["devices.id"], name=op.f(f"fk_{table}_device_id_devices"))
