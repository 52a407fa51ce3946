"""Samples or outputs that are read many times: kept in memory while small, in a scratch file beyond."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

from edgeml.arrays import Array

IN_MEMORY_BYTES: Final = 32 << 20
"""Beyond this a spool goes to its file; read back sample by sample, so that memory stays bounded."""

_Item = tuple[tuple[str, str, tuple[int, ...]], ...]
"""Name, dtype and shape of each array of one sample."""


class Spool:
    """A sequence of samples (name to array) that is written once and read again and again."""

    def __init__(self, path: Path, sha256: str = "") -> None:
        self._path = path
        self._sha256 = sha256
        self._memory: list[Mapping[str, Array]] = []
        self._bytes = 0
        self._items: list[_Item] = []
        self._writer: BinaryIO | None = None

    @classmethod
    def of(cls, path: Path, samples: Iterable[Mapping[str, Array]]) -> Spool:
        """Give a spool that is full."""
        spool = cls(path)
        try:
            for sample in samples:
                spool.append(sample)
        finally:
            spool.close()
        return spool

    def __len__(self) -> int:
        return len(self._items) if self._items else len(self._memory)

    @property
    def sha256(self) -> str:
        """Hash of the data that the spool was filled from."""
        return self._sha256

    def append(self, sample: Mapping[str, Array]) -> None:
        """Keep one sample; the arrays must not be changed afterwards."""
        if self._items:
            self._write(sample)
            return
        self._memory.append(dict(sample))
        self._bytes += sum(array.nbytes for array in sample.values())
        if self._bytes > IN_MEMORY_BYTES:
            self._path.unlink(missing_ok=True)
            for one in self._memory:
                self._write(one)
            self._memory = []

    def close(self) -> None:
        """Finish writing; reading, and more writing, still work."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __iter__(self) -> Iterator[dict[str, Array]]:
        if not self._items:
            yield from (dict(sample) for sample in self._memory)
            return
        self.close()
        with self._path.open("rb") as stream:
            for item in self._items:
                yield {name: _read(stream, dtype, shape) for name, dtype, shape in item}

    def first(self, count: int) -> list[dict[str, Array]]:
        """Give the first samples."""
        return [sample for sample, _ in zip(self, range(count), strict=False)]

    def _write(self, sample: Mapping[str, Array]) -> None:
        if self._writer is None:
            self._writer = self._path.open("ab")
        self._items.append(tuple((name, array.dtype.str, array.shape) for name, array in sample.items()))
        for array in sample.values():
            self._writer.write(np.ascontiguousarray(array).data)


def _read(stream: BinaryIO, dtype: str, shape: tuple[int, ...]) -> Array:
    array: Array = np.empty(shape, dtype)
    stream.readinto(array.data.cast("B") if array.ndim else array.reshape(1).data.cast("B"))  # type: ignore[attr-defined]  # BinaryIO lacks it, files have it
    return array
