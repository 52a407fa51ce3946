"""Keeps engines from reporting usage over the network."""

from __future__ import annotations

import sys


def silence_openvino() -> None:
    """Turn off the usage statistics that OpenVINO and NNCF send when they are imported and used.

    Both send through the distribution ``openvino-telemetry``, unless told otherwise in the user's home,
    and do without it where it cannot be imported. Call this before either is imported; where one is
    already, the process has made its choice.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None refuses the import
