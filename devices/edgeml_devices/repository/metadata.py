"""What the repository's signed metadata says, and how a new version of it is made; nothing is signed here.

Root names the keys of all roles. Targets only delegates: it says which family signs which models, and below
which release devices refuse one (``edgeml_floor``). A family lists manifests: ``models/NAME/RELEASE.json``.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

from securesystemslib.signer import Key
from tuf.api.metadata import (
    TOP_LEVEL_ROLE_NAMES,
    DelegatedRole,
    Delegations,
    Metadata,
    Role,
    Root,
    TargetFile,
    Targets,
)

from edgeml.errors import TrustError, UsageError
from edgeml_devices.tuf_words import FLOOR_FIELD, NAME, ROLE_FIELD, manifest_path, release_of

ALL_MODELS: Final = "*"
LIFETIME_DAYS: Final = {"root": 365, "targets": 180}
FAMILY_LIFETIME_DAYS: Final = 90
ROOT_THRESHOLD: Final = 2
ROOT_KEYS: Final = 3

S = TypeVar("S", Root, Targets)


@dataclass(frozen=True, slots=True)
class Signers:
    """The keys that may sign for a role, and how many of them must."""

    keys: tuple[Key, ...]
    threshold: int

    def __post_init__(self) -> None:
        if not 1 <= self.threshold <= len({key.keyid for key in self.keys}):
            raise UsageError(
                f"{self.threshold} of {len(self.keys)} keys cannot sign: give at least as many keys as "
                "signatures are asked for"
            )


def lifetime(role: str) -> timedelta:
    """Give how long metadata of a role holds."""
    return timedelta(days=LIFETIME_DAYS.get(role, FAMILY_LIFETIME_DAYS))


def check_family_name(family: str) -> None:
    """Refuse what cannot be a family's name.

    Raises:
        UsageError: the name is another role's, or no file could have it.
    """
    if family in TOP_LEVEL_ROLE_NAMES or not NAME.fullmatch(family):
        raise UsageError(
            f"{family!r} cannot be a family's name: use letters, digits, '.', '_', '-', and no role's name"
        )


# --- first versions


def first_root(signers: Mapping[str, Signers], now: datetime) -> Metadata[Root]:
    """Give root's first version.

    Args:
        signers: for each of root, targets, snapshot and timestamp.
        now: in UTC.
    """
    root = Root(expires=_expiry("root", now), consistent_snapshot=True)
    for role, wanted in signers.items():
        root.roles[role].threshold = wanted.threshold
        for key in wanted.keys:
            root.add_key(key, role)
    return Metadata(root)


def first_targets(role: str, now: datetime) -> Metadata[Targets]:
    """Give the first version of targets or of a family."""
    targets = Targets(expires=_expiry(role, now))
    if role == Targets.type:
        targets.delegations = Delegations({}, {})
    else:
        targets.unrecognized_fields[ROLE_FIELD] = role
    return Metadata(targets)


# --- next versions


def next_version(current: Metadata[S], role: str, now: datetime) -> Metadata[S]:
    """Give a copy of the next version, with a new expiry and no signature, ready to be changed."""
    signed = copy.deepcopy(current.signed)
    signed.version += 1
    signed.expires = _expiry(role, now)
    return Metadata(signed)


def delegate(targets: Targets, family: str, models: Sequence[str], signers: Signers) -> None:
    """Let a family sign for models; one that exists gets these models and keys, and keeps its floors.

    Each delegation ends the search (``terminating``), and those of named models come first: nobody but a
    model's own family signs it.
    """
    delegations, roles = _delegations(targets)
    before = roles.get(family)
    roles[family] = DelegatedRole(
        name=family,
        keyids=[],
        threshold=signers.threshold,
        terminating=True,
        paths=[f"models/{model}/*" for model in models],
        unrecognized_fields={} if before is None else before.unrecognized_fields,
    )
    for key in signers.keys:
        delegations.keys[key.keyid] = key
        roles[family].keyids.append(key.keyid)
    _drop_unused_keys(delegations)
    delegations.roles = dict(sorted(roles.items(), key=lambda item: ALL_MODELS in family_models(item[1])))


def set_models(targets: Targets, family: str, models: Sequence[str]) -> None:
    """Let a family sign for these models only; without any it goes."""
    if models:
        delegate(targets, family, models, signers_of(targets, family))
        return
    delegations, roles = _delegations(targets)
    del roles[family]
    _drop_unused_keys(delegations)


def set_signers(delegator: Root | Targets, role: str, signers: Signers) -> None:
    """Give a role other keys."""
    if isinstance(delegator, Targets):
        delegate(delegator, role, family_models(families(delegator)[role]), signers)
        return
    for keyid in list(delegator.roles[role].keyids):
        delegator.revoke_key(keyid, role)
    for key in signers.keys:
        delegator.add_key(key, role)
    delegator.roles[role].threshold = signers.threshold


def set_floor(targets: Targets, model: str, release: int) -> None:
    """Let devices refuse releases of a model below this one.

    Raises:
        UsageError: no family signs the model, or its floor is higher: it only rises.
    """
    require_family(targets, model)
    if release < floor(targets, model):
        raise UsageError(
            f"the floor of {model} is {floor(targets, model)}: it only rises, since devices keep the highest"
        )
    put_floors(targets, floors(targets) | {model: release})


def put_floors(targets: Targets, wanted: Mapping[str, int]) -> None:
    """Write each model's floor to the delegation of the family that signs it."""
    for role in families(targets).values():
        role.unrecognized_fields.pop(FLOOR_FIELD, None)
    for model, release in sorted(wanted.items()):
        role = require_family(targets, model)
        role.unrecognized_fields.setdefault(FLOOR_FIELD, {})[model] = release


