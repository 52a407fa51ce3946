"""What the server holds, believed only as far as signatures and what this machine saw before go.

Whoever signs a next version vouches for all that it takes over from the last one. So the last one is
verified here, from the root that this machine trusts, and must not be older than what it saw. Expiry stops
nothing here: what has expired must be renewed.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp
from tuf.api.serialization import DeserializationError

from edgeml.atomic import replacing_file
from edgeml.errors import TrustError
from edgeml_devices.repository.metadata import families
from edgeml_devices.tuf_words import ROLE_FIELD

Fetch = Callable[[str], bytes | None]
"""Gives a metadata file by its name, or ``None`` if there is no such file."""

_ROOTS_LIMIT: Final = 1024
"""Versions of root that are followed at most."""
_SIZE_LIMIT_BYTES: Final = 5_000_000
"""As python-tuf's client has it for targets."""

T = TypeVar("T", Root, Targets, Snapshot, Timestamp)


@dataclass(frozen=True, slots=True)
class RepositoryState:
    """The repository as it is now."""

    root: Metadata[Root]
    targets: Metadata[Targets]
    families: Mapping[str, Metadata[Targets]]
    """By name; one that was delegated and has no metadata yet is missing."""
    snapshot: Metadata[Snapshot]
    timestamp: Metadata[Timestamp]
    problems: Mapping[str, str]
    """Role to what is wrong with its current metadata, where that is for a signature to mend."""
    is_first_contact: bool
    """The root was not known on this machine: the first one seen is trusted from now on."""


@dataclass(frozen=True, slots=True)
class Held:
    """Metadata that was verified on this machine and that the server has not, or not any more."""

    role: str
    version: int
    server_version: int
    """0: none."""
    content: bytes


def read_state(fetch: Fetch, trust: Path) -> RepositoryState:
    """Read and verify the repository, and remember it.

    Args:
        fetch: gives metadata files with consistent names: ``1.root.json``, ``timestamp.json`` …
        trust: folder of what was verified on this machine, ``ROLE.json`` each; it is brought up to date.

    Raises:
        TrustError: forged, damaged, older than what this machine saw, or no repository there.
    """
    memory = _Memory(trust)
    with memory.lock():
        return _read(fetch, memory)


def held_back(fetch: Fetch, trust: Path) -> tuple[Held, ...]:
    """Give what this machine saw and the server lacks since a back-up was restored, in the order to push it.

    Raises:
        TrustError: the server's repository is another one, or several roots are missing.
    """
    memory = _Memory(trust)
    with memory.lock():
        pinned = memory.read(Root.type)
        if pinned is None:
            raise TrustError(f"{trust} has seen no repository: there is nothing to give back from here")
        snapshot = _followed_snapshot(fetch)
        found = [*_held_root(fetch, pinned)]
        for role in sorted(memory.roles(), key=lambda one: one != Targets.type):
            content = memory.read(role)
            listed = snapshot.meta.get(f"{role}.json")
            if content is None:
                continue
            version = _parsed(content, Targets, role).signed.version
            if listed is None or listed.version < version:
                found.append(Held(role, version, 0 if listed is None else listed.version, content))
    return tuple(found)


def _followed_snapshot(fetch: Fetch) -> Snapshot:
    timestamp = _parsed(_required(fetch, "timestamp.json"), Timestamp, "timestamp")
    name = f"{timestamp.signed.snapshot_meta.version}.snapshot.json"
    return _parsed(_required(fetch, name), Snapshot, "snapshot").signed


def _held_root(fetch: Fetch, pinned: bytes) -> Iterator[Held]:
    """Give the root that this machine trusts, if the server's ends one before it."""
    root = _parsed(pinned, Root, "root")
    version = root.signed.version
    there = fetch(f"{version}.root.json")
    if there is not None:
        if _parsed(there, Root, "root").signed != root.signed:
            raise TrustError("the server has another root than this machine trusts: another repository")
        return
    if fetch(f"{version - 1}.root.json") is None:
        raise TrustError(f"the server lacks several roots before version {version}; restore a newer back-up")
    yield Held(Root.type, version, version - 1, pinned)


