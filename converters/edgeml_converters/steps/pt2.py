"""Steps from pt2."""

from __future__ import annotations

from edgeml.converter import ConversionStep

STEPS: tuple[ConversionStep, ...] = ()
