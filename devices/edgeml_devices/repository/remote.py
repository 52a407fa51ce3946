"""The repository on the server: made, read and verified, pushed to, copied to a folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from securesystemslib.signer import Key, SSlibKey
from tuf.api.metadata import Root, Snapshot, Targets, Timestamp

from edgeml import manifest_json
from edgeml.atomic import replacing_folder
from edgeml.bundle_checks import manifest_entries
from edgeml.errors import ServerError, TrustError, UsageError
from edgeml_devices.api_client import ApiClient, endpoint
from edgeml_devices.repository import changes as ch
from edgeml_devices.repository import metadata as md
from edgeml_devices.repository.keys import NAME_FIELD, AskPassphrase, KeyFolder
from edgeml_devices.repository.state import Fetch, RepositoryState, first_root, pin_root, read_state

ONLINE_ROLES = (Snapshot.type, Timestamp.type)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a new repository is to be like."""

    family: str
    models: tuple[str, ...]
    targets_keys: int = 1
    targets_threshold: int = 1


def fetch_metadata(client: ApiClient) -> Fetch:
    """Give what reads the server's metadata files."""
    return lambda name: client.find_bytes(endpoint("repository", "metadata", name))


def read_remote(client: ApiClient, keys: KeyFolder) -> RepositoryState:
    """Read and verify the server's repository, see :func:`read_state`."""
    return read_state(fetch_metadata(client), keys.trust)


def first_root_sha256(client: ApiClient, state: RepositoryState) -> str:
    """Give the hash that devices hold the first root to when they enrol.

    Raises:
        TrustError: the server gives out another one than this machine trusts.
    """
    return hashlib.sha256(first_root(fetch_metadata(client), state)).hexdigest()


def online_keys(client: ApiClient, *, next_pair: bool = False) -> dict[str, Key]:
    """Give the public halves of the server's keys for snapshot and timestamp.

    Args:
        client: of a viewer; of an admin for the next pair.
        next_pair: let the server make new ones, which it uses once a root names them.
    """
    path = endpoint("repository", "online-keys")
    answer = client.post(path) if next_pair else client.get(path)
    return {role: _online_key(answer, role) for role in ONLINE_ROLES}


def init(
    client: ApiClient, keys: KeyFolder, ask: AskPassphrase, passphrase: str | None, plan: Plan, now: datetime
) -> RepositoryState:
    """Make keys and the first metadata, and give it to the server; after a failure, go on with the same keys.

    Raises:
        UsageError: a name that cannot be, or fewer keys than signatures.
        ServerError: the server has a repository already, or refuses.
    """
    md.check_family_name(plan.family)
    if not 1 <= plan.targets_threshold <= plan.targets_keys:
        raise UsageError(f"{plan.targets_threshold} of {plan.targets_keys} keys of targets cannot sign")
    fetch = fetch_metadata(client)
    if fetch("1.root.json") is not None:
        raise ServerError(f"{client.server_url} has a repository already; see edgeml repo status")
    online = online_keys(client)
    names = {
        Root.type: [f"root-{n}" for n in range(1, md.ROOT_KEYS + 1)],
        Targets.type: [f"targets-{n}" for n in range(1, plan.targets_keys + 1)],
        plan.family: [plan.family],
    }
    made = {
        role: tuple((keys.find(name) or keys.generate(name, passphrase)).public for name in of_role)
        for role, of_role in names.items()
    }
    root = md.first_root(
        {
            Root.type: md.Signers(made[Root.type], md.ROOT_THRESHOLD),
            Targets.type: md.Signers(made[Targets.type], plan.targets_threshold),
            **{role: md.Signers((key,), 1) for role, key in online.items()},
        },
        now,
    )
    targets = md.first_targets(Targets.type, now)
    md.delegate(targets.signed, plan.family, plan.models, md.Signers(made[plan.family], 1))
    family = md.first_targets(plan.family, now)
    changes = [
        ch.Change(Root.type, root),
        ch.Change(Targets.type, targets),
        ch.Change(plan.family, family),
    ]
    ch.sign(changes, None, keys, ask)
    body = {"root": root.to_dict(), "targets": targets.to_dict(), "delegated": [family.to_dict()]}
    client.post(endpoint("repository", "init"), body)
    pin_root(root.to_bytes(), keys.trust)
    return read_state(fetch, keys.trust)


