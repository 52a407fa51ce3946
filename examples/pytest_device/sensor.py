"""Reads a distance sensor on a serial port: lines of ``MILLIMETRES*CHECKSUM``."""

from pathlib import Path


def line(millimetres: int) -> bytes:
    """Give a line as the sensor sends it."""
    text = str(millimetres).encode()
    return b"%s*%02X\n" % (text, sum(text) % 256)


def parse(received: bytes) -> int | None:
    """Read a line; ``None`` if it was damaged on the way."""
    text, _, _ = received.strip().partition(b"*")
    return int(text) if text.isdigit() and line(int(text)) == received.strip() + b"\n" else None


def readings(port: Path, count: int) -> list[int]:
    """Give so many readings, leaving damaged lines out."""
    found: list[int] = []
    with port.open("rb", buffering=0) as file:
        held = b""
        while len(found) < count:
            held += file.read(64)
            *lines, held = held.split(b"\n")
            found += [value for one in lines if (value := parse(one)) is not None]
    return found[:count]