def pin_root(content: bytes, trust: Path) -> None:
    """Trust a root that was made here, before a server says another.

    Args:
        content: the signed metadata.
        trust: see :func:`read_state`; it knows no root yet.
    """
    memory = _Memory(trust)
    with memory.lock():
        memory.write(Root.type, content)


def first_root(fetch: Fetch, state: RepositoryState) -> bytes:
    """Give the first root as the server has it, which devices begin with.

    Raises:
        TrustError: it does not lead to the root that this machine trusts.
    """
    content = _required(fetch, "1.root.json")
    root, _ = _follow_roots(fetch, content)
    if root.signed != state.root.signed:
        raise TrustError(
            "the server's first root does not lead to the root that this machine trusts: somebody gives out "
            "another one; enrol no device before you know who"
        )
    return content


def _read(fetch: Fetch, memory: _Memory) -> RepositoryState:
    pinned = memory.read(Root.type)
    content = fetch("1.root.json") if pinned is None else pinned
    if content is None:
        raise TrustError("the server has no repository yet; make one: edgeml repo init")
    root, root_bytes = _follow_roots(fetch, content)
    memory.write(Root.type, root_bytes)
    problems: dict[str, str] = {}
    timestamp = _parsed(_required(fetch, "timestamp.json"), Timestamp, "timestamp")
    _note_unsigned(problems, root.signed, "timestamp", timestamp)
    name = f"{timestamp.signed.snapshot_meta.version}.snapshot.json"
    snapshot = _parsed(_required(fetch, name), Snapshot, "snapshot")
    _note_unsigned(problems, root.signed, "snapshot", snapshot)
    reader = _TargetsReader(fetch, memory, snapshot.signed, problems)
    targets = reader.read(Targets.type, root.signed)
    if targets is None:
        raise TrustError("the snapshot lists no targets; is this an edgeml server's repository?")
    found = {name: reader.read(name, targets.signed) for name in families(targets.signed)}
    present = {name: metadata for name, metadata in found.items() if metadata is not None}
    return RepositoryState(root, targets, present, snapshot, timestamp, problems, pinned is None)


def make_private(trust: Path) -> None:
    """Make the folder of what was seen here, and the one of keys around it, for the owner's eyes only."""
    trust.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    trust.mkdir(mode=0o700, exist_ok=True)


def parse_metadata(content: bytes, where: str) -> Metadata[Any]:
    """Read signed metadata of any kind; nothing of it is verified.

    Raises:
        TrustError: it is none.
    """
    if len(content) > _SIZE_LIMIT_BYTES:
        raise TrustError(f"{where}: {len(content)} bytes are too many for metadata")
    try:
        return Metadata.from_bytes(content)
    except DeserializationError as error:
        raise TrustError(f"{where} is not signed metadata: {error}") from error


