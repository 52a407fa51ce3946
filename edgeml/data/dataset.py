"""Data that was declared: opened by ``open_data``, read as a stream of single samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Final

from edgeml.arrays import Array
from edgeml.data.array_reader import ArrayReader
from edgeml.data.functions import FunctionReader
from edgeml.data.images import IMAGE_SUFFIXES, FileReader
from edgeml.data.reader import RawSample, Reader, combined_sha256
from edgeml.data.tables import TableReader
from edgeml.errors import DataError, InputError, UsageError
from edgeml.pipeline import prepare
from edgeml.preprocess import Preprocess
from edgeml.tensors import TensorSpec

NO_KEYS: Final[Mapping[str, str]] = {}
KINDS: Final = ".npz, .npy, .csv, an image, a folder of images or of .npy, or module:function"


class Dataset:
    """Samples as the model takes them, one at a time, as often as they are asked for.

    Satisfies ``edgeml.converter.Calibration``. ``len()`` and ``labels`` speak of the samples that
    ``limit`` left.
    """

    def __init__(
        self,
        source: str,
        reader: Reader,
        inputs: tuple[TensorSpec, ...],
        preprocess: Preprocess,
        limit: int | None = None,
    ) -> None:
        self.source = source
        """As it was declared."""
        self.inputs = inputs
        self.preprocess = preprocess
        self._reader = reader
        self._indices = _spread(len(reader), limit)

    def __len__(self) -> int:
        return len(self._indices)

    def __iter__(self) -> Iterator[dict[str, Array]]:
        """Give each sample: input name to array with a batch dimension of 1, in the input's dtype.

        Raises:
            DataError: a sample that cannot be read or does not fit the model; names it.
        """
        for index, raw in zip(self._indices, self.raw(), strict=True):
            try:
                yield {spec.name: prepare(raw[spec.name], self.preprocess, spec) for spec in self.inputs}
            except InputError as error:
                raise DataError(f"{self.source}, {self._reader.name_of(index)}: {error}") from error

    def raw(self) -> Iterator[RawSample]:
        """Give each sample as it stands in the source, before pre-processing."""
        yield from self._reader.read(self._indices)

    def name_of(self, position: int) -> str:
        """Name the sample at ``position`` for messages and results: its file, or ``sample 3``."""
        return self._reader.name_of(self._indices[position])

    @property
    def labels(self) -> Array | None:
        """One label for each sample: int64 class indices [N], or values [N,…]; ``None`` without labels."""
        labels = self._reader.labels
        return None if labels is None else labels[list(self._indices)]

    @property
    def label_names(self) -> tuple[str, ...]:
        """Class names by class index, where the source tells them."""
        return self._reader.label_names

    @cached_property
    def sha256(self) -> str:
        """Hash of the content and of how it is read: files, selection, pre-processing, inputs."""
        return combined_sha256(
            {
                "content": self._reader.digest(),
                "samples": [self._indices.start, self._indices.stop, self._indices.step]
                if isinstance(self._indices, range)
                else list(self._indices),
                "preprocess": asdict(self.preprocess),
                "inputs": [[spec.name, list(spec.shape), spec.dtype] for spec in self.inputs],
            }
        )


def open_data(
    source: str | Path,
    *,
    inputs: tuple[TensorSpec, ...],
    preprocess: Preprocess = Preprocess(),
    keys: Mapping[str, str] = NO_KEYS,
    labels: str | None = None,
    label_names: Sequence[str] = (),
    limit: int | None = None,
    header: bool | None = None,
) -> Dataset:
    """Open data for a model.

    Args:
        source: ``.npz`` (``data.npz:x_key`` and ``data.npz:x_key,y_key`` name the arrays), ``.npy``,
            ``.csv``, an image, a folder of images or of ``.npy`` with one sample each, ``module:function`` or
            ``file.py:function``.
        inputs: the model's inputs.
        preprocess: how a raw sample becomes an input.
        keys: input name to the npz key, the CSV columns (``a,b,c``), or the key of a function's dict,
            where they are not called like the input.
        labels: an npz key, a CSV column, or a file beside the data: ``.npy`` or ``.txt`` with one
            label a sample, for folders also ``.csv`` of file and label (which then selects the files)
            or ``pattern:REGEX`` on the file's name.
        label_names: class names by index, where the model's order is known.
        limit: take so many samples, evenly spread over the source.
        header: of a CSV, whether its first row names the columns; ``None``: if it holds names only.

    Raises:
        DataError: missing, unreadable, empty, or not fitting the model's inputs.
        UsageError: an option that does not suit the source.
        EngineMissingError: images, and Pillow is not installed.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"limit must be at least 1, got {limit}")
    text = str(source)
    strangers = [name for name in keys if name not in {spec.name for spec in inputs}]
    if strangers:
        known = ", ".join(spec.name for spec in inputs)
        raise UsageError(f"{text}: no input {strangers[0]!r}; inputs are: {known}")
    reader = _reader(text, inputs, keys, labels, tuple(label_names), header)
    if len(reader) == 0:
        raise DataError(f"{text}: holds no samples")
    return Dataset(text, reader, inputs, preprocess, limit)


def _reader(
    text: str,
    inputs: tuple[TensorSpec, ...],
    keys: Mapping[str, str],
    labels: str | None,
    names: tuple[str, ...],
    header: bool | None,
) -> Reader:
    path, selection = split_source(text)
    if header is not None and (path is None or path.suffix != ".csv"):
        raise UsageError(f"{text}: header is for a .csv")
    if selection and path is not None and path.suffix not in {".npz", ".py"}:
        raise UsageError(
            f"{text}: only an .npz or a .py file takes :NAME behind it; labels are given by themselves, "
            f'with --labels {selection} or as labels = "{selection}" of the data'
        )
    if path is None or (path.suffix == ".py" and selection):
        return FunctionReader(text, inputs, keys, labels, names)
    if path.is_dir() or path.suffix.lower() in IMAGE_SUFFIXES:
        return FileReader(path, inputs, labels, names)
    if path.suffix in {".npz", ".npy"}:
        return ArrayReader(path, selection, inputs, keys, labels, names)
    if path.suffix == ".csv":
        return TableReader(path, inputs, keys, labels, names, header)
    raise DataError(f"{path}: cannot read samples from this; known: {KINDS}")


def split_source(text: str) -> tuple[Path | None, str]:
    """Split a source into its path and what stands behind the colon; no path for ``module:function``.

    Raises:
        DataError: no such file, folder or function.
    """
    if Path(text).exists():
        return Path(text), ""
    head, colon, tail = text.rpartition(":")
    if colon and Path(head).exists():
        return Path(head), tail
    words = head.split(".")
    if colon and tail.isidentifier() and head and all(word.isidentifier() for word in words):
        return None, tail
    raise DataError(f"no such file or folder: {head if colon and head else text}; data can be {KINDS}")


def _spread(count: int, limit: int | None) -> Sequence[int]:
    if limit is None or limit >= count:
        return range(count)
    return [index * count // limit for index in range(limit)]
