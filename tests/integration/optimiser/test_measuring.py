"""How a search measures: threads, engine options, and what an earlier run measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgeml_converters.convert import convert
from edgeml_converters.evaluate.latency import Job
from edgeml_converters.search import measuring
from edgeml_converters.search.engine_options import alternatives, taken
from edgeml_converters.search.measuring import best, contenders
from edgeml_converters.variants.judgements import JudgementCache
from edgeml_converters.variants.request import Request
from edgeml_converters.variants.rows import Made, Row
from edgeml_converters.variants.step_cache import StepCache
from edgeml_converters.variants.workspace import Workspace
from edgeml_runtimes.litert import LiteRT

from edgeml.bundle import open_bundle
from edgeml.converter import QuantizerSettings
from edgeml.manifest import Latency, Measured, Tolerance
from edgeml.measure import Measurement
from edgeml.targets import host
from tests.integration.optimiser import broken_int8


@pytest.fixture
def search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("EDGEML_CACHE_DIR", str(tmp_path / "cache"))
    source = broken_int8.digits_onnx(tmp_path)
    return {"source": source, "schemes": "auto", "runtimes": "onnxruntime", "output": tmp_path / "out.edgeml"}


def test_a_run_that_resumes_takes_what_was_measured_before(search: dict[str, Any]) -> None:
    first = convert(**search)
    told: list[str] = []
    second = convert(**search, resume=True, progress=told.append)
    assert [row.measured for row in second.rows] == [row.measured for row in first.rows]
    assert not [line for line in told if line.startswith("measure")]


def test_a_run_that_does_not_resume_measures_anew(search: dict[str, Any]) -> None:
    convert(**search)
    told: list[str] = []
    convert(**search, progress=told.append)
    assert [line for line in told if line.startswith("measure")]


def test_a_bundle_tells_the_threads_that_a_variant_was_measured_with(search: dict[str, Any]) -> None:
    result = convert(**search, threads=2)
    assert {row.measured.threads for row in result.variants} == {2}
    assert result.bundle is not None
    variants = open_bundle(result.bundle).manifest.variants
    assert {variant.measured.threads for variant in variants} == {2}  # edgeml.load takes as many


@pytest.mark.parametrize(
    ("latencies_ms", "threads"),
    [
        ({1: 10.0, 2: 9.6}, 1),
        ({1: 10.0, 2: 5.0}, 2),
        ({1: 10.0, 2: 5.0, 4: 4.9}, 2),
        ({1: 5.0, 2: 7.0}, 1),
    ],
)
def test_more_threads_are_taken_where_they_bring_more_than_the_noise(
    latencies_ms: dict[int, float], threads: int
) -> None:
    jobs = [Job(str(count), "litert", Path("m"), {}, count) for count in latencies_ms]
    results = {str(count): measurement(count, value) for count, value in latencies_ms.items()}
    found = best(jobs, results)
    assert isinstance(found, Measurement)
    assert found.threads == threads


def test_what_comes_near_the_quickest_of_its_runtime_is_measured_again(row: Row) -> None:
    def timed(name: str, p50_ms: float) -> Row:
        return replace(row, name=name, measured=Measured(latency_ms=Latency(p50_ms, p50_ms, p50_ms)))

    rows = [timed("a", 1.0), timed("b", 1.2), timed("c", 1.4), replace(timed("d", 5.0), runtime="openvino")]
    assert [one.name for one in contenders(rows)] == ["a", "b", "d"]
    assert contenders(rows[:1]) == []


def test_a_search_measures_what_is_near_in_several_rounds(
    search: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "CONTENDS", math.inf)  # whatever else the machine does, all are near
    told: list[str] = []
    convert(**search, progress=told.append)
    rounds = [line for line in told if line.startswith("measure ") and "engine options" not in line]
    assert len(rounds) == 3


def measurement(threads: int, p50_ms: float) -> Measurement:
    latency = Latency(p50_ms, p50_ms, p50_ms)
    return Measurement("litert", "2", "m", threads, 1, 1, latency, 1.0, 1.0, 1, "x86-64-vnni")


@pytest.fixture
def row(tmp_path: Path) -> Row:
    return Row(
        "litert-float32",
        "litert",
        "float32",
        ("host",),
        QuantizerSettings(),
        artifact=broken_int8.digits_tflite(tmp_path),
        tolerance=Tolerance(max_abs=1e-3),
        measured=Measured(latency_ms=Latency(2.0, 2.0, 2.0)),
    )


def otherwise(row: Row, p50_ms: float) -> Row:
    (other,) = alternatives([row])
    assert other.options == {"xnnpack": "false"}
    return replace(other, measured=Measured(latency_ms=Latency(p50_ms, p50_ms, p50_ms)))


def test_engine_options_that_are_clearly_quicker_are_taken_and_told(row: Row) -> None:
    (found,) = taken([row], [otherwise(row, 1.0)])
    assert found.options == {"xnnpack": "false"}
    (told,) = found.findings
    assert told.code == "engine-option"
    assert "xnnpack=false takes 1 ms, the engine's default 2 ms" in told.message
    (slower,) = found.other_options
    assert slower.options == {}
    assert slower.reason == "slower than xnnpack=false: 2.00 ms against 1.00 ms"


def test_engine_options_that_are_quicker_by_no_more_than_the_noise_are_not_taken(row: Row) -> None:
    (found,) = taken([row], [otherwise(row, 1.95)])
    assert replace(found, other_options=()) == row
    assert [one.reason for one in found.other_options] == ["1.95 ms against 2.00 ms: not quicker"]


def test_what_is_found_of_a_measurement_goes_with_it(
    row: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(jobs: Sequence[Job], *_: object) -> dict[str, Measurement]:
        noisy = replace(measurement(1, 2.0), latency_ms=Latency(2.0, 9.0, 9.0))
        return {job.name: measurement(1, 1.0) if "xnnpack" in job.options else noisy for job in jobs}

    monkeypatch.setattr(measuring.latency, "measure", measured)
    request = Request(tmp_path / "m", (host(),), searches=True)
    space = Workspace(tmp_path, StepCache(None), JudgementCache(None), print)
    bare = replace(row, measured=Measured())
    (found,) = measuring.measured(Made((bare,)), space, request).rows
    assert [one.code for one in found.findings] == ["engine-option"]
    (slower,) = found.other_options
    assert [one.code for one in slower.findings] == ["noisy-measurement"]


@pytest.mark.parametrize(
    ("by_default", "otherwise_given", "is_taken"),
    [
        (np.nan, np.nan, True),
        (np.inf, np.inf, True),
        (1.0, np.nan, False),
        (np.nan, 1.0, False),
        (1.0, np.inf, False),
        (-np.inf, np.inf, False),
    ],
)
def test_engine_options_that_give_nan_where_the_default_gives_none_are_not_taken(
    row: Row, monkeypatch: pytest.MonkeyPatch, by_default: float, otherwise_given: float, is_taken: bool
) -> None:
    load, values = LiteRT.load, iter([by_default, otherwise_given])

    def loaded(*arguments: Any) -> Any:
        session, value = load(*arguments), next(values)
        run = session.run
        session.run = lambda sample: {name: np.full_like(one, value) for name, one in run(sample).items()}
        return session

    monkeypatch.setattr(LiteRT, "load", loaded)
    (found,) = taken([row], [otherwise(row, 1.0)])
    assert (found.options == {"xnnpack": "false"}) is is_taken


def test_engine_options_that_give_other_outputs_are_not_taken(row: Row) -> None:
    strict = replace(row, tolerance=Tolerance(max_abs=0.0))
    (found,) = taken([strict], [otherwise(strict, 1.0)])
    assert replace(found, other_options=()) == strict
    assert "its outputs differ" in found.other_options[0].reason
