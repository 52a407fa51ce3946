"""Samples from files, folders and functions: one reader for calibration, evaluation and `edgeml run`."""

from __future__ import annotations

from edgeml.data.dataset import Dataset, open_data
from edgeml.data.declaration import (
    DataConfig,
    DataDeclaration,
    open_declared,
    parse_postprocess,
    parse_preprocess,
    read_data_config,
    read_label_names,
)

__all__ = [
    "DataConfig",
    "DataDeclaration",
    "Dataset",
    "open_data",
    "open_declared",
    "parse_postprocess",
    "parse_preprocess",
    "read_data_config",
    "read_label_names",
]
