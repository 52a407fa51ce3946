"""The page that a person reads: one HTML file with its pictures in it, and no request to anywhere."""

from __future__ import annotations

from edgeml_converters.report.page import render

__all__ = ["render"]
