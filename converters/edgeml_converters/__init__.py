"""edgeml's converters, quantizers, evaluation and report; never on a device."""

from edgeml.offline import silence_openvino

# before any module here can import OpenVINO, which makes up its mind about usage statistics then
silence_openvino()

__version__ = "0.1.0"
