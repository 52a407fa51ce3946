"""edgeml's converters, quantizers, evaluation and report; never on a device."""

from edgeml.offline import silence_engines

# before any module here can import an engine, which makes up its mind about usage statistics then
silence_engines()

__version__ = "0.1.0"
