"""A repository in memory with its people's keys: what the tests of the repository begin with."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path

from edgeml_devices.repository import changes as ch
from edgeml_devices.repository import metadata as md
from edgeml_devices.repository.keys import KeyFolder
from edgeml_devices.repository.state import RepositoryState, read_state

from tests.unit.devices.repository.simulated_server import SimulatedServer


class Team:
    """Everybody's keys in one folder, and a server that was given the first metadata."""

    def __init__(
        self,
        folder: Path,
        *,
        models: tuple[str, ...] = ("*",),
        targets_keys: int = 1,
        targets_threshold: int = 1,
    ) -> None:
        self.server = SimulatedServer()
        self.keys = KeyFolder(folder / "keys")
        self.folder = folder
        self.now = datetime.now(UTC)
        made = {name: self.keys.generate(name).public for name in ("root-1", "root-2", "root-3", "main")}
        targets = tuple(self.keys.generate(f"targets-{n + 1}").public for n in range(targets_keys))
        roots = tuple(made[f"root-{n}"] for n in (1, 2, 3))
        root = md.first_root(
            {
                "root": md.Signers(roots, 2),
                "targets": md.Signers(targets, targets_threshold),
                **{role: md.Signers((key.public_key,), 1) for role, key in self.server.online.items()},
            },
            self.now,
        )
        first = md.first_targets("targets", self.now)
        md.delegate(first.signed, "main", models, md.Signers((made["main"],), 1))
        changes = [
            ch.Change("root", root),
            ch.Change("targets", first),
            ch.Change("main", md.first_targets("main", self.now)),
        ]
        ch.sign(changes, None, self.keys, no_passphrase)
        self.server.init(changes)

    def state(self) -> RepositoryState:
        return read_state(self.server.fetch, self.keys.trust)

    def apply(self, changes: list[ch.Change], keys: KeyFolder | None = None) -> list[ch.Change]:
        """Sign with the keys of a folder and push in order, as the commands do; give that order."""
        state = self.state()
        ch.sign(changes, state, keys or self.keys, no_passphrase)
        ch.require_signed(changes, state)
        ordered = ch.in_order(changes, state)
        self.server.push_all(ordered)
        return ordered

    def publish(self, model: str, release: int, manifest: bytes = b"{}") -> None:
        state = self.state()
        family = md.require_family(state.targets.signed, model).name
        metadata = md.next_version(state.families[family], family, self.now)
        md.add_release(metadata.signed, model, release, manifest, 0)
        self.server.manifests[f"models/{model}/{hashlib.sha256(manifest).hexdigest()}.{release}.json"] = (
            manifest
        )
        self.apply([ch.Change(family, metadata)])

    def without(self, *names: str) -> KeyFolder:
        """Give a copy of the keys without the private halves of these."""
        folder = self.folder / f"without-{'-'.join(names)}"
        folder.mkdir(mode=0o700)
        for file in self.keys.folder.glob("*.p*"):
            if file.suffix == ".pub" or file.stem not in names:
                copy = folder / file.name
                copy.write_bytes(file.read_bytes())
                copy.chmod(0o600)
        return KeyFolder(folder)


def no_passphrase(name: str) -> str:
    raise AssertionError(f"{name} is not encrypted")


def target_of(team: Team, device: Path, path: str) -> bytes | None:
    """Give what a stock client downloads, fresh or with what it saw before; None: no such target."""
    client = team.server.client(device)
    target = client.get_targetinfo(path)
    return None if target is None else Path(client.download_target(target)).read_bytes()
