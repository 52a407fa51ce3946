"""Counts what one release does in one process, at a cost that a call does not feel.

A call writes one entry into the ring that the device's telemetry is read from; what a process says of its
releases is counted from there, too.
"""

from __future__ import annotations

import io
import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar

import numpy as np

from edgeml.arrays import Array
from edgeml.errors import InputError
from edgeml.fallback import ON_CPU, reason_of
from edgeml.histogram import BUCKETS_PER_DOUBLING, HIGHEST, LOWEST, Histogram
from edgeml.model import Loaded, Watched
from edgeml.pipeline import Prediction
from edgeml.telemetry.features import InputFeatures, rows_of_array
from edgeml.telemetry.raw import MOST_BYTES
from edgeml.telemetry.recording import NOT_TOLD, Recorder, clock, recorder
from edgeml.telemetry.ring import PLAIN_CALL
from edgeml.telemetry.ring_file import fresh
from edgeml.telemetry.settings import TelemetrySettings

T = TypeVar("T")
_NS_PER_MS: Final = 1e6
_NS_PER_S: Final = 1e9
FEATURES_EVERY_S: Final = 1 / 30
"""They cost 30 µs and more, and 1,800 a minute say as much as all of a faster model's would."""
_ENTRY: Final = np.dtype(
    [
        ("end", "f8"),
        ("begin", "f8"),
        ("preprocess", "f8"),
        ("run", "f8"),
        ("postprocess", "f8"),
        ("confidence", "u4"),
        ("label", "u2"),
        ("error", "u2"),
        ("number", "u8"),
    ]
)


