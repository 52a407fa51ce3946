"""What ``edgeml doctor`` says of the tools that conversion uses."""

from __future__ import annotations

from typing import Final

from edgeml.doctor import Check, Package, package_check

_ALL: Final = "edgeml-converters[all]"
TOOLS: Final = (
    Package("onnx", "onnx", "onnx", "converting from and to ONNX", _ALL),
    Package("onnxslim", "onnxslim", "onnxslim", "simplifying ONNX", _ALL),
    Package("nncf", "nncf", "nncf", "quantizing for OpenVINO", _ALL),
    # not imported: it takes seconds
    Package("ai-edge-quantizer", "ai-edge-quantizer", "", "quantizing TFLite", _ALL),
    Package("skl2onnx", "skl2onnx", "", "scikit-learn estimators", "edgeml-converters[sklearn]"),
    Package("scikit-learn", "scikit-learn", "", "scikit-learn estimators", "edgeml-converters[sklearn]"),
)


def tool_checks() -> tuple[Check, ...]:
    """Look at each tool; one that is only not installed is no fault."""
    return tuple(package_check("tool", package) for package in TOOLS)
