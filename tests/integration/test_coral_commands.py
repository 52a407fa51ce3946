"""``edgeml coral check`` and ``inspect`` as typed, on real models and what the real compiler made of them."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from edgeml_converters.cli.coral import coral
from edgeml_converters.convert import convert
from edgeml_converters.coral.inspect import inspect_file

from edgeml.errors import ModelFileError

pytestmark = pytest.mark.data
DEEPLAB = "google-coral__deeplabv3_mnv2_dm05_pascal_quant__cdc17e7"
TOGETHER = ("s123600g__ASR_Model1__628f885", "s123600g__ASR_Model5__628f885")
ALONE = "hanchanghun__dummy__ec84668"


@pytest.fixture
def folder(data_dir: Path) -> Path:
    return data_dir / "edgetpu_pairs"


def said(*arguments: str | Path) -> str:
    done = CliRunner().invoke(coral, [str(one) for one in arguments], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def answer(*arguments: str | Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(said(*arguments, "--json"))
    return found


def test_check_prints_each_operator_and_what_to_change(folder: Path) -> None:
    text = said("check", folder / f"{DEEPLAB}.tflite")
    assert "64 of 72 operators run on the Edge TPU in 1 subgraph, 8 on the CPU" in text
    assert "first split: operator 64 (RESIZE_BILINEAR): it resizes by 33 in y" in text
    assert "More than one subgraph is not supported" in text
    assert "65–69 operator 64 (RESIZE_BILINEAR) ends the part on the Edge TPU" in text
    assert "on chip, 0 B streamed (fits: they stay on the chip)" in text


def test_check_answers_machines_with_the_same(folder: Path) -> None:
    found = answer("check", folder / f"{DEEPLAB}.tflite")
    assert set(found) == {
        "schema", "operators", "mapped", "total", "subgraphs", "parameters", "rewritten", "cut",
    }  # fmt: skip
    assert (found["schema"], found["mapped"], found["total"], found["subgraphs"]) == (1, 64, 72, 1)
    assert set(found["parameters"]) == {"total_bytes", "on_chip_bytes", "streamed_bytes", "verdict"}
    assert found["parameters"]["verdict"] == "fits"
    assert found["operators"][0] == {
        "index": 0,
        "name": "CONV_2D",
        "placement": "tpu",
        "reason": "Mapped to Edge TPU",
        "remedy": None,
    }
    assert found["operators"][71]["reason"] == "Operation not supported"
    assert found["operators"][71]["remedy"].startswith("the Edge TPU has no ARG_MAX")


def test_a_float_model_is_mapped_once_it_is_int8(data_dir: Path, tmp_path: Path) -> None:
    model, data = data_dir / "ic" / "pretrainedResnet.tflite", tmp_path / "data.npz"
    text = said("check", model)
    assert "0 of 16 operators run on the Edge TPU" in text
    assert "the model is not quantized: give --calibration" in text
    np.savez(data, x=np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype(np.float32))
    assert "16 of 16 operators run on the Edge TPU" in said("check", model, "--calibration", f"{data}:x")


@pytest.mark.worker("onnx2tf")
def test_a_model_of_another_format_is_made_int8_tflite_first(data_dir: Path) -> None:
    assert "14 of 14 operators run on the Edge TPU" in said("check", data_dir / "kws" / "kws_float.onnx")


def test_the_picture_shows_each_operator_where_it_runs(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "deeplab.svg"
    said("check", folder / f"{DEEPLAB}.tflite", "--picture", target)
    drawn = ET.parse(target).getroot()  # noqa: S314 - our own drawing
    space = "{http://www.w3.org/2000/svg}"
    boxes = drawn.findall(f".//{space}rect")
    assert Counter(box.attrib["class"] for box in boxes) == {"tpu": 64, "cpu": 8}
    assert len({(box.attrib["x"], box.attrib["y"]) for box in boxes}) == 72
    for box in boxes:
        assert float(box.attrib["x"]) + float(box.attrib["width"]) <= float(drawn.attrib["width"])
        assert float(box.attrib["y"]) + float(box.attrib["height"]) <= float(drawn.attrib["height"])
    titles = [str(title.text) for title in drawn.findall(f".//{space}title")]
    assert "71 ARG_MAX: Operation not supported" in titles


def test_the_report_of_a_conversion_for_coral_has_the_picture(data_dir: Path, tmp_path: Path) -> None:
    samples = np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype(np.float32)
    model = data_dir / "ic" / "pretrainedResnet.tflite"
    options = {"calibration": samples, "schemes": "int8_static", "measure": False, "output": tmp_path}
    result = convert(model, targets="coral-usb", io_dtype="float32", compile_edgetpu=False, **options)
    page = str(result.report.read_text()) if result.report is not None else ""
    assert "<h2>On the Edge TPU</h2>" in page
    assert "<strong>16 of 18</strong> operators run on the Edge TPU" in page
    assert page.count('<rect class="tpu"') == 16
    assert page.count('<rect class="cpu"') == 2
    assert "://" not in page


def test_check_sends_a_compiled_file_to_inspect(folder: Path) -> None:
    done = CliRunner().invoke(coral, ["check", str(folder / f"{ALONE}_edgetpu.tflite")])
    assert isinstance(done.exception, ModelFileError)
    assert "edgeml coral inspect" in str(done.exception)


def test_check_needs_no_engine(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from edgeml_converters.coral.check import check_file;"
        "check_file(Path(sys.argv[1])).to_json();"
        "print([one for one in ('tensorflow', 'ai_edge_litert', 'numpy', 'onnx') if one in sys.modules])"
    )
    path = folder / f"{DEEPLAB}.tflite"
    done = subprocess.run([sys.executable, "-c", code, path], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_inspect_reads_what_the_compiler_wrote(folder: Path) -> None:
    with (folder / "manifest.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert len(rows) >= 50
    for row in rows:
        found = inspect_file(folder / f"{row['id']}_edgetpu.tflite")
        assert found.on_chip_bytes == int(row["on_chip_param_bytes"]), row["id"]
        assert found.streamed_bytes == int(row["off_chip_param_bytes"]), row["id"]
        assert found.min_runtime == int(row["min_runtime"]), row["id"]
        assert len(found.packages) == int(row["edgetpu_custom_ops"]), row["id"]
        assert max(one.tile_bytes for one in found.executables) == int(row["used_narrow_bytes_per_tile"])
        assert int(row["caching_token"]) in found.caching_tokens, row["id"]
        assert len(found.on_cpu) == int(row["total_ops"]) - int(row["expected_mapped_ops"]), row["id"]


def test_inspect_tells_models_that_were_compiled_together(folder: Path) -> None:
    together = [folder / f"{name}_edgetpu.tflite" for name in TOGETHER]
    assert answer("inspect", *together)["co_compiled"] is True
    assert "compiled together" in said("inspect", *together)
    assert answer("inspect", together[0], folder / f"{ALONE}_edgetpu.tflite")["co_compiled"] is False
    assert answer("inspect", together[0])["co_compiled"] is None


def test_inspect_describes_inputs_outputs_and_executables(folder: Path) -> None:
    (found,) = answer("inspect", folder / f"{ALONE}_edgetpu.tflite")["files"]
    assert found["min_runtime"] == 14
    assert found["parameters"] == {"on_chip_bytes": 16320, "streamed_bytes": 0}
    execution, caching = found["executables"]
    assert (execution["kind"], caching["kind"]) == ("execution_only", "parameter_caching")
    assert execution["caching_token"] == caching["caching_token"] == found["caching_tokens"][0]
    assert [(one["name"], one["shape"], one["dtype"]) for one in execution["inputs"]] == [
        ("serving_default_input_1:0", [24, 24, 1360], "uint8")
    ]
    text = said("inspect", folder / f"{ALONE}_edgetpu.tflite")
    assert "StatefulPartitionedCall:0  uint8 24×24×1360" in text


def test_inspect_says_where_nothing_runs_on_the_edge_tpu(folder: Path) -> None:
    assert "nothing in it runs on the Edge TPU" in said("inspect", folder / f"{ALONE}.tflite")
