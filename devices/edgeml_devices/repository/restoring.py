"""Give a server that was restored from a back-up what this machine saw signed after it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tuf.api.metadata import Targets

from edgeml.errors import ServerError, UsageError
from edgeml_devices.api_answers import RefusedError
from edgeml_devices.api_client import ApiClient, endpoint
from edgeml_devices.repository.keys import KeyFolder
from edgeml_devices.repository.publish import Candidate, Watch, upload_blobs
from edgeml_devices.repository.remote import fetch_metadata
from edgeml_devices.repository.state import Held, held_back, parse_metadata
from edgeml_devices.tuf_words import manifest_path

_CONFLICT = 409


@dataclass(frozen=True, slots=True)
class Restored:
    """What the server was given."""

    roles: tuple[Held, ...]
    releases: tuple[str, ...]
    """``kws/7``: their files are there again, and they are listed."""
    uploaded_bytes: int


def restore_repository(
    client: ApiClient, keys: KeyFolder, candidates: Sequence[Candidate], watch: Watch
) -> Restored:
    """Upload the files of releases, and push what this machine holds and the server lacks.

    Args:
        client: of an operator.
        keys: their ``trust`` holds the newest metadata that was verified here.
        candidates: bundles of releases that the held metadata lists.
        watch: follows the upload.

    Raises:
        UsageError: a bundle that was never published, as far as this machine saw.
        TrustError: the server's repository is another one.
        ServerError: the server lacks a release's files and no bundle of it was given, or refuses.
    """
    held = held_back(fetch_metadata(client), keys.trust)
    listed = {path: sha256 for one in held for path, sha256 in _manifests(one)}
    for candidate in candidates:
        path = manifest_path(candidate.manifest.name, candidate.manifest.release)
        if listed.get(path) != candidate.sha256:
            raise UsageError(f"{candidate}: the server lacks no such release; publish it: edgeml publish")
    uploaded_bytes = sum(upload_blobs(candidate, client, watch)[1] for candidate in candidates)
    for one in held:
        _push(client, one, listed)
    for candidate in candidates:
        body = {"model": candidate.manifest.name, "release": candidate.manifest.release}
        client.post(endpoint("releases"), body, idempotent=True)
    return Restored(
        held, tuple(f"{one.manifest.name}/{one.manifest.release}" for one in candidates), uploaded_bytes
    )


def _push(client: ApiClient, one: Held, listed: dict[str, str]) -> None:
    try:
        client.put_bytes(endpoint("repository", "metadata", one.role), one.content)
    except RefusedError as error:
        missing = [
            path.removeprefix("models/").removesuffix(".json")
            for path, sha256 in listed.items()
            if not client.exists(endpoint("blobs", "sha256", sha256))
        ]
        if error.status != _CONFLICT or not missing:
            raise
        raise ServerError(
            f"the back-up is older than {', '.join(missing)}: give their bundles, too, as in "
            f"edgeml repo restore {missing[0].replace('/', '-')}.edgeml"
        ) from error


def _manifests(held: Held) -> Iterator[tuple[str, str]]:
    metadata = parse_metadata(held.content, held.role)
    if isinstance(metadata.signed, Targets):
        for path, target in metadata.signed.targets.items():
            yield path, target.hashes["sha256"]
