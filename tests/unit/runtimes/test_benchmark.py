"""`edgeml bench`: fresh processes, rows with reasons, the shape of its JSON."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from edgeml_runtimes.benchmark import Job, measure

from edgeml.errors import MeasureError
from edgeml.manifest import Latency
from edgeml.measure import Measurement, Throughput, measurement_from_json, measurement_to_json
from edgeml.testing.models import SMALL_MODELS, make_double, make_quantized
from tests.waiting import eventually, gone

BENCH = [sys.executable, "-m", "edgeml", "bench"]
MEASUREMENT = Measurement(
    runtime="litert",
    runtime_version="2.3.0",
    artifact="model.tflite",
    threads=1,
    warmup=3,
    runs=100,
    latency_ms=Latency(1.0, 2.0, 3.0),
    load_ms=4.0,
    import_ms=5.0,
    peak_memory_bytes=6,
    machine="x86-64-v3",
    throughput=(Throughput(1, 1000.0), Throughput(2, 1800.0)),
)


def _bench(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*BENCH, *map(str, arguments)], capture_output=True, text=True, check=False)


def test_a_measurement_survives_json() -> None:
    text = json.dumps(measurement_to_json(MEASUREMENT))
    assert measurement_from_json(json.loads(text)) == MEASUREMENT


def test_fields_of_a_later_edgeml_are_left_aside() -> None:
    assert measurement_from_json(measurement_to_json(MEASUREMENT) | {"watts": 3}) == MEASUREMENT


def test_a_failed_row_is_an_error_with_its_reason() -> None:
    with pytest.raises(MeasureError, match="a reason"):
        measurement_from_json({"status": "failed", "reason": "a reason", "artifact": "model.onnx"})


@pytest.mark.parametrize("name", SMALL_MODELS)
def test_a_small_model_is_measured_in_a_cpu_second_or_two(name: str, tmp_path: Path) -> None:
    begun = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = measure(Job(str(make_double(tmp_path, name)), name, seconds=0.1))
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = ended.ru_utime + ended.ru_stime - begun.ru_utime - begun.ru_stime
    found = result.measurement
    assert found is not None, result.reason
    assert (found.runtime, found.threads) == (name, 1)
    assert 0 < found.latency_ms.p50 <= found.latency_ms.p95 <= found.latency_ms.p99
    assert found.runs >= 10
    assert found.load_ms > 0
    assert found.import_ms > 0
    assert 1 << 20 < found.peak_memory_bytes < 1 << 30
    assert found.throughput[0].per_second > 100
    assert cpu_s < 10


def test_memory_is_the_models_and_not_that_of_who_asks(tmp_path: Path) -> None:
    ballast = bytearray(500 << 20)
    result = measure(Job(str(make_double(tmp_path, "litert")), "litert", runs=10))
    assert result.measurement is not None, result.reason
    assert result.measurement.peak_memory_bytes < len(ballast) / 4


def test_json_has_a_row_for_each_file_and_a_reason_for_each_failure(tmp_path: Path) -> None:
    good = make_double(tmp_path, "onnxruntime")
    bad = tmp_path / "cut.onnx"
    bad.write_bytes(good.read_bytes()[:40])
    done = _bench(good, bad, "--runtime", "onnxruntime", "--runs", 20, "--threads", "1,2", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["schema"] == 1
    first, second = report["results"]
    assert (first["status"], first["reason"], first["variant"]) == ("ok", "", None)
    assert [part["threads"] for part in first["throughput"]] == [1, 2]
    assert measurement_from_json(first).runs == 20
    assert (second["status"], second["latency_ms"]) == ("failed", None)
    assert "cut.onnx" in second["reason"]


def test_nothing_measured_is_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").touch()
    done = _bench(tmp_path / "empty.onnx", "--runtime", "onnxruntime")
    assert done.returncode == 1
    assert "file is empty" in done.stderr


def test_stored_integers_are_measured_as_they_are(tmp_path: Path) -> None:
    assert measure(Job(str(make_quantized(tmp_path, "litert")), "litert", runs=10)).measurement is not None


def test_free_dimensions_need_a_size(tmp_path: Path) -> None:
    model = make_double(tmp_path, "onnxruntime", batch=None)
    assert measure(Job(str(model), "onnxruntime", runs=10)).measurement is not None
    import onnx

    graph = onnx.load(str(model))
    for value in (*graph.graph.input, *graph.graph.output):
        value.type.tensor_type.shape.dim[1].dim_param = "width"
    onnx.save(graph, str(model))
    assert "--shape x=1,…" in measure(Job(str(model), "onnxruntime", runs=10)).reason
    assert measure(Job(str(model), "onnxruntime", runs=10, shapes={"x": (1, 16)})).measurement is not None


@pytest.mark.parametrize("name", SMALL_MODELS)
def test_operators_are_timed_on_request(name: str, tmp_path: Path) -> None:
    result = measure(Job(str(make_double(tmp_path, name)), name, runs=10, profile=True))
    assert result.operators


def test_an_engine_whose_profiler_is_not_available_says_so_and_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.metadata as metadata\n"
        "real = metadata.version\n"
        "metadata.version = lambda name: '9.0.0' if name == 'ai-edge-litert' else real(name)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    result = measure(Job(str(make_double(tmp_path, "litert")), "litert", runs=10, profile=True))
    assert result.measurement is not None
    assert result.operators == ()
    assert "not available with this ai-edge-litert (9.0.0)" in result.reason


def test_a_process_that_crashes_is_a_row_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import threading, time, os, signal, sys\n"
        "def crash():\n"
        "    while 'ran the model' not in open(sys.orig_argv[-1]).read(): time.sleep(0.01)\n"
        "    os.kill(os.getpid(), signal.SIGSEGV)\n"
        "if 'edgeml_runtimes.measured' in sys.orig_argv:\n"
        "    threading.Thread(target=crash, daemon=True).start()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    result = measure(Job(str(make_double(tmp_path, "litert")), "litert", seconds=60))
    assert result.measurement is None
    assert "litert crashed (SIGSEGV) while it ran the model" in result.reason


def test_a_process_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    begun = time.monotonic()
    result = measure(Job(str(make_double(tmp_path, "litert")), "litert", seconds=60, timeout_s=1.0))
    assert "did not end within 1 s and was killed" in result.reason
    assert time.monotonic() - begun < 45


def test_ctrl_c_kills_the_process_that_measures(tmp_path: Path) -> None:
    model = make_double(tmp_path, "litert")
    bench = subprocess.Popen(
        [*BENCH, str(model), "--seconds", "60"], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    child = _child_of(bench.pid)
    bench.send_signal(signal.SIGINT)
    assert bench.wait(60) == 130
    assert gone(child)


def _child_of(pid: int) -> int:
    place = Path(f"/proc/{pid}/task/{pid}/children")
    return int(eventually(lambda: place.read_text().split(), "a process is started")[0])