class _Memory:
    """The last metadata of each role that was verified here."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, role: str) -> bytes | None:
        path = self._folder / f"{role}.json"
        return path.read_bytes() if path.is_file() else None

    def roles(self) -> list[str]:
        """Give targets and all families that were seen here."""
        return [path.stem for path in self._folder.glob("*.json") if path.stem not in {Root.type, "audit"}]

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Wait for other processes: one that was asked earlier must not be compared with what came later."""
        make_private(self._folder)
        with (self._folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def write(self, role: str, content: bytes) -> None:
        if self.read(role) == content:
            return
        with replacing_file(self._folder / f"{role}.json") as scratch:
            scratch.write_bytes(content)


class _TargetsReader:
    def __init__(self, fetch: Fetch, memory: _Memory, snapshot: Snapshot, problems: dict[str, str]) -> None:
        self._fetch = fetch
        self._memory = memory
        self._snapshot = snapshot
        self._problems = problems

    def read(self, role: str, delegator: Root | Targets) -> Metadata[Targets] | None:
        listed = self._snapshot.meta.get(f"{role}.json")
        if listed is None:
            self._problems[role] = "it was delegated and never signed"
            return None
        content = _required(self._fetch, f"{listed.version}.{role}.json")
        metadata = _parsed(content, Targets, role)
        known = self._memory.read(role)
        self._require_newer(role, metadata, known)
        reason = _unsigned_reason(delegator, role, metadata)
        if reason is None and metadata.signed.unrecognized_fields.get(ROLE_FIELD, Targets.type) != role:
            raise TrustError(
                f"the server gives out another role's metadata as {role}'s; do not sign anything"
            )
        if reason is None:
            self._memory.write(role, content)
        elif content == known:
            # verified under keys that were replaced since: its content may be signed again
            self._problems[role] = reason
        else:
            raise TrustError(f"{role} version {metadata.signed.version} is not to be trusted: {reason}")
        return metadata

    def _require_newer(self, role: str, metadata: Metadata[Targets], known: bytes | None) -> None:
        if known is None:
            return
        before = _parsed(known, Targets, role).signed
        if metadata.signed.version < before.version:
            raise TrustError(
                f"the server has {role} version {metadata.signed.version}, this machine saw "
                f"{before.version}: somebody hides releases, or the server was restored from a back-up; in "
                "that case give it what this machine holds: edgeml repo restore"
            )
        if metadata.signed.version == before.version and metadata.signed != before:
            raise TrustError(f"the server's {role} version {before.version} is not the one this machine saw")


def _follow_roots(fetch: Fetch, content: bytes) -> tuple[Metadata[Root], bytes]:
    """Follow root from a trusted version, each signed by its own keys and those of the one before."""
    root = _parsed(content, Root, "root")
    _verify(root.signed, Root.type, root)
    for version in range(root.signed.version + 1, root.signed.version + _ROOTS_LIMIT):
        newer_content = fetch(f"{version}.root.json")
        if newer_content is None:
            break
        newer = _parsed(newer_content, Root, "root")
        if newer.signed.version != version:
            raise TrustError(f"{version}.root.json says that it is version {newer.signed.version}")
        _verify(root.signed, Root.type, newer)
        _verify(newer.signed, Root.type, newer)
        root, content = newer, newer_content
    return root, content


def _verify(delegator: Root, role: str, metadata: Metadata[T]) -> None:
    reason = _unsigned_reason(delegator, role, metadata)
    if reason is not None:
        raise TrustError(
            f"{role} version {metadata.signed.version} is not to be trusted: {reason}; "
            "is this the server of this repository?"
        )


def _note_unsigned(problems: dict[str, str], root: Root, role: str, metadata: Metadata[T]) -> None:
    reason = _unsigned_reason(root, role, metadata)
    if reason is not None:
        problems[role] = reason


def _unsigned_reason(delegator: Root | Targets, role: str, metadata: Metadata[T]) -> str | None:
    """Say why metadata does not hold under its delegator's keys; ``None``: it does."""
    try:
        result = delegator.get_verification_result(role, metadata.signed_bytes, metadata.signatures)
    except (ValueError, RepositoryError) as error:
        return str(error)
    if result.verified:
        return None
    return f"{len(result.signed)} of {result.threshold} signatures hold"


def _required(fetch: Fetch, name: str) -> bytes:
    content = fetch(name)
    if content is None:
        raise TrustError(f"the server's repository lacks {name}; restore the server's back-up")
    return content


def _parsed(content: bytes, kind: type[T], where: str) -> Metadata[T]:
    metadata = parse_metadata(content, where)
    if not isinstance(metadata.signed, kind):
        raise TrustError(f"{where}: metadata of {metadata.signed.type} in its place")
    return metadata
