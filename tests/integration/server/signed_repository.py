"""Keys and metadata as a release engineer makes them, with python-tuf alone."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, Root, TargetFile, Targets

from edgeml import manifest_json
from edgeml.manifest import FileEntry, Manifest, Variant


def _expires(days: float = 30) -> datetime:
    return datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)


def _keys(count: int) -> list[CryptoSigner]:
    return [CryptoSigner.generate_ed25519() for _ in range(count)]


def signed(metadata: Metadata[Any], signers: Iterable[CryptoSigner]) -> Metadata[Any]:
    metadata.signatures.clear()
    for signer in signers:
        metadata.sign(signer, append=True)
    return metadata


def manifest(
    model: str, release: int, files: dict[str, bytes], drift: Mapping[str, Any] | None = None
) -> bytes:
    """Give a manifest of one variant with these files; with none it has one empty file."""
    entries = tuple(
        FileEntry(name, len(content), hashlib.sha256(content).hexdigest())
        for name, content in (files or {"model.tflite": b""}).items()
    )
    variant = Variant("litert-float32", "litert", "float32", entries, ())
    return manifest_json.dumps(Manifest(model, release, (), (), (variant,), (), drift=drift or {}))


@dataclass
class SignedRepository:
    """Root 2 of 3, targets 1 of 1, one family ``speech`` of the models ``kws`` and ``wake``."""

    root_keys: list[CryptoSigner] = field(default_factory=lambda: _keys(3))
    targets_key: CryptoSigner = field(default_factory=CryptoSigner.generate_ed25519)
    family_key: CryptoSigner = field(default_factory=CryptoSigner.generate_ed25519)
    root: Metadata[Root] = field(init=False)
    targets: Metadata[Targets] = field(init=False)
    family: Metadata[Targets] = field(init=False)

    def make(self, online: dict[str, dict[str, Any]]) -> None:
        """Make the first metadata; ``online`` is what ``GET /v1/repository/online-keys`` gave."""
        root = Root(expires=_expires(), consistent_snapshot=True)
        root.roles["root"].threshold = 2
        for key in self.root_keys:
            root.add_key(key.public_key, "root")
        root.add_key(self.targets_key.public_key, "targets")
        for role, data in online.items():
            rest = dict(data)
            root.add_key(SSlibKey.from_dict(rest.pop("keyid"), rest), role)
        self.root = signed(Metadata(root), self.root_keys[:2])
        family_id = self.family_key.public_key.keyid
        delegated = DelegatedRole("speech", [family_id], 1, True, ["models/kws/*", "models/wake/*"])
        targets = Targets(expires=_expires())
        targets.delegations = Delegations({family_id: self.family_key.public_key}, {"speech": delegated})
        self.targets = signed(Metadata(targets), [self.targets_key])
        family = Targets(expires=_expires(), unrecognized_fields={"edgeml_role": "speech"})
        self.family = signed(Metadata(family), [self.family_key])

    def init_body(self) -> dict[str, Any]:
        return {
            "root": self.root.to_dict(),
            "targets": self.targets.to_dict(),
            "delegated": [self.family.to_dict()],
        }

    def next_root(self) -> Metadata[Root]:
        return _next(self.root)

    def next_targets(self) -> Metadata[Targets]:
        return _next(self.targets)

    def next_family(self, *releases: tuple[str, int, bytes]) -> Metadata[Targets]:
        """Give the next version with releases added, signed by the family's key."""
        metadata = _next(self.family)
        for model, release, content in releases:
            path = f"models/{model}/{release}.json"
            metadata.signed.targets[path] = TargetFile.from_data(path, content, ["sha256"])
        return signed(metadata, [self.family_key])


def _next(metadata: Metadata[Any]) -> Metadata[Any]:
    following = Metadata(copy.deepcopy(metadata.signed))
    following.signed.version += 1
    return following


# --- on a server


async def init(client: httpx2.AsyncClient) -> SignedRepository:
    repository = SignedRepository()
    repository.make((await client.get("/v1/repository/online-keys")).json())
    answer = await client.post("/v1/repository/init", json=repository.init_body())
    assert answer.status_code == 201, answer.text
    return repository


async def put(
    client: httpx2.AsyncClient, role: str, metadata: Metadata[Any], **options: Any
) -> httpx2.Response:
    return await client.put(f"/v1/repository/metadata/{role}", content=metadata.to_bytes(), **options)


async def upload(client: httpx2.AsyncClient, content: bytes) -> str:
    sha256 = hashlib.sha256(content).hexdigest()
    answer = await client.put(f"/v1/blobs/sha256/{sha256}", content=content)
    assert answer.status_code in {200, 201}, answer.text
    return sha256


async def publish(
    client: httpx2.AsyncClient,
    repository: SignedRepository,
    model: str,
    release: int,
    drift: Mapping[str, Any] | None = None,
) -> bytes:
    """Upload, sign and list a release with one small file; give its manifest."""
    content = f"weights of {model} {release}".encode()
    text = manifest(model, release, {"model.tflite": content}, drift)
    await upload(client, content)
    await upload(client, text)
    family = repository.next_family((model, release, text))
    answer = await put(client, "speech", family)
    assert answer.status_code == 200, answer.text
    repository.family = family
    answer = await client.post("/v1/releases", json={"model": model, "release": release})
    assert answer.status_code == 201, answer.text
    return text
