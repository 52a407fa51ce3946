"""Where a conversion works: a scratch folder under the cache, and what earlier runs left in the caches."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from edgeml.settings import settings
from edgeml_converters.variants.judgements import JudgementCache
from edgeml_converters.variants.step_cache import StepCache

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Workspace:
    """What a conversion is given to work with."""

    scratch: Path
    """Goes when the conversion ends."""
    steps: StepCache
    judgements: JudgementCache
    progress: Progress
    """Is called with what is being done."""


@contextmanager
def workspace(*, use_cache: bool, progress: Progress) -> Iterator[Workspace]:
    """Give a scratch folder and, if they are to be used, the caches."""
    kept = settings().cache_dir if use_cache else None
    with _scratch_folder() as scratch:
        steps = StepCache(kept / "steps" if kept else None)
        yield Workspace(scratch, steps, JudgementCache(kept / "judgements" if kept else None), progress)


@contextmanager
def _scratch_folder() -> Iterator[Path]:
    """Give a scratch folder; those that a killed run left are removed first."""
    root = settings().cache_dir / "scratch"
    try:
        root.mkdir(parents=True, exist_ok=True)
        _sweep(root)
        folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=root))
    except OSError:
        folder = Path(tempfile.mkdtemp(prefix="edgeml-convert-"))
    try:
        with _held(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(root: Path) -> None:
    for folder in root.iterdir():
        owner = folder.name.partition("-")[0]
        if owner.isdigit() and not _alive(int(owner)) and not _is_held(folder):
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Lock a folder: in another container that has this cache, its process's number says nothing."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _is_held(folder: Path) -> bool:
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return False


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
