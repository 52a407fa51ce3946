"""Machines as folders: ``emulator/machines/NAME`` in the cache folder, found by every process of a user.

```
machine.json      what runs, where it can be reached
disk.qcow2        all that it wrote
console.log qemu.log
ssh_config known_hosts
running           locked by QEMU itself, as long as it runs; holds its process number, which it wrote itself
owner             locked by the process that started the machine, unless it was detached
unplugged         while its network cable is pulled
```

QEMU ends after its owner, however that one ended: its keeper (``keeper.py``) gets the lock of ``owner``, or
the next who looks finds it free, and kills it.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Final

from edgeml import typed_json
from edgeml.atomic import replacing_file
from edgeml.errors import EdgemlError, MessageError, UsageError
from edgeml_devices.emulator.images.cache import Cache, open_cache, remove_tree
from edgeml_devices.emulator.machine.addresses import Addresses

KIND: Final = "machines"
RUNNING: Final = "running"
OWNER: Final = "owner"
_RECORD: Final = "machine.json"
_KILLED_WITHIN_S: Final = 30.0
_NAMED_WITHIN_S: Final = 10.0
"""For what has just taken a machine's lock to write its process number."""
_POLL_S: Final = 0.005
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""A folder's name, and a host's in the configuration of SSH."""


@dataclass(frozen=True, slots=True)
class Record:
    """What ``machine.json`` says of a machine's present run."""

    board: str
    image: str
    """The image's key."""
    memory_bytes: int
    ports: Addresses
    detached: bool
    """Whether it outlives the process that started it."""
    started_s: float
    """When, in seconds since 1970."""
    restored: bool
    """From a snapshot, not booted."""


@dataclass(frozen=True, slots=True)
class Found:
    """A machine that somebody started."""

    folder: Path
    record: Record
    running: bool

    @property
    def name(self) -> str:
        return self.folder.name


def check_name(name: str) -> None:
    """See that a new machine can have a name, before work is done for it; an empty one stands for none.

    Raises:
        UsageError: it is taken, or cannot be a machine's.
    """
    if name and not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be the name of a machine: letters, digits, '-', '_' and '.', "
            "a letter or digit first, 64 at most"
        )
    if name and machine_named(name) is not None:
        raise _taken(name)


def new_folder(board: str, name: str = "") -> tuple[Path, IO[bytes]]:
    """Make the folder of a new machine; gives it with the lock of its owner. Removes leftovers first.

    Args:
        board: the board's name: the machine's, too, if it is free; else with a number behind it.
        name: another name.

    Raises:
        UsageError: ``name`` is taken, or cannot be a machine's.
    """
    check_name(name)
    cache = open_cache()
    with cache.locked(KIND):
        _sweep(cache)
        folder = cache.place(KIND, name or board)
        number = 1
        while folder.exists():
            if name:
                raise _taken(name)
            number += 1
            folder = cache.place(KIND, f"{board}-{number}")
        folder.mkdir(mode=0o700, parents=True)
        (folder / RUNNING).touch()
        owner = (folder / OWNER).open("ab")
        fcntl.flock(owner, fcntl.LOCK_EX)
    return folder, owner


def machines() -> tuple[Found, ...]:
    """Give the machines that run, by name; those whose owner is gone are ended first."""
    cache = open_cache()
    if not (cache.folder / KIND).is_dir():
        return ()
    with cache.locked(KIND):
        _sweep(cache)
        return tuple(found for found in _found(cache) if found is not None)


def unreadable() -> tuple[Path, ...]:
    """Give the folders of machines that no one can tell anything of: damaged, or of another edgeml."""
    cache = open_cache()
    return tuple(folder for folder in _folders(cache) if _is_unreadable(folder))


def machine_named(name: str) -> Found | None:
    """Give a machine that somebody started; ``None`` if there is none of that name."""
    return next((found for found in machines() if found.name == name), None)


def images_of_machines(cache: Cache) -> frozenset[str]:
    """Give the keys of the images that machines have their disks over, of those that are off, too."""
    records = (read_record(folder) for folder in _folders(cache))
    return frozenset(record.image for record in records if record is not None)


def sweep() -> tuple[str, ...]:
    """End machines whose owner is gone and remove what they left; gives their names."""
    cache = open_cache()
    if not (cache.folder / KIND).is_dir():
        return ()
    with cache.locked(KIND):
        return _sweep(cache)


def end_left_over(folder: Path) -> None:
    """End a machine whose owner is gone, without having detached it; any other is left alone."""
    with Cache(folder.parent.parent).locked(KIND):
        if folder.is_dir():
            _end_left_over(folder)


def write_record(folder: Path, record: Record) -> None:
    """Say what runs in a machine's folder."""
    text = json.dumps({"schema": 1} | typed_json.write(record), indent=1)
    with replacing_file(folder / _RECORD) as scratch:
        scratch.write_text(text + "\n", encoding="utf-8")


def read_record(folder: Path) -> Record | None:
    """Give what runs in a machine's folder; ``None`` if nobody said yet."""
    path = folder / _RECORD
    try:
        return typed_json.read(Record, typed_json.parse(path.read_bytes(), str(path)), str(path))
    except (OSError, MessageError):
        return None


