"""What the samples are labelled with: class numbers, class names, or values to regress."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from edgeml.arrays import Array
from edgeml.data.arrays import Member, npy_member, read_whole
from edgeml.errors import DataError, UsageError

PATTERN: Final = "pattern:"
"""Begins a labels option that takes the class out of a file's name: ``pattern:^(\\d+)_``."""
FILE_COLUMNS: Final = ("file", "filename", "path", "image")
DEFAULT_KEYS: Final = ("y", "labels", "label")
"""Keys and columns that hold the labels unless another is named."""
LABEL_COLUMNS: Final = (*DEFAULT_KEYS, "class")
MISSING: Final = frozenset({"na", "n/a", "#n/a", "nan", "null"})
"""What tables write for a value that is not there; a class may be called so only where names are given."""


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
        numbers = np.array([float(value) for value in values], np.float64)
    except ValueError:
        pass
    else:
        plain = plain_labels(numbers, where)
        return plain, tuple(names) if plain.dtype.kind == "i" else ()
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
        found = read_label_array(npy_member(path), count, names)
    else:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        filled = [line for line in lines if line]
        require_count(len(filled), count, str(path))
        for number, line in enumerate(filled):
            require_label(line, names, f"{path}, label {number}")
        found = encode(filled, names, str(path))
    return found


def read_label_array(member: Member, count: int, names: Sequence[str]) -> tuple[Array, tuple[str, ...]]:
    """Read the labels of ``count`` samples from an array; nothing is read if it has another length.

    Raises:
        DataError: of another length, too large, empty or NaN.
    """
    where = str(member)
    require_count(member.shape[0] if member.shape else 1, count, where)
    labels = read_whole(member)
    if labels.dtype.kind not in "US":
        return plain_labels(labels, where), tuple(names)
    if labels.size != count:
        raise DataError(f"{where}: labels have the shape {labels.shape}; there must be one for each sample")
    if labels.dtype.kind == "S":
        labels = np.char.decode(labels, "utf-8", "replace")
    texts = [str(label) for label in labels.reshape(-1)]
    for number, text in enumerate(texts):
        require_label(text, names, f"{where}, sample {number}")
    return encode(texts, names, where)


def plain_labels(labels: Array, where: str) -> Array:
    """Bring labels to [N] or [N,…]: booleans and whole numbers as int64, others as they are.

    Raises:
        DataError: NaN or infinity.
    """
    labels = labels.reshape(1) if labels.ndim == 0 else labels
    if labels.ndim > 1 and labels.size == len(labels):
        labels = labels.reshape(-1)
    if labels.dtype.kind == "f":
        lost = np.flatnonzero(~np.isfinite(labels.reshape(len(labels), -1)).all(axis=1))
        if lost.size:
            raise DataError(f"{where}: the label of sample {lost[0]} is NaN or infinite")
        if labels.ndim == 1 and bool((labels == np.trunc(labels)).all()):
            return labels.astype(np.int64)
    return labels.astype(np.int64) if labels.dtype.kind == "b" else labels


def require_label(text: str, names: Sequence[str], place: str) -> None:
    """Raise the DataError for a label that is not there; ``place`` names where it stands."""
    if not text.strip():
        raise DataError(f"{place}: label is empty")
    if text.strip().lower() in MISSING and text not in names:
        raise DataError(f"{place}: label is {text!r}, which stands for none; leave the sample out")


def require_count(labels: int, samples: int, where: str) -> None:
    """Raise the DataError for labels of another length than the samples."""
    if labels != samples:
        raise DataError(f"{where}: {labels} labels for {samples} samples; there must be one for each")


def read_file_labels(path: Path, names: Sequence[str] = ()) -> dict[str, str]:
    """Read a CSV that maps file names to labels.

    The first row names the columns; the files stand in one called file, filename, path or image, the labels
    in one called label, labels, y or class. Of two columns one name is enough, or none: file, then label.

    Raises:
        DataError: missing, empty, without these columns, or an empty cell.
    """
    if not path.is_file():
        raise DataError(f"no such labels file: {path}")
    with path.open(newline="", encoding="utf-8-sig") as stream:
        rows = [row for row in csv.reader(stream) if row]
    if len(rows) < 2 or len(rows[0]) < 2:  # noqa: PLR2004 - a header and a row, a file and a label
        raise DataError(f"{path}: needs a header and rows of a file name and a label")
    files, labels = _columns([name.strip() for name in rows[0]], path)
    found: dict[str, str] = {}
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(rows[0]):
            raise DataError(f"{path}, row {number}: {len(row)} cells, the header has {len(rows[0])}")
        name = row[files].strip()
        if name in found:
            raise DataError(f"{path}, row {number}: {name!r} is listed twice")
        found[name] = row[labels].strip()
        require_label(found[name], names, f"{path}, row {number}")
    return found


def _columns(header: Sequence[str], path: Path) -> tuple[int, int]:
    """Find the columns of the files and of the labels."""
    lower = [name.lower() for name in header]
    files = [place for place, name in enumerate(lower) if name in FILE_COLUMNS]
    labels = [place for place, name in enumerate(lower) if name in LABEL_COLUMNS]
    told = ", ".join(header)
    if not files and not labels and any(Path(name).suffix for name in header):
        raise DataError(
            f"{path}: row 1 is a sample ({told}); begin with a row that names the columns: file,label"
        )
    if len(header) == 2 and len(files) + len(labels) < 2:  # noqa: PLR2004 - a file and a label
        first = files[0] if files else 1 - labels[0] if labels else 0
        return first, 1 - first
    for found, what, known in ((files, "files", FILE_COLUMNS), (labels, "labels", LABEL_COLUMNS)):
        if len(found) != 1:
            several = "several columns" if found else "no column"
            raise DataError(
                f"{path}: {several} called as {what} are ({', '.join(known)}); columns are: {told}. "
                "Name exactly one so"
            )
    return files[0], labels[0]


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
