"""Changes of the repository: what gets a next version, who must sign it, in which order it is pushed.

Order matters since the server takes one file at a time and devices may look in between: what holds under the
old keys as well goes before the metadata that replaces them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from securesystemslib.signer import Key
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from edgeml.atomic import replacing_file
from edgeml.errors import TrustError, UsageError
from edgeml_devices.repository import metadata as md
from edgeml_devices.repository.keys import AskPassphrase, KeyFolder, key_name
from edgeml_devices.repository.state import RepositoryState, parse_metadata
from edgeml_devices.tuf_words import release_of


@dataclass(frozen=True, slots=True)
class Change:
    """The next version of one role's metadata."""

    role: str
    metadata: Metadata[Any]

    @property
    def file_name(self) -> str:
        """As TUF's consistent snapshots call it."""
        return f"{self.metadata.signed.version}.{self.role}.json"


@dataclass(frozen=True, slots=True)
class Shortfall:
    """A change that too few keys have signed."""

    role: str
    signed: tuple[str, ...]
    threshold: int
    others: tuple[str, ...]
    """Names of keys that may sign and have not."""

    def __str__(self) -> str:
        return f"{self.role} has {self.count}"

    @property
    def count(self) -> str:
        """How many signatures there are, and who may give more."""
        return f"{len(self.signed)} of {self.threshold} signatures; may sign, too: {', '.join(self.others)}"


# --- what to change


def renew(state: RepositoryState, roles: Iterable[str], now: datetime) -> list[Change]:
    """Give each role a next version that says the same for longer.

    Raises:
        UsageError: no such role, or one that the server renews by itself.
    """
    return [
        Change(role, next_of_family(state, role, now))
        if role in state.families
        else Change(role, md.next_version(_current(state, role), role, now))
        for role in roles
    ]


def next_of_family(state: RepositoryState, family: str, now: datetime) -> Metadata[Targets]:
    """Give a family's next version, without the releases that another family has taken over."""
    metadata = md.next_version(state.families[family], family, now)
    for path, target in state.families[family].signed.targets.items():
        model = release_of(path)
        owner = None if model is None else _family_name(state.targets.signed, model[0])
        if owner is not None and owner != family and owner in state.families:
            taken = state.families[owner].signed.targets.get(path)
            if taken is not None and taken.hashes == target.hashes:
                del metadata.signed.targets[path]
    return metadata


def set_family(
    state: RepositoryState, family: str, models: Sequence[str], signers: md.Signers, now: datetime
) -> list[Change]:
    """Let a family, new or not, sign for models, too, with these keys.

    Another family that signed for one of them no longer does; its releases go over. One that is left
    without models goes.
    """
    md.check_family_name(family)
    targets = md.next_version(state.targets, Targets.type, now)
    before = md.families(state.targets.signed)
    for name, role in before.items():
        if name != family and set(models) & set(md.family_models(role)):
            kept = [model for model in md.family_models(role) if model not in models]
            md.set_models(targets.signed, name, kept)
    own = md.family_models(before[family]) if family in before else []
    md.delegate(targets.signed, family, list(dict.fromkeys([*own, *models])), signers)
    md.put_floors(targets.signed, md.floors(state.targets.signed))
    return [Change(Targets.type, targets), *_follow_delegations(state, targets.signed, [family], now)]


def replace_key(state: RepositoryState, keyid: str, new: Key | None, now: datetime) -> list[Change]:
    """Put a key in the place of another wherever it may sign; ``None``: it just goes.

    Raises:
        UsageError: no role has the key, or too few would be left.
    """
    root, targets = copy.deepcopy(state.root.signed), copy.deepcopy(state.targets.signed)
    roles = [role for role, key in md.all_keys(root, targets) if key.keyid == keyid]
    if not roles:
        raise UsageError(f"no role has the key {keyid[:12]}; see edgeml repo status")
    for role in roles:
        delegator: Root | Targets = root if md.delegator_type(role) == Root.type else targets
        before = md.signers_of(delegator, role)
        keys = [key for key in before.keys if key.keyid != keyid]
        if new is not None:
            keys.append(new)
        elif len(keys) < before.threshold:
            raise UsageError(
                f"{role} needs {before.threshold} keys and would have {len(keys)}: "
                "replace the key instead (edgeml keys rotate)"
            )
        md.set_signers(delegator, role, md.Signers(tuple(keys), before.threshold))
    return _changed(state, root, targets, roles, now)


