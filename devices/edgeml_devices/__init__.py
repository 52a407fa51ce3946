"""edgeml's ways to a device."""

__version__ = "0.1.0"
