"""From a real model to a bundle: what the user gets, and what is said when something is missing."""

import hashlib
import importlib.metadata
import json
import re
from dataclasses import fields

import numpy as np
import pytest
from click.testing import CliRunner
from edgeml_converters.convert import convert
from edgeml_converters.variants.request import Request

import edgeml
from edgeml.bundle import open_bundle
from edgeml.cli import main
from edgeml.data import DataDeclaration
from edgeml.engines import Engine, version_fits
from edgeml.errors import DataError, EngineVersionError, GateError, UsageError
from edgeml.preprocess import Preprocess

pytestmark = pytest.mark.data
KWS = Preprocess(zero_point=83, scale=0.5847029)


@pytest.fixture
def kws(data_dir):
    return data_dir / "kws"


def options(kws, **changed):
    return {
        "calibration": DataDeclaration(f"{kws / 'data.npz'}:calib_q"),
        "evaluation": DataDeclaration(f"{kws / 'data.npz'}:test_q,test_y"),
        "preprocess": KWS,
        "runtimes": ("litert", "openvino"),
        "measure": False,
        **changed,
    }


@pytest.fixture(scope="module")
def converted(data_dir, tmp_path_factory):
    """The keyword-spotting model, converted once and measured."""
    folder = tmp_path_factory.mktemp("converted")
    kws = data_dir / "kws"
    result = convert(
        kws / "kws_float.tflite",
        **options(kws, measure=True, output=folder, name="kws", runtimes=("litert",)),
    )
    return result, folder


def test_a_bundle_holds_measured_variants_golden_samples_card_and_record(converted):
    result, folder = converted
    bundle = open_bundle(folder / "kws-1.edgeml")
    bundle.verify()
    manifest = bundle.manifest
    assert {variant.name for variant in manifest.variants} == {"litert-float32", "litert-int8_static"}
    for variant in manifest.variants:
        assert variant.measured.accuracy >= 0.924
        assert version_fits(importlib.metadata.version("ai-edge-litert"), variant.runtime_version)
        assert not version_fits("2.0", variant.runtime_version)
        assert not version_fits("3.0", variant.runtime_version)
        assert variant.measured.latency_ms.p50 > 0
        assert variant.measured.peak_memory_bytes > 0
        assert variant.golden.path in bundle.names
        assert variant.tolerance.max_abs > 0
    assert [entry.role for entry in manifest.data] == ["calibration", "evaluation"]
    assert [entry.count for entry in manifest.data] == [100, 500]
    assert {"record.json", "README.md", "golden/inputs.npz"} <= set(bundle.names)
    record = json.loads(bundle.read("record.json"))
    assert record["reference"]["value"] == pytest.approx(0.928)
    assert "/" not in record["source"]["path"]
    assert "Chosen" in bundle.read("README.md").decode()
    assert result.choices[0].variant in result.choices[0].reason


def test_the_device_loads_the_chosen_variant_and_repeats_the_golden_samples(converted):
    result, folder = converted
    bundle = open_bundle(folder / "kws-1.edgeml")
    model = edgeml.load(folder / "kws-1.edgeml")
    assert model.variant == result.choices[0].variant
    (variant,) = [one for one in bundle.manifest.variants if one.name == model.variant]
    files = bundle.extract(folder / "extracted")
    with np.load(files / "golden/inputs.npz") as inputs, np.load(files / variant.golden.path) as outputs:
        for index in range(8):
            made = model.run({name: inputs[name][index : index + 1] for name in inputs.files})
            for name in outputs.files:
                np.testing.assert_allclose(
                    made[name], outputs[name][index : index + 1], atol=variant.tolerance.max_abs
                )


def test_a_device_whose_engine_is_older_is_told_what_it_needs(converted, monkeypatch):
    _, folder = converted
    monkeypatch.setattr(
        "edgeml.choice.engine",
        lambda name: Engine(name, "ai-edge-litert", ">=2.0", "2.0.1", "pip install it"),
    )
    wanted = open_bundle(folder / "kws-1.edgeml").manifest.variants[0].runtime_version
    with pytest.raises(EngineVersionError) as caught:
        edgeml.load(folder / "kws-1.edgeml")
    assert f"needs ai-edge-litert {wanted}, 2.0.1 is here: pip install it" in str(caught.value)


def test_the_report_is_one_file_that_asks_nobody(converted):
    _, folder = converted
    page = (folder / "report.html").read_text()
    for picture in ("top1 against latency", "Parity of each step", "Calibrated ranges"):
        assert f"<h2>{picture}</h2>" in page
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!#)""", page)
    assert not re.search(r"url\((?!#)", page)
    assert "litert-int8_static" in page
    assert "92.8 %" in page


