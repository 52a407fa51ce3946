"""Samples in files of their own: images or ``.npy``; one, a flat folder, or a sub-folder for each class."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgeml.arrays import Array
from edgeml.data.arrays import PLAIN_KINDS, read_npy
from edgeml.data.labels import PATTERN, encode, labels_from_names, read_file_labels, read_label_file
from edgeml.data.reader import RawSample, combined_sha256, file_sha256
from edgeml.errors import DataError, UsageError
from edgeml.pipeline import import_pillow
from edgeml.tensors import TensorSpec

IMAGE_SUFFIXES: Final = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
ARRAY_SUFFIXES: Final = (".npy",)
WIDE_MODES: Final = frozenset({"I", "F", "I;16", "I;16B", "I;16L", "I;16N"})
"""Pillow's modes of more than eight bits a channel, which RGB would clip."""


class FileReader:
    """One sample a file, in the order of their paths.

    Images are decoded one at a time to RGB uint8 [H,W,3]; in a folder without images each ``.npy`` is
    a sample.
    """

    def __init__(
        self, path: Path, inputs: tuple[TensorSpec, ...], labels: str | None, names: tuple[str, ...]
    ) -> None:
        if len(inputs) != 1:
            told = ", ".join(spec.name for spec in inputs)
            raise DataError(f"{path}: a file is one input, this model has {len(inputs)}: {told}; use .npz")
        self._input = inputs[0].name
        self._root = path if path.is_dir() else path.parent
        if path.is_dir():
            self._files, classes, empty = _list(path, None if labels is None else Path(labels))
        else:
            self._files, classes, empty = [path], [], []
        self.labels: Array | None = None
        self.label_names: tuple[str, ...] = names
        if labels is not None:
            self._take_labels(labels, names)
        elif classes:
            _require_no_shift(path, classes, empty, names)
            self.labels, self.label_names = encode(classes, names, str(path))

    def __len__(self) -> int:
        return len(self._files)

    def read(self, indices: Sequence[int]) -> Iterator[RawSample]:
        for index in indices:
            file = self._files[index]
            yield {self._input: _read_array(file) if file.suffix == ".npy" else decode(file)}

    def name_of(self, index: int) -> str:
        return self._files[index].relative_to(self._root).as_posix()

    def digest(self) -> str:
        files = [[self.name_of(index), file_sha256(file)] for index, file in enumerate(self._files)]
        return combined_sha256([files, None if self.labels is None else self.labels.tolist()])

    def _take_labels(self, option: str, names: tuple[str, ...]) -> None:
        if option.startswith(PATTERN):
            found = labels_from_names([file.name for file in self._files], option)
        elif Path(option).suffix == ".csv":
            by_name = read_file_labels(Path(option), names)
            self._files = [self._listed(name, option) for name in by_name]
            found = list(by_name.values())
        elif Path(option).suffix in {".npy", ".txt"}:
            self.labels, self.label_names = read_label_file(Path(option), len(self._files), names)
            return
        else:
            raise UsageError(
                f"labels {option!r}: for images give a .csv of file and label, a .txt or .npy with one "
                "label an image, or pattern:REGEX"
            )
        self.labels, self.label_names = encode(found, names, option)

    def _listed(self, name: str, option: str) -> Path:
        file = self._root / name
        if not file.is_file():
            raise DataError(f"{option} lists {name!r}, which is not in {self._root}")
        return file


def decode(file: Path) -> Array:
    """Decode one image file to RGB uint8 [H,W,3]; orientation tags are not applied, as in training loaders.

    Raises:
        DataError: not a readable image; names the file.
        EngineMissingError: Pillow is not installed.
    """
    pillow = import_pillow(f"reading {file.name}")
    try:
        # tags that Pillow cannot read do not matter here; a picture that may exhaust memory does
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            warnings.simplefilter("error", pillow.DecompressionBombWarning)
            return _decode(pillow, file)
    except (pillow.DecompressionBombError, pillow.DecompressionBombWarning) as error:
        raise DataError(f"{file}: too large to be decoded safely: {error}") from error
    except (OSError, SyntaxError, ValueError, OverflowError) as error:
        raise DataError(f"{file}: not a readable image: {error}") from error


def _decode(pillow: Any, file: Path) -> Array:
    with pillow.open(file) as image:
        if image.mode in WIDE_MODES:
            raise DataError(f"{file}: has more than 8 bits a channel; save it as .npy")
        # palettes with transparency go by way of RGBA, as Pillow asks for
        whole = image.convert("RGBA") if "transparency" in image.info else image
        return np.asarray(whole.convert("RGB"))


def _read_array(file: Path) -> Array:
    array = read_npy(file)
    if array.dtype.kind not in PLAIN_KINDS:
        raise DataError(f"{file}: holds texts, not numbers")
    return array


def _list(root: Path, labels: Path | None) -> tuple[list[Path], list[str], list[str]]:
    """List the samples below ``root``; of class folders also each sample's class, and the empty folders."""
    for suffixes in (IMAGE_SUFFIXES, ARRAY_SUFFIXES):
        flat = _files(root, suffixes, labels)
        folders = sorted(folder for folder in root.iterdir() if folder.is_dir() and not _is_system(folder))
        found = [(folder.name, _files(folder, suffixes, labels)) for folder in folders]
        classes = [(name, files) for name, files in found if files]
        if flat and classes:
            raise DataError(
                f"{root}: holds files beside folders of files ({classes[0][0]}); have one or the other"
            )
        if flat or classes:
            files = flat or [file for _, files in classes for file in files]
            of_each = [name for name, files in classes for _ in files]
            return files, of_each, [name for name, files in found if not files] if classes else []
    known = ", ".join([*sorted(IMAGE_SUFFIXES), *ARRAY_SUFFIXES])
    raise DataError(f"{root}: holds no samples: no file ends in {known}")


def _require_no_shift(root: Path, classes: Sequence[str], empty: Sequence[str], names: Sequence[str]) -> None:
    """Raise the DataError where a folder without samples leaves it open how the classes are numbered."""
    numbered = all(name.isdecimal() for name in classes)
    if empty and not numbered and not names:
        raise DataError(
            f"{root}: the folder {empty[0]!r} holds no samples, and classes are numbered by their folders; "
            "remove it, or give the class names by index (labels = a file of names, one a line)"
        )


def _is_system(folder: Path) -> bool:
    return folder.name.startswith(".") or folder.name == "__MACOSX"


def _files(folder: Path, suffixes: Collection[str], labels: Path | None) -> list[Path]:
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix.lower() in suffixes
        and not file.name.startswith(".")
        and file != labels
        and file.is_file()
    )
