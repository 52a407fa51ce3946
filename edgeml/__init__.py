"""edgeml: a trained model, measured, in a bundle that runs on every device of a mixed fleet."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeml.errors import EdgemlError
    from edgeml.loading import load
    from edgeml.model import Model
    from edgeml.tensors import Quantization, TensorSpec

__all__ = ["EdgemlError", "Model", "Quantization", "TensorSpec", "__version__", "load"]

__version__ = "0.1.0"

_HOME = {
    "EdgemlError": "edgeml.errors",
    "Model": "edgeml.model",
    "Quantization": "edgeml.tensors",
    "TensorSpec": "edgeml.tensors",
    "load": "edgeml.loading",
}


def __getattr__(name: str) -> Any:
    # numpy's import would be half of what `edgeml --help` may take.
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'edgeml' has no attribute {name!r}")