def add_release(family: Targets, model: str, release: int, manifest: bytes, size_bytes: int) -> None:
    """List a release.

    Args:
        family: changed in place.
        model: its name.
        release: not listed yet.
        manifest: its bytes as they stand.
        size_bytes: of all files that the manifest lists together.
    """
    target = TargetFile.from_data(manifest_path(model, release), manifest, ["sha256"])
    target.unrecognized_fields["custom"] = {"size_bytes": size_bytes}
    family.targets[target.path] = target


# --- reading


def families(targets: Targets) -> dict[str, DelegatedRole]:
    """Give the families by name, in the order in which they are asked for a model."""
    return _delegations(targets)[1]


def family_models(role: DelegatedRole) -> list[str]:
    """Give the models that a family signs; ``*``: all that no other does."""
    return [path.split("/")[1] for path in role.paths or []]


def family_of(targets: Targets, model: str) -> DelegatedRole | None:
    """Give the one family that signs a model."""
    for role in families(targets).values():
        if role.is_delegated_path(manifest_path(model, 0)):
            return role
    return None


def require_family(targets: Targets, model: str) -> DelegatedRole:
    """Give the family that signs a model.

    Raises:
        UsageError: none does.
    """
    role = family_of(targets, model)
    if role is None:
        raise UsageError(
            f"no family signs {model}: add it to one with edgeml keys family FAMILY --model {model}"
        )
    return role


def floor(targets: Targets, model: str) -> int:
    """Give the lowest release of a model that devices take; 0 without a floor."""
    return floors(targets).get(model, 0)


def floors(targets: Targets) -> dict[str, int]:
    """Give every floor by model, whichever family's delegation holds it."""
    found: dict[str, int] = {}
    for role in families(targets).values():
        held = role.unrecognized_fields.get(FLOOR_FIELD)
        for model, value in held.items() if isinstance(held, dict) else ():
            if isinstance(value, int):
                found[model] = max(value, found.get(model, 0))
    return found


def releases(family: Targets, model: str) -> dict[int, TargetFile]:
    """Give a model's releases that a family's metadata lists."""
    found = {}
    for path, target in family.targets.items():
        parsed = release_of(path)
        if parsed is not None and parsed[0] == model:
            found[parsed[1]] = target
    return found


def signers_of(delegator: Root | Targets, role: str) -> Signers:
    """Give who signs for a role."""
    delegated: Role = delegator.get_delegated_role(role)
    return Signers(tuple(delegator.get_key(keyid) for keyid in delegated.keyids), delegated.threshold)


def role_of(metadata: Metadata[Root] | Metadata[Targets]) -> str:
    """Give the role that metadata says it is of.

    Raises:
        TrustError: it names no family, or one that cannot be.
    """
    signed = metadata.signed
    role = signed.unrecognized_fields.get(ROLE_FIELD, signed.type)
    if not isinstance(role, str) or not NAME.fullmatch(role):
        raise TrustError(f"the metadata names {role!r} as its role; it was not made by edgeml")
    return role


def delegator_type(role: str) -> str:
    """Say which role names the keys of another: root or targets."""
    return Root.type if role in TOP_LEVEL_ROLE_NAMES else Targets.type


def all_keys(root: Root, targets: Targets) -> Iterable[tuple[str, Key]]:
    """Give (role, key) for every key that the metadata names."""
    for role in root.roles:
        for key in signers_of(root, role).keys:
            yield role, key
    for family in families(targets):
        for key in signers_of(targets, family).keys:
            yield family, key


def _delegations(targets: Targets) -> tuple[Delegations, dict[str, DelegatedRole]]:
    delegations = targets.delegations
    if delegations is None or delegations.roles is None:
        raise TrustError("the repository's targets delegate to no families; it was not made by edgeml")
    return delegations, delegations.roles


def _drop_unused_keys(delegations: Delegations) -> None:
    used = {keyid for role in (delegations.roles or {}).values() for keyid in role.keyids}
    for keyid in delegations.keys.keys() - used:
        del delegations.keys[keyid]


def _expiry(role: str, now: datetime) -> datetime:
    # TUF has whole seconds
    return now.astimezone(UTC).replace(microsecond=0) + lifetime(role)
