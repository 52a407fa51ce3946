"""What is recorded is what is read, once, whatever becomes of the process that recorded it."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeml.errors import UsageError
from edgeml.telemetry import Recorder, recorder
from edgeml.telemetry.exponential import histogram_of, merge
from edgeml.telemetry.reading import RingReader
from edgeml.telemetry.settings import TelemetrySettings


def begin(folder: Path, **changes: object) -> Recorder:
    own = TelemetrySettings(folder=str(folder), slots=int(changes.pop("slots", 1024)))  # type: ignore[arg-type]
    return recorder("m", release=3, variant="v", runtime="r", settings=own, **changes)  # type: ignore[arg-type]


def test_an_inference_is_read_once_with_all_that_was_said_of_it(tmp_path: Path) -> None:
    reader = RingReader(tmp_path)
    with begin(tmp_path) as one:
        one.record(0.25, "cat", 0.75)
        one.record(0.5, 7, error=ValueError("x"))
        with one.infer() as call:
            call.label, call.confidence = "cat", 0.5
        with pytest.raises(KeyError), one.infer():
            raise KeyError
        (window,) = reader.read().models
        assert reader.read().models == ()
    assert (window.model, window.release, window.variant, window.runtime) == ("m", 3, "v", "r")
    assert window.calls == 4
    assert window.classes == {"cat": 2, "7": 1}
    assert window.errors == {"ValueError": 1, "KeyError": 1}
    assert window.latency["total"].total == 4
    assert window.latency["total"].max == 0.5
    assert window.confidence == histogram_of([0.75, 0.5])
    assert (window.processes, window.killed) == (1, 0)
    assert Counter(sample.error for sample in window.samples if sample.why == "error") == {
        "ValueError": 1,
        "KeyError": 1,
    }
