"""Records what a model does: one entry in a ring for each inference, and nothing else.

A process does not bin, wait, or send. Where no ring can be had (no shared memory, a full one, telemetry
switched off) it records into memory of its own, which nobody reads, and goes on.
"""

from __future__ import annotations

import atexit
import math
import os
import secrets
import struct
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import Final, ParamSpec, Self, TypeVar

from edgeml.errors import UsageError
from edgeml.telemetry.folder import make_folder
from edgeml.telemetry.raw import RawFiles
from edgeml.telemetry.report import MOST_FEATURES, OTHER
from edgeml.telemetry.ring import (
    CALL,
    ERRORS,
    LABELS,
    LEAST_SLOTS,
    LONGEST_FEATURE,
    PLAIN_CALL,
    Layout,
    Ring,
    RingInfo,
    is_feature,
    is_sound,
    vector,
)
from edgeml.telemetry.settings import TelemetrySettings, telemetry_settings

P = ParamSpec("P")
T = TypeVar("T")
Features = Sequence[float] | Mapping[str, float]
Raw = bytes | Callable[[], bytes]
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_NANO: Final = 1e9
_LONGEST_S: Final = 1e9
NOT_TOLD: Final = (0.0, 0.0, 0.0)
"""Seconds of the stages, where only the whole was timed."""
clock: Final = time.monotonic
"""Of entries. A float of it costs less than an integer of nanoseconds, here and when it is packed."""


class TelemetryWarning(UserWarning):
    """This process records nothing that could be read; its models run all the same."""


def recorder(
    model: str,
    *,
    release: int = 0,
    variant: str = "",
    runtime: str = "",
    features: Sequence[str] = (),
    settings: TelemetrySettings | None = None,
) -> Recorder:
    """Begin to record what a model does in this process.

    Args:
        model: its name: letters, digits, ``.``, ``_``, ``-``, 128 at most.
        release: its number, 0 for none.
        variant: of the release; the same letters, and ``+``.
        runtime: that runs it; likewise.
        features: names of the numbers that ``record`` takes for each input, at most 32.
        settings: by default what ``edgeml.toml`` and ``EDGEML_TELEMETRY*`` say.

    Raises:
        UsageError: what is no name, a release below 0, or too many features.
        SettingsError: the settings hold something wrong.
    """
    info = RingInfo(model, release, variant, runtime)
    if not is_sound(info):
        words = f"variant {variant!r:.80}, runtime {runtime!r:.80}"
        raise UsageError(f"{model!r:.80} release {release}, {words}: no names and number of a release")
    if len(features) > MOST_FEATURES:
        raise UsageError(f"{model}: {len(features)} features, at most {MOST_FEATURES} are recorded")
    if not all(map(is_feature, features)):
        raise UsageError(f"{model}: names of features are texts of 1 to {LONGEST_FEATURE} characters")
    return Recorder(info, tuple(features), telemetry_settings() if settings is None else settings)


