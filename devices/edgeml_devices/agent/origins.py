"""Where one deployment comes from: a source, and how its manifest is verified."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Protocol

from edgeml.manifest import Manifest
from edgeml_devices.agent.failures import StepFailedError
from edgeml_devices.agent.sources import BlobSource, BundleBlobs, SignedSource
from edgeml_devices.agent.trust import SignedManifest, Trust
from edgeml_devices.messages import Reason


class Origin(Protocol):
    """Gives verified manifests, and the source of their blobs."""

    @property
    def blobs(self) -> BlobSource: ...

    @property
    def offline(self) -> bool:
        """Say whether the release was carried here: the server is not waited for."""
        ...

    def manifest(self, model: str, release: int) -> SignedManifest:
        """Verify a release and give its manifest.

        Raises:
            StepFailedError: it must not be trusted.
            UnreachableError: it does not come.
        """
        ...


class SignedOrigin:
    """The server, or an exported folder: TUF metadata say what may be installed."""

    def __init__(self, trust: Trust, source: SignedSource, *, offline: bool) -> None:
        self._trust = trust
        self.blobs: BlobSource = source
        self._source = source
        self.offline = offline

    def manifest(self, model: str, release: int) -> SignedManifest:
        return self._trust.manifest(self._source, model, release)


class UnsignedOrigin:
    """A bundle that somebody on the device vouches for, where no repository is trusted."""

    offline = True

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self._bundle = BundleBlobs(path, manifest)
        self._manifest = manifest
        self.blobs: BlobSource = self._bundle

    def manifest(self, model: str, release: int) -> SignedManifest:
        if (model, release) != (self._manifest.name, self._manifest.release):
            raise StepFailedError(Reason.UNKNOWN_RELEASE, f"the bundle is not {model} {release}")
        content = self._bundle.manifest_bytes()
        return SignedManifest(content, hashlib.sha256(content).hexdigest())
