"""A published release, back as a bundle."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeml import manifest_json
from edgeml.bundle import bundle_file_name, write_bundle
from edgeml.bundle_checks import manifest_entries
from edgeml.errors import ServerError
from edgeml_devices.api_client import ApiClient, endpoint

Progress = Callable[[int, int], None]
"""Called with the bytes that are there, and all bytes."""


def fetch_bundle(
    client: ApiClient, model: str, release: int, output: Path, *, progress: Progress = lambda *_: None
) -> Path:
    """Write a release to a bundle, every file checked against the manifest's hash.

    The manifest is the one that the server names: it is devices that verify who signed it.

    Args:
        client: of an operator.
        model: its name.
        release: its number.
        output: the bundle's file, or a folder for it.
        progress: what is told of bytes that come.

    Returns:
        The bundle's file.

    Raises:
        ServerError: there is no such release, or its manifest is not what its hash says.
        BundleError: a file is not what the manifest says, or the disk is full.
    """
    found: dict[str, Any] = client.get(endpoint("releases", model, release))
    text = client.get_bytes(endpoint("blobs", "sha256", found["manifest_sha256"]))
    if hashlib.sha256(text).hexdigest() != found["manifest_sha256"]:
        raise ServerError(f"{client.server_url}: the manifest of {model}/{release} is not what its hash says")
    manifest = manifest_json.loads(text, f"{model}/{release}: manifest")
    entries = {entry.sha256: entry for entry in manifest_entries(manifest)}
    file = output / bundle_file_name(model, release) if output.is_dir() else output
    all_bytes, done_bytes = sum(entry.size_bytes for entry in entries.values()), 0
    with tempfile.TemporaryDirectory(prefix="edgeml-fetch-") as folder:
        for sha256, entry in entries.items():

            def reach(there_bytes: int, before_bytes: int = done_bytes) -> None:
                progress(before_bytes + there_bytes, all_bytes)

            path = endpoint("blobs", "sha256", sha256)
            client.download(path, Path(folder, sha256), entry.size_bytes, progress=reach)
            done_bytes += entry.size_bytes
        files = {entry.path: Path(folder, entry.sha256) for entry in manifest_entries(manifest)}
        write_bundle(file, manifest, files)
    return file
