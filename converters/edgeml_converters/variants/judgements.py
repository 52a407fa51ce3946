"""What was found out about an artifact before, by its content and that of the data it was judged with."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from edgeml import typed_json
from edgeml.archive import READ_ERRORS
from edgeml.arrays import Array
from edgeml.atomic import replacing_file
from edgeml.errors import MessageError
from edgeml.targets import host
from edgeml_converters.evaluate.accuracy import Evaluation
from edgeml_converters.evaluate.golden import read_golden, stacked
from edgeml_converters.variants.step_cache import content_key, own_code, sealed, unsealed

KEPT_S: Final = 90 * 86400.0
"""What nobody asked for that long is removed; an entry is a few kB."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one pass over the evaluation data found, and the artifact's outputs for the golden inputs."""

    evaluation: Evaluation
    golden: Sequence[dict[str, Array]]


@dataclass(frozen=True, slots=True)
class JudgementCache:
    """A folder of findings, a file or two each, named by key; ``None`` keeps nothing.

    A file that is missing, damaged or of another version's fields is as good as never written.
    """

    root: Path | None

    def find(self, key: str | None) -> Judgement | None:
        """Give what was found before."""
        if self.root is None or key is None:
            return None
        evaluation = self.find_value(key, Evaluation)
        if evaluation is None:
            return None
        try:
            return Judgement(evaluation, read_golden(_folder(self.root, key) / f"{key}.npz"))
        except (OSError, *READ_ERRORS):
            return None

    def keep(self, key: str | None, judgement: Judgement) -> None:
        """Keep it; a full disk loses only the time that it would have saved."""
        if self.root is None or key is None:
            return
        with suppress(OSError):
            with replacing_file(self._room(key) / f"{key}.npz") as scratch, scratch.open("wb") as file:
                np.savez(file, allow_pickle=False, **stacked(judgement.golden))
            self.keep_value(key, judgement.evaluation)

    def find_value(self, key: str, kind: type[T], *, within_s: float | None = None) -> T | None:
        """Give a dataclass that was kept, no longer than ``within_s`` ago."""
        if self.root is None:
            return None
        place = _folder(self.root, key) / f"{key}.json"
        try:
            if within_s is not None and time.time() - place.stat().st_mtime > within_s:
                return None
            found = typed_json.read(kind, unsealed(place.read_text()), str(place))
            if within_s is None:
                os.utime(place)
        except (OSError, ValueError, MessageError):
            return None
        return found

    def keep_value(self, key: str, value: Any) -> None:
        """Keep a dataclass under a key of its own."""
        if self.root is None:
            return
        with suppress(OSError), replacing_file(self._room(key) / f"{key}.json") as scratch:
            scratch.write_text(sealed(typed_json.write(value)))

    def _room(self, key: str) -> Path:
        """Make the folder that a key's files stand in, and clear it of what is old."""
        folder = _folder(self.root or Path(), key)
        folder.mkdir(parents=True, exist_ok=True)
        for one in folder.iterdir():
            with suppress(FileNotFoundError):  # another process has just put it in its place, or cleared it
                if time.time() - one.stat().st_mtime > KEPT_S:
                    one.unlink()
        return folder


def _folder(root: Path, key: str) -> Path:
    return root / key[:2]


def judgement_key(**parts: Any) -> str:
    """Hash what determines a finding: its parts, edgeml's own code, and the CPU.

    int8 kernels of another CPU round, and saturate, in another way, and a cache may travel: CI restores it.
    """
    here = host()
    cpu = [here.name, sorted(here.cpu_features)]
    return content_key({"code": own_code("compare", "evaluate"), "cpu": cpu, **parts})


def content_of(array: Array | None) -> str | None:
    """Hash an array."""
    if array is None:
        return None
    content = hashlib.sha256(f"{array.dtype} {array.shape}".encode())
    content.update(np.ascontiguousarray(array).data)
    return content.hexdigest()
