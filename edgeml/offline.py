"""Keeps engines from reporting usage over the network."""

from __future__ import annotations

import os
import sys


def silence_engines() -> None:
    """Keep every engine that reports usage from doing so. Call this before any of them is imported.

    The rooms call it when they are imported, and so before any module of theirs can import an engine.
    """
    silence_onnxruntime()
    silence_openvino()


def silence_onnxruntime() -> None:
    """Turn off what ONNX Runtime sends from version 1.29 on, on Linux as well.

    It reads the variable once, when it is imported. Besides sending it writes ``.ses`` into the folder
    for temporary files.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"


def silence_openvino() -> None:
    """Turn off the usage statistics that OpenVINO and NNCF send when they are imported and used.

    Both send through the distribution ``openvino-telemetry``, unless told otherwise in the user's home,
    and do without it where it cannot be imported. Call this before either is imported; where one is
    already, the process has made its choice.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None refuses the import
