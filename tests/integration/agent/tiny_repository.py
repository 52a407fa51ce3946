"""A TUF repository in a folder, made with python-tuf's own metadata API, as an attacker could make it, too.

The folder has what ``edgeml publish --export`` writes: ``metadata/``, ``targets/``, ``blobs/sha256/``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from edgeml.bundle import open_bundle
from edgeml.bundle_checks import manifest_entries


class TinyRepository:
    """Two-of-three root keys, targets that only delegate, a key for each family."""

    def __init__(self, folder: Path, families: Mapping[str, str]) -> None:
        """Make the metadata.

        Args:
            folder: where to.
            families: role name to the model that it signs.
        """
        self.folder = folder
        for part in ("metadata", "targets", "blobs/sha256", "work"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        self.now = datetime.now(UTC).replace(microsecond=0)
        self.keys = {
            "root": [CryptoSigner.generate_ed25519() for _ in range(3)],
            **{
                name: [CryptoSigner.generate_ed25519()]
                for name in ("targets", "snapshot", "timestamp", *families)
            },
        }
        root = Root(consistent_snapshot=True)
        for role in ("root", "targets", "snapshot", "timestamp"):
            for signer in self.keys[role]:
                root.add_key(signer.public_key, role)
        root.roles["root"].threshold = 2
        self.root = self._expiring(root, 365)
        roles = {
            name: DelegatedRole(
                name, [self.keys[name][0].public_key.keyid], 1, True, paths=[f"models/{model}/*"]
            )
            for name, model in families.items()
        }
        keys = {self.keys[name][0].public_key.keyid: self.keys[name][0].public_key for name in families}
        self.targets = self._expiring(Targets(delegations=Delegations(keys, roles)), 180)
        self.families = {name: self._expiring(Targets(), 90) for name in families}
        self.snapshot = self._expiring(Snapshot(), 7)
        self.timestamp = self._expiring(Timestamp(), 1)
        self.write_root()
        self.write_all()

    def _expiring(self, signed: Any, days: int) -> Any:
        signed.expires = self.now + timedelta(days=days)
        return signed

    @property
    def first_root(self) -> bytes:
        return (self.folder / "metadata" / "1.root.json").read_bytes()

    # --- what an operator does

    def publish(self, bundle: Path, family: str = "") -> str:
        """Add a bundle's blobs and sign its manifest; give the manifest's hash."""
        opened = open_bundle(bundle)
        manifest = opened.manifest
        extracted = self.folder / "work"
        if not (extracted / bundle.stem).exists():
            opened.extract(extracted / bundle.stem)
        for entry in manifest_entries(manifest):
            blob = self.folder / "blobs" / "sha256" / entry.sha256
            blob.write_bytes((extracted / bundle.stem / entry.path).read_bytes())
        content = (extracted / bundle.stem / "manifest.json").read_bytes()
        return self.add_target(manifest.name, manifest.release, content, family or manifest.name)

    def add_target(self, model: str, release: int, content: bytes, family: str) -> str:
        """Sign any bytes as a manifest."""
        path = f"models/{model}/{release}.json"
        target = TargetFile.from_data(path, content, ["sha256"])
        sha256 = target.hashes["sha256"]
        place = self.folder / "targets" / "models" / model / f"{sha256}.{release}.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        self.families[family].targets[path] = target
        self.families[family].version += 1
        self.write_all()
        return sha256

    def set_floor(self, family: str, model: str, release: int) -> None:
        role = self.targets.delegations.roles[family]
        role.unrecognized_fields["edgeml_floor"] = {model: release}
        self.targets.version += 1
        self.write_all()

    def withdraw(self, model: str, release: int, family: str = "") -> None:
        del self.families[family or model].targets[f"models/{model}/{release}.json"]
        self.families[family or model].version += 1
        self.write_all()

    # --- metadata

    def write_root(self, signers: int = 3) -> bytes:
        content = self.signed(self.root, self.keys["root"][:signers])
        (self.folder / "metadata" / f"{self.root.version}.root.json").write_bytes(content)
        return content

    def write_all(self) -> None:
        """Sign all that changed, with snapshot and timestamp of the next versions."""
        for name, family in self.families.items():
            self._write(name, family)
        self._write("targets", self.targets)
        self.snapshot.version += 1
        self.snapshot.meta = {
            "targets.json": MetaFile(self.targets.version),
            **{f"{name}.json": MetaFile(family.version) for name, family in self.families.items()},
        }
        self._write("snapshot", self.snapshot)
        self.timestamp.version += 1
        self.timestamp.snapshot_meta = MetaFile(self.snapshot.version)
        self.timestamp.unrecognized_fields["edgeml_issued"] = (
            int(self.now.timestamp()) + self.timestamp.version
        )
        self.write_timestamp()

    def write_timestamp(self) -> None:
        content = self.signed(self.timestamp, self.keys["timestamp"])
        (self.folder / "metadata" / "timestamp.json").write_bytes(content)

    def _write(self, role: str, signed: Any) -> None:
        content = self.signed(signed, self.keys[role])
        (self.folder / "metadata" / f"{signed.version}.{role}.json").write_bytes(content)

    @staticmethod
    def signed(signed: Any, signers: list[CryptoSigner]) -> bytes:
        metadata = Metadata(signed)
        for place, signer in enumerate(signers):
            metadata.sign(signer, append=place > 0)
        return metadata.to_bytes()


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