def test_the_record_holds_every_option_and_the_result_is_shown_in_one_line(converted):
    result, folder = converted
    options = json.loads(open_bundle(folder / "kws-1.edgeml").read("record.json"))["options"]
    assert options.keys() == {field.name for field in fields(Request)} - {"source"}
    assert (options["name"], options["release"], options["metric"]) == ("kws", 1, "top1")
    assert {row.name for row in result.variants} == {"litert-float32", "litert-int8_static"}
    assert repr(result).startswith("<ConvertResult: 2 of 2 variants, litert-")
    assert len(repr(result)) < 400


def test_arrays_and_texts_do_in_place_of_declarations(kws):
    with np.load(kws / "data.npz") as data:
        evaluation = data["test_q"], data["test_y"]
        result = convert(
            kws / "kws_float.tflite",
            targets="x86-64-v3",
            runtimes="litert",
            schemes="float32",
            evaluation=evaluation,
            preprocess="zero_point=83 scale=0.5847029",
            measure=False,
        )
    (row,) = result.rows
    assert row.measured.accuracy == pytest.approx(0.928)


def test_json_has_the_documented_shape(kws, tmp_path):
    arguments = ["convert", str(kws / "kws_float.tflite"), "--json", "--no-measure", "-o", str(tmp_path)]
    arguments += ["--evaluate", f"{kws / 'data.npz'}:test_q,test_y", "--runtime", "litert"]
    arguments += ["--preprocess", "zero_point=83", "--preprocess", "scale=0.5847029", "--scheme", "float32"]
    done = CliRunner().invoke(main, [*arguments, "--scheme", "int8_static"])
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["schema"] == 1
    assert document["bundle"] == str(tmp_path / "kws_float-1.edgeml")
    sha256 = hashlib.sha256((kws / "kws_float.tflite").read_bytes()).hexdigest()
    assert document["source"]["sha256"] == sha256
    made, lacking = document["variants"]
    assert list(made) == [
        "name", "runtime", "scheme", "targets", "file", "accelerator", "mapping", "size_bytes", "metric",
        "accuracy", "float_accuracy",
        "drop_points", "sqnr_db", "latency_ms", "load_ms", "peak_memory_bytes", "measured_on", "status",
        "reason",
    ]  # fmt: skip
    assert (made["status"], made["accuracy"], made["drop_points"]) == ("ok", 0.928, 0.0)
    assert (lacking["status"], lacking["file"]) == ("unavailable", None)
    assert "needs calibration data" in lacking["reason"]


def test_progress_counts_variants_and_is_plain_lines_where_no_terminal_is(kws, tmp_path):
    arguments = [
        "convert",
        str(kws / "kws_float.tflite"),
        "--no-measure",
        "-o",
        str(tmp_path),
        "--limit",
        "40",
    ]
    arguments += ["--runtime", "litert", "--calibration", f"{kws / 'data.npz'}:calib_q"]
    done = CliRunner().invoke(main, [*arguments, "--preprocess", "zero_point=83 scale=0.5847029"])
    assert done.exit_code == 0, done.stderr
    lines = done.stderr.splitlines()
    assert lines[0] == "read the source"
    assert "variant 2/2, litert-int8_static: litert-int8-static" in lines
    assert [entry.count for entry in open_bundle(tmp_path / "kws_float-1.edgeml").manifest.data] == [40]


def test_labels_are_an_option_of_their_own(kws, tmp_path):
    with np.load(kws / "data.npz") as data:
        np.save(tmp_path / "x.npy", data["test_q"])
        np.save(tmp_path / "y.npy", data["test_y"])
    arguments = ["convert", str(kws / "kws_float.tflite"), "--no-measure", "--json", "-o", str(tmp_path)]
    arguments += ["--runtime", "litert", "--preprocess", "zero_point=83 scale=0.5847029"]
    data = ["--evaluate", str(tmp_path / "x.npy"), "--labels", str(tmp_path / "y.npy")]
    done = CliRunner().invoke(main, [*arguments, *data])
    assert json.loads(done.stdout)["variants"][0]["accuracy"] == 0.928
    alone = CliRunner().invoke(main, [*arguments, *data[2:]])
    assert (alone.exit_code, "--labels is for data that were not given" in alone.stderr) == (2, True)
    image = CliRunner().invoke(main, [*arguments, "--evaluate", f"{tmp_path}:labels.csv"])
    assert "labels are given by themselves, with --labels labels.csv" in image.stderr


def test_a_second_run_takes_its_steps_from_the_cache(kws, tmp_path):
    first = convert(kws / "kws_float.tflite", **options(kws))
    second = convert(kws / "kws_float.tflite", **options(kws))
    assert any(step.cached is False for row in first.rows for step in row.steps)
    assert all(step.cached for row in second.rows for step in row.steps)
    assert [row.size_bytes for row in first.rows] == [row.size_bytes for row in second.rows]


