"""Steps from keras."""

from __future__ import annotations

from edgeml.converter import ConversionStep

STEPS: tuple[ConversionStep, ...] = ()
