"""An SD card with a write cache of its own, which a power cut may lose, keep in part, and tear.

To QEMU it is an NBD export on a Unix socket, without a file of its own: what is written lies in memory over
a disk that stays as it is. A power cut that only ends QEMU would lose nothing that the guest handed to its
disk, and so hide every missing ``fsync``. The protocol is that of ``doc/proto.md`` of the NBD project: fixed
newstyle, simple replies.
"""

from __future__ import annotations

import os
import random
import socket
import struct
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

from edgeml_devices.emulator import programs

BLOCK_BYTES: Final = 4096
SECTOR_BYTES: Final = 512
"""What a card writes whole."""
Fate = Literal["keep", "lose", "some"]
"""Of what was written and not flushed: all there, all gone, or half of its blocks gone and one torn."""
_MOST_BYTES: Final = 32 << 20
"""Of one request, as NBD has it for servers that name no limit."""
_MAGIC, _OPTION, _REPLY = 0x4E42444D41474943, 0x49484156454F5054, 0x3E889045565A9
_REQUEST, _ANSWER = 0x25609513, 0x67446698
_FIXED_NEWSTYLE, _NO_ZEROES = 1, 2
_HAS_FLAGS, _SEND_FLUSH, _SEND_FUA = 1, 4, 8
_EXPORT_NAME, _ABORT, _INFO, _GO = 1, 2, 6, 7
_ACK, _EXPORT, _UNSUPPORTED = 1, 3, 0x80000001
_READ, _WRITE, _DISCONNECT, _FLUSH = 0, 1, 2, 3
_FUA: Final = 1
_EINVAL: Final = 22


def raw_copy(disk: Path, target: Path) -> None:
    """Write what a disk of any format holds as a raw one, for a card to lie over; empty parts take no space.

    Raises:
        EdgemlError: qemu-img fails, or the disk is full.
    """
    programs.run(["qemu-img", "convert", "-O", "raw", str(disk), str(target)], f"copying {disk.name}")


class Card:
    """A card in the slot of one machine, served until it is closed. Every start of QEMU finds it as it is."""

    def __init__(self, base: Path, address: Path) -> None:
        """Lay a card over a raw disk.

        Args:
            base: the disk, raw, which is only read.
            address: of the Unix socket, which is made.
        """
        self.address = address
        self.flushes = 0
        """That the guest asked for so far: what it syncs."""
        self.writes = 0
        """Of the guest so far."""
        self._base = os.open(base, os.O_RDONLY)
        self.size_bytes = os.fstat(self._base).st_size
        self._durable: dict[int, bytes] = {}
        self._cached: dict[int, bytes] = {}
        self._lock = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(address))
        self._listener.listen()
        self._connection: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the export; what was written is gone."""
        for one in (self._listener, self._connection):
            if one is not None:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        self.address.unlink(missing_ok=True)
        os.close(self._base)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def power_cut(self, fate: Fate, chance: random.Random) -> int:
        """Decide what becomes of what was not flushed once QEMU has ended; gives how many blocks are gone."""
        with self._lock:
            cached, self._cached = self._cached, {}
            if fate == "lose":
                return len(cached)
            gone = set(chance.sample(sorted(cached), len(cached) // 2)) if fate == "some" else set()
            kept = {place: block for place, block in cached.items() if place not in gone}
            if fate == "some" and kept:
                torn = chance.choice(sorted(kept))
                at = SECTOR_BYTES * chance.randrange(1, BLOCK_BYTES // SECTOR_BYTES)
                kept[torn] = kept[torn][:at] + self._block(torn)[at:]
            self._durable |= kept
            return len(gone)

    # --- what a disk does

    def _block(self, place: int) -> bytes:
        found = self._cached.get(place) or self._durable.get(place)
        return found or os.pread(self._base, BLOCK_BYTES, place * BLOCK_BYTES).ljust(BLOCK_BYTES, b"\0")

    def _read(self, offset: int, length: int) -> bytes:
        first, last = offset // BLOCK_BYTES, (offset + length - 1) // BLOCK_BYTES
        with self._lock:
            found = b"".join([self._block(place) for place in range(first, last + 1)])
        begin = offset - first * BLOCK_BYTES
        return found[begin : begin + length]

    def _write(self, offset: int, data: bytes, *, through: bool) -> None:
        first, last = offset // BLOCK_BYTES, (offset + len(data) - 1) // BLOCK_BYTES
        with self._lock:
            self.writes += 1
            head = self._block(first)[: offset - first * BLOCK_BYTES]
            tail = self._block(last)[offset + len(data) - last * BLOCK_BYTES :]
            whole = head + data + tail
            for place in range(first, last + 1):
                at = (place - first) * BLOCK_BYTES
                self._cached[place] = whole[at : at + BLOCK_BYTES]
                if through:
                    self._durable[place] = self._cached.pop(place)

    def _flush(self) -> None:
        with self._lock:
            self.flushes += 1
            self._durable |= self._cached
            self._cached.clear()

    # --- NBD

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connection = connection
            with connection, suppress(ConnectionError, OSError):
                if self._agree(connection):
                    while self._answer(connection):
                        pass

    def _agree(self, connection: socket.socket) -> bool:
        """Haggle over options; says whether requests follow."""
        connection.sendall(struct.pack(">QQH", _MAGIC, _OPTION, _FIXED_NEWSTYLE | _NO_ZEROES))
        client = int.from_bytes(_exactly(connection, 4))
        flags = _HAS_FLAGS | _SEND_FLUSH | _SEND_FUA
        while True:
            option, length = (
                int.from_bytes(_exactly(connection, 12)[8:]),
                int.from_bytes(_exactly(connection, 4)),
            )
            _exactly(connection, min(length, _MOST_BYTES))
            if option == _EXPORT_NAME:
                padding = b"" if client & _NO_ZEROES else bytes(124)
                connection.sendall(struct.pack(">QH", self.size_bytes, flags) + padding)
                return True
            if option in {_INFO, _GO}:
                connection.sendall(_reply(option, _EXPORT, struct.pack(">HQH", 0, self.size_bytes, flags)))
            known = option in {_INFO, _GO, _ABORT}
            connection.sendall(_reply(option, _ACK if known else _UNSUPPORTED))
            if option in {_GO, _ABORT}:
                return option == _GO

    def _answer(self, connection: socket.socket) -> bool:
        """Do one request; says whether another follows."""
        magic, flags, kind, handle, offset, length = struct.unpack(">IHHQQI", _exactly(connection, 28))
        if magic != _REQUEST or kind == _DISCONNECT or length > _MOST_BYTES:
            return False
        data = _exactly(connection, length) if kind == _WRITE else b""
        error, answer = 0, b""
        if kind == _FLUSH:
            self._flush()
        elif kind not in {_READ, _WRITE} or not length or offset + length > self.size_bytes:
            error = _EINVAL
        elif kind == _WRITE:
            self._write(offset, data, through=bool(flags & _FUA))
        else:
            answer = self._read(offset, length)
        connection.sendall(struct.pack(">IIQ", _ANSWER, error, handle) + answer)
        return True


def _reply(option: int, kind: int, data: bytes = b"") -> bytes:
    return struct.pack(">QIII", _REPLY, option, kind, len(data)) + data


def _exactly(connection: socket.socket, length: int) -> bytes:
    found = bytearray()
    while len(found) < length:
        piece = connection.recv(length - len(found))
        if not piece:
            raise ConnectionError("the other end is gone")
        found += piece
    return bytes(found)
