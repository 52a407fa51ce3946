"""What `Session.run` costs over each engine's own fastest safe call, its checks included.

Both calls are timed alternately in one run on a model that does almost nothing, `y = 2 · x` on [1, 16].
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgeml import plugins
from edgeml.testing.models import make_double, make_quantized

ROUNDS, CALLS = 41, 300
"""Many short rounds: what else the machine does falls on both calls alike."""
BUDGET_US = 0.5
FLOAT_CALLER_BUDGET_US = 10.0
"""For quantizing 16 values and dequantizing 16."""
X = np.ones((1, 16), np.float32)

Call = Callable[[], object]


def litert(model: Path) -> Call:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(model), num_threads=1)
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]["index"]
    result = interpreter.get_output_details()[0]["index"]

    def call() -> object:
        interpreter.set_tensor(source, X)
        interpreter.invoke()
        return interpreter.get_tensor(result)

    return call


def onnxruntime(model: Path) -> Call:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    names = ["y"]
    return lambda: session.run(names, {"x": X})[0]


def openvino(model: Path) -> Call:
    import openvino as ov

    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    request = ov.Core().compile_model(str(model), "CPU", settings).create_infer_request()
    source, result = request.get_input_tensor().data, request.get_output_tensor().data

    def call() -> object:
        source[...] = X
        request.infer()
        return result.copy()

    return call


BARE = {"litert": litert, "onnxruntime": onnxruntime, "openvino": openvino}


def _microseconds(call: Call) -> float:
    begun = time.perf_counter_ns()
    for _ in range(CALLS):
        call()
    return (time.perf_counter_ns() - begun) / CALLS / 1e3


def _compare(first: Call, second: Call) -> tuple[float, float, float]:
    """Give the medians of both, and the median of their differences, in microseconds."""
    pairs = [(_microseconds(first), _microseconds(second)) for _ in range(ROUNDS + 1)][1:]
    return (
        statistics.median(one for one, _ in pairs),
        statistics.median(two for _, two in pairs),
        statistics.median(two - one for one, two in pairs),
    )


@pytest.mark.parametrize("name", BARE)
def test_a_session_costs_at_most_half_a_microsecond_over_the_bare_engine(name: str, tmp_path: Path) -> None:
    model = make_double(tmp_path, name)
    with plugins.runtime(name).load(model) as session:
        bare, ours, more = _compare(BARE[name](model), lambda: session.run({"x": X})["y"])
    print(f"{name}: bare {bare:.2f} us, session {ours:.2f} us, {more:+.2f} us")
    assert more <= BUDGET_US


@pytest.mark.parametrize("name", BARE)
def test_a_float_caller_of_an_int8_model_pays_little(name: str, tmp_path: Path) -> None:
    stored = np.ones((1, 16), np.int8)
    with plugins.runtime(name).load(make_quantized(tmp_path, name)) as session:
        exact, floats, more = _compare(
            lambda: session.run({"x": stored})["y"], lambda: session.run({"x": X})["y"]
        )
    print(f"{name}: int8 {exact:.2f} us, float {floats:.2f} us, {more:+.2f} us")
    assert more <= FLOAT_CALLER_BUDGET_US
