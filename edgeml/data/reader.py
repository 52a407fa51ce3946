"""What a source of samples gives to a Dataset."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from edgeml.arrays import Array

RawSample = Mapping[str, Array]
"""One unprocessed sample: input name to array, with or without a batch dimension of 1."""


class Reader(Protocol):
    """Samples that can be read again and again."""

    @property
    def labels(self) -> Array | None:
        """One label for each sample, or ``None``."""
        ...

    @property
    def label_names(self) -> tuple[str, ...]:
        """Class names by class index; empty where the source has none."""
        ...

    def __len__(self) -> int: ...

    def read(self, indices: Sequence[int]) -> Iterator[RawSample]:
        """Read the samples at ``indices``, ascending, one at a time.

        Raises:
            DataError: a sample that cannot be read.
        """
        ...

    def name_of(self, index: int) -> str:
        """Name one sample for messages and results: a file's name, or ``sample 3``."""
        ...

    def digest(self) -> str:
        """Hash the content, by files where it stands in files."""
        ...


def file_sha256(path: Path) -> str:
    """Hash one file, as hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def combined_sha256(parts: object) -> str:
    """Hash anything that JSON can hold, as hex."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
