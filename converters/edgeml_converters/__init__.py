"""edgeml's converters, quantizers, evaluation and report; never on a device."""

__version__ = "0.1.0"
