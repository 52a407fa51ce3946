r"""Requests and answers on a console line that drops, doubles and flips bytes and prints between them.

A request is text in lines that a shell takes for comments, should one be listening instead::

    #-FIRST PART
    #+MORE
    #=CHECKSUM LENGTH

An answer is base64, or what ``od -tx1`` prints, between two lines that name the request::

    <ID
    SGVsbG8K
    >ID STATUS CHECKSUM LENGTH

The checksum is that of POSIX ``cksum``: over the request's text, and over ``ID STATUS``, a newline and
the answer's bytes. What was damaged has another one; ``!`` says that of a request. The last line of each
is sent twice: a damaged one would have to be waited for.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from dataclasses import dataclass
from typing import Final

LINE_BYTES: Final = 512
"""No line is longer, its newline included."""
_PART: Final = 480
DAMAGED: Final = re.compile(rb"^!\r*$", re.MULTILINE)
"""How the machine says that a request arrived damaged."""
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/]{2,76}={0,2}")
_HEX: Final = re.compile(rb" +[0-9a-f]{2}(?: +[0-9a-f]{2}){0,15}")
_REVERSED: Final = bytes(int(f"{number:08b}"[::-1], 2) for number in range(256))


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request gave."""

    status: int
    """Exit status of its script."""
    data: bytes


def cksum(data: bytes) -> int:
    """Give the checksum of POSIX ``cksum``: CRC-32 with the bits the other way round, and the length."""
    length = len(data)
    tail = length.to_bytes((length.bit_length() + 7) // 8, "little")
    found = zlib.crc32((data + tail).translate(_REVERSED), 0xFFFFFFFF)
    return int(f"{found:032b}"[::-1], 2)


def escaped(script: bytes) -> str:
    r"""Give a script as printable ASCII that ``printf %b`` turns back."""
    return "".join(
        chr(byte) if 0x20 <= byte < 0x7F and byte != 0x5C else f"\\0{byte:03o}"  # noqa: PLR2004 - printable, backslash
        for byte in script
    )


def request_lines(request_id: str, script: bytes, part: int = _PART) -> list[bytes]:
    """Give the lines of a request, each with its newline; the first is empty and ends what was cut before."""
    text = f"{request_id} {escaped(script)}".encode()
    parts = [text[begin : begin + part] for begin in range(0, len(text), part)]
    lines = [b"\n", b"#-" + parts[0] + b"\n", *(b"#+" + more + b"\n" for more in parts[1:])]
    last = f"#={cksum(text)} {len(text)}\n".encode()
    return [*lines, last, last]


def find_answer(received: bytes, request_id: str) -> Answer | None:
    """Find the whole answer to a request in what was received; None where there is none, or a damaged one."""
    name = re.escape(request_id.encode())
    last = re.compile(rb"^.*>" + name + rb" (\d{1,3}) (\d{1,10}) (\d{1,12})\r*$", re.MULTILINE)
    first = re.compile(rb"^.*<" + name + rb"\r*$", re.MULTILINE)
    for end in last.finditer(received):
        status, checksum, length = (int(part) for part in end.groups())
        for begin in first.finditer(received, 0, end.start()):
            data = _decoded(received[begin.end() : end.start()])
            checked = f"{request_id} {status}\n".encode() + (data or b"")
            if data is not None and len(checked) == length and cksum(checked) == checksum:
                return Answer(status, data)
    return None


def ends(received: bytes, request_id: str) -> int:
    """Count the last lines of answers to a request that were received, be they damaged or not."""
    return len(re.findall(rb"^.*>" + re.escape(request_id.encode()) + rb" .*\n", received, re.MULTILINE))


def _decoded(lines: bytes) -> bytes | None:
    """Decode the lines of an answer, without what else was printed between them."""
    text, hexadecimal = [], []
    for line in lines.replace(b"\r", b"").split(b"\n"):
        if _BASE64.fullmatch(line):
            text.append(line)
        elif _HEX.fullmatch(line):
            hexadecimal.append(line)
    if hexadecimal:
        return bytes.fromhex(b"".join(hexadecimal).decode())
    try:
        return base64.b64decode(b"".join(text), validate=True)
    except binascii.Error:
        return None
