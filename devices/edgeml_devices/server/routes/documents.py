"""The agents' documents in HTTP bodies, and their schemas for OpenAPI."""

from __future__ import annotations

from typing import Any, Final, TypeVar

from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import TypeAdapter

from edgeml import typed_json
from edgeml.errors import MessageError
from edgeml_devices import messages

T = TypeVar("T")
DEEPEST: Final = 32
"""Levels of a document: what is stored must also come out again, which recursion limits."""
_SURROGATE: Final = b"\xed"
"""First byte of half a surrogate pair, which the JSON reader lets pass."""
_KINDS: Final = (
    messages.Accepted,
    messages.DesiredState,
    messages.Enrolled,
    messages.EnrolRequest,
    messages.Report,
)


async def read_document(request: Request, kind: type[T]) -> T:
    """Read a request's body.

    Raises:
        MessageError: not JSON, or a field is missing or of a wrong type; its path is named.
    """
    body = await request.body()
    data = typed_json.parse(body, "the body")
    if _is_deeper(data, DEEPEST):
        raise MessageError(f"the body: nested more than {DEEPEST} deep")
    if b"\\u" in body or _SURROGATE in body:
        data = _storable(data)
    return typed_json.read(kind, data, "the body")


def _is_deeper(data: Any, levels: int) -> bool:
    """Say whether data are nested deeper than so many levels, without going deeper than that."""
    if not isinstance(data, dict | list):
        return False
    inner = data.values() if isinstance(data, dict) else data
    return levels == 0 or any(_is_deeper(value, levels - 1) for value in inner)


def answer_document(document: Any, status: int = 200) -> JSONResponse:
    """Answer with a document."""
    return JSONResponse(typed_json.write(document), status)


def body_of(kind: type) -> dict[str, Any]:
    """Give OpenAPI's description of a route that reads ``kind`` by itself."""
    schema = {"$ref": f"#/components/schemas/{kind.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def answer_of(kind: type, description: str) -> dict[str, Any]:
    """Give OpenAPI's description of an answer that is a document."""
    schema = {"$ref": f"#/components/schemas/{kind.__name__}"}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def add_schemas(openapi: dict[str, Any]) -> None:
    """Add the documents' schemas to an OpenAPI document."""
    schemas = openapi.setdefault("components", {}).setdefault("schemas", {})
    for kind in _KINDS:
        schema = TypeAdapter(kind).json_schema(ref_template="#/components/schemas/{model}")
        schemas |= schema.pop("$defs", {}) | {kind.__name__: schema}


def _storable(data: Any) -> Any:
    """Replace what PostgreSQL's texts cannot hold: NUL, and halves of surrogate pairs (bytes of a log)."""
    match data:
        case str():
            return data.encode("utf-8", "replace").decode().replace("\0", "\ufffd")
        case list():
            return [_storable(value) for value in data]
        case dict():
            return {_storable(name): _storable(value) for name, value in data.items()}
        case _:
            return data