def replace_online_keys(state: RepositoryState, online: Mapping[str, Key], now: datetime) -> list[Change]:
    """Let root name the server's present keys for snapshot and timestamp."""
    root = md.next_version(state.root, Root.type, now)
    for role in (Snapshot.type, Timestamp.type):
        md.set_signers(root.signed, role, md.Signers((online[role],), 1))
    return [Change(Root.type, root)]


def raise_floor(state: RepositoryState, model: str, release: int, now: datetime) -> list[Change]:
    """Let devices refuse releases of a model below this one."""
    targets = md.next_version(state.targets, Targets.type, now)
    md.set_floor(targets.signed, model, release)
    return [Change(Targets.type, targets)]


def _changed(
    state: RepositoryState, root: Root, targets: Targets, roles: Sequence[str], now: datetime
) -> list[Change]:
    """Give the changes that follow from other keys of ``roles``: those who name them, and they themselves."""
    changes = []
    by_root = [role for role in roles if md.delegator_type(role) == Root.type]
    by_targets = [role for role in roles if md.delegator_type(role) == Targets.type]
    if by_root:
        changes.append(Change(Root.type, md.next_version(Metadata(root), Root.type, now)))
    if by_targets or Targets.type in by_root:
        changes.append(Change(Targets.type, md.next_version(Metadata(targets), Targets.type, now)))
    return [*changes, *_follow_delegations(state, targets, by_targets, now)]


def _follow_delegations(
    state: RepositoryState, targets: Targets, changed: Sequence[str], now: datetime
) -> list[Change]:
    """Give the next versions of families whose keys changed, or that take over releases of others."""
    found: dict[str, Metadata[Targets]] = {}

    def next_of(family: str) -> Metadata[Targets]:
        if family not in found:
            current = state.families.get(family)
            found[family] = (
                md.first_targets(family, now) if current is None else next_of_family(state, family, now)
            )
        return found[family]

    for family in changed:
        next_of(family)
    for before, metadata in state.families.items():
        for path, target in metadata.signed.targets.items():
            model = release_of(path)
            if model is None:
                continue
            now_of = _family_name(state.targets.signed, model[0])
            if now_of != before and now_of in state.families:
                continue  # not what devices take from here
            after = _family_name(targets, model[0])
            if after is not None and after != before:
                next_of(after).signed.targets[path] = target
    return [Change(family, metadata) for family, metadata in found.items()]


def _family_name(targets: Targets, model: str) -> str | None:
    role = md.family_of(targets, model)
    return None if role is None else role.name


# --- signing


def sign(
    changes: Sequence[Change], state: RepositoryState | None, keys: KeyFolder, ask: AskPassphrase
) -> None:
    """Sign each change with every key of the folder that may sign it, under the old or the new delegation."""
    signers = {}
    for change in changes:
        for key in _may_sign(change.role, changes, state):
            stored = keys.by_id(key.keyid)
            if stored is None or not stored.is_here or key.keyid in change.metadata.signatures:
                continue
            if key.keyid not in signers:
                signers[key.keyid] = keys.signer(stored, ask)
            change.metadata.sign(signers[key.keyid], append=True)


