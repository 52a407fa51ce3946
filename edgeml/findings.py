"""Warnings that have a name: carried by step results, variants, the record and the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """Something a person should know although the work went on (an error would have been raised)."""

    code: str
    """Stable, kebab-case: ``few-calibration-samples``, ``range-outside-calibration``."""
    severity: Literal["info", "warning"]
    subject: str
    """What it is about: an input, a tensor, a file, a variant."""
    message: str
    """What was seen, with numbers."""
    remedy: str
    """What to do next."""
