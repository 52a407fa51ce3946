"""What an application may do to its recorder: whatever it is, the application goes on and all is counted."""

from __future__ import annotations

import datetime as dt
import math
import multiprocessing
import os
import subprocess
import sys
import textwrap
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeml.errors import UsageError
from edgeml.telemetry import Recorder, recorder
from edgeml.telemetry.reading import RingReader
from edgeml.telemetry.report import OTHER, ModelWindow
from edgeml.telemetry.settings import TelemetrySettings

WAIT_S = 120
PROGRAM = """
import atexit, faulthandler, random, signal, sys
from edgeml.telemetry import recorder
from edgeml.telemetry.settings import TelemetrySettings
faulthandler.dump_traceback_later(20, exit=True)
own = TelemetrySettings(folder=sys.argv[1], slots=256)
"""


def run(folder: Path, program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM + textwrap.dedent(program), str(folder)],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def window_of(folder: Path) -> ModelWindow:
    drained = RingReader(folder).read()
    assert (drained.overwritten, drained.damaged) == (0, 0)
    (window,) = drained.models
    return window


class NoText:
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.fixture
def one(tmp_path: Path) -> Recorder:
    return recorder("m", features=["a", "b"], settings=TelemetrySettings(folder=str(tmp_path), slots=64))


LATENCIES: list[Any] = [
    *(None, "x", [], math.nan, math.inf, -1.0, 2**5000, dt.timedelta(1)),
    *(np.float16(0.1), np.float32(0.1), np.array([0.1, 0.2])),
]


@pytest.mark.parametrize("latency_s", LATENCIES)
def test_a_latency_that_is_none_counts_as_some(one: Recorder, tmp_path: Path, latency_s: Any) -> None:
    one.record(latency_s)
    one.close()
    assert window_of(tmp_path).latency["total"].total == 1


@pytest.mark.parametrize(
    ("label", "said"),
    [
        (2**70, str(2**70)),
        (10**5000, OTHER),
        ("\ud800x", "?x"),
        (b"x", "b'x'"),
        (np.int64(3), "3"),
        (np.str_("x"), "x"),
        (NoText(), OTHER),
        (["x"], "['x']"),
        ("x" * 10**7, "x" * 63),
        ("é" * 100, "é" * 31),
    ],
    ids=lambda value: f"{type(value).__name__}",
)
def test_a_label_of_any_kind_is_a_short_text(one: Recorder, tmp_path: Path, label: Any, said: str) -> None:
    one.record(0.1, label)
    one.record(0.1, label)
    one.close()
    assert window_of(tmp_path).classes == {said: 2}


CONFIDENCES: list[Any] = [
    *("much", [], math.nan, -0.1, 1.1, 1j, NoText(), 10**400),
    *(np.array([0.9, 0.1]), np.float32(math.nan)),
]


@pytest.mark.parametrize("confidence", CONFIDENCES)
def test_a_confidence_that_is_none_is_left_out(one: Recorder, tmp_path: Path, confidence: Any) -> None:
    one.record(0.1, "x", confidence)
    one.close()
    window = window_of(tmp_path)
    assert (window.calls, window.confidence) == (1, None)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, float])
def test_a_confidence_of_half_precision_is_counted(one: Recorder, tmp_path: Path, kind: type) -> None:
    one.record(0.1, "x", kind(0.75))
    one.close()
    confidence = window_of(tmp_path).confidence
    assert confidence is not None
    assert (confidence.total, confidence.sum_nano) == (1, 750_000_000)


@pytest.mark.parametrize(
    ("features", "kept"),
    [
        (np.array([1.0, 2.0]), (1.0, 2.0)),
        (np.array([1, 2], "u1"), (1.0, 2.0)),
        ((one for one in (1, 2)), (1.0, 2.0)),
        ([np.float16(1), "2"], (1.0, 2.0)),
        ([None, 1], None),
        ([10**400, 1], None),
        ({"a": 1.0}, None),
        (np.array([]), None),
    ],
)
def test_features_of_any_kind_are_numbers_or_unknown(
    one: Recorder, tmp_path: Path, features: Any, kept: tuple[float, ...] | None
) -> None:
    one.record(0.1, features=features)
    one.close()
    (sample,) = window_of(tmp_path).samples
    assert sample.features == kept


