"""Our int8 artifacts against those of the engines' own quantizers, side by side in one run, one thread."""

from __future__ import annotations

import contextlib
import io
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import pytest

from edgeml import plugins
from edgeml.arrays import Array
from tests.benchmarks import stock_quantizers
from tests.integration import quantize_models as models
from tests.integration.quantize_models import only, outputs, run_step, sqnr, top1

pytestmark = pytest.mark.data

SQNR_LOSS_MAX_DB = 1.0
LATENCY_MAX = 1.05
ROUNDS, RUNS = 15, 200
"""Rounds in which all artifacts are timed in turn; the median of the rounds' medians counts."""


def latency(runtime: str, artifacts: Mapping[str, Path], sample: Array) -> dict[str, float]:
    """Microseconds of one call, taken in turns."""
    with contextlib.ExitStack() as stack:
        sessions = {
            name: stack.enter_context(plugins.runtime(runtime).load(path)) for name, path in artifacts.items()
        }
        fed = {name: {session.inputs[0].name: sample} for name, session in sessions.items()}
        found: dict[str, list[float]] = {name: [] for name in sessions}
        for _ in range(ROUNDS):
            for name, session in sessions.items():
                times = []
                for _ in range(RUNS):
                    start = time.perf_counter()
                    session.run(fed[name])
                    times.append(time.perf_counter() - start)
                found[name].append(median(times))
    return {name: 1e6 * median(times) for name, times in found.items()}


@pytest.mark.parametrize(
    ("runtime", "file"),
    [("litert", "kws_float.tflite"), ("onnxruntime", "kws_float.onnx"), ("openvino", "kws_float.onnx")],
)
def test_keyword_spotting(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], runtime: str, file: str
) -> None:
    task, source = models.kws(data_dir), data_dir / "kws" / file
    if runtime == "openvino":
        source = run_step("onnx-to-openvino", source, tmp_path / "ir").artifact
    ours = run_step(f"{runtime}-int8-static", source, tmp_path / "ours", task.calibration).artifact
    theirs = stock(runtime, source, tmp_path, task.calibration.arrays)
    reference = only(outputs(runtime, source, task.evaluation))
    artifacts = {"ours": ours, **theirs}
    made = {name: only(outputs(runtime, path, task.evaluation)) for name, path in artifacts.items()}
    times = latency(runtime, artifacts, task.evaluation[0])
    with capsys.disabled():
        print(f"\n{runtime}: float {100 * top1(reference, task.labels):.1f} %")
        for name, value in made.items():
            print(
                f"  {name:34} {100 * top1(value, task.labels):.1f} %  {sqnr(reference, value):5.1f} dB  "
                f"{times[name]:6.1f} µs  {artifacts[name].stat().st_size // 1000} KB"
            )
    best = max(theirs, key=lambda name: sqnr(reference, made[name]))
    assert abs(top1(made["ours"], task.labels) - top1(reference, task.labels)) <= 0.004 + 1e-9
    assert sqnr(reference, made["ours"]) >= sqnr(reference, made[best]) - SQNR_LOSS_MAX_DB
    assert times["ours"] <= LATENCY_MAX * times[best]


def stock(runtime: str, source: Path, folder: Path, arrays: Sequence[Array]) -> dict[str, Path]:
    """Quantize with each stock tool; one more where the tensorflow worker is there."""
    made: dict[str, Path] = {}
    with contextlib.redirect_stdout(io.StringIO()), stock_quantizers.quiet():
        for place, (label, make) in enumerate(stock_quantizers.QUANTIZERS[runtime].items()):
            made[label] = folder / f"stock-{place}{stock_quantizers.SUFFIXES[runtime]}"
            make(source, made[label], "input_1", arrays)
    worker = stock_quantizers.tensorflow_worker()
    if runtime == "litert" and worker is not None:
        made["TFLiteConverter"] = folder / "converter.tflite"
        np.save(folder / "calibration.npy", np.concatenate(arrays))
        saved_model = source.parent / "kws_ref_model"
        arguments = [saved_model, folder / "calibration.npy", made["TFLiteConverter"]]
        command = [str(worker), "-c", stock_quantizers.CONVERTER, *map(str, arguments)]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
    return made


@pytest.mark.parametrize(
    ("runtime", "reduce_range"),
    [
        pytest.param("litert", False, marks=pytest.mark.worker("onnx2tf")),
        ("onnxruntime", False),
        ("onnxruntime", True),
        ("openvino", False),
        ("openvino", True),
    ],
)
def test_mobilenet_v2_keeps_its_accuracy(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], runtime: str, reduce_range: bool
) -> None:
    task, source = models.mobilenet(data_dir), data_dir / "mobilenet" / "mobilenet_v2_1.0_224_float.onnx"
    if runtime != "onnxruntime":
        route = {"litert": "onnx-to-tflite", "openvino": "onnx-to-openvino"}[runtime]
        source = run_step(route, source, tmp_path / "real").artifact
    ours = run_step(
        f"{runtime}-int8-static", source, tmp_path / "ours", task.calibration, reduce_range=reduce_range
    ).artifact
    reference = only(outputs(runtime, source, task.evaluation))
    made = only(outputs(runtime, ours, task.evaluation))
    with capsys.disabled():
        bits = ", 7 bits" if reduce_range else ""
        print(
            f"\n{runtime}{bits}: MobileNetV2 float {100 * top1(reference, task.labels):.1f} %, "
            f"int8 {100 * top1(made, task.labels):.1f} %, {sqnr(reference, made):.1f} dB"
        )
    assert top1(reference, task.labels) - top1(made, task.labels) <= 0.005 + 1e-9


@pytest.mark.parametrize("runtime", ["litert", "openvino"])
def test_resnet_8_keeps_its_accuracy(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], runtime: str
) -> None:
    task, source = models.ic(data_dir), data_dir / "ic" / "pretrainedResnet.tflite"
    if runtime == "openvino":
        source = run_step("tflite-to-openvino", source, tmp_path / "real").artifact
    ours = run_step(f"{runtime}-int8-static", source, tmp_path / "ours", task.calibration).artifact
    reference = only(outputs(runtime, source, task.evaluation))
    made = only(outputs(runtime, ours, task.evaluation))
    with capsys.disabled():
        print(
            f"\n{runtime}: ResNet-8 float {100 * top1(reference, task.labels):.1f} %, "
            f"int8 {100 * top1(made, task.labels):.1f} %, {sqnr(reference, made):.1f} dB"
        )
    assert top1(reference, task.labels) - top1(made, task.labels) <= 0.003 + 1e-9
