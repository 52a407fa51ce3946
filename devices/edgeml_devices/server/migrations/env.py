"""Alembic's hook: runs the steps on the connection that :mod:`edgeml_devices.server.migrate` gives."""

from __future__ import annotations

from alembic import context

from edgeml_devices.server.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"], target_metadata=METADATA, render_as_batch=True
)
with context.begin_transaction():
    context.run_migrations()
