"""Conversion steps between formats, one file per source format; each exports ``STEPS``."""
