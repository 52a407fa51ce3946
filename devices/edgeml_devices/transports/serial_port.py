"""A serial port through pyserial, as bytes in and out; what pyserial raises does not leave here."""

from __future__ import annotations

import os
import select
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlencode

import serial  # type: ignore[import-untyped]

from edgeml.errors import TransportError, UsageError

BAUD: Final = 115_200
"""Of most boards' consoles."""
WRITE_TIMEOUT_S: Final = 30.0
"""A line that takes nothing for so long is held by flow control, or nobody is there."""
_BITS_PER_BYTE: Final = 10
"""Start bit, 8 bits, stop bit."""
_READ_BYTES: Final = 1 << 16
_POLL_S: Final = 0.002
_OPTIONS: Final = ("baud", "user", "password_env", "txdelay")


@dataclass(frozen=True, slots=True)
class SerialAddress:
    """Which port, and who logs in."""

    url: str
    port: str
    """A device's path, or a URL that pyserial knows."""
    baud: int = BAUD
    user: str | None = None
    password: str | None = None
    line_delay_s: float = 0.0
    """A pause after each line that is sent."""

    @property
    def byte_s(self) -> float:
        """Give how long a byte takes on the line."""
        return _BITS_PER_BYTE / self.baud


def serial_address(url: str) -> SerialAddress:
    """Read ``serial:///dev/ttyUSB0?baud=115200&user=NAME&password_env=VARIABLE&txdelay=MS``.

    In place of the device: ``serial:socket://HOST:PORT``, ``serial:rfc2217://HOST:PORT``; options
    that are not ours are left to pyserial.

    Raises:
        UsageError: it is written in another way, or the variable is not set.
    """
    wanted = f"{url!r}: write it as serial:///dev/ttyUSB0?baud=115200&user=NAME&password_env=VARIABLE"
    scheme, _, rest = url.partition(":")
    place, _, query = rest.partition("?")
    if scheme != "serial" or not place.strip("/"):
        raise UsageError(wanted)
    try:
        given = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
        baud = int(given.get("baud", BAUD))
        delay_s = float(given.get("txdelay", 0)) / 1000
    except ValueError as error:
        raise UsageError(f"{wanted} ({error})") from error
    if baud < 1 or not 0 <= delay_s <= 10:  # noqa: PLR2004 - seconds a line: a mistake beyond
        raise UsageError(f"{wanted}; baud is from 1, txdelay is milliseconds after each line")
    others = {name: value for name, value in given.items() if name not in _OPTIONS}
    if "://" in place:
        port = place + (f"?{urlencode(others)}" if others else "")
    elif others:
        raise UsageError(f"{url!r}: {min(others)!r} is no option; options are: {', '.join(_OPTIONS)}")
    else:
        port = unquote(place.removeprefix("//"))
    return SerialAddress(url, port, baud, given.get("user") or None, _password(url, given), delay_s)


def _password(url: str, given: dict[str, str]) -> str | None:
    variable = given.get("password_env")
    if variable is None:
        return None
    if variable not in os.environ:
        raise UsageError(f"{url!r}: the environment variable {variable} with the password is not set")
    return os.environ[variable]


class SerialPort:
    """An open port."""

    def __init__(self, address: SerialAddress) -> None:
        self.address = address
        self._port: Any = None

    @property
    def is_open(self) -> bool:
        """Say whether bytes can go in and out."""
        return self._port is not None

    def open(self) -> None:
        """Open the port.

        Raises:
            TransportError: it is not there, not allowed, or in use.
            UsageError: pyserial does not know the URL.
        """
        port = self.address.port
        # Of a device only: pyserial's URLs refuse them. Two programs on one console garble each other.
        more = {} if "://" in port else {"exclusive": True, "write_timeout": WRITE_TIMEOUT_S}
        try:
            self._port = serial.serial_for_url(port, baudrate=self.address.baud, timeout=0, **more)
        except ValueError as error:
            raise UsageError(f"{self.address.url!r}: {error}") from error
        except (serial.SerialException, OSError) as error:
            raise TransportError(f"{self.address.url}: {_explained(error, port)}") from error

    def write(self, data: bytes) -> None:
        """Send bytes.

        Raises:
            TransportError: the port is gone, or takes nothing.
        """
        try:
            self._require_open().write(data)
        except serial.SerialTimeoutException as error:
            raise TransportError(
                f"{self.address.url}: the line takes no bytes; is something connected, is flow control off?"
            ) from error
        except (serial.SerialException, OSError) as error:
            raise self._gone(error) from error

    def read(self, timeout_s: float) -> bytes:
        """Give what has come, as soon as something has; nothing after ``timeout_s``.

        Raises:
            TransportError: the port is gone.
        """
        deadline = time.monotonic() + timeout_s
        port = self._require_open()
        try:
            handle = self._handle()
            while True:
                if handle is not None:
                    select.select([handle], [], [], max(0.0, deadline - time.monotonic()))
                data = bytes(port.read(_READ_BYTES))
                while data and handle is None and (more := port.read(_READ_BYTES)):
                    data += more
                if data or time.monotonic() >= deadline:
                    return data
                if handle is None:
                    time.sleep(_POLL_S)
        except (serial.SerialException, OSError, ValueError) as error:
            raise self._gone(error) from error

    def close(self) -> None:
        """Close the port. Idempotent."""
        port, self._port = self._port, None
        if port is None:
            return
        socket = getattr(port, "_socket", None)
        with suppress(serial.SerialException, OSError):
            port.close()
        if socket is not None:
            socket.close()  # pyserial 3.5 leaves a socket open whose other end is gone

    def _require_open(self) -> Any:
        if self._port is None:
            raise TransportError(f"{self.address.url}: the line was lost; connect() again")
        return self._port

    def _handle(self) -> int | None:
        """Give what can be waited for; pyserial's queues (rfc2217, loop) have nothing."""
        try:
            return int(self._port.fileno())
        except (AttributeError, OSError):  # io.UnsupportedOperation is an OSError
            return None

    def _gone(self, error: Exception) -> TransportError:
        self.close()
        return TransportError(f"{self.address.url}: the line was lost ({error}); connect() again")


def _explained(error: Exception, port: str) -> str:
    number = getattr(error, "errno", None)
    if number == 13:  # noqa: PLR2004 - EACCES
        return f"{port} may not be opened; let your user join its group (dialout)"
    if "lock" in str(error):
        return f"{port} is in use by another program"
    return str(error)