def push(changes: Sequence[ch.Change], state: RepositoryState, client: ApiClient) -> list[ch.Change]:
    """Push changes in the right order; give that order.

    Raises:
        TrustError: one lacks signatures; nothing was pushed.
    """
    ch.require_signed(changes, state)
    ordered = ch.in_order(changes, state)
    for change in ordered:
        client.put_bytes(endpoint("repository", "metadata", change.role), change.metadata.to_bytes())
    return ordered


def make_room(folder: Path) -> None:
    """Make sure that an export can be written to a folder, before anything is published.

    Raises:
        UsageError: it holds something, or cannot be made.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists and is not an empty folder; choose another")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent):
            pass
    except OSError as error:
        raise UsageError(f"{folder} cannot be made: {error.strerror}; choose another folder") from error


def export_release(
    client: ApiClient,
    trust: Path,
    model: str,
    release: int,
    folder: Path,
    progress: Callable[[int, int], None] = lambda _done_bytes, _size_bytes: None,
) -> int:
    """Write what a device without network needs to install a release, verified, to a new folder.

    Args:
        client: of a viewer.
        trust: see :func:`read_state`.
        model: its name.
        release: one that was signed.
        folder: appears whole or not at all: ``metadata/`` with all roots, ``targets/``, ``blobs/sha256/``.
        progress: called with the bytes that are done and those of all blobs.

    Returns:
        The bytes of all blobs.

    Raises:
        UsageError: no such release, or the folder holds something.
        TrustError: what the server sent is not what was signed.
    """
    make_room(folder)
    files: dict[str, bytes] = {}

    def fetch(name: str) -> bytes | None:
        content = client.find_bytes(endpoint("repository", "metadata", name))
        if content is not None:
            files[name] = content
        return content

    state = read_state(fetch, trust)
    for version in range(1, state.root.signed.version + 1):
        if f"{version}.root.json" not in files:
            fetch(f"{version}.root.json")
    family = md.require_family(state.targets.signed, model).name
    listed = md.releases(state.families[family].signed, model) if family in state.families else {}
    if release not in listed:
        raise UsageError(f"no release {release} of {model} was signed; there are: {sorted(listed)}")
    sha256 = listed[release].hashes["sha256"]
    manifest = client.get_bytes(
        f"{endpoint('repository', 'targets', 'models', model)}/{sha256}.{release}.json"
    )
    if hashlib.sha256(manifest).hexdigest() != sha256:
        raise TrustError(
            f"the server's manifest of {model}, release {release} is not the one that was signed"
        )
    entries = {
        entry.sha256: entry.size_bytes for entry in manifest_entries(manifest_json.loads(manifest, model))
    }
    with replacing_folder(folder) as scratch:
        for name, content in files.items():
            _write(scratch / "metadata" / name, content)
        _write(scratch / "targets" / "models" / model / f"{sha256}.{release}.json", manifest)
        _download_blobs(client, entries, scratch / "blobs" / "sha256", progress)
    return sum(entries.values())


def _download_blobs(
    client: ApiClient, sizes: Mapping[str, int], folder: Path, progress: Callable[[int, int], None]
) -> None:
    folder.mkdir(parents=True)
    done_bytes, all_bytes = 0, sum(sizes.values())
    for sha256, size_bytes in sizes.items():
        file = folder / sha256
        client.download(endpoint("blobs", "sha256", sha256), file, size_bytes)
        with file.open("rb") as content:
            if hashlib.file_digest(content, "sha256").hexdigest() != sha256:
                raise TrustError(f"the server's blob {sha256} is damaged: its hash is another")
        done_bytes += size_bytes
        progress(done_bytes, all_bytes)


def _write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def _online_key(answer: Any, role: str) -> Key:
    try:
        data = dict(answer[role])
        key = SSlibKey.from_dict(data.pop("keyid"), data)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ServerError(f"the server's key for {role} cannot be read: {error}") from error
    key.unrecognized_fields.setdefault(NAME_FIELD, f"server-{role}")
    return key
