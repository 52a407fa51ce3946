"""Samples from a CSV: one a row, the inputs from its numeric columns, a label from another."""

from __future__ import annotations

import csv
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from edgeml.arrays import Array
from edgeml.data.labels import DEFAULT_KEYS, encode, read_label_file, require_label
from edgeml.data.reader import RawSample, combined_sha256, file_sha256
from edgeml.errors import DataError
from edgeml.tensors import TensorSpec


class TableReader:
    """Rows of a CSV; without a header the columns are called 0, 1, 2, ….

    Unless ``header`` says so, the first row is taken for one if it holds names only, and for a sample if it
    holds numbers only; anything else is refused.
    """

    def __init__(
        self,
        path: Path,
        inputs: tuple[TensorSpec, ...],
        keys: Mapping[str, str],
        labels: str | None,
        names: tuple[str, ...],
        header: bool | None = None,
    ) -> None:
        self._path = path
        first = next(self._lines(), None)
        if first is None:
            raise DataError(f"{path}: holds no samples")
        wanted = [name.strip() for value in keys.values() for name in value.split(",")]
        expected = {*DEFAULT_KEYS, *([labels] if labels else ()), *(spec.name for spec in inputs), *wanted}
        self._has_header = _has_header(first[1], expected, path) if header is None else header
        self._columns = (
            [cell.strip() for cell in first[1]]
            if self._has_header
            else [str(index) for index in range(len(first[1]))]
        )
        self._label_file: Path | None = None
        self._label_column = self._find_label(labels)
        self._inputs = {spec.name: (self._find(spec, inputs, keys), spec) for spec in inputs}
        column = self._label_column
        texts = []
        for line, row in self._rows():
            texts.append("" if column is None else row[column].strip())
            if column is not None:
                require_label(texts[-1], names, f"{path}, line {line}, column {self._columns[column]!r}")
        self._count = len(texts)
        self.labels: Array | None = None
        self.label_names: tuple[str, ...] = names
        if self._label_column is not None:
            self.labels, self.label_names = encode(texts, names, str(path))
        elif self._label_file is not None:
            self.labels, self.label_names = read_label_file(self._label_file, self._count, names)

    def __len__(self) -> int:
        return self._count

    def read(self, indices: Sequence[int]) -> Iterator[RawSample]:
        wanted = iter(indices)
        index = next(wanted, None)
        for position, (line, row) in enumerate(self._rows()):
            if position != index:
                continue
            yield {
                name: self._values(row, columns, spec, line) for name, (columns, spec) in self._inputs.items()
            }
            index = next(wanted, None)
            if index is None:
                return

    def name_of(self, index: int) -> str:
        return f"row {index + 1}"

    def digest(self) -> str:
        files = [file_sha256(file) for file in (self._path, self._label_file) if file is not None]
        return combined_sha256(
            [
                files,
                {name: columns for name, (columns, _) in self._inputs.items()},
                self._label_column,
                self._has_header,
            ]
        )

    def _values(self, row: list[str], columns: list[int], spec: TensorSpec, line: int) -> Array:
        numbers = np.empty(len(columns), np.float32)
        for place, column in enumerate(columns):
            try:
                numbers[place] = float(row[column])
            except ValueError:
                cell = row[column].strip()
                raise DataError(
                    f"{self._path}, line {line}, column {self._columns[column]!r}: "
                    + (f"{cell!r} is not a number" if cell else "is empty")
                ) from None
        sides = spec.shape[1:]
        if len(sides) != 1 and None not in sides and math.prod(s or 0 for s in sides) == numbers.size:
            return numbers.reshape([side or 0 for side in sides])
        return numbers

    def _find_label(self, wanted: str | None) -> int | None:
        if wanted is None:
            return next((self._columns.index(name) for name in DEFAULT_KEYS if name in self._columns), None)
        if wanted in self._columns:
            return self._columns.index(wanted)
        if Path(wanted).suffix in {".npy", ".txt"}:
            self._label_file = Path(wanted)
            return None
        raise self._no_column(wanted)

    def _find(self, spec: TensorSpec, inputs: tuple[TensorSpec, ...], keys: Mapping[str, str]) -> list[int]:
        if spec.name in keys:
            names = [name.strip() for name in keys[spec.name].split(",")]
            missing = [name for name in names if name not in self._columns]
            if missing:
                raise self._no_column(missing[0])
            return [self._columns.index(name) for name in names]
        if len(inputs) == 1:
            return [index for index in range(len(self._columns)) if index != self._label_column]
        if spec.name in self._columns:
            return [self._columns.index(spec.name)]
        raise DataError(
            f"{self._path}: no column is called like input {spec.name!r}; columns are: "
            f'{", ".join(self._columns)}. Map it in [inputs]: {spec.name} = "column,column"'
        )

    def _no_column(self, name: str) -> DataError:
        return DataError(f"{self._path}: no column {name!r}; columns are: {', '.join(self._columns)}")

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        lines = self._lines()
        if self._has_header:
            next(lines)
        for line, row in lines:
            if len(row) != len(self._columns):
                raise DataError(
                    f"{self._path}, line {line}: {len(row)} cells, there are {len(self._columns)} columns"
                )
            yield line, row

    def _lines(self) -> Iterator[tuple[int, list[str]]]:
        try:
            with self._path.open(newline="", encoding="utf-8-sig") as stream:
                rows = csv.reader(stream)
                for row in rows:
                    if row:
                        yield rows.line_num, row
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{self._path}: cannot be read as CSV: {error}") from error


def _has_header(row: Sequence[str], expected: Collection[str], path: Path) -> bool:
    """Say whether the first row names the columns.

    Raises:
        DataError: it could be either.
    """
    cells = [cell.strip() for cell in row]
    numbers = [cell for cell in cells if _is_number(cell)]
    texts = [cell for cell in cells if cell and not _is_number(cell)]
    if not numbers or any(cell in expected for cell in texts):
        return True
    counted = len(cells) > 1 and cells == [str(place) for place in range(len(cells))]
    if not texts and not counted:
        return False
    raise DataError(
        f"{path}: the first row ({', '.join(cells)}) may name the columns or be a sample; "
        "say which in the data file: header = true or header = false"
    )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
