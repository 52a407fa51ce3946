"""Calibration with 1,000 MobileNetV2 images: at most 1 GB for the whole process, whatever the method."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.quantize_models import run_step

pytestmark = pytest.mark.data

COUNT = 1000
PEAK_MAX_BYTES = 1_000_000_000
CHILD = """
import json, resource, sys, time
from pathlib import Path
from tests.integration import quantize_models as models
name, source, folder, data, method, count = sys.argv[1:]
files = tuple(path for path, _ in models.mobilenet_rows(Path(data)))
start = time.perf_counter()
models.run_step(name, Path(source), Path(folder), models.Images(files, int(count)), method=method)
print(json.dumps({
    "seconds": time.perf_counter() - start,
    "bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
}))
"""


@pytest.mark.parametrize(
    ("runtime", "method"),
    [
        ("onnxruntime", "default"),
        ("onnxruntime", "minmax"),
        ("onnxruntime", "percentile"),
        ("openvino", "default"),
        ("openvino", "percentile"),
        pytest.param("litert", "default", marks=pytest.mark.worker("onnx2tf")),
        pytest.param("litert", "minmax", marks=pytest.mark.worker("onnx2tf")),
    ],
)
def test_a_thousand_images_fit_in_one_gigabyte(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], runtime: str, method: str
) -> None:
    source = data_dir / "mobilenet" / "mobilenet_v2_1.0_224_float.onnx"
    if runtime == "openvino":
        source = run_step("onnx-to-openvino", source, tmp_path / "ir").artifact
    elif runtime == "litert":
        source = run_step("onnx-to-tflite", source, tmp_path / "tflite").artifact
    name, folder = f"{runtime}-int8-static", tmp_path / "made"
    done = subprocess.run(
        [sys.executable, "-c", CHILD, name, str(source), str(folder), str(data_dir), method, str(COUNT)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    with capsys.disabled():
        print(f"\n{runtime} {method}: {found['bytes'] / 1e6:.0f} MB, {found['seconds']:.0f} s")
    assert found["bytes"] <= PEAK_MAX_BYTES