class Tally:
    """Calls, errors and latencies of one release. Calls only write; ``drain`` counts, in one thread."""

    def __init__(self, model: str, release: int, settings: TelemetrySettings) -> None:
        self.release = release
        self.variant = ""
        """The last that was loaded."""
        self.latencies = Histogram()
        """Milliseconds of calls that succeeded; of predictions, of the engine's part."""
        self.calls = 0
        self.errors = 0
        """Calls that failed, other than by what the caller passed."""
        self.detail = ""
        """Of the last error."""
        self._model, self._settings = model, settings
        self._keeps_raw = settings.samples == "raw"
        self._failures: deque[str] = deque()
        self._recorder: Recorder | None = None
        self._position = self._hole = 0
        self._is_on_cpu = False
        """Whether what is recorded is of a model that fell back to the CPU."""
        self._features: tuple[InputFeatures, ...] = ()
        self._due = 0.0
        """When features are to be recorded again."""

    def is_of(self, plain: Loaded) -> bool:
        """Say whether calls are recorded under what runs; not any more once it fell back to the CPU."""
        return self.variant == (plain.variant or "") and self._is_on_cpu == _is_on_cpu(plain)

    def counted(self, plain: Loaded) -> Loaded:
        """Give the same artifact with calls that are counted."""
        self._features = plain.features
        if self._recorder is None or self._recorder.is_closed or not self.is_of(plain):
            self.close()
            self.variant, self._is_on_cpu = plain.variant or "", _is_on_cpu(plain)
            self._recorder = recorder(
                self._model,
                release=self.release,
                variant=self.variant + (ON_CPU if self._is_on_cpu else ""),
                runtime=plain.runtime,
                features=[name for one in plain.features for name in one.names],
                settings=self._settings,
            )
            self._position = self._hole = 0
        now = self._recorder
        name = plain.spec.inputs[0].name
        return replace(
            plain,
            run=self._counted(now, plain.run, lambda inputs: inputs),
            call=self._counted_call(now, plain) or self._counted(now, plain.call, lambda x: {name: x}),
            watched=Watched(plain.run, partial(self._predicted, now), partial(self._failed, now)),
        )

    def _counted(
        self, now: Recorder, call: Callable[[Any], T], named: Callable[[Any], Mapping[str, Array]]
    ) -> Callable[[Any], T]:
        ring = now.ring()
        places, shared, pack_into = ring.places, ring.map, PLAIN_CALL.pack_into
        failed = partial(self._failed, now)

        def counted(given: Any) -> T:
            begin = clock()
            try:
                result = call(given)
            except InputError:
                raise
            except Exception as error:
                failed(begin, error, named(given))
                raise
            end = clock()
            number, place = next(places)
            pack_into(shared, place, end, begin, number)
            return result

        def noted(given: Any) -> T:
            begin = clock()
            if begin < self._due and not self._keeps_raw:
                return counted(given)
            try:
                result = call(given)
            except InputError:
                raise
            except Exception as error:
                failed(begin, error, named(given))
                raise
            end, inputs = clock(), named(given)
            now.write(end, begin, NOT_TOLD, features=self._row(inputs, end), raw=partial(_raw, inputs))
            return result

        return noted if self._features or self._keeps_raw else counted

    def _counted_call(self, now: Recorder, plain: Loaded) -> Callable[[Any], Any] | None:
        """Count the call of the commonest model, of one input and one output, without a call in between."""
        session = plain.session
        if len(session.inputs) != 1 or len(session.outputs) != 1 or self._features or self._keeps_raw:
            return None
        own_run, own_name, own_output = session.run, session.inputs[0].name, session.outputs[0].name
        ring = now.ring()
        places, shared, pack_into = ring.places, ring.map, PLAIN_CALL.pack_into
        failed = partial(self._failed, now)

        def counted(x: Any) -> Any:
            begin = clock()
            try:
                result = own_run({own_name: x})[own_output]
            except InputError:
                raise
            except Exception as error:
                failed(begin, error, {})
                raise
            end = clock()
            number, place = next(places)
            pack_into(shared, place, end, begin, number)
            return result

        return counted

    def _predicted(
        self,
        now: Recorder,
        prediction: Prediction,
        inputs: Mapping[str, Array],
        times: tuple[float, float, float, float],
    ) -> None:
        begin, ready, done, end = times
        best = prediction.classes[0] if prediction.classes else None
        now.write(
            end,
            begin,
            (ready - begin, done - ready, end - done),
            None if best is None else str(best.index) if best.label is None else best.label,
            None if best is None else best.score,
            features=self._row(inputs, end),
            raw=partial(_raw, inputs),
        )

    def _failed(self, now: Recorder, begin: float, error: Exception, inputs: Mapping[str, Array]) -> None:
        self._failures.append(f"{type(error).__name__}: {error}")
        now.write(clock(), begin, NOT_TOLD, error=error, raw=partial(_raw, inputs) if inputs else None)

    def _row(self, inputs: Mapping[str, Array], now: float) -> list[float] | None:
        """Give the features of one sample, chosen at random in its batch, if it is time for some again."""
        if not self._features or now < self._due:
            return None
        self._due = now + FEATURES_EVERY_S
        row: list[float] = []
        chosen = random.random()  # noqa: S311 - no secret
        try:
            for one in self._features:
                array = inputs[one.input]
                place = int(chosen * len(array)) if one.batched else 0
                row.extend(rows_of_array(one, array[place : place + 1] if one.batched else array)[0])
        except Exception:  # noqa: BLE001 - whatever it is, the call went well
            return None
        return row

    def drain(self) -> None:
        """Count what was written so far."""
        failed = [self._failures.popleft() for _ in range(len(self._failures))]
        if failed:
            self.detail = failed[-1]
        self.errors += len(failed)
        if self._recorder is None or self._recorder.is_closed:
            return
        ring = self._recorder.ring()
        shared = ring.map
        new = fresh(lambda at, size: shared[at : at + size], ring.layout, self._position, hole=self._hole)
        entries = np.frombuffer(new.entries, _ENTRY)
        self.calls += len(entries) + new.lost
        self._position, self._hole = new.position, new.hole
        whole = np.where(entries["begin"] > 0, entries["end"] - entries["begin"], -entries["begin"])
        times = np.where(entries["run"] > 0, entries["run"], whole)[entries["error"] == 0]
        if len(times):
            add_times(self.latencies, times * _NS_PER_S)

    def close(self) -> None:
        """Count what was written, and leave it to the device's telemetry. ``counted`` begins again."""
        if self._recorder is not None:
            self.drain()
            self._recorder.close()


def _is_on_cpu(plain: Loaded) -> bool:
    return reason_of(plain.session) is not None


def _raw(inputs: Mapping[str, Array]) -> bytes:
    """Give inputs as a file of numpy's, arrays by name; nothing if they are larger than could be kept."""
    if sum(array.nbytes for array in inputs.values()) > MOST_BYTES:
        return b""
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **dict(inputs))
    return file.getvalue()


def add_times(histogram: Histogram, times_ns: np.ndarray[Any, Any]) -> None:
    """Count times in nanoseconds, as :meth:`Histogram.add` counts each."""
    doublings = np.log2(np.maximum(times_ns, 1) / _NS_PER_MS)
    places = np.clip(np.ceil(doublings * BUCKETS_PER_DOUBLING) - 1, LOWEST, HIGHEST)
    found, counts = np.unique(places.astype(np.int64), return_counts=True)
    histogram.merge(Histogram(dict(zip(found.tolist(), counts.tolist(), strict=True))))
