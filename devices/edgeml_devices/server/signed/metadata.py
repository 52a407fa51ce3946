"""What the server checks of signed metadata before it takes it. It signs nothing of this.

A device checks again; this keeps mistakes, and a stolen operator's token, from blocking all devices.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import TOP_LEVEL_ROLE_NAMES, DelegatedRole, Metadata, Root, TargetFile, Targets
from tuf.api.serialization import DeserializationError

from edgeml.errors import MessageError, TrustError
from edgeml_devices.tuf_words import FLOOR_FIELD, NAME, ROLE_FIELD, manifest_path, release_of

T = TypeVar("T", Root, Targets)


def parse(content: bytes, kind: type[T], role: str) -> Metadata[T]:
    """Read metadata of a role.

    Raises:
        MessageError: it is none, or of another kind.
    """
    try:
        metadata: Metadata[Any] = Metadata.from_bytes(content)
    except DeserializationError as error:
        raise MessageError(f"{role}: this is not signed metadata: {error}") from error
    if not isinstance(metadata.signed, kind):
        raise MessageError(f"{role}: this is metadata of {metadata.signed.type}")
    return metadata


def write(metadata: Mapping[str, Any]) -> bytes:
    """Give metadata that came inside another document as bytes; signatures cover another form of it."""
    return json.dumps(metadata, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode()


def check_root(new: Metadata[Root], old: Metadata[Root] | None) -> None:
    """Check a root: signed by its own keys and by the old root's.

    Raises:
        TrustError: signatures that do not hold.
        MessageError: a root that no device could use.
    """
    for delegator in (new, old):
        if delegator is not None:
            check_signatures(delegator.signed, "root", new)
    if not new.signed.consistent_snapshot:
        raise MessageError("root: consistent_snapshot must be true: metadata is served by version")
    for role in ("snapshot", "timestamp"):
        if new.signed.roles[role].threshold != 1:
            raise MessageError(f"root: {role}: the threshold must be 1: the server signs with one key")
    _check_expiry("root", new.signed.expires)


def check_targets(new: Metadata[Targets]) -> None:
    """Check the targets role: it only delegates.

    Raises:
        MessageError: targets of its own, names or paths that cannot be.
    """
    if new.signed.targets:
        raise MessageError("targets: it must only delegate; releases are listed by their family's role")
    for role in families(new.signed):
        if role.name in TOP_LEVEL_ROLE_NAMES or not NAME.fullmatch(role.name):
            raise MessageError(f"targets: {role.name!r} cannot be a family's name")
        if not role.terminating:
            raise MessageError(f"targets: the delegation to {role.name} must be terminating")
        for path in role.paths or [""]:
            if not re.fullmatch(r"models/[A-Za-z0-9*?\[\]._-]+/\*", path):
                raise MessageError(f"targets: {role.name}: a path must be models/NAME/*, not {path!r}")
        floors = role.unrecognized_fields.get(FLOOR_FIELD, {})
        if not isinstance(floors, dict) or not all(isinstance(floor, int) for floor in floors.values()):
            raise MessageError(f"targets: {role.name}: {FLOOR_FIELD} must be models and release numbers")
    _check_expiry("targets", new.signed.expires)


def authenticate_family(name: str, new: Metadata[Targets], targets: Targets) -> DelegatedRole:
    """Check that metadata is a family's own and signed by its keys; give its delegation.

    Raises:
        TrustError: it is not.
    """
    role = next((role for role in families(targets) if role.name == name), None)
    if role is None:
        raise TrustError(f"targets delegate to no family {name}")
    if new.signed.unrecognized_fields.get(ROLE_FIELD) != name:
        raise TrustError(f"this metadata is not {name}'s: its field {ROLE_FIELD} says otherwise")
    check_signatures(targets, name, new)
    return role


def check_family(
    role: DelegatedRole, new: Metadata[Targets], old: Metadata[Targets] | None, targets: Targets
) -> None:
    """Check that a family lists releases of its models, and changes none.

    Raises:
        TrustError: a release that changed or went.
        MessageError: delegations, or targets that are no releases of its models.
    """
    name = role.name
    if new.signed.delegations is not None:
        raise MessageError(f"{name}: a family must not delegate further")
    for path, target in new.signed.targets.items():
        _check_release(role, path, target, targets)
    for path, target in old.signed.targets.items() if old is not None else ():
        release = release_of(path)
        if release is not None and owner_of(targets, release[0]) != role:
            continue  # its model went to another family
        changed = new.signed.targets.get(path)
        if changed is None or changed.hashes != target.hashes or changed.length != target.length:
            raise TrustError(f"{name}: {path} was signed before, and a release never changes or goes")
    _check_expiry(name, new.signed.expires)


def _check_release(role: DelegatedRole, path: str, target: TargetFile, targets: Targets) -> None:
    release = release_of(path)
    if release is None or not role.is_delegated_path(path):
        raise MessageError(f"{role.name}: {path!r} is no release of its models: models/NAME/RELEASE.json")
    if set(target.hashes) != {"sha256"}:
        raise MessageError(f"{role.name}: {path}: it must have a sha256 and no other hash")
    if owner_of(targets, release[0]) != role:
        raise MessageError(f"{role.name}: {path}: another family signs {release[0]}")


def check_signatures(delegator: Root | Targets, role: str, metadata: Metadata[Any]) -> None:
    """Check that enough of a role's keys signed.

    Raises:
        TrustError: they did not.
    """
    try:
        delegator.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except (RepositoryError, ValueError) as error:
        raise TrustError(f"{role} version {metadata.signed.version}: {error}") from error


def families(targets: Targets) -> list[DelegatedRole]:
    """Give the delegations of targets, in their order."""
    roles = targets.delegations.roles if targets.delegations else None
    return list((roles or {}).values())


def owner_of(targets: Targets, model: str) -> DelegatedRole | None:
    """Give the one family that signs a model: delegations end the search."""
    return next((role for role in families(targets) if role.is_delegated_path(manifest_path(model, 0))), None)


def floor_of(targets: Targets, model: str) -> int:
    """Give the lowest release of a model that devices take; 0: no floor."""
    found = [role.unrecognized_fields.get(FLOOR_FIELD, {}).get(model, 0) for role in families(targets)]
    return max(found, default=0)


def manifests(family: Targets) -> Iterator[TargetFile]:
    """Give the manifests that a family lists."""
    yield from family.targets.values()


def _check_expiry(role: str, expires: datetime) -> None:
    if expires <= datetime.now(UTC):
        raise MessageError(f"{role}: it expired at {expires:%Y-%m-%d %H:%M} UTC; sign it with a later date")
