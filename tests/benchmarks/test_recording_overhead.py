"""What recording an inference costs, beside a Prometheus histogram's `observe`; and what reading it costs."""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import prometheus_client
import pytest

from edgeml.arrays import Array
from edgeml.model import Model, ModelSpec, loaded
from edgeml.tally import Tally
from edgeml.telemetry import recorder
from edgeml.telemetry.folder import SHARED_MEMORY
from edgeml.telemetry.reading import RingReader
from edgeml.telemetry.recording import NOT_TOLD
from edgeml.telemetry.settings import TelemetrySettings
from edgeml.tensors import TensorSpec
from tests.conftest import REPOSITORY

BUDGET_NS = 250
READ_BUDGET_MS = 1.0
MEMORY_BUDGET_BYTES = 10e6
TURNS, ROUNDS, CALLS = 5, 101, 2000
SPEC = (TensorSpec("x", (1, 16), "float32"),)
X = np.ones((1, 16), np.float32)


class Idle:
    """A session that does nothing: what is left is the call."""

    inputs = outputs = SPEC

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return dict(inputs)

    def close(self) -> None: ...


def nanoseconds(call: Callable[[], object]) -> float:
    """Give the median of what a call takes, by this thread's own clock: others' work is none of its."""
    timer = timeit.Timer(call, timer=time.thread_time)
    return statistics.median(timer.timeit(CALLS) / CALLS * 1e9 for _ in range(ROUNDS))


def measured(kind: str, folder: Path) -> float:
    plain = loaded(Idle(), ModelSpec(SPEC, SPEC), name="idle", runtime="none", release=1, variant="v")
    own = TelemetrySettings(folder=str(folder))
    if kind == "bare":
        model = Model(plain)
        return nanoseconds(lambda: model(X))
    if kind == "recorded":
        model = Model(Tally("idle", 1, own).counted(plain))
        return nanoseconds(lambda: model(X))
    if kind == "prometheus":
        registry = prometheus_client.CollectorRegistry()
        observe = prometheus_client.Histogram("latency", "s", registry=registry).observe
        return nanoseconds(lambda: observe(0.01))
    with recorder("user", settings=own) as user:
        return nanoseconds(lambda: user.record(0.01, "cat", 0.5))


@pytest.fixture(name="folder")
def in_shared_memory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=SHARED_MEMORY if SHARED_MEMORY.is_dir() else None) as folder:
        yield Path(folder)


def test_a_call_is_recorded_for_a_quarter_of_a_microsecond(folder: Path) -> None:
    found: dict[str, list[float]] = {}
    for _ in range(TURNS):
        for kind in ("bare", "recorded", "by hand", "prometheus"):
            # in a process of its own, as the interpreter adapts to the one function that a place calls
            program = "import sys, pathlib; from tests.benchmarks.test_recording_overhead import measured\n"
            program += "print(measured(sys.argv[1], pathlib.Path(sys.argv[2])))"
            done = subprocess.run(
                [sys.executable, "-c", program, kind, str(folder)],
                capture_output=True,
                text=True,
                check=True,
                cwd=REPOSITORY,
            )
            found.setdefault(kind, []).append(float(done.stdout))
    before, after, by_hand, prometheus = (statistics.median(times) for times in found.values())
    print(
        f"bare call {before:.0f} ns, recorded {after:.0f} ns: {after - before:+.0f} ns, its two clocks "
        f"included; record(latency, label, confidence) {by_hand:.0f} ns; "
        f"prometheus_client's observe {prometheus:.0f} ns, without any clock"
    )
    assert after - before <= BUDGET_NS
    assert after - before < prometheus


def test_a_minute_of_sixty_a_second_is_read_in_a_millisecond(folder: Path) -> None:
    reader = RingReader(folder)
    noise = random.Random(0)  # noqa: S311
    times: dict[str, list[float]] = {"plain": [], "predicted": []}
    with recorder("user", settings=TelemetrySettings(folder=str(folder))) as user:
        for _ in range(21):
            for kind, taken in times.items():
                for _ in range(3600):
                    latency_s = noise.lognormvariate(-4, 0.3)
                    if kind == "plain":
                        user.write(1e5 + latency_s, 1e5, NOT_TOLD)
                    else:
                        stages = (latency_s * 0.1, latency_s * 0.8, latency_s * 0.1)
                        user.write(1e5 + latency_s, 1e5, stages, noise.randrange(20), noise.random())
                begin = time.process_time()
                drained = reader.read()
                taken.append((time.process_time() - begin) * 1e3)
                assert drained.models[0].calls == 3600
    plain, predicted = (statistics.median(taken) for taken in times.values())
    print(f"3600 calls are read in {plain:.2f} ms, with class, confidence and stages in {predicted:.2f} ms")
    assert plain <= READ_BUDGET_MS


def test_recording_and_reading_take_less_than_ten_megabytes(folder: Path) -> None:
    tracemalloc.start()
    try:
        with recorder("user", settings=TelemetrySettings(folder=str(folder))) as user:
            reader = RingReader(folder)
            for number in range(20_000):
                user.record(0.01, number % 1000, 0.5)
            reader.read()
            heap = tracemalloc.get_traced_memory()[1]
            ring = sum(place.stat().st_size for place in folder.iterdir())
    finally:
        tracemalloc.stop()
    print(f"heap {heap / 1e6:.2f} MB at most, ring {ring / 1e6:.2f} MB")
    assert heap + ring <= MEMORY_BUDGET_BYTES