class Recorder:
    """Records into one ring. Any thread may use it; the child of a fork goes on in a ring of its own.

    What is recorded stands in memory that outlives the process: a ``kill -9`` loses none of it.
    """

    def __init__(self, info: RingInfo, features: tuple[str, ...], settings: TelemetrySettings) -> None:
        self._info, self._features, self._settings = info, features, settings
        self._lock = threading.RLock()  # a signal's handler or a finaliser may record, too
        self._ring: Ring | None = None
        self._vectors: Ring | None = None
        self._raw: RawFiles | None = None
        self.is_closed = False
        """Whether what is recorded is lost."""
        if settings.record == "on":
            with suppress(ImportError):  # now: whoever interrupts an import would find half a module
                import edgeml.telemetry.clearing  # noqa: F401
        _RECORDERS.add(self)

    def record(
        self,
        latency_s: float,
        label: str | int | None = None,
        confidence: float | None = None,
        error: str | BaseException | None = None,
        features: Features | None = None,
        raw: Raw | None = None,
    ) -> None:
        """Record one inference that just ended.

        Args:
            latency_s: of the whole call; what is no number from 0 on counts as 0.
            label: what the model said: a class, by name or index.
            confidence: from 0 to 1; anything else is left out.
            error: the exception, or the name of its type, if the call failed.
            features: of the input, in the order of the names that the recorder was made with, or by name;
                what is no number counts as unknown.
            raw: the input itself, or what gives it; looked at for a few inferences only, and only where the
                settings have ``samples = "raw"``.

        Raises:
            UsageError: features of another number than there are names.
        """
        if type(latency_s) is not float:
            latency_s = _number(latency_s)
        latency_s = min(latency_s, _LONGEST_S) if latency_s > 0 else 0.0
        self.write(clock(), -latency_s, NOT_TOLD, label, confidence, error, features, raw)

    def infer(self) -> Inference:
        """Time what is done within: ``with recorder.infer() as call: …; call.label = "cat"``.

        An exception that leaves the block is recorded as the inference's error, and goes on.
        """
        return Inference(self)

    def __call__(self, function: Callable[P, T]) -> Callable[P, T]:
        """Time each call of a function: ``@recorder``. An exception is recorded, and goes on."""

        @wraps(function)
        def timed(*args: P.args, **kwargs: P.kwargs) -> T:
            begin = clock()
            try:
                result = function(*args, **kwargs)
            except Exception as error:
                self.write(clock(), begin, NOT_TOLD, error=error)
                raise
            end = clock()
            ring = self._ring or self.ring()
            number, place = next(ring.places)
            PLAIN_CALL.pack_into(ring.map, place, end, begin, number)
            return result

        return timed

    def write(
        self,
        end: float,
        begin: float,
        stages: tuple[float, float, float],
        label: str | int | None = None,
        confidence: float | None = None,
        error: str | BaseException | None = None,
        features: Features | None = None,
        raw: Raw | None = None,
    ) -> None:
        """Record one inference by :data:`clock`, with seconds of preprocess, run and postprocess."""
        row = None if features is None else self._row(features)
        ring = self._ring or self.ring()
        label_code = 0 if label is None else ring.label(label if type(label) is str else _text(label))
        error_code = 0 if error is None else ring.error(error if type(error) is str else type(error).__name__)
        certain = 0
        if confidence is not None:
            if type(confidence) is not float:
                confidence = _number(confidence)
            if 0 <= confidence <= 1:
                certain = int(confidence * _NANO + 0.5) + 1
        number, place = next(ring.places)
        if row:
            self._write_row(ring, number, row)
        if (
            raw is not None
            and self._raw is not None
            and self._raw.wants(end, confidence, is_error=error is not None)
        ):
            with suppress(Exception):  # an example less
                self._raw.keep(number, raw() if callable(raw) else raw)
        CALL.pack_into(ring.map, place, end, begin, *stages, certain, label_code, error_code, number)

    def _row(self, features: Features) -> list[float]:
        if isinstance(features, Mapping):
            if not self._features:
                self._features = tuple(filter(is_feature, features))[:MOST_FEATURES]
            return [features.get(name, math.nan) for name in self._features]
        row = [*features]
        if row and len(row) != len(self._features):
            raise UsageError(f"{self._info.model}: {len(row)} features for the names {self._features}")
        return row

    def _write_row(self, calls: Ring, number: int, row: list[float]) -> None:
        ring = self._vectors or self._vector_ring(calls)
        own_number, place = next(ring.places)
        pack_into = vector(len(row)).pack_into
        try:
            pack_into(ring.map, place, number, *row, own_number)
        except struct.error:
            pack_into(ring.map, place, number, *map(_number, row), own_number)

    # --- rings

    def ring(self) -> Ring:
        """Give the ring of this process, made by the first call."""
        with self._lock:
            if self._ring is None:
                made = self._made(self._info, Layout(self._settings.slots, CALL.size, LABELS, ERRORS))
                if made.path is not None and self._settings.samples == "raw":
                    budget_bytes = self._settings.raw_budget_bytes
                    self._raw = RawFiles(made.path.parent, made.info.ring, budget_bytes)
                self._ring, self._vectors = made, None  # those of who interrupted this close by themselves
            return self._ring

    def _vector_ring(self, calls: Ring) -> Ring:
        with self._lock:
            if self._vectors is None:
                info = replace(self._info, of=calls.info.ring, features=self._features)
                slots = max(LEAST_SLOTS, self._settings.slots // 2)
                self._vectors = self._made(info, Layout(slots, vector(len(self._features)).size))
            return self._vectors

    def _made(self, info: RingInfo, layout: Layout) -> Ring:
        own = replace(info, ring=secrets.token_hex(8), pid=os.getpid(), created=time.time())
        if self.is_closed or self._settings.record == "off":
            return Ring(own, layout)
        folder = Path(self._settings.folder)
        try:
            from edgeml.telemetry.clearing import clear_up  # needs locks, which Windows has not

            make_folder(folder)
            clear_up(folder)
            _end_with_worker()
            return Ring(replace(own, boot_id=_boot_id()), layout, folder)
        except (OSError, ImportError) as error:
            _warn(f"{info.model}: nothing is recorded for telemetry, {folder}: {error}")
            return Ring(own, layout)

    def close(self) -> None:
        """Record no more. Idempotent."""
        with self._lock:
            self.is_closed = True
            for ring in (self._ring, self._vectors):
                if ring is not None:
                    ring.close()
            self._ring = self._vectors = self._raw = None  # what comes later goes into one that nobody reads

    def end(self) -> None:
        """Say that the process ends; what it records after that is kept all the same."""
        with self._lock:
            for ring in (self._ring, self._vectors):
                if ring is not None:
                    ring.close(is_ending=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def begin_again(self) -> None:
        """In the child of a fork: leave the ring to the parent, and make another when it is needed."""
        self._lock = threading.RLock()
        self._ring = self._vectors = self._raw = None


class Inference:
    """One inference that is timed; what is known of it is set on it."""

    __slots__ = ("_begin", "_recorder", "confidence", "error", "features", "label", "raw")

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.label: str | int | None = None
        self.confidence: float | None = None
        self.error: str | BaseException | None = None
        self.features: Features | None = None
        self.raw: Raw | None = None

    def __enter__(self) -> Self:
        self._begin = clock()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end = clock()
        known = error or self.error
        said = (self.label, self.confidence, known)
        try:
            self._recorder.write(end, self._begin, NOT_TOLD, *said, self.features, self.raw)
        except UsageError:
            self._recorder.write(end, self._begin, NOT_TOLD, *said, None, self.raw)
            if error is None:
                raise


def _number(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except OverflowError:
        return math.inf
    except Exception:  # noqa: BLE001 - whatever was given, the application goes on
        return math.nan


def _text(label: object) -> str:
    try:
        return str(label)
    except Exception:  # noqa: BLE001 - as above
        return OTHER


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


# --- the process

_RECORDERS: Final[weakref.WeakSet[Recorder]] = weakref.WeakSet()
_warned: set[str] = set()


def _warn(text: str) -> None:
    if not _warned:
        _warned.add(text)
        with suppress(TelemetryWarning):  # made an error, it would end an inference
            warnings.warn(text, TelemetryWarning, stacklevel=2)


def _end_all() -> None:
    for one in list(_RECORDERS):
        one.end()


def _end_with_worker() -> None:
    """See to it that a process of multiprocessing ends its rings: it runs no ``atexit``."""
    processes = sys.modules.get("multiprocessing.process")
    if processes is not None and processes.parent_process() is not None:
        from multiprocessing.util import Finalize

        Finalize(None, _end_all, exitpriority=-100)


def _after_fork() -> None:
    for one in list(_RECORDERS):
        one.begin_again()


atexit.register(_end_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
