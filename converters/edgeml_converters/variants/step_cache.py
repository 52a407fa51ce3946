"""The step cache: what a conversion step made, found again by the content of what it was made from."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

import edgeml
from edgeml.converter import StepResult
from edgeml.findings import Finding
from edgeml_converters.formats.files import hash_tree

ABANDONED_S: Final = 3600.0
"""Age at which an entry that was never finished was left by a killed process."""
ENTRY_FILE: Final = "step.json"
READING: Final = ("arrays.py", "data/*.py", "pipeline.py", "preprocess.py")
"""What makes samples of data, in ``edgeml``: the hash of data says what is read, and not how."""
LAYOUT: Final = 1
"""Raised when the meaning of an entry changes; entries of another number are not found."""
KEPT_ENTRIES: Final = 200
"""The oldest go beyond this many."""
KEPT_BYTES: Final = 10_000_000_000
"""The oldest go beyond this much, but for those that a conversion may be reading."""
READ_WITHIN_S: Final = 3600.0
"""What a conversion was given so lately, or has kept marking since, it may be reading."""
_SEAL: Final = "seal"
"""Name of the hash in an entry of all that stands beside it."""


def content_key(parts: Mapping[str, Any]) -> str:
    """Hash the plain values that something is found again by."""
    text = json.dumps({"layout": LAYOUT, **parts}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def sealed(entry: Mapping[str, Any]) -> str:
    """Give plain values as JSON that tells whether it was changed since."""
    return json.dumps({**entry, _SEAL: content_key(entry)}, indent=1)


def unsealed(text: str) -> dict[str, Any]:
    """Read what ``sealed`` gave.

    Raises:
        ValueError: it is no JSON, or another than was written.
    """
    entry = json.loads(text)
    if not isinstance(entry, dict) or entry.pop(_SEAL, None) != content_key(entry):
        raise ValueError("not what was written")
    return entry


@cache
def own_code(*folders: str) -> str:
    """Hash folders of this package, and what reads data: a cache must not outlive a mended bug."""
    own, core = Path(__file__).parents[1], Path(edgeml.__file__).parent
    patterns = [(own, f"{name}/**/*.py") for name in folders] + [(core, one) for one in READING]
    files = ((file, root.parent) for root, pattern in patterns for file in root.glob(pattern))
    return content_key({file.relative_to(place).as_posix(): hash_tree(file) for file, place in files})


@dataclass(frozen=True, slots=True)
class StepCache:
    """A folder of finished steps, one sub-folder each, named by key; ``None`` keeps nothing."""

    root: Path | None
    _given: set[Path] = field(default_factory=set, init=False, compare=False)
    """Entries that were found: they are read as long as the conversion runs."""

    def find(self, key: str) -> StepResult | None:
        """Give what a step of that key made; ``None`` if it is not here or is damaged."""
        if self.root is None:
            return None
        folder = self.root / key[:2] / key
        try:
            entry = unsealed((folder / ENTRY_FILE).read_text())
            artifact = folder / entry["artifact"]
            outputs = folder / entry["source_outputs"] if entry["source_outputs"] else None
            if hash_tree(artifact) != entry["sha256"] or (outputs and not outputs.is_file()):
                return None
            os.utime(folder)
            self._given.add(folder)
            return StepResult(
                artifact=artifact,
                source_outputs=outputs,
                tensor_names=entry["tensor_names"],
                findings=tuple(Finding(**finding) for finding in entry["findings"]),
                notes=tuple(entry["notes"]),
                ranges={name: (low, high) for name, (low, high) in entry["ranges"].items()},
                versions=entry["versions"],
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep(self, key: str, folder: Path, result: StepResult) -> Finding | None:
        """Copy a step's folder in, whole or not at all; a failure is a finding and not an error."""
        if self.root is None or self.find(key) is not None:  # another process was quicker
            return None
        target = self.root / key[:2] / key
        scratch: Path | None = None
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(prefix=".new-", dir=target.parent))
            shutil.copytree(folder, scratch, dirs_exist_ok=True)
            (scratch / ENTRY_FILE).write_text(sealed(_entry(folder, result)))
            try:
                scratch.rename(target)
            except OSError:
                if not target.exists() or self.find(key) is not None:
                    raise
                shutil.rmtree(target, ignore_errors=True)
                scratch.rename(target)
            self._trim()
        except OSError as error:
            if scratch is not None:
                shutil.rmtree(scratch, ignore_errors=True)
            with suppress(OSError):
                self._trim()  # the next step may find room
            if self.find(key) is not None:
                return None
            return Finding(
                "cache-not-written",
                "info",
                str(self.root),
                f"the result of this step could not be kept: {error.strerror or error}",
                "free space there, or set another cache folder; the conversion itself is not affected",
            )
        return None

    def _trim(self) -> None:
        if self.root is None:
            return
        for given in self._given:
            with suppress(OSError):
                os.utime(given)
        entries = sorted(self.root.glob("??/[!.]*"), key=_last_use, reverse=True)
        size_bytes = 0
        for number, entry in enumerate(entries):
            size_bytes += _size_bytes(entry)
            unread = time.time() - _last_use(entry) > READ_WITHIN_S
            if number >= KEPT_ENTRIES or (size_bytes > KEPT_BYTES and unread):
                shutil.rmtree(entry, ignore_errors=True)
        for left in self.root.glob("??/.new-*"):
            if time.time() - _last_use(left) > ABANDONED_S:
                shutil.rmtree(left, ignore_errors=True)


def _last_use(entry: Path) -> float:
    try:
        return entry.stat().st_mtime
    except OSError:  # another process has just trimmed it
        return 0.0


def _size_bytes(entry: Path) -> int:
    with suppress(OSError):  # as above
        return sum(file.stat().st_size for file in entry.rglob("*") if file.is_file())
    return 0


def _entry(folder: Path, result: StepResult) -> dict[str, Any]:
    return {
        "artifact": result.artifact.relative_to(folder).as_posix(),
        "sha256": hash_tree(result.artifact),
        "source_outputs": (
            result.source_outputs.relative_to(folder).as_posix() if result.source_outputs else None
        ),
        "tensor_names": dict(result.tensor_names),
        "findings": [asdict(finding) for finding in result.findings],
        "notes": list(result.notes),
        "ranges": {name: list(pair) for name, pair in result.ranges.items()},
        "versions": dict(result.versions),
    }
