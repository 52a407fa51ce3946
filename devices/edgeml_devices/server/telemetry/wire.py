"""How reports arrive: MessagePack or JSON, perhaps compressed, never more than a bound once inflated."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Final

import msgspec

from edgeml.telemetry.report import CONTENT_JSON, CONTENT_MSGPACK, MOST_BYTES, Batch
from edgeml_devices.server.refusals import RefusalError

MOST_BODY_BYTES: Final = MOST_BYTES + 16 * 1024
"""Of a batch, inflated: a device that counts its reports' bytes does not count what stands around them."""
_JSON: Final = msgspec.json.Decoder(Batch)
_MSGPACK: Final = msgspec.msgpack.Decoder(Batch)
_DECODERS: Final[dict[str, Callable[[bytes], Batch]]] = {
    CONTENT_JSON: _JSON.decode,
    "application/json": _JSON.decode,
    CONTENT_MSGPACK: _MSGPACK.decode,
}
_WBITS: Final = {"gzip": 31, "deflate": 15}


def decode(body: bytes, content_type: str, encoding: str) -> Batch:
    """Read a batch.

    Raises:
        RefusalError: 400: it cannot be read; 413: too long; 415: of another kind.
    """
    decode_batch = _DECODERS.get(content_type.partition(";")[0].strip().lower())
    if decode_batch is None:
        raise RefusalError(415, f"reports come as {CONTENT_MSGPACK} or {CONTENT_JSON}")
    try:
        return decode_batch(inflate(body, encoding, MOST_BODY_BYTES))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RefusalError(400, f"this is no batch of reports: {error}") from error


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
