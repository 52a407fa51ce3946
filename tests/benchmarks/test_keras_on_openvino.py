"""A Keras model on OpenVINO against the same network that TensorFlow wrote as TFLite."""

import statistics
import sys
import time

import numpy as np
import pytest

from edgeml import plugins
from edgeml.converter import StepRequest

ROUNDS = 200
ALLOWED = 1.2


@pytest.mark.data
@pytest.mark.worker("keras")
def test_keras_runs_as_fast_as_its_tflite_counterpart(data_dir, tmp_path, capsys):
    """Both as float32 IR, in turns, one thread."""
    import openvino

    steps = {step.name: step for step in plugins.conversion_steps()}
    compiled = {}
    for name, file in (
        ("keras-to-openvino", "pretrainedResnet.h5"),
        ("tflite-to-openvino", "pretrainedResnet.tflite"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        made = steps[name].run(StepRequest(data_dir / "ic" / file, folder))
        compiled[name] = openvino.compile_model(made.artifact, "CPU", {"INFERENCE_NUM_THREADS": 1})
    image = np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3)).astype(np.float32)
    requests = {name: one.create_infer_request() for name, one in compiled.items()}
    seconds = {name: [] for name in requests}
    for _ in range(ROUNDS):
        for name, request in requests.items():
            started = time.perf_counter()
            request.infer([image])
            seconds[name].append(time.perf_counter() - started)
    keras, tflite = (statistics.median(seconds[name]) * 1000 for name in seconds)
    with capsys.disabled():
        sys.stdout.write(f"\nKeras {keras:.3f} ms, TFLite {tflite:.3f} ms: ×{keras / tflite:.2f}\n")
    assert keras / tflite <= ALLOWED
