"""An installed model that goes over to each new release between two calls.

A thread looks at the link ``current``, loads what it leads to beside what runs, and exchanges the one
reference that calls start from. Calls under way end on the release they began with, whose engine is freed
when the last of them is done.
"""

from __future__ import annotations

import atexit
import os
import secrets
import sys
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, Final, Literal

from edgeml import health
from edgeml.errors import BundleError, EdgemlError
from edgeml.health import BEAT_EVERY_S, HealthBeat
from edgeml.installed import CURRENT, InstalledModel, read_installation, release_of
from edgeml.model import Loaded, Model
from edgeml.tally import Tally
from edgeml.telemetry.settings import telemetry_settings

LOOK_EVERY_S: Final = 0.25
DEFER_LIMIT_S: Final = 86400.0
"""A wish for time ends after a day, whatever was asked for."""
STOP_WITHIN_S: Final = 10.0
"""How long closing waits for a release that is being loaded."""

Loader = Callable[[Path], Loaded]
_Mark = tuple[int, int] | None
"""What tells one link called ``current`` from the next."""


def load_current(model: InstalledModel, load: Loader) -> tuple[str, Loaded]:
    """Load what ``current`` leads to; what that is by then, if the folder went away meanwhile.

    Returns:
        Where ``current`` leads to, and what was loaded.

    Raises:
        EdgemlError: what ``load`` raises.
    """
    while True:
        target = _target(model)
        try:
            if target is None:
                raise BundleError(f"{model.name}: {model.current} leads to nothing; install the model again")
            return target, load(model.folder / target)
        except EdgemlError:
            if _target(model) == target:
                raise


def follow_current(installed: InstalledModel, load: Loader) -> Model:
    """Load an installed model that goes over to each new release.

    Raises:
        EdgemlError: what ``load`` raises for the release that is current now.
    """
    mark = _mark(installed)
    target, plain = load_current(installed, load)
    return _Follower(installed, load, mark, target, plain).begin()


def _target(model: InstalledModel) -> str | None:
    try:
        return str(model.current.readlink())
    except OSError:
        return CURRENT if model.current.is_dir() else None  # one put there by hand


def _mark(model: InstalledModel) -> _Mark:
    try:
        status = model.current.lstat()
    except OSError:
        return None
    return status.st_ino, status.st_ctime_ns


@dataclass(frozen=True, slots=True)
class _Use:
    """An artifact that calls may be using."""

    plain: Loaded
    calls: tuple[weakref.ref[Any], ...]
    """The counted ones that were made of it: a call under way holds its own."""

    def goes_on(self) -> bool:
        return any(call() is not None for call in self.calls)


