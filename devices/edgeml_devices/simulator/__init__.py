"""Thousands of devices in one process that speak the protocol and install nothing (docs/adr/0017)."""
