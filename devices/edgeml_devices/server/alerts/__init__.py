"""Alerts: rules on any question about telemetry, states that survive a restart, one message for a group."""
