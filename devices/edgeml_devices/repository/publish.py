"""A bundle becomes a release: its files go up, then its manifest is signed, then it is listed.

Nothing is visible before the signature, and each step can be done again: a run that was cut off at any point
is repeated, and goes on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Protocol

from edgeml import manifest_json
from edgeml.bundle import Bundle, open_bundle
from edgeml.bundle_checks import manifest_entries
from edgeml.bundle_place import MANIFEST, FolderPlace, ZipPlace
from edgeml.errors import BundleError, TrustError
from edgeml.manifest import FileEntry, Manifest
from edgeml_devices.api_answers import RefusedError
from edgeml_devices.api_client import ApiClient, endpoint
from edgeml_devices.repository import changes as ch
from edgeml_devices.repository import metadata as md
from edgeml_devices.repository.keys import AskPassphrase, KeyFolder
from edgeml_devices.repository.remote import push, read_remote
from edgeml_devices.repository.state import RepositoryState

_TRIES: Final = 4
"""When others publish at the same moment."""
_CONFLICT: Final = 409


class Watch(Protocol):
    """Follows an upload."""

    def start(self, total_bytes: int) -> None:
        """Begin; so many bytes are missing on the server."""

    def reach(self, done_bytes: int) -> None:
        """So many of them are there."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is to be published: an open bundle, and the manifest as it will be signed."""

    bundle: Bundle
    manifest: Manifest
    manifest_bytes: bytes

    @property
    def sha256(self) -> str:
        """The manifest's hash."""
        return hashlib.sha256(self.manifest_bytes).hexdigest()

    @property
    def blobs(self) -> dict[str, FileEntry]:
        """Each content once, by its hash."""
        return {entry.sha256: entry for entry in manifest_entries(self.manifest)}

    @property
    def size_bytes(self) -> int:
        """Of all files together."""
        return sum(entry.size_bytes for entry in self.blobs.values())

    def __str__(self) -> str:
        return f"{self.manifest.name}, release {self.manifest.release}"


@dataclass(frozen=True, slots=True)
class Published:
    """What publishing did."""

    candidate: Candidate
    family: str
    uploaded: int
    """Files that the server lacked."""
    uploaded_bytes: int
    was_signed: bool
    """The same release had been signed before; only what was missing was done."""
    written: Path | None = None
    """The metadata that waits for more signatures; the release is not listed yet."""


def open_candidate(path: Path, release: int | None = None) -> Candidate:
    """Open a bundle and check every file of it.

    Args:
        path: a bundle file or an extracted bundle.
        release: counter to write to the manifest instead of the bundle's own.

    Raises:
        BundleError: damaged, incomplete, or a release that is no counter.
    """
    bundle = open_bundle(path)
    bundle.verify()
    if release is not None and release != bundle.manifest.release:
        manifest = replace(bundle.manifest, release=release)
        return Candidate(bundle, manifest, manifest_json.dumps(manifest))
    content = _manifest_bytes(bundle)
    if manifest_json.loads(content, str(path)) != bundle.manifest:
        raise BundleError(f"{path} changed while it was read; run again")
    return Candidate(bundle, bundle.manifest, content)


def require_free(candidate: Candidate, state: RepositoryState) -> bool:
    """Say whether the same release is signed already.

    Raises:
        TrustError: its number belongs to another manifest, or lies below the floor.
        UsageError: no family signs this model.
    """
    model, release = candidate.manifest.name, candidate.manifest.release
    role = md.require_family(state.targets.signed, model)
    family = state.families.get(role.name)
    if family is None:
        raise TrustError(f"the family {role.name} was never signed: edgeml keys family {role.name}")
    signed = md.releases(family.signed, model)
    floor = md.floor(state.targets.signed, model)
    following = max([floor - 1, *signed]) + 1
    if release not in signed:
        if release < floor:
            raise TrustError(
                f"{candidate}: devices refuse releases of {model} below {floor}; "
                f"publish it as --release {following}"
            )
        return False
    if signed[release].hashes.get("sha256") != candidate.sha256:
        raise TrustError(
            f"{candidate} was published before with other content, and a release never changes; "
            f"the next free number is {following}: --release {following}"
        )
    return True


