"""What this device believes: TUF metadata from a pinned root, the clock's lower bound, the highest floors.

Nothing here is a bypass: metadata that are expired, older than known or signed by another key end an install,
and leave alone what runs.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any, Final, NoReturn

from tuf.api import exceptions as tuf_errors
from tuf.api.metadata import Metadata, Root, TargetFile
from tuf.api.serialization import DeserializationError
from tuf.ngclient import Updater
from tuf.ngclient.fetcher import FetcherInterface

from edgeml.errors import TrustError
from edgeml_devices.agent.disk import clear, make_folder, read_file, sync_tree, write_file
from edgeml_devices.agent.failures import StepFailedError, UnreachableError, disk_failure
from edgeml_devices.agent.fetch import read_limited
from edgeml_devices.agent.sources import SignedSource
from edgeml_devices.messages import Reason
from edgeml_devices.tuf_words import FLOOR_FIELD, ISSUED_FIELD, manifest_path

LOG: Final = logging.getLogger("edgeml.agent")
BUILT_AT: Final = 1_764_028_800.0
"""2025-11-25: no clock that says less is right. Raised with releases of edgeml."""
CLOCK_TOLERANCE_S: Final = 86_400.0
"""A clock that is off by more explains why metadata look expired."""
_LATEST: Final = 250_000_000_000.0
"""In the year 9892: what says more is damaged."""
_BASE: Final = "metadata/"
_PINNED: Final = "pinned.root.json"


@dataclass(frozen=True, slots=True)
class SignedManifest:
    """A manifest's bytes, and that its family's key signed them."""

    content: bytes
    sha256: str


class Trust:
    """The trust of one home folder. For one thread at a time; it holds a lock."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._clock = clock
        self._lock = threading.Lock()

    @property
    def is_pinned(self) -> bool:
        """Say whether this device knows a repository."""
        return os.path.lexists(self._folder / _PINNED)

    def pin(self, root: bytes) -> None:
        """Take a root as the beginning of all trust; cached metadata of another one are removed.

        Raises:
            TrustError: it is no root metadata, or not signed by its own keys.
        """
        trouble = _why_no_root(root)
        if trouble is not None:
            raise TrustError(f"this is no root metadata of a repository: {trouble}")
        make_folder(self._folder)
        with suppress(OSError):
            if read_file(self._folder / _PINNED) == root:
                return
        self._forget()
        write_file(self._folder / _PINNED, root)

    def floor(self, model: str) -> int:
        """Give the lowest release of a model that was ever signed as such; 0: none was."""
        floor = _read_object(self._folder / "floors.json").get(model)
        return floor if isinstance(floor, int) else 0

    def manifest(self, source: SignedSource, model: str, release: int) -> SignedManifest:
        """Refresh what is known and give a release's manifest, verified.

        Raises:
            StepFailedError: it is not there, or must not be trusted; says why.
            UnreachableError: the source does not answer.
        """
        with self._lock:
            try:
                target = self._target(source, model, release)
                chunks = source.manifest(model, release, target.hashes.get("sha256", ""))
                content = read_limited(chunks, target.length, f"the manifest of {model} {release}")
                target.verify_length_and_hashes(BytesIO(content))
            except OSError as error:
                raise disk_failure(error, "cannot keep the repository's metadata") from error
            except (tuf_errors.RepositoryError, tuf_errors.DownloadError) as error:
                self._fail(error, source)
            return SignedManifest(content, hashlib.sha256(content).hexdigest())

    # --- one refresh

    def _target(self, source: SignedSource, model: str, release: int) -> TargetFile:
        path = manifest_path(model, release)
        try:
            updater = self._refreshed(source, path)
        except (FileExistsError, IsADirectoryError, NotADirectoryError):
            # what lies in the cache stands in the way: a folder for a file, say. The pinned root does not
            shutil.rmtree(self._folder / "metadata", ignore_errors=True)
            updater = self._refreshed(source, path)
        known = _Known(updater)
        self._raise_clock(known)
        floor = self._raise_floor(model, known.floor(model, path))
        if release < floor:
            raise StepFailedError(Reason.BELOW_FLOOR, f"{model} {release}: below the signed floor {floor}")
        target = updater.get_targetinfo(path)
        sync_tree(self._folder)
        if target is None:
            raise StepFailedError(
                Reason.UNKNOWN_RELEASE, f"{path} is not among the targets that {model}'s key signed"
            )
        return target

    def _refreshed(self, source: SignedSource, path: str) -> Updater:
        folder = self._folder / "metadata"
        make_folder(folder)
        try:
            pinned = read_file(self._folder / _PINNED)
            trouble = _why_no_root(pinned)
        except FileNotFoundError as error:
            detail = "no root is pinned here: enrol, or give --root FILE"
            raise StepFailedError(Reason.SIGNATURE, detail) from error
        except OSError as error:
            trouble = error.strerror or str(error)
        if trouble is not None:
            # nothing that a source says could put that right
            detail = (
                f"{self._folder / _PINNED}, which all trust begins with, is damaged: {trouble}; "
                "enrol again with --root FILE"
            )
            raise StepFailedError(Reason.SIGNATURE, detail)
        updater = Updater(str(folder), _BASE, fetcher=_Fetcher(source), bootstrap=pinned)
        at = max(self._clock(), BUILT_AT, self._clock_floor())
        set_reference_time(updater, datetime.fromtimestamp(at, UTC))
        updater.refresh()
        updater.get_targetinfo(path)
        for file in folder.rglob("*.json"):
            _sync_file(file)
        return updater

    def _fail(self, error: Exception, source: SignedSource) -> NoReturn:
        detail = str(error)
        match error:
            case tuf_errors.DownloadLengthMismatchError():
                raise StepFailedError(Reason.HASH, f"metadata without end: {detail}") from error
            case tuf_errors.DownloadError() | DeserializationError():
                # what is no metadata at all is a portal's page or a cut answer
                raise UnreachableError(detail) from error
            case tuf_errors.ExpiredMetadataError():
                off_s = source.clock_offset_s
                if off_s is not None and abs(off_s) > CLOCK_TOLERANCE_S:
                    now = time.strftime("%Y-%m-%d %H:%M", time.gmtime(self._clock()))
                    raise StepFailedError(
                        Reason.CLOCK,
                        f"{detail}; but the clock here says {now} and is {off_s / 86_400:+.1f} days off the "
                        "server's: set it",
                    ) from error
                raise StepFailedError(Reason.METADATA_EXPIRED, detail) from error
            case tuf_errors.BadVersionNumberError():
                raise StepFailedError(Reason.METADATA_ROLLBACK, detail) from error
            case tuf_errors.LengthOrHashMismatchError():
                raise StepFailedError(Reason.HASH, detail) from error
        raise StepFailedError(Reason.SIGNATURE, detail) from error

    def _forget(self) -> None:
        shutil.rmtree(self._folder / "metadata", ignore_errors=True)
        for name in ("clock.json", "floors.json"):
            clear(self._folder / name)

    # --- what only rises

    def _clock_floor(self) -> float:
        at = _read_object(self._folder / "clock.json").get("issued")
        return float(at) if isinstance(at, (int, float)) and 0 <= at < _LATEST else 0.0

    def _raise_clock(self, known: _Known) -> None:
        issued, before = known.issued_at(), self._clock_floor()
        if issued is None:
            return
        if issued < before:
            raise StepFailedError(
                Reason.METADATA_ROLLBACK,
                f"timestamp.json was issued {before - issued:.0f} s before one that is known here",
            )
        if issued > before:
            write_file(self._folder / "clock.json", json.dumps({"issued": issued}).encode() + b"\n")

    def _raise_floor(self, model: str, signed: int) -> int:
        before = self.floor(model)
        floor = max(signed, before)
        if floor > before:
            floors = _read_object(self._folder / "floors.json") | {model: floor}
            content = json.dumps(floors, indent=1, sort_keys=True)
            write_file(self._folder / "floors.json", content.encode() + b"\n")
        return floor


