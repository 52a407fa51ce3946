"""Zip files that are not trusted: looked at before anything of them is used."""

from __future__ import annotations

import stat
import struct
import unicodedata
import zipfile
import zlib
from pathlib import Path
from typing import Final
from zipfile import ZipFile, ZipInfo

from edgeml.errors import ModelFileError, UnsafeFileError

RATIO_LIMIT: Final = 200
"""Deflate reaches 1032; weights and JSON stay below 20."""
RATIO_FREE_BYTES: Final = 16 * 1024 * 1024
"""Below this an entry may unpack to any multiple: it cannot hurt."""
MEMBER_LIMIT: Final = 100_000
READ_ERRORS: Final = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    ValueError,
    RuntimeError,
)
"""What reading a damaged member raises: ValueError for a name or place that cannot be, RuntimeError (of which
NotImplementedError is one) for encryption and methods that only its own header claims."""
_ENCRYPTED: Final = 0x1
_LOCAL: Final = struct.Struct("<4s5H3I2H")
"""Local header: signature, version, flags, method, time, date, CRC, packed and unpacked size, two lengths."""
_UNKNOWN_SIZE: Final = 0x8
_UNIX: Final = 3


def open_zip(path: Path) -> ZipFile:
    """Open a zip and check every member's name, kind and size against what a harmless one has.

    Raises:
        ModelFileError: truncated or damaged.
        UnsafeFileError: a member would leave the folder, is a link or a device, stands there twice,
            is encrypted, or unpacks to far more than the file holds.
    """
    try:
        archive = ZipFile(path)
    except READ_ERRORS as error:
        raise ModelFileError(f"{path}: {_damage(path)}") from error
    try:
        _check(archive, path)
    except BaseException:
        archive.close()
        raise
    return archive


def unsafe_name(name: str) -> str | None:
    """Say why a relative path with ``/`` must not be written to a folder; ``None`` if it may."""
    if not name or len(name) > 1024:  # noqa: PLR2004 - PATH_MAX leaves room for the folder
        return "an empty or overlong name"
    if "\\" in name or any(unicodedata.category(sign) == "Cc" for sign in name):
        return "a backslash or control character in a name"
    if name.startswith("/") or (len(name) > 1 and name[1] == ":"):
        return "an absolute path"
    parts = name.split("/")
    if ".." in parts:
        return "a path that leaves its folder"
    if "" in parts or "." in parts:
        return "a path with an empty part"
    return None


def _check(archive: ZipFile, path: Path) -> None:
    members = archive.infolist()
    if len(members) > MEMBER_LIMIT:
        raise UnsafeFileError(f"{path}: {len(members)} members; refused above {MEMBER_LIMIT}")
    size_bytes = path.stat().st_size
    seen: set[str] = set()
    for member in members:
        reason = _unsafe(member)
        if member.filename in seen:
            reason = "a name that stands there twice"
        if reason is not None:
            raise UnsafeFileError(f"{path}: {reason}: {member.filename!r}; refused, do not trust its source")
        seen.add(member.filename)
    packed = sum(member.compress_size for member in members)
    if packed > size_bytes:
        raise UnsafeFileError(f"{path}: its members claim {packed} bytes, the file has {size_bytes}; refused")


def _unsafe(member: ZipInfo) -> str | None:
    # orig_filename: zipfile cuts a name at its first NUL
    reason = unsafe_name(member.orig_filename.removesuffix("/"))
    if reason is not None:
        return reason
    mode = member.external_attr >> 16 if member.create_system == _UNIX else 0
    if stat.S_IFMT(mode) not in {0, stat.S_IFREG, stat.S_IFDIR}:
        return "a link" if stat.S_ISLNK(mode) else "a special file"
    if member.flag_bits & _ENCRYPTED:
        return "an encrypted member"
    if member.file_size > max(RATIO_FREE_BYTES, RATIO_LIMIT * member.compress_size):
        return f"a member of {member.compress_size} bytes that unpacks to {member.file_size} (a zip bomb)"
    return None


def _damage(path: Path) -> str:
    """Say how much of a zip without a directory is there, as far as its local headers tell."""
    size = path.stat().st_size
    place = 0
    with path.open("rb") as file:
        while True:
            file.seek(place)
            head = file.read(_LOCAL.size)
            if len(head) < _LOCAL.size or head[:4] != b"PK\x03\x04":
                break
            _, _, flags, _, _, _, _, packed, _, name_length, extra_length = _LOCAL.unpack(head)
            if flags & _UNKNOWN_SIZE and not packed:
                break
            place += _LOCAL.size + name_length + extra_length + packed
    if place > size:
        return f"truncated: {size} of at least {place} bytes; copy it again from its source"
    return "truncated or damaged: the zip directory at its end is missing; copy it again from its source"