def test_features_of_another_number_do_not_hide_what_the_application_raised(
    one: Recorder, tmp_path: Path
) -> None:
    def infer(table: dict[str, int]) -> None:
        with one.infer() as call:
            call.features = [1.0]
            table["a"]

    with pytest.raises(KeyError):
        infer({})
    with pytest.raises(UsageError, match="1 features"):
        infer({"a": 1})
    one.close()
    window = window_of(tmp_path)
    assert (window.calls, window.errors) == (2, {"KeyError": 1})


@pytest.mark.parametrize(
    "words", [{"variant": "int8/xnnpack"}, {"variant": "x" * 129}, {"runtime": "a b"}, {"release": 2**60}]
)
def test_what_no_reader_would_take_is_refused_at_once(tmp_path: Path, words: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="no names and number"):
        recorder("m", **words, settings=TelemetrySettings(folder=str(tmp_path)))


@pytest.mark.parametrize("name", ["", "x" * 129, 5])
def test_a_name_of_a_feature_that_no_reader_would_take_is_refused(tmp_path: Path, name: Any) -> None:
    with pytest.raises(UsageError, match="names of features"):
        recorder("m", features=[name], settings=TelemetrySettings(folder=str(tmp_path)))


def test_names_of_features_that_do_not_fit_into_a_ring_cost_the_features_only(tmp_path: Path) -> None:
    names = [f"{'é' * 120} {number}" for number in range(32)]
    with recorder("m", features=names, settings=TelemetrySettings(folder=str(tmp_path))) as one:
        with pytest.warns(UserWarning, match="too long"):
            one.record(0.1, features=[1.0] * 32)
        one.record(0.1, features=[1.0] * 32)
    assert window_of(tmp_path).calls == 2


def test_enormous_labels_are_not_kept_in_memory(one: Recorder) -> None:
    tracemalloc.start()
    try:
        for number in range(200):
            one.record(0.1, f"{number} ".ljust(200_000, "x"))
        held_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    one.close()
    assert held_bytes < 2_000_000


def test_the_handler_of_a_signal_may_record_whatever_it_interrupts(tmp_path: Path) -> None:
    said = run(
        tmp_path,
        """
        def handle(*_):
            global handled
            one.record(0.1, f"handled {handled}")
            handled += 1
        handled = 0
        signal.signal(signal.SIGALRM, handle)
        for number in range(200):
            one = recorder("m", settings=own)
            signal.setitimer(signal.ITIMER_REAL, random.uniform(0.00001, 0.001))
            for place in range(20):
                one.record(0.1, f"{place}")
            signal.setitimer(signal.ITIMER_REAL, 0)
            one.close()
        print(handled)
        """,
    )
    reader, calls = RingReader(tmp_path), 0
    drained = reader.read()
    calls = sum(window.calls for window in drained.models)
    assert calls + drained.overwritten == 200 * 20 + int(said)
    assert int(said) > 0


def test_what_is_recorded_while_the_process_ends_is_kept(tmp_path: Path) -> None:
    run(
        tmp_path,
        """
        class Last:
            def __del__(self):
                one.record(0.1, "finaliser")
        atexit.unregister(sys.modules["edgeml.telemetry.recording"]._end_all)
        atexit.register(lambda: one.record(0.1, "handler"))
        atexit.register(sys.modules["edgeml.telemetry.recording"]._end_all)
        one = recorder("m", settings=own)
        one.record(0.1, "early")
        last = Last()
        last.itself = last
        """,
    )
    window = window_of(tmp_path)
    assert window.classes == {"early": 1, "handler": 1, "finaliser": 1}
    assert window.killed == 0


def _work(folder: str) -> None:
    with recorder("m", settings=TelemetrySettings(folder=folder)) as one:
        one.record(0.1)
    forgotten = recorder("m", settings=TelemetrySettings(folder=folder))
    forgotten.record(0.1)


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_a_worker_of_multiprocessing_that_ends_is_not_taken_for_killed(tmp_path: Path, method: str) -> None:
    worker = multiprocessing.get_context(method).Process(target=_work, args=(str(tmp_path),))
    worker.start()
    worker.join(WAIT_S)
    window = window_of(tmp_path)
    assert (window.calls, window.killed) == (2, 0)
