"""The report says where the time goes, before and after quantization."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgeml_converters.convert import convert
from edgeml_converters.evaluate import operators
from edgeml_converters.evaluate.latency import Job
from edgeml_converters.report.operators import by_type

from edgeml.words import RuntimeName
from tests.integration.optimiser import broken_int8


def record(folder: Path, runtime: RuntimeName, **options: Any) -> Any:
    samples, labels = broken_int8.held_out_digits()
    convert(
        broken_int8.DIGITS / ("digits.tflite" if runtime == "litert" else "digits.onnx"),
        runtimes=runtime,
        schemes=("float32", "float16", "int8_static"),
        calibration=np.concatenate(broken_int8.calibration_digits()),
        evaluation=(np.concatenate(samples), labels),
        output=folder / "out.edgeml",
        **options,
    )
    with zipfile.ZipFile(folder / "out.edgeml") as bundle:
        return json.loads(bundle.read("record.json"))


@pytest.mark.parametrize("runtime", ["litert", "onnxruntime", "openvino"])
def test_float32_and_int8_are_set_against_each_other(runtime: RuntimeName, tmp_path: Path) -> None:
    told = {one["name"]: one["operator_times"] for one in record(tmp_path, runtime)["variants"]}
    assert told[f"{runtime}-float16"] is None
    for name in (f"{runtime}-float32", f"{runtime}-int8_static"):
        assert told[name]["reason"] is None
        assert sum(one["count"] for one in told[name]["types"]) == len(told[name]["operators"]) > 2
        assert sum(one["share"] for one in told[name]["types"]) == pytest.approx(1.0)
    page = (tmp_path / "out.report.html").read_text().partition("Where the time goes")[2]
    table = page.partition("</table>")[0]
    for one in (*told[f"{runtime}-float32"]["types"], *told[f"{runtime}-int8_static"]["types"]):
        assert f">{one['kind']}</td>" in table


def test_no_operator_is_timed_where_nothing_is_measured(tmp_path: Path) -> None:
    made = record(tmp_path, "onnxruntime", measure=False)
    assert [one["operator_times"] for one in made["variants"]] == [None, None, None]
    assert "Where the time goes" not in (tmp_path / "out.report.html").read_text()


def test_a_file_that_cannot_be_profiled_says_why(tmp_path: Path) -> None:
    broken = tmp_path / "broken.tflite"
    broken.write_bytes((broken_int8.DIGITS / "digits.tflite").read_bytes()[:50_000])
    jobs = [
        Job("broken", "litert", broken, {}),
        Job("sound", "onnxruntime", broken_int8.DIGITS / "digits.onnx", {}),
    ]
    found = operators.profile(jobs, lambda _: None)
    assert found["broken"].operators == ()
    assert "broken.tflite" in found["broken"].reason
    assert {"Conv", "Gemm"} <= {one.kind for one in by_type(found["sound"].operators)}


def test_a_search_that_is_interrupted_there_keeps_its_variants_and_says_so(tmp_path: Path) -> None:
    samples, labels = broken_int8.held_out_digits()

    def stop(doing: str) -> None:
        if doing.startswith("time the operators"):
            raise KeyboardInterrupt

    result = convert(
        broken_int8.DIGITS / "digits.onnx",
        runtimes="onnxruntime",
        schemes="auto",
        calibration=np.concatenate(broken_int8.calibration_digits()),
        evaluation=(np.concatenate(samples), labels),
        output=tmp_path / "out.edgeml",
        progress=stop,
    )
    assert result.bundle is not None
    assert result.outcome.interrupted
    assert "search-interrupted" in {finding.code for finding in result.outcome.findings}
