"""edgeml's drivers for LiteRT, ONNX Runtime and OpenVINO, and its benchmark."""

from edgeml.offline import silence_openvino

# before the driver imports OpenVINO, which makes up its mind about usage statistics then
silence_openvino()

__version__ = "0.1.0"
