"""Samples from files, folders and functions: one reader for calibration, evaluation and `edgeml run`."""
