"""What ``edgeml doctor`` says of the tools that conversion uses."""

from __future__ import annotations

from typing import Final

from edgeml.doctor import Check, Package, package_check
from edgeml.errors import EngineError, EngineMissingError
from edgeml_converters.coral.compiler_place import PROGRAM, find_compiler, open_place

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
    return (*(package_check("tool", package) for package in TOOLS), _edge_tpu_compiler())


def _edge_tpu_compiler() -> Check:
    """Look for Coral's compiler, which is the user's own."""
    try:
        with open_place(None, lambda _: None) as place:
            found = find_compiler(place)
    except EngineMissingError as error:
        remedy = str(error).partition(": ")[2]
        return Check("tool", PROGRAM, "missing", "for compiling for the Edge TPU", remedy)
    except EngineError as error:
        return Check("tool", PROGRAM, "broken", str(error), "install Coral's package edgetpu-compiler again")
    return Check("tool", PROGRAM, "ok", f"{found.version}, {found.path}")