def upload_blobs(candidate: Candidate, client: ApiClient, watch: Watch) -> tuple[int, int]:
    """Upload the files and the manifest; give number and bytes of the files that the server lacked."""
    missing = [entry for sha256, entry in candidate.blobs.items() if not client.exists(_blob(sha256))]
    watch.start(sum(entry.size_bytes for entry in missing))
    done_bytes = 0
    for entry in missing:
        with TemporaryDirectory(prefix="edgeml-publish-") as scratch:
            folder = candidate.bundle.extract(Path(scratch) / "files", [entry.path])

            def reach(sent_bytes: int, before_bytes: int = done_bytes) -> None:
                watch.reach(before_bytes + sent_bytes)

            client.upload(_blob(entry.sha256), folder / entry.path, progress=reach)
        done_bytes += entry.size_bytes
    with TemporaryDirectory(prefix="edgeml-publish-") as scratch:
        file = Path(scratch) / MANIFEST
        file.write_bytes(candidate.manifest_bytes)
        client.upload(_blob(candidate.sha256), file)
    return len(missing), done_bytes


def publish(
    candidate: Candidate,
    client: ApiClient,
    keys: KeyFolder,
    ask: AskPassphrase,
    watch: Watch,
    now: Callable[[], datetime],
    output: Path | None = None,
) -> Published:
    """Upload, sign and list a release; the same again changes nothing.

    Args:
        candidate: what to publish.
        client: of an operator.
        keys: those of them sign that may.
        ask: for passphrases.
        watch: follows the upload.
        now: the time, for expiry.
        output: a folder to write the family's metadata to, for others to sign, instead of pushing it.

    Raises:
        TrustError: the number is taken, the server's metadata is not to be believed, or keys are missing.
        ServerError: the server cannot be reached or refuses; what was uploaded stays.
    """
    state = read_remote(client, keys)
    was_signed = require_free(candidate, state)
    if not was_signed and output is None:
        # said before anything is uploaded
        ch.require_signed([_signed_change(candidate, state, keys, ask, now())], state)
    uploaded, uploaded_bytes = upload_blobs(candidate, client, watch)
    written: Path | None = None
    if not was_signed and output is not None:
        written = ch.write_changes([_signed_change(candidate, state, keys, ask, now())], output)[0]
    else:
        was_signed = was_signed or _push(candidate, client, keys, ask, now)
        manifest = candidate.manifest
        body = {"model": manifest.name, "release": manifest.release}
        client.post(endpoint("releases"), body, idempotent=True)
    family = md.require_family(state.targets.signed, candidate.manifest.name).name
    return Published(candidate, family, uploaded, uploaded_bytes, was_signed, written)


def _push(
    candidate: Candidate, client: ApiClient, keys: KeyFolder, ask: AskPassphrase, now: Callable[[], datetime]
) -> bool:
    """Push the family's next version; read again and repeat where another one came first.

    Returns:
        Whether the release turned out to be signed already: by a lost answer, or by somebody else.
    """
    for tries_left in reversed(range(_TRIES)):
        state = read_remote(client, keys)
        if require_free(candidate, state):
            return True
        try:
            push([_signed_change(candidate, state, keys, ask, now())], state, client)
        except RefusedError as error:
            if error.status != _CONFLICT or not tries_left:
                raise
        else:
            break
    return False


def _signed_change(
    candidate: Candidate, state: RepositoryState, keys: KeyFolder, ask: AskPassphrase, now: datetime
) -> ch.Change:
    """Give the family's next version, which lists the release, with the signatures that can be given here."""
    manifest = candidate.manifest
    family = md.require_family(state.targets.signed, manifest.name).name
    metadata = ch.next_of_family(state, family, now)
    md.add_release(
        metadata.signed, manifest.name, manifest.release, candidate.manifest_bytes, candidate.size_bytes
    )
    change = ch.Change(family, metadata)
    ch.sign([change], state, keys, ask)
    return change


def _manifest_bytes(bundle: Bundle) -> bytes:
    """Give the manifest as it stands, byte for byte."""
    place = FolderPlace(bundle.path) if bundle.is_folder else ZipPlace(bundle.path)
    with place.open(MANIFEST) as file:
        return file.read(manifest_json.SIZE_LIMIT_BYTES)


def _blob(sha256: str) -> str:
    return endpoint("blobs", "sha256", sha256)