def set_reference_time(updater: Updater, at: datetime) -> None:
    """Set the time that expiry is judged by.

    The client of python-tuf takes the clock's, with no door for another: this is the one place that reaches
    into it, and a test fails where that stops to work.
    """
    updater._trusted_set.reference_time = at  # noqa: SLF001 - see above


class _Known:
    """What a refreshed client verified, beside targets."""

    def __init__(self, updater: Updater) -> None:
        self._set = updater._trusted_set  # noqa: SLF001 - as set_reference_time

    def issued_at(self) -> float | None:
        """Give when the timestamp was issued, Unix seconds by the server's clock."""
        at = self._set.timestamp.unrecognized_fields.get(ISSUED_FIELD)
        if isinstance(at, bool) or not isinstance(at, (int, float)):
            return None
        return min(float(at), self._set.timestamp.expires.timestamp())

    def floor(self, model: str, path: str) -> int:
        """Give the lowest release of a model that the targets role lets devices take."""
        delegations = self._set.targets.delegations
        floors = [0]
        for role in (delegations.roles or {}).values() if delegations is not None else ():
            stated = role.unrecognized_fields.get(FLOOR_FIELD)
            if role.is_delegated_path(path) and isinstance(stated, dict):
                value = stated.get(model)
                floors.append(value if isinstance(value, int) and not isinstance(value, bool) else 0)
        return max(floors)


class _Fetcher(FetcherInterface):
    """Hands python-tuf the bytes of a source."""

    def __init__(self, source: SignedSource) -> None:
        self._source = source

    def _fetch(self, url: str) -> Iterator[bytes]:
        return self._source.metadata(url.removeprefix(_BASE))


def _sync_file(path: Path) -> None:
    # python-tuf renames into place without a sync
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read_object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_file(path))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        LOG.warning("%s cannot be read: %s; what it said is learnt again", path, error)
        return {}
    return found if isinstance(found, dict) else {}


def _why_no_root(content: bytes) -> str | None:
    """Say why this is no root metadata signed by its own keys; ``None`` if it is."""
    try:
        metadata = Metadata[Root].from_bytes(content)
        metadata.verify_delegate(Root.type, metadata)
    except (tuf_errors.RepositoryError, ValueError) as error:
        return str(error)
    return None
