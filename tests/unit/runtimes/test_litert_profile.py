"""LiteRT's operator times: what is named and timed, and what happens where its profiler cannot be had."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from edgeml_runtimes import litert_profile
from edgeml_runtimes.litert import LiteRT, LiteRTOptions

from edgeml.arrays import Array
from edgeml.errors import EngineError, EngineVersionError, InferenceError, InputNameError, ModelFileError
from edgeml.runtime import Profiler
from edgeml.testing.models import WIDTH, make_crossed, make_double

RUNS = 3
CHILD = "edgeml_runtimes.litert_profile"


@pytest.fixture
def keywords(data_dir: Path) -> Path:
    return data_dir / "kws" / "kws_ref_model_int8.tflite"


def _sample(model: Path) -> dict[str, Array]:
    with LiteRT().load(model) as session:
        return {
            spec.name: np.zeros([side or 1 for side in spec.shape], spec.dtype) for spec in session.inputs
        }


def test_litert_is_a_profiler() -> None:
    assert isinstance(LiteRT(), Profiler)


@pytest.mark.data
def test_what_xnnpack_runs_is_told_with_its_precision_and_apart_from_what_it_leaves(keywords: Path) -> None:
    found = LiteRT().profile(keywords, _sample(keywords), runs=RUNS)
    kinds = [operator.kind for operator in found]
    assert kinds[0] == "Convolution (NHWC, QC8) IGEMM · XNNPACK"
    assert [kind for kind in kinds if kind.endswith("built-in")] == [
        "AVERAGE_POOL_2D · built-in",
        "SOFTMAX · built-in",
    ]
    # the pooling in between makes two parts of what XNNPACK runs
    assert {name.split(":")[0] for name in (o.name for o in found) if name.startswith("xnnpack ")} == {
        "xnnpack 0",
        "xnnpack 1",
    }
    assert len({operator.name for operator in found}) == len(found)


@pytest.mark.data
def test_without_xnnpack_every_operator_has_the_name_of_the_tensor_it_writes(keywords: Path) -> None:
    options = LiteRTOptions(xnnpack=False)
    found = LiteRT().profile(keywords, _sample(keywords), options, runs=RUNS)
    with LiteRT().load_tapped(keywords, options) as session:
        assert [operator.name for operator in found] == [spec.name for spec in session.outputs]
    assert all(operator.kind.endswith(" · built-in") for operator in found)


@pytest.mark.data
def test_the_slower_kernels_are_seen_to_be_slower(keywords: Path) -> None:
    """Built-in kernels need some seven times as long for this model."""

    def least_us(options: LiteRTOptions) -> float:
        """What others do on the machine only ever adds."""
        profiles = [LiteRT().profile(keywords, _sample(keywords), options, runs=5) for _ in range(6)]
        return min(sum(operator.mean_us for operator in found) for found in profiles)

    assert 0 < 2 * least_us(LiteRTOptions()) < least_us(LiteRTOptions(xnnpack=False))


@pytest.mark.data
def test_float_callers_of_a_quantized_model_are_served(keywords: Path) -> None:
    inputs = {name: array.astype(np.float32) for name, array in _sample(keywords).items()}
    assert LiteRT().profile(keywords, inputs, runs=RUNS)


@pytest.mark.data
def test_a_model_without_signature_can_be_profiled(data_dir: Path) -> None:
    model = data_dir / "coral" / "mobilenet_v1_0.25_128_quant.tflite"
    assert len(LiteRT().profile(model, _sample(model), runs=1)) > 20


def test_a_free_batch_is_profiled_in_the_size_given(tmp_path: Path) -> None:
    model = make_double(tmp_path, "litert", batch=None)
    large, *small = (
        LiteRT().profile(model, {"x": np.zeros((size, WIDTH), np.float32)}, runs=RUNS)[0]
        for size in (500_000, 1, 1, 1, 1, 1)
    )
    assert {one.name for one in small} == {large.name}
    assert large.mean_us > 10 * min(one.mean_us for one in small)


def test_wrong_inputs_and_files_are_refused_as_in_a_session(tmp_path: Path) -> None:
    model = make_crossed(tmp_path, "litert")
    with pytest.raises(InputNameError, match="right"):
        LiteRT().profile(model, {"left": np.zeros((1, WIDTH), np.float32)})
    with pytest.raises(ModelFileError, match="none"):
        LiteRT().profile(tmp_path / "none.tflite", {})


def test_the_engine_s_own_log_stays_off_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = make_crossed(tmp_path, "litert")
    inputs = _sample(model)
    capfd.readouterr()
    LiteRT().profile(model, inputs, runs=1)
    assert capfd.readouterr() == ("", "")


def test_other_versions_are_not_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_crossed(tmp_path, "litert")
    inputs = _sample(model)
    monkeypatch.setattr(litert_profile, "version", lambda _: "2.10.0")
    with pytest.raises(EngineVersionError, match=r"not available with this ai-edge-litert \(2\.10\.0\)"):
        LiteRT().profile(model, inputs)


def test_a_crash_inside_the_library_is_an_error_of_the_caller_not_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        f"import os, signal, sys\nif {CHILD!r} in sys.orig_argv:\n    os.kill(os.getpid(), signal.SIGSEGV)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    model = make_crossed(tmp_path, "litert")
    with pytest.raises(InferenceError, match=r"LiteRT's profiler crashed \(SIGSEGV\)"):
        LiteRT().profile(model, _sample(model))


def test_a_library_without_the_functions_is_an_error_that_names_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import ctypes, sys\n"
        f"if {CHILD!r} in sys.orig_argv:\n"
        "    real = ctypes.CDLL\n"
        "    ctypes.CDLL = lambda path: real('libm.so.6' if path else None)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    model = make_crossed(tmp_path, "litert")
    with pytest.raises(InferenceError, match=r"libLiteRt\.so has no LiteRtCreateEnvironment"):
        LiteRT().profile(model, _sample(model))


def test_a_profiler_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_crossed(tmp_path, "litert")
    inputs = _sample(model)
    monkeypatch.setattr(litert_profile, "TIMEOUT_S", 1.0)
    begun = time.monotonic()
    with pytest.raises(InferenceError, match="did not end within 1 s"):
        LiteRT().profile(model, inputs, runs=10**9)
    assert time.monotonic() - begun < 60


def test_events_of_another_size_are_refused() -> None:
    events = (litert_profile.Event * 4)()
    events[0].tag, events[0].event_type = b"ADD", 2
    assert litert_profile.checked_events(events, 1, took_us=1.0)
    ctypes.memset(ctypes.addressof(events) + ctypes.sizeof(litert_profile.Event), 1, 8)
    with pytest.raises(EngineError, match="larger than expected"):
        litert_profile.checked_events(events, 1, took_us=1.0)


def test_events_that_take_longer_than_the_run_are_refused() -> None:
    events = (litert_profile.Event * 2)()
    events[0].tag, events[0].event_type, events[0].elapsed_us = b"ADD", 2, 11
    with pytest.raises(EngineError, match="not of the expected layout"):
        litert_profile.checked_events(events, 1, took_us=10.0)


@pytest.mark.parametrize("after_s", [0.0, 1.0], ids=["as it starts", "while it runs the model"])
def test_the_process_ends_with_the_one_that_asked(tmp_path: Path, after_s: float) -> None:
    model = make_crossed(tmp_path, "litert")
    program = (
        "import sys, numpy, pathlib\n"
        "from edgeml_runtimes.litert import LiteRT\n"
        f"zeros = numpy.zeros((1, {WIDTH}), 'float32')\n"
        "LiteRT().profile(pathlib.Path(sys.argv[1]), {'left': zeros, 'right': zeros}, runs=10**9)\n"
    )
    caller = subprocess.Popen(
        [sys.executable, "-c", program, str(model)], env=os.environ | {"TMPDIR": str(tmp_path)}
    )
    child = _child_of(caller.pid)
    time.sleep(after_s)
    assert _is_there(child)
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    deadline = time.monotonic() + 60
    while _is_there(child):
        assert time.monotonic() < deadline, "the process is still there"
        time.sleep(0.02)


def _child_of(pid: int) -> int:
    place = Path(f"/proc/{pid}/task/{pid}/children")
    deadline = time.monotonic() + 60
    while not (found := place.read_text().split()):
        assert time.monotonic() < deadline, "no process was started"
        time.sleep(0.02)
    return int(found[0])


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
