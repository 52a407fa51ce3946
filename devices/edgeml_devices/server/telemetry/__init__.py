"""Fleet telemetry in the server: collected exactly once, stored by day, asked in a handful of questions."""