def test_other_calibration_data_are_not_taken_from_the_cache(kws):
    convert(kws / "kws_float.tflite", **options(kws, runtimes=("litert",)))
    changed = DataDeclaration(f"{kws / 'data.npz'}:calib_q", limit=50)
    result = convert(kws / "kws_float.tflite", **options(kws, runtimes=("litert",), calibration=changed))
    (int8,) = [row for row in result.rows if row.scheme == "int8_static"]
    assert [step.cached for step in int8.steps] == [False]


def test_a_gate_that_nothing_holds_is_exit_code_3_and_says_why(kws):
    result = convert(kws / "kws_float.tflite", **options(kws, max_size_bytes=1000))
    assert {row.status for row in result.rows} == {"gate"}
    with pytest.raises(GateError, match="allowed 1,000 bytes"):
        result.require_variants()


def test_a_place_to_measure_on_that_nothing_leads_to_is_refused_before_anything_is_made(kws):
    told = []
    with pytest.raises(UsageError, match="no transport 'telnet'"):
        convert(kws / "kws_float.tflite", **options(kws, measure="telnet://board"), progress=told.append)
    assert not told


def test_this_machine_may_be_named_as_the_one_that_measures(kws):
    result = convert(kws / "kws_float.tflite", runtimes="litert", measure="host")
    assert all(row.measured.latency_ms for row in result.variants)


@pytest.mark.parametrize(
    ("more", "exit_code", "says", "bundle"),
    [
        (("--max-size", "1k"), 3, "no variant holds the gates; nearest is litert-float32", False),
        (("--max-size", "1G"), 0, "", True),
        (("--target", "coral-usb", "--target", "host", "--runtime", "openvino"), 1, "coral-usb", True),
    ],
    ids=["gate", "held", "empty-target"],
)
def test_the_exit_code_says_how_it_ended(kws, tmp_path, more, exit_code, says, bundle):
    arguments = ["convert", str(kws / "kws_float.tflite"), "--no-measure", "-o", str(tmp_path)]
    runtime = () if "--runtime" in more else ("--runtime", "litert")
    done = CliRunner().invoke(main, [*arguments, *runtime, *more])
    assert done.exit_code == exit_code, done.stderr
    assert says in done.stderr
    assert (tmp_path / "kws_float-1.edgeml").exists() == bundle
    assert (tmp_path / "report.html").exists()


def test_calibration_at_another_scale_is_a_finding_in_result_and_report(kws, tmp_path):
    wrong = tmp_path / "wrong.npz"
    with np.load(kws / "data.npz") as data:
        np.savez(wrong, x=(data["calib_q"].astype(np.float32) - 83) * 0.5847029 / 255)
        right = (data["test_q"].astype(np.float32) - 83) * 0.5847029
        np.savez(tmp_path / "right.npz", x=right[:200], y=data["test_y"][:200])
    result = convert(
        kws / "kws_float.tflite",
        calibration=DataDeclaration(str(wrong)),
        evaluation=DataDeclaration(str(tmp_path / "right.npz")),
        runtimes=("litert",),
        measure=False,
        output=tmp_path / "out",
    )
    codes = {finding.code for finding in result.outcome.findings}
    assert "calibration-scale" in codes
    assert "calibration-scale" in (tmp_path / "out/report.html").read_text()
    (int8,) = [row for row in result.rows if row.scheme == "int8_static"]
    assert int8.status == "failed" or int8.drop_points > 1
    assert result.choices[0].variant == "litert-float32"


def test_forgotten_preprocessing_does_not_go_unnoticed(kws):
    result = convert(kws / "kws_float.tflite", **options(kws, preprocess=None, runtimes=("litert",)))
    codes = [finding["code"] for finding in result.to_json()["findings"]]
    assert codes.count("undeclared-integer-data") == 1
    assert {"undeclared-integer-data", "accuracy-near-chance"} <= set(codes)


def test_labels_that_are_missing_or_of_another_model_are_told(kws):
    unlabelled = DataDeclaration(f"{kws / 'data.npz'}:calib_q")
    result = convert(kws / "kws_float.tflite", **options(kws, evaluation=unlabelled, runtimes=("litert",)))
    (found,) = [one for one in result.to_json()["findings"] if one["code"] == "no-data"]
    assert "data.npz:x,y" in found["remedy"]
    with pytest.raises(UsageError, match=r"metric top1 needs labels.*data\.npz:x,y"):
        convert(kws / "kws_float.tflite", **options(kws, evaluation=unlabelled, metric="top1"))
    with pytest.raises(DataError, match=r"10 labels, output .* has 12"):
        convert(kws / "kws_float.tflite", **options(kws, label_names=["word"] * 10))


