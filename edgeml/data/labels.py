"""What the samples are labelled with: class numbers, class names, or values to regress."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from edgeml.data.arrays import read_npy
from edgeml.errors import DataError, UsageError
from edgeml.tensors import Array

PATTERN: Final = "pattern:"
"""Begins a labels option that takes the class out of a file's name: ``pattern:^(\\d+)_``."""
FILE_COLUMNS: Final = ("file", "filename", "path", "image")
DEFAULT_KEYS: Final = ("y", "labels", "label")
"""Keys and columns that hold the labels unless another is named."""


def encode(values: Sequence[str], names: Sequence[str], where: str) -> tuple[Array, tuple[str, ...]]:
    """Make texts labels: whole numbers are class indices, other numbers are values, the rest class names.

    Args:
        values: one text for each sample.
        names: class names by index if they are known; otherwise names are taken in sorted order.
        where: names the source in messages.

    Returns:
        int64 indices or float64 values, and the class names (empty for numbers without names).

    Raises:
        DataError: a class that is not among ``names``.
    """
    known = {name: index for index, name in enumerate(names)}
    if names and all(value in known for value in values):
        return np.array([known[value] for value in values], np.int64), tuple(names)
    try:
        return np.array([int(value) for value in values], np.int64), tuple(names)
    except ValueError:
        pass
    try:
        return np.array([float(value) for value in values], np.float64), ()
    except ValueError:
        pass
    if names:
        foreign = next(value for value in values if value not in known)
        raise DataError(f"{where}: class {foreign!r} is not one of the {len(names)} labels of the model")
    found = tuple(sorted(set(values)))
    return np.array([found.index(value) for value in values], np.int64), found


def read_label_file(path: Path, count: int, names: Sequence[str]) -> tuple[Array, tuple[str, ...]]:
    """Read a file with one label for each of ``count`` samples: ``.npy``, or a text file with one a line.

    Raises:
        DataError: missing, unreadable, or of another length.
    """
    if not path.is_file():
        raise DataError(f"no such labels file: {path}")
    if path.suffix == ".npy":
        values: Array = read_npy(path)
        found: tuple[Array, tuple[str, ...]] = (values, tuple(names))
        if values.dtype.kind == "U":
            found = encode([str(value) for value in values], names, str(path))
    else:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        found = encode([line for line in lines if line], names, str(path))
    require_count(len(found[0]), count, str(path))
    return found


def require_count(labels: int, samples: int, where: str) -> None:
    """Raise the DataError for labels of another length than the samples."""
    if labels != samples:
        raise DataError(f"{where}: {labels} labels for {samples} samples; there must be one for each")


def read_file_labels(path: Path) -> dict[str, str]:
    """Read a CSV that maps file names to labels.

    The first row names the columns; the files stand in one called file, filename, path or image
    (otherwise the first), the labels in the other.

    Raises:
        DataError: missing, empty, or without two columns.
    """
    if not path.is_file():
        raise DataError(f"no such labels file: {path}")
    with path.open(newline="", encoding="utf-8-sig") as stream:
        rows = [row for row in csv.reader(stream) if row]
    if len(rows) < 2 or len(rows[0]) < 2:  # noqa: PLR2004 - a header and a row, a file and a label
        raise DataError(f"{path}: needs a header and rows of a file name and a label")
    header = [name.strip().lower() for name in rows[0]]
    files = next((header.index(name) for name in FILE_COLUMNS if name in header), 0)
    labels = 1 if files == 0 else 0
    found: dict[str, str] = {}
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise DataError(f"{path}, row {number}: {len(row)} cells, the header has {len(header)}")
        name = row[files].strip()
        if name in found:
            raise DataError(f"{path}, row {number}: {name!r} is listed twice")
        found[name] = row[labels].strip()
    return found


def labels_from_names(names: Sequence[str], option: str) -> list[str]:
    """Take each file's label out of its name by the first group of ``pattern:REGEX``.

    Raises:
        UsageError: the expression is wrong or has no group.
        DataError: a name that does not match.
    """
    try:
        expression = re.compile(option.removeprefix(PATTERN))
    except re.error as error:
        raise UsageError(f"labels {option!r}: not a regular expression: {error}") from error
    if expression.groups == 0:
        raise UsageError(f"labels {option!r}: put the label in brackets, as in pattern:^(\\d+)_")
    found = []
    for name in names:
        match = expression.search(name)
        if match is None:
            raise DataError(f"{name}: does not match labels {option!r}")
        found.append(match.group(1))
    return found