def shortfalls(changes: Sequence[Change], state: RepositoryState | None) -> list[Shortfall]:
    """Give the changes that lack signatures, under the delegations as they will be; for root the old, too."""
    found = []
    for change in changes:
        delegators = [_delegator_after(change.role, changes, state)]
        if change.role == Root.type and state is not None:
            delegators.append(state.root.signed)
        for delegator in delegators:
            result = delegator.get_verification_result(
                change.role, change.metadata.signed_bytes, change.metadata.signatures
            )
            if not result.verified:
                signed, unsigned = result.signed.values(), result.unsigned.values()
                found.append(
                    Shortfall(
                        change.role,
                        tuple(sorted(map(key_name, signed))),
                        result.threshold,
                        tuple(sorted(map(key_name, unsigned))),
                    )
                )
                break
    return found


def in_order(changes: Sequence[Change], state: RepositoryState) -> list[Change]:
    """Give the changes in the order to push them."""
    rank = {Root.type: 10.0, Targets.type: 20.0}
    if _holds_now(Targets.type, changes, state.root.signed):
        rank[Targets.type] = 5.0

    def place(change: Change) -> float:
        if change.role in rank:
            return rank[change.role]
        early = _holds_now(change.role, changes, state.targets.signed)
        return rank[Targets.type] - 1 if early else rank[Targets.type] + 1

    return sorted(changes, key=place)


def require_signed(changes: Sequence[Change], state: RepositoryState) -> None:
    """Refuse changes that lack signatures.

    Raises:
        TrustError: says which, and how to go on.
    """
    missing = shortfalls(changes, state)
    if missing:
        raise TrustError(
            f"{'; '.join(map(str, missing))}. Bring the keys here (--keys), or write it to files with "
            "--output FOLDER, have them signed elsewhere (edgeml repo sign), then edgeml repo push"
        )


def write_changes(changes: Sequence[Change], folder: Path) -> list[Path]:
    """Write each change to a file in a folder, to be signed elsewhere and pushed later."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for change in changes:
        with replacing_file(folder / change.file_name) as scratch:
            scratch.write_bytes(change.metadata.to_bytes())
        written.append(folder / change.file_name)
    return written


def read_change(file: Path) -> Change:
    """Read a change from a file.

    Raises:
        TrustError: it is no signed metadata of edgeml's.
    """
    metadata = parse_metadata(file.read_bytes(), str(file))
    if not isinstance(metadata.signed, Root | Targets):
        raise TrustError(f"{file}: the server signs {metadata.signed.type} by itself")
    return Change(md.role_of(metadata), metadata)


def _current(state: RepositoryState, role: str) -> Metadata[Any]:
    if role in state.families:
        return state.families[role]
    if role in {Root.type, Targets.type}:
        return state.root if role == Root.type else state.targets
    if role in {Snapshot.type, Timestamp.type}:
        raise UsageError(f"{role}: the server renews it by itself")
    known = ", ".join((Root.type, Targets.type, *state.families))
    raise UsageError(f"no role {role!r}; there are: {known}")


def _delegator_after(role: str, changes: Sequence[Change], state: RepositoryState | None) -> Root | Targets:
    """Give the metadata that will name a role's keys once all changes are in."""
    kind = md.delegator_type(role)
    for change in changes:
        if change.role == kind:
            signed: Root | Targets = change.metadata.signed
            return signed
    if state is None:
        raise TrustError(f"nothing says who signs {role}")
    return state.root.signed if kind == Root.type else state.targets.signed


def _may_sign(role: str, changes: Sequence[Change], state: RepositoryState | None) -> list[Key]:
    delegators = [_delegator_after(role, changes, state)]
    if state is not None:
        delegators.append(state.root.signed if md.delegator_type(role) == Root.type else state.targets.signed)
    found: dict[str, Key] = {}
    for delegator in delegators:
        if isinstance(delegator, Root) or role in md.families(delegator):
            found |= {key.keyid: key for key in md.signers_of(delegator, role).keys}
    return list(found.values())


def _holds_now(role: str, changes: Sequence[Change], delegator: Root | Targets) -> bool:
    for change in changes:
        if change.role == role:
            try:
                delegator.verify_delegate(role, change.metadata.signed_bytes, change.metadata.signatures)
            except (ValueError, UnsignedMetadataError):
                return False
            return True
    return False