class _Follower:
    """The thread beside one model. It holds the model weakly, and ends when nobody else has it."""

    def __init__(
        self, installed: InstalledModel, load: Loader, mark: _Mark, target: str, plain: Loaded
    ) -> None:
        self._installed, self._load = installed, load
        self._mark, self._target, self._plain = mark, target, plain
        self._telemetry = telemetry_settings()
        self._is_stopped = self._is_asleep = self._is_crashed = False
        self._defer_until = 0.0
        self._renew()

    def _renew(self) -> None:
        """Begin as another process to who listens."""
        self._process, self._seq = secrets.token_hex(8), count()
        self._tallies: dict[int, Tally] = {}
        """By release: one that is loaded again counts on."""
        self._retired: list[_Use] = []
        """What calls may still use; held here, so that an engine is freed in this thread."""
        self._failure: HealthBeat | None = None
        self._beat_at = 0.0
        self._lock, self._wake = threading.Lock(), threading.Event()
        name = f"edgeml follows {self._installed.name}"
        self._thread = threading.Thread(target=self._follow, name=name, daemon=True)

    def begin(self) -> Model:
        model = Model(self._counted(), self)
        self._model = weakref.ref(model)
        _FOLLOWERS.add(self)
        self._thread.start()
        return model

    def defer(self, seconds: float) -> None:
        self._defer_until = time.monotonic() + min(max(0.0, seconds), DEFER_LIMIT_S)
        self._beat_at = 0.0
        self._wake.set()

    def stop(self, *, is_crashed: bool = False) -> None:
        with self._lock:
            self._is_stopped, self._is_crashed = True, is_crashed
        self._wake.set()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(STOP_WITHIN_S)

    # --- the thread

    def _follow(self) -> None:
        while not self._is_stopped:
            model = self._model()
            if model is None:
                break
            self._look(model)
            del model
            self._let_go()
            for release in self._releases():
                self._tallies[release].drain()
            if time.monotonic() >= self._beat_at:
                self._beat()
            self._wake.wait(LOOK_EVERY_S)
            self._wake.clear()
        _FOLLOWERS.discard(self)
        for release in self._releases():
            self._tallies[release].close()
            self._say(release, "running" if self._is_crashed else "closed")

    def _look(self, model: Model) -> None:
        """Go over to what ``current`` leads to, if it was switched."""
        mark = _mark(self._installed)
        if mark == self._mark:
            self._look_at_the_accelerator(model)
            return
        self._mark, self._failure = mark, None
        target = _target(self._installed)
        if target in {None, self._target}:  # removed: what is loaded goes on
            return
        try:
            plain = self._load(self._installed.folder / str(target))
        except Exception as error:  # noqa: BLE001 - whatever it is, what is loaded goes on
            if _mark(self._installed) == mark:  # else the device went on, and may have cleared up
                self._failure = self._failed(str(target), error)
                self._beat_at = 0.0
            return
        with self._lock:
            if self._is_stopped:
                plain.session.close()
                return
            self._retired.append(self._use)
            self._target, self._plain = str(target), plain
            model._loaded = self._counted()  # noqa: SLF001 - a model's other half
        self._beat_at = 0.0

    def _look_at_the_accelerator(self, model: Model) -> None:
        """Record under another name what fell back to the CPU since."""
        with self._lock:
            if not self._is_stopped and not self._tallies[self._plain.release or 0].is_of(self._plain):
                self._retired.append(self._use)
                model._loaded = self._counted()  # noqa: SLF001 - a model's other half

    def _counted(self) -> Loaded:
        """Give what is loaded with calls that are counted."""
        release = self._plain.release or 0
        if release not in self._tallies:
            self._tallies[release] = Tally(self._installed.name, release, self._telemetry)
        tally = self._tallies[release]
        counted = tally.counted(self._plain)
        self._use = _Use(self._plain, (weakref.ref(counted.run), weakref.ref(counted.call)))
        return counted

    def _let_go(self) -> None:
        """Free the engines that no call uses any more."""
        before = self._releases()
        self._retired = [use for use in self._retired if use.goes_on()]
        for release in before - self._releases():
            self._tallies[release].close()
            self._say(release, "closed")

    def _releases(self) -> set[int]:
        """Give the releases that are in use."""
        return {use.plain.release or 0 for use in (*self._retired, self._use)}

    # --- beats

    def _beat(self) -> None:
        self._beat_at = time.monotonic() + BEAT_EVERY_S
        for release in self._releases():
            self._say(release, "running")
        if self._failure is not None:
            self._send(self._failure)

    def _say(self, release: int, state: Literal["running", "closed"]) -> None:
        tally = self._tallies[release]
        tally.drain()
        beat = HealthBeat(
            model=self._installed.name,
            release=tally.release,
            variant=tally.variant,
            pid=os.getpid(),
            process=self._process,
            seq=0,
            state=state,
            calls=tally.calls,
            errors=tally.errors,
            latency_counts=tally.latencies.to_json(),
            detail=tally.detail,
            defer_s=max(0.0, self._defer_until - time.monotonic()),
        )
        self._send(beat)

    def _send(self, beat: HealthBeat) -> None:
        numbered = replace(beat, seq=next(self._seq))
        health.send(self._installed.home, health.beat_to_bytes(numbered))

    def _failed(self, target: str, error: Exception) -> HealthBeat | None:
        """Say why a release could not be loaded; ``None`` where the link leads to no release."""
        folder = self._installed.folder / target
        release = release_of(folder)
        if release is None:
            return None
        variant = ""
        with suppress(EdgemlError):
            variant = read_installation(folder).variants[0]
        detail = f"{type(error).__name__}: {error}"
        return HealthBeat(
            self._installed.name,
            release,
            variant,
            os.getpid(),
            self._process,
            0,
            "load_failed",
            detail=detail,
        )

    # --- forks

    def fall_asleep(self) -> None:
        """In the child of a fork, where the thread is missing: do nothing until the first call."""
        self._is_asleep = not self._is_stopped
        self._renew()
        model = self._model()
        if model is not None:
            model._loaded = replace(  # noqa: SLF001 - a model's other half
                self._plain,
                run=lambda inputs: self._awake().run(inputs),
                call=lambda x: self._awake().call(x),
            )

    def _awake(self) -> Loaded:
        model = self._model()
        with self._lock:
            if model is None or self._is_stopped:
                return self._plain
            if self._is_asleep:
                self._is_asleep = False
                model._loaded = self._counted()  # noqa: SLF001 - a model's other half
                with suppress(RuntimeError):  # no thread to be had: this process keeps its release
                    self._thread.start()
            return model._loaded  # noqa: SLF001 - as above


# --- the process

_FOLLOWERS: Final[weakref.WeakSet[_Follower]] = weakref.WeakSet()


def _stop_all() -> None:
    # an exception that nobody caught ends this process: to who listens, it dies as of a signal
    is_crashed = getattr(sys, "last_type", None) not in {None, KeyboardInterrupt}
    for follower in list(_FOLLOWERS):
        follower.stop(is_crashed=is_crashed)


def _after_fork() -> None:
    for follower in list(_FOLLOWERS):
        follower.fall_asleep()


atexit.register(_stop_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
