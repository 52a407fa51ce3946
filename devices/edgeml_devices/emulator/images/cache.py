"""What was built, kept by content in ``emulator`` of the cache folder: each artifact whole or absent.

```
debs/ wheels/           as downloaded
kernels/KEY/            kernel, initrd
roots/KEY/ sites/KEY/   folders
images/KEY/             image.json packages.txt disk.qcow2 in-use
plans/                  what a request was resolved to, so that the same request is the same image
```

Two processes that want one artifact share one build. Whoever uses an image holds it; whoever builds holds
the cache; :func:`clean` removes neither.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from edgeml.errors import EdgemlError
from edgeml.settings import settings
from edgeml_devices.emulator.images.image import Image

IN_USE: Final = "in-use"
"""In an image's folder: locked, shared, by everything that uses it."""
_SCRATCH: Final = "."
"""How the name of an unfinished artifact begins."""


@dataclass(frozen=True, slots=True)
class Cache:
    """A folder of artifacts."""

    folder: Path

    def place(self, kind: str, key: str) -> Path:
        """Give where an artifact is, or would be."""
        return self.folder / kind / key

    def made(
        self, kind: str, key: str, fill: Callable[[Path], None], on_wait: Callable[[], None] = lambda: None
    ) -> Path:
        """Give an artifact's folder; if it is not there, let ``fill`` fill an empty one that then becomes it.

        Another process that makes the same one is waited for, and ``on_wait`` called before. What a killed
        process left is removed.
        """
        place = self.place(kind, key)
        if place.is_dir():
            return place
        place.parent.mkdir(parents=True, exist_ok=True)
        with self.locked(f"{kind}-{key}", on_wait):
            if place.is_dir():
                return place
            for left in place.parent.glob(f"{_SCRATCH}{key}.*"):
                remove_tree(left)
            scratch = Path(tempfile.mkdtemp(prefix=f"{_SCRATCH}{key}.", dir=place.parent))
            try:
                fill(scratch)
                scratch.chmod(0o755)
                scratch.rename(place)
            except BaseException:
                remove_tree(scratch)
                raise
        return place

    @contextmanager
    def locked(self, name: str, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Keep out every other process that asks for the same name, until the block ends.

        ``on_wait`` is called before one that was there first is waited for.
        """
        with _open_lock(self.folder / "locks" / name) as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                on_wait()
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextmanager
    def building(self) -> Iterator[None]:
        """Keep out :meth:`cleaning`; builders do not keep out one another."""
        with _open_lock(self.folder / "locks" / "building") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            yield

    @contextmanager
    def cleaning(self) -> Iterator[None]:
        """Keep out builders.

        Raises:
            EdgemlError: one is at work.
        """
        with _open_lock(self.folder / "locks" / "building") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise EdgemlError(
                    f"an image is being built in {self.folder}; clean when that is done"
                ) from error
            yield


def open_cache() -> Cache:
    """Give the cache of the settings' ``cache_dir``; it need not exist yet."""
    return Cache(settings().cache_dir / "emulator")


@contextmanager
def hold(image: Image) -> Iterator[int]:
    """Keep an image from being cleaned; gives a file descriptor.

    Passed to QEMU (``pass_fds``), it holds the image for as long as QEMU runs, whatever becomes of us.

    Raises:
        EdgemlError: it was removed since it was found; build it again.
    """
    gone = f"image {image.key[:12]} was removed; build it again: edgeml emulate build"
    try:
        lock = (image.folder / IN_USE).open("rb")
    except FileNotFoundError as error:
        raise EdgemlError(gone) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        if os.fstat(lock.fileno()).st_nlink == 0 or not image.disk.exists():
            raise EdgemlError(gone)
        yield lock.fileno()


def note_found(image: Image) -> None:
    """Note that somebody found an image, and will hold it in a moment."""
    with suppress(OSError):
        os.utime(image.folder / IN_USE)


def idle_s(image: Image) -> float:
    """Give how long ago an image was found or held, in seconds."""
    with suppress(OSError):
        return time.time() - (image.folder / IN_USE).stat().st_mtime
    return 0.0


@contextmanager
def unused(folder: Path) -> Iterator[bool]:
    """Say whether nothing uses the image in a folder; while the block lasts, nothing begins to."""
    try:
        lock = (folder / IN_USE).open("rb")
    except FileNotFoundError:  # never finished
        yield True
        return
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            free = False
        else:
            free = True
        yield free


def remove_tree(folder: Path) -> None:
    """Remove a folder, whatever modes a package gave to the folders inside."""
    for place, folders, _ in os.walk(folder):
        for name in folders:
            inside = Path(place, name)
            if not inside.is_symlink():
                inside.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)


def _open_lock(path: Path) -> IO[bytes]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("ab")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise EdgemlError(
            f"the cache folder {path.parent.parent} cannot be written to ({error.strerror}); "
            "take another one: EDGEML_CACHE_DIR"
        ) from error