def detached(folder: Path, record: Record) -> Record:
    """Note that a machine outlives its owner."""
    found = replace(record, detached=True)
    write_record(folder, found)
    return found


def is_running(folder: Path) -> bool:
    """Say whether a QEMU runs in a machine's folder."""
    return not _is_free(folder / RUNNING)


@contextmanager
def run_lock(folder: Path) -> Iterator[IO[bytes]]:
    """Take the lock that is to be QEMU's: pass its descriptor on (``pass_fds``); QEMU writes its number in.

    Raises:
        EdgemlError: a QEMU has it.
    """
    with (folder / RUNNING).open("r+b", buffering=0) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise EdgemlError(f"{folder.name} runs already") from error
        lock.truncate()
        yield lock


@contextmanager
def changing(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Let one process at a time end and start a machine's QEMU: the record is that of the last one.

    Raises:
        UsageError: the machine is gone.
        BlockingIOError: another process is at it, and is not waited for.
    """
    gone = UsageError(f"there is no machine {folder.name} any more")
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise gone from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        if not _is_at(handle, folder):
            raise gone
        yield
    finally:
        os.close(handle)


def kill(folder: Path) -> None:
    """Kill the QEMU of a machine's folder, if one runs, and wait for its end: a power cut.

    Raises:
        EdgemlError: it does not end.
    """
    with _qemu(folder) as handle:
        # while the lock is held, the number is still QEMU's, and the handle with it
        if handle is None or not is_running(folder):
            return
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        if not select.select([handle], [], [], _KILLED_WITHIN_S)[0]:
            raise EdgemlError(f"{folder.name}: QEMU was killed and does not end")


def ended_within(folder: Path, timeout_s: float) -> bool:
    """Say whether the QEMU of a machine's folder ended in time, as soon as it does."""
    with _qemu(folder) as handle:
        if handle is None or not is_running(folder):
            return True
        return bool(select.select([handle], [], [], timeout_s)[0])


def end(folder: Path) -> None:
    """Kill the QEMU of a machine's folder, and remove the machine with its disk, if it is still there.

    Who starts it again meanwhile is waited for: a QEMU without a folder would be found by nobody.

    Raises:
        EdgemlError: it does not end.
    """
    with suppress(UsageError), changing(folder):
        kill(folder)
        with Cache(folder.parent.parent).locked(KIND):
            remove_tree(folder)


def _taken(name: str) -> UsageError:
    return UsageError(
        f"there is a machine {name!r} already; take another name, or end that one: edgeml emulate stop {name}"
    )


def _folders(cache: Cache) -> list[Path]:
    """Give the machines' folders; a file beside them is nobody's machine."""
    return sorted(folder for folder in (cache.folder / KIND).glob("*") if folder.is_dir())


def _found(cache: Cache) -> Iterator[Found | None]:
    for folder in _folders(cache):
        record = read_record(folder)
        yield None if record is None else Found(folder, record, is_running(folder))


def _sweep(cache: Cache) -> tuple[str, ...]:
    return tuple(folder.name for folder in _folders(cache) if _end_left_over(folder))


def _end_left_over(folder: Path) -> bool:
    """End a machine whose owner is gone, while the machines' lock is held; says whether it was one."""
    if _is_left_over(folder):
        # not waited for: who ends a machine waits for the lock that is held here
        with suppress(UsageError, BlockingIOError), changing(folder, wait=False):
            kill(folder)
            remove_tree(folder)
            return True
    return False


def _is_left_over(folder: Path) -> bool:
    """Say whether a machine's owner is gone, without having detached it."""
    if not _is_free(folder / OWNER):
        return False
    record = read_record(folder)
    if record is None:
        return not _is_unreadable(folder)  # who may have been detached is not ended on a guess
    return not record.detached


def _is_unreadable(folder: Path) -> bool:
    """Say whether a record is there, and no good; records are written whole or not at all."""
    return (folder / _RECORD).exists() and read_record(folder) is None


def _is_free(path: Path) -> bool:
    try:
        lock = path.open("rb")
    except FileNotFoundError:
        return True
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


@contextmanager
def _qemu(folder: Path) -> Iterator[int | None]:
    """Give a handle of the process that a machine's folder names; ``None`` if there is none."""
    try:
        handle = os.pidfd_open(_number(folder))
    except OSError:
        yield None
        return
    try:
        yield handle
    finally:
        os.close(handle)


def _number(folder: Path) -> int:
    """Give the number of the process that a machine's folder names, as soon as it does.

    Raises:
        OSError: it names none.
    """
    deadline = time.monotonic() + _NAMED_WITHIN_S
    while True:
        text = (folder / RUNNING).read_text(errors="replace").strip()
        if text.isdecimal():
            return int(text)
        if not is_running(folder) or time.monotonic() > deadline:
            raise ProcessLookupError(f"{folder.name} names no process")
        time.sleep(_POLL_S)


def _is_at(handle: int, folder: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), folder.stat())
    except FileNotFoundError:
        return False
