"""The manifest as JSON, see :mod:`edgeml.typed_json`: unknown fields are kept and written back."""

from __future__ import annotations

import json
from typing import Any, Final

from edgeml import typed_json
from edgeml.errors import BundleError, MessageError
from edgeml.manifest import SCHEMA_VERSION, Manifest

SIZE_LIMIT_BYTES: Final = 16 * 1024 * 1024


def dumps(manifest: Manifest) -> bytes:
    """Give the manifest's text: UTF-8, two spaces of indent, the same bytes for the same manifest."""
    text = json.dumps(to_json(manifest), indent=2, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def loads(text: bytes, where: str = "manifest.json") -> Manifest:
    """Read a manifest's text.

    Raises:
        BundleError: too large, not JSON, a name twice in one object, or as :func:`from_json`.
    """
    if len(text) > SIZE_LIMIT_BYTES:
        raise BundleError(f"{where}: {len(text)} bytes; a manifest has at most {SIZE_LIMIT_BYTES}")
    try:
        data = typed_json.parse(text, where)
    except MessageError as error:
        raise BundleError(str(error)) from error
    return from_json(data, where)


def to_json(manifest: Manifest) -> dict[str, Any]:
    """Give the manifest as what ``json`` can write; fields that hold their default are left out."""
    return {"schema": manifest.schema} | typed_json.write(manifest)


def from_json(data: object, where: str = "manifest.json") -> Manifest:
    """Read a manifest from what ``json`` gives.

    Raises:
        BundleError: a field is missing or of a wrong type (its path is named), or the schema is newer.
    """
    if isinstance(data, dict):
        schema = data.get("schema")
        if isinstance(schema, int) and not isinstance(schema, bool) and schema > SCHEMA_VERSION:
            raise BundleError(
                f"{where} has schema {schema}, this edgeml reads up to {SCHEMA_VERSION}: upgrade edgeml"
            )
        if "schema" not in data:
            raise BundleError(f"{where}: schema: missing")
    try:
        return typed_json.read(Manifest, data, where)
    except MessageError as error:
        raise BundleError(str(error)) from error
