"""What stays on the disk: what runs, what ran before, what is on its way, and their blobs; nothing else."""

from __future__ import annotations

from contextlib import suppress

from edgeml.errors import BundleError, MessageError
from edgeml.installed import InstalledModel
from edgeml.manifest_json import loads
from edgeml_devices.agent.blobs import BlobStore
from edgeml_devices.agent.deployment import CHANGES_NOTHING, Deployment
from edgeml_devices.agent.home import Home
from edgeml_devices.agent.record import StateRecord, read_record
from edgeml_devices.agent.releases import (
    hashes_needed,
    hashes_of,
    releases_here,
    remove_releases_but,
)
from edgeml_devices.messages import State

_UNDER_WAY = CHANGES_NOTHING - {State.IDLE, State.QUARANTINED}


def keep_what_is_needed(deployment: Deployment) -> dict[str, str]:
    """Remove releases and blobs that nothing needs after a commit; give the manifests that are still here.

    Kept are what runs and what ran before, and what a process still uses.

    Raises:
        OSError: something could not be removed.
    """
    model, record = deployment.model, deployment.record
    kept: frozenset[int] = frozenset()
    if record.target is not None:
        found = {model.running(), model.before(), *deployment.tools.beats.releases(model.name)}
        kept = frozenset(release for release in found if release is not None)
    remove_releases_but(model, kept)
    remove_loose_blobs(deployment.tools.home, deployment.tools.store)
    return {name: sha256 for name, sha256 in record.manifests.items() if int(name) in kept}


def free_staging(deployment: Deployment) -> None:
    """Remove the release that did not come to run, and the blobs that were for it.

    Raises:
        OSError: something could not be removed.
    """
    model, record = deployment.model, deployment.record
    kept = releases_here(model) - {record.target}
    running, before = model.running(), model.before()
    kept |= {release for release in (running, before, record.previous) if release is not None}
    remove_releases_but(model, frozenset(kept))
    remove_loose_blobs(deployment.tools.home, deployment.tools.store, aside=model.name)


def remove_loose_blobs(home: Home, store: BlobStore, aside: str = "") -> None:
    """Remove blobs that no release folder has and no attempt under way wants, that of ``aside`` excepted."""
    wanted: set[str] = set()
    for model in home.models():
        for release in releases_here(model):
            wanted |= hashes_of(model, release)
        if model.name != aside:
            wanted |= _on_their_way(model, store)
    store.keep_only(frozenset(wanted))


def _on_their_way(model: InstalledModel, store: BlobStore) -> frozenset[str]:
    with suppress(OSError, MessageError, BundleError):
        record = read_record(model)
        if record is not None and record.state in _UNDER_WAY:
            return _hashes_wanted(record, store)
    return frozenset()


def _hashes_wanted(record: StateRecord, store: BlobStore) -> frozenset[str]:
    content = store.read(record.manifest_sha256) if record.manifest_sha256 else None
    if content is None or not record.candidates:
        return frozenset({record.manifest_sha256} - {""})
    return hashes_needed(loads(content), record.manifest_sha256, record.candidates)
