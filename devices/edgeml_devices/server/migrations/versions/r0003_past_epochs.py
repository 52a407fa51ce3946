"""Which epochs of its reports a device has left behind."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("devices", sa.Column("past_epochs", sa.JSON(), nullable=True))
