"""edgeml's drivers for LiteRT, ONNX Runtime and OpenVINO, and its benchmark."""

__version__ = "0.1.0"
