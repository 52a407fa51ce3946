"""How reports arrive: MessagePack or JSON, perhaps compressed, never more than a bound once inflated."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from typing import Any, Final, cast

import msgspec

from edgeml.telemetry.report import CONTENT_JSON, CONTENT_MSGPACK, MOST_BYTES, Batch
from edgeml_devices.server.refusals import RefusalError
from edgeml_devices.server.telemetry import wire_types

MOST_BODY_BYTES: Final = MOST_BYTES + 16 * 1024
"""Of a batch, inflated: a device that counts its reports' bytes does not count what stands around them."""
_Decoders = tuple[Callable[[bytes], wire_types.Batch], Callable[[bytes], Any]]
_JSON: Final = (msgspec.json.Decoder(wire_types.Batch).decode, msgspec.json.decode)
_MSGPACK: Final = (msgspec.msgpack.Decoder(wire_types.Batch).decode, msgspec.msgpack.decode)
_DECODERS: Final[dict[str, _Decoders]] = {
    CONTENT_JSON: _JSON,
    "application/json": _JSON,
    CONTENT_MSGPACK: _MSGPACK,
}
_PLACE: Final = re.compile(r"\$\.reports\[(\d+)\]")
_WBITS: Final = {"gzip": 31, "deflate": 15}


def decode(body: bytes, content_type: str, encoding: str) -> Batch:
    """Read a batch.

    Raises:
        RefusalError: 400: it cannot be read; 413: too long; 415: of another kind.
    """
    decoders = _DECODERS.get(content_type.partition(";")[0].strip().lower())
    if decoders is None:
        raise RefusalError(415, f"reports come as {CONTENT_MSGPACK} or {CONTENT_JSON}")
    content = inflate(body, encoding, MOST_BODY_BYTES)
    try:
        return cast("Batch", decoders[0](content))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        which = _seq(str(error), content, decoders[1])
        raise RefusalError(400, f"this is no batch of reports: {which}{error}") from error


def _seq(message: str, content: bytes, decode_anything: Callable[[bytes], Any]) -> str:
    """Name the report that is wrong by its number, if it has one."""
    found = _PLACE.search(message)
    if found is None:
        return ""
    try:
        return f"report {int(decode_anything(content)['reports'][int(found[1])]['seq'])}: "
    except (LookupError, TypeError, ValueError):
        return ""


def inflate(body: bytes, encoding: str, longest: int) -> bytes:
    """Give a body as it was before compression.

    Raises:
        RefusalError: 400: it is damaged; 413: longer than ``longest``; 415: compressed otherwise.
    """
    encoding = encoding.strip().lower()
    if encoding not in {"", "identity"}:
        if encoding not in _WBITS:
            raise RefusalError(415, "Content-Encoding may be gzip, deflate or identity")
        inflater = zlib.decompressobj(_WBITS[encoding])
        try:
            body = inflater.decompress(body, longest + 1)
        except zlib.error as error:
            raise RefusalError(400, f"the body is no {encoding} data: {error}") from error
        if not inflater.eof and len(body) <= longest:
            raise RefusalError(400, f"the body's {encoding} data ends too soon")
    if len(body) > longest:
        raise RefusalError(413, f"a batch may have {longest} bytes before compression; send fewer reports")
    return body


encode: Final = msgspec.json.Encoder().encode
"""Of :class:`Acknowledged`, for the answer: every device reads JSON."""
