"""Reports of any content, for hypothesis."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import strategies as st

from edgeml.telemetry.exponential import ExponentialHistogram, histogram_of
from edgeml.telemetry.report import Lost, ModelWindow, Report, Sample, Summary

COUNTS = st.integers(0, 10**9)
FLOATS = st.floats(allow_nan=False, allow_infinity=False, width=32)
NAMES = st.text(min_size=1, max_size=12)
HISTOGRAMS = st.lists(st.floats(0, 1e4), max_size=20).map(histogram_of)
SAMPLES = st.builds(
    Sample,
    at=FLOATS,
    why=st.sampled_from(["random", "error", "unsure"]),
    latency_s=st.none() | FLOATS,
    label=st.none() | NAMES,
    confidence=st.none() | st.floats(0, 1),
    error=st.none() | NAMES,
    features=st.none() | st.lists(FLOATS, max_size=4).map(tuple),
    raw=st.none() | st.binary(max_size=30),
)
MODELS = st.builds(
    ModelWindow,
    model=st.sampled_from(["kws", "faces"]),
    release=st.integers(1, 3),
    variant=st.sampled_from(["", "int8"]),
    runtime=st.sampled_from(["", "litert"]),
    calls=COUNTS,
    errors=st.dictionaries(NAMES, COUNTS, max_size=4),
    latency=st.dictionaries(st.sampled_from(["total", "run"]), HISTOGRAMS, max_size=2),
    classes=st.dictionaries(NAMES, COUNTS, max_size=20),
    confidence=st.none() | HISTOGRAMS,
    features=st.dictionaries(
        st.sampled_from(["mean", "std"]), st.lists(COUNTS, min_size=3, max_size=3).map(tuple)
    ),
    rff_sum=st.just(()) | st.tuples(FLOATS, FLOATS),
    rff_count=COUNTS,
    samples=st.lists(SAMPLES, max_size=6).map(tuple),
    processes=st.integers(1, 4),
    killed=st.integers(0, 3),
)
LOST = st.builds(Lost, COUNTS, COUNTS, COUNTS, COUNTS)
SUMMARIES = st.builds(
    lambda values: Summary(min(values), sum(values) / len(values), max(values), len(values)),
    st.lists(st.floats(0, 1e6), min_size=1, max_size=5),
)
REPORTS = st.builds(
    Report,
    seq=st.integers(0, 2**53),
    link=st.text("0123456789abcdef", min_size=16, max_size=16),
    boot_id=NAMES,
    start_s=st.floats(0, 1e6),
    end_s=st.floats(0, 1e6),
    at=st.floats(0, 1e10),
    prev=NAMES,
    clock=st.sampled_from(["synced", "unsynced", "unknown"]),
    models=st.lists(MODELS, max_size=3).map(tuple),
    system=st.dictionaries(st.sampled_from(["memory_bytes", "temperature_celsius"]), SUMMARIES),
    energy_joules=st.none() | st.floats(0, 1e6),
    lost=LOST,
)


def window(number: int, *, boot_id: str = "boot", calls: int = 60, minute_s: float = 60.0) -> Report:
    """Give a window like those that a loop makes; its number is in its times only."""
    model = ModelWindow(
        "kws",
        7,
        "int8",
        "litert",
        calls=calls,
        errors={"InferenceError": 1},
        latency={
            stage: histogram_of([0.001 * (1 + (number + k) % 9) for k in range(20)])
            for stage in ("total", "run")
        },
        classes={str(k): (number + k) % 5 for k in range(10)},
        confidence=histogram_of([0.1 * k for k in range(10)]),
        features={f"f{k}": tuple((number + k + j) % 3 for j in range(32)) for k in range(4)},
        samples=(Sample(1e9 + number, "random", 0.001, "yes", 0.9, None, (0.1, 0.2, 0.3)),),
    )
    return Report(
        0,
        "",
        boot_id,
        number * minute_s,
        (number + 1) * minute_s,
        1.8e9 + number * minute_s,
        models=(model,),
        system={"memory_bytes": Summary(1e8, 1.1e8, 1.2e8, 12)},
        energy_joules=120.0,
        clock="synced",
    )


def busy_window(dice: random.Random) -> Report:
    """Give a window like that of a camera: 3,600 inferences, 20 classes, 8 features, 5 samples."""
    counts = {
        stage: _spread_out([dice.lognormvariate(mean, 0.15) for _ in range(90)], 40)
        for stage, mean in (("total", -3.0), ("run", -3.3), ("preprocess", -5.0))
    }
    samples = tuple(
        Sample(
            1.8e9 + dice.random() * 60,
            "random",
            dice.lognormvariate(-3, 0.1),
            f"class {k}",
            dice.random(),
            None,
            tuple(round(dice.gauss(0, 1), 4) for _ in range(8)),
        )
        for k in range(5)
    )
    model = ModelWindow(
        "faces",
        12,
        "litert-int8",
        "litert",
        calls=3600,
        latency=counts,
        classes={f"class {k}": dice.randrange(400) for k in range(20)},
        confidence=_spread_out([dice.uniform(0.3, 1.0) for _ in range(90)], 40),
        features={f"feature {k}": tuple(dice.randrange(200) for _ in range(32)) for k in range(8)},
        reference="0123456789abcdef",
        samples=samples,
    )
    system = {
        name: Summary(dice.random(), 1 + dice.random(), 2 + dice.random(), 6)
        for name in ("cpu_utilization", "memory_bytes", "memory_available_bytes", "temperature_celsius")
    }
    return replace(window(0), models=(model,), system=system, energy_joules=dice.uniform(100, 300))


def _spread_out(values: list[float], times: int) -> ExponentialHistogram:
    one = histogram_of(values)
    return replace(one, counts=tuple(times * count for count in one.counts), sum_nano=times * one.sum_nano)


def dated(report: Report, number: int) -> Report:
    """Give a window its place in time."""
    return replace(report, start_s=number * 60.0, end_s=number * 60.0 + 60, at=1.8e9 + number * 60.0)
