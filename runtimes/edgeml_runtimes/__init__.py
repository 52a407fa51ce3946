"""edgeml's drivers for LiteRT, ONNX Runtime and OpenVINO, and its benchmark."""

from edgeml.offline import silence_engines

# before a driver imports its engine, which makes up its mind about usage statistics then
silence_engines()

__version__ = "0.1.0"