def test_class_names_of_other_folders_do_not_become_the_models_labels(data_dir, tmp_path):
    from PIL import Image

    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32), "red").save(tmp_path / "photos" / name / "1.png")
    result = convert(
        data_dir / "ic/pretrainedResnet.tflite",
        evaluation=tmp_path / "photos",
        preprocess="dtype=float32",
        runtimes="litert",
        measure=False,
        output=tmp_path / "out",
    )
    codes = {finding["code"] for finding in result.to_json()["findings"]}
    assert "label-count" in codes
    assert "undeclared-integer-data" not in codes
    assert open_bundle(result.bundle).manifest.labels is None


def test_an_int8_source_is_not_quantized_again(kws):
    result = convert(kws / "kws_ref_model_int8.tflite", **options(kws, runtimes=("litert",)))
    rows = {row.scheme: row for row in result.rows}
    assert rows["float32"].status == "unavailable"
    assert rows["int8_static"].status == "ok"
    assert rows["int8_static"].steps == ()


def test_a_scheme_that_has_nothing_for_the_model_is_not_called_a_failure(kws):
    result = convert(
        kws / "kws_float.onnx",
        **options(kws, runtimes=("onnxruntime",), schemes=("float32", "int8_dynamic"), measure=False),
    )
    status = {row.scheme: row.status for row in result.rows}
    assert status == {"float32": "ok", "int8_dynamic": "unavailable"}
    assert "matrix products only" in result.rows[1].reason


def test_two_targets_each_get_their_choice_and_foreign_latency_is_marked(kws):
    result = convert(
        kws / "kws_float.tflite",
        **options(kws, targets=("host", "raspberry-pi-4"), measure=True, runtimes=("litert",)),
    )
    host, board = result.choices
    assert not host.foreign_latency
    assert board.foreign_latency
    assert "not on raspberry-pi-4" in board.reason


def test_compare_names_no_divergence_between_formats(kws):
    arguments = ["compare", str(kws / "kws_float.onnx"), str(kws / "kws_float.tflite"), "--json"]
    arguments += ["--data", f"{kws / 'data.npz'}:test_q", "--preprocess", "zero_point=83 scale=0.5847029"]
    document = json.loads(CliRunner().invoke(main, arguments).stdout)
    assert document["samples"] == 500
    assert document["outputs"][0]["sqnr_db"] > 100
    assert document["outputs"][0]["top1_agreement"] == 1.0
    assert len(document["tensors"]) >= 10
    assert document["first_divergence"] is None


def test_compare_processes_no_random_samples(kws):
    arguments = ["compare", str(kws / "kws_float.onnx"), str(kws / "kws_float.tflite")]
    done = CliRunner().invoke(main, [*arguments, "--preprocess", "zero_point=83"])
    assert done.exit_code == 2
    assert "--preprocess is for --data" in done.stderr


def test_compare_says_in_its_own_words_that_two_models_are_strangers(kws, data_dir):
    other = data_dir / "ic/pretrainedResnet.tflite"
    done = CliRunner().invoke(main, ["compare", str(kws / "kws_float.tflite"), str(other)])
    assert done.exit_code == 1
    assert "kws_float.tflite and pretrainedResnet.tflite cannot be compared" in done.stderr
    assert "Give two files of one model" in done.stderr
    assert "convert from another format" not in done.stderr


def test_compare_names_the_first_tensor_that_diverges(kws, tmp_path):
    """One weight tensor in the middle of the network is scaled by 1.5."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(kws / "kws_float.onnx")
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    broken = convolutions[4]
    for tensor in model.graph.initializer:
        if tensor.name == broken.input[1]:
            tensor.CopyFrom(
                numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.5), tensor.name)
            )
    onnx.save(model, tmp_path / "broken.onnx")
    arguments = ["compare", str(kws / "kws_float.onnx"), str(tmp_path / "broken.onnx"), "--json"]
    document = json.loads(CliRunner().invoke(main, arguments).stdout)
    assert document["first_divergence"]["name"] == broken.output[0]


@pytest.mark.parametrize(
    ("file", "format_", "parameters", "macs"),
    [("kws_float.onnx", "onnx", 22_610, 2_656_768), ("kws_float.tflite", "tflite", 22_604, 2_656_768)],
)
def test_inspect_counts_parameters_and_macs(kws, file, format_, parameters, macs):
    done = CliRunner().invoke(main, ["inspect", str(kws / file), "--json"])
    document = json.loads(done.stdout)
    assert document["format"] == format_
    assert document["parameters"] == pytest.approx(parameters, rel=0.01)
    assert document["macs"] == macs
    assert sum(answer == "yes" for answer in document["runtimes"].values()) == 1
