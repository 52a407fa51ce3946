"""A disk that loses its power: knows what was synced, and takes the rest back.

``install`` puts itself in the place of the calls in ``os`` and of ``io.open``; for a process that is to die.
"""

# These are the calls of os themselves:
# ruff: noqa: PTH101, PTH112, PTH113, PTH114, PTH115, PTH116, PTH118, PTH119, PTH120

from __future__ import annotations

import io
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CALLS = (
    "open",
    "write",
    "fsync",
    "fdatasync",
    "ftruncate",
    "replace",
    "rename",
    "symlink",
    "link",
    "unlink",
    "mkdir",
    "chmod",
    "fchmod",
)


@dataclass
class _Entry:
    """A change of a folder that its sync makes last, and how it is taken back."""

    path: str
    undo: Callable[[str], None]

    @property
    def folder(self) -> str:
        return os.path.dirname(self.path)


class Disk:
    """Counts the calls that change files, dies at one of them, and knows what a power cut would take back."""

    def __init__(
        self, folder: Path, call: int | None = None, *, after: bool = False, cut: bool = False
    ) -> None:
        """Die at a call, from 0, before or after it is made; ``cut``: with what was not synced."""
        self._call, self._is_after, self._cut = call, after, cut
        self.armed = False
        self.count = 0
        self.names: list[str] = []
        self._real = {name: getattr(os, name) for name in CALLS}
        self._open = io.open
        self._synced: dict[str, int] = {}
        """File to the length that is on the disk."""
        self._undo: list[_Entry] = []
        self._folder = str(folder)
        """Where the disk is; what happens elsewhere is none of its business."""
        self._stash = folder / f"stash-{os.getpid()}-{time.monotonic_ns()}"
        """On the same file system: what is replaced is kept by a second link."""
        self._stashed = 0

    def install(self) -> None:
        for name in CALLS:
            setattr(os, name, self._wrapped(name))
        io.open = self._io_open

    def _wrapped(self, name: str) -> Callable[..., Any]:
        real = self._real[name]

        def call(*arguments: Any, **options: Any) -> Any:
            mine = self.armed and not options.get("dir_fd")
            if mine:
                self.names.append(name)
                self._maybe_die(after=False)
            self._before(name, arguments)
            result = real(*arguments, **options)
            self._after(name, arguments)
            if mine:
                self._maybe_die(after=True)
                self.count += 1
            return result

        return call

    def _maybe_die(self, *, after: bool) -> None:
        if self.count == self._call and self._is_after is after:
            if self._cut:
                self.cut_power()
            os.kill(os.getpid(), signal.SIGKILL)

    # --- what a power cut takes back

    def _io_open(self, file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if isinstance(file, (str, Path)) and any(letter in mode for letter in "wxa"):
            self._created(str(file))
        return self._open(file, mode, *arguments, **options)

    def _is_mine(self, path: Any) -> bool:
        return str(path).startswith(f"{self._folder}/")

    def _created(self, path: str) -> None:
        if not self._is_mine(path):
            return
        if not os.path.lexists(path):
            self._undo.append(_Entry(path, self._remove))
            self._synced[path] = 0
        else:
            self._synced.setdefault(path, os.stat(path).st_size)

    def _before(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name == "open" and len(arguments) > 1 and arguments[1] & os.O_CREAT:
            self._created(str(arguments[0]))
        if name == "write":
            path = _path_of(arguments[0])
            if self._is_mine(path):
                self._synced.setdefault(path, os.stat(path).st_size)
        if name in {"replace", "rename"} and self._is_mine(arguments[1]):
            self._renaming(str(arguments[0]), str(arguments[1]))
        if name == "unlink" and self._is_mine(arguments[0]) and os.path.lexists(arguments[0]):
            path = str(arguments[0])
            kept = self._keep(path)
            self._undo.append(_Entry(path, lambda at: self._put_back(kept, at)))

    def _renaming(self, source: str, target: str) -> None:
        kept = self._keep(target) if os.path.lexists(target) else None
        if os.path.isdir(source) and not os.path.islink(source):
            self._moved(source, target)
        name = os.path.basename(source)

        def undo(at: str) -> None:
            if os.path.lexists(at):
                self._real["rename"](at, os.path.join(os.path.dirname(at), name))
            if kept is not None:
                self._put_back(kept, at)

        self._undo.append(_Entry(target, undo))
        if source in self._synced:
            self._synced[target] = self._synced.pop(source)

    def _moved(self, source: str, target: str) -> None:
        """What is in a folder goes with it."""
        for entry in self._undo:
            if entry.path.startswith(f"{source}/"):
                entry.path = target + entry.path.removeprefix(source)
        for path in [one for one in self._synced if one.startswith(f"{source}/")]:
            self._synced[target + path.removeprefix(source)] = self._synced.pop(path)

    def _after(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name in {"fsync", "fdatasync"}:
            path = _path_of(arguments[0])
            if os.path.isdir(path):
                self._undo = [one for one in self._undo if one.folder != path]
            else:
                self._synced.pop(path, None)
        elif name in {"symlink", "link"} and self._is_mine(arguments[1]):
            path = str(arguments[1])
            self._undo.append(_Entry(path, self._remove))
        elif name == "mkdir" and self._is_mine(arguments[0]):
            path = str(arguments[0])
            self._undo.append(_Entry(path, lambda at: shutil.rmtree(at, ignore_errors=True)))

    def _keep(self, path: str) -> str | None:
        if os.path.isdir(path) and not os.path.islink(path):
            return None
        self._stash.exists() or self._real["mkdir"](self._stash)
        self._stashed += 1
        kept = str(self._stash / str(self._stashed))
        self._real["link"](path, kept, follow_symlinks=False)
        return kept

    def _put_back(self, kept: str | None, path: str) -> None:
        if kept is not None:
            if os.path.lexists(path):
                self._real["unlink"](path)
            self._real["rename"](kept, path)

    def cut_power(self) -> None:
        """Leave on the disk what was synced."""
        for name, real in self._real.items():
            setattr(os, name, real)
        io.open = self._open
        for path, size_bytes in self._synced.items():
            if os.path.isfile(path) and os.stat(path).st_size > size_bytes:
                os.chmod(path, 0o644)
                os.truncate(path, size_bytes)
        for entry in reversed(self._undo):
            entry.undo(entry.path)
        shutil.rmtree(self._stash, ignore_errors=True)

    def _remove(self, path: str) -> None:
        if os.path.lexists(path):
            self._real["unlink"](path)


def _path_of(handle: int) -> str:
    return os.readlink(f"/proc/self/fd/{handle}")
