"""`edgeml coral check` says within a second what a Coral runs of a model of 5 MB, Python's start included."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

ROUNDS = 7
BUDGET_S = 1.0
LAYERS = 100
CHANNELS = 80


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A convolution of 80 channels and two additions, a hundred times."""
    made: Any = schema.ModelT()
    made.version, made.buffers = 3, [schema.BufferT()]
    graph: Any = schema.SubGraphT()
    graph.tensors, graph.operators, graph.inputs = [], [], [0]
    kinds = (schema.BuiltinOperator.CONV_2D, schema.BuiltinOperator.ADD)
    made.operatorCodes = []
    for kind in kinds:
        code: Any = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = kind
        code.version = 1
        made.operatorCodes.append(code)

    def tensor(shape: list[int], data: bytes = b"") -> int:
        one: Any = schema.TensorT()
        one.shape, one.type, one.name = shape, schema.TensorType.INT8, f"t{len(graph.tensors)}".encode()
        if data:
            buffer: Any = schema.BufferT()
            buffer.data = list(data)
            one.buffer = len(made.buffers)
            made.buffers.append(buffer)
        graph.tensors.append(one)
        return len(graph.tensors) - 1

    def operator(code: int, inputs: list[int], shape: list[int]) -> int:
        one: Any = schema.OperatorT()
        one.opcodeIndex, one.inputs, one.outputs = code, inputs, [tensor(shape)]
        graph.operators.append(one)
        return int(one.outputs[0])

    shape = [1, 32, 32, CHANNELS]
    last = tensor(shape)
    for _ in range(LAYERS):
        weights = tensor([CHANNELS, 3, 3, CHANNELS], bytes(CHANNELS * 9 * CHANNELS))
        made_by = operator(0, [last, weights], shape)
        last = operator(1, [operator(1, [made_by, last], shape), last], shape)
    graph.outputs = [last]
    made.subgraphs = [graph]
    path = tmp_path / "model.tflite"
    flatbuffer_utils.write_model(made, str(path))
    return path


def test_five_megabytes_are_checked_within_a_second(model: Path) -> None:
    assert model.stat().st_size > 5_000_000
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        command = (sys.executable, "-m", "edgeml", "coral", "check", str(model), "--json")
        done = subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.perf_counter() - start)
    found = json.loads(done.stdout)
    assert (found["mapped"], found["total"]) == (3 * LAYERS, 3 * LAYERS)
    print(f"edgeml coral check: {statistics.median(seconds):.2f} s for {model.stat().st_size:,} bytes")
    assert statistics.median(seconds) <= BUDGET_S
