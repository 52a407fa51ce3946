"""Bad input to ``edgeml convert``: one clear message on stderr, the right exit code, nothing left behind."""

import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from edgeml_converters.steps import worker_step
from edgeml_converters.workers.catalogue import interpreter
from onnx import TensorProto, helper

from edgeml.cli import main
from edgeml.testing.models import make_double
from tests.conftest import REPOSITORY

FORMATS = ("onnx", "tflite", "openvino", "savedmodel", "keras", "h5", "pt2")
LAMBDA = {"class_name": "Lambda", "module": "keras.layers", "config": {"name": "evil", "function": "…"}}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder for the test's own files, beside a scratch, a cache and an output that must stay clean."""
    for name in ("mine", "scratch", "cwd"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("EDGEML_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path / "mine"


def contents(folder):
    return {path.relative_to(folder): path.stat().st_size for path in folder.rglob("*")}


def assert_clean(root):
    """Nothing in the output, the scratch folders and the working folder; logs and the step cache may stay."""
    assert not (root / "out").exists()
    assert list((root / "scratch").iterdir()) == []
    assert list((root / "cwd").iterdir()) == []
    left = root / "cache/scratch"
    assert not left.exists() or list(left.iterdir()) == []


def refused(place, model, *says, exit_code=1, more=()):
    """Run the command, hold it to the rules, and give its stderr."""
    root, before = place.parent, contents(place)
    arguments = ["convert", str(model), "--no-measure", "-o", str(root / "out"), *more]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == exit_code, (done.stderr, done.exception)
    for text in says:
        assert text in done.stderr
    assert done.stderr.count("error:") == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert contents(place) == before
    return done.stderr


# --- one model of each format, real where there is one


def keras_file(path, layer):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr(
            "config.json", json.dumps({"class_name": "Sequential", "config": {"layers": [layer]}})
        )
        archive.writestr("model.weights.h5", b"weights" * 100)
    return path


def pt2_file(path):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (
            ("m/archive_format", "pt2"),
            ("m/models/model.json", "{}"),
            ("m/data", "x" * 500),
        ):
            archive.writestr(name, content)
    return path


def model_file(kind, data_dir, folder):
    """Give (what is given to the command, the file that is damaged)."""
    match kind:
        case "onnx" | "tflite":
            file = shutil.copy(data_dir / f"kws/kws_float.{kind}", folder / f"model.{kind}")
        case "openvino":
            file = make_double(folder, "openvino")
        case "savedmodel":
            shutil.copytree(data_dir / "kws/kws_ref_model", folder / "saved")
            return folder / "saved", folder / "saved/saved_model.pb"
        case "keras":
            file = keras_file(folder / "model.keras", {"class_name": "Dense", "config": {"name": "d"}})
        case "h5":
            file = shutil.copy(data_dir / "ic/pretrainedResnet.h5", folder / "model.h5")
        case _:
            file = pt2_file(folder / "model.pt2")
    return file, file


@pytest.mark.data
@pytest.mark.parametrize("kind", FORMATS)
def test_a_truncated_file(place, data_dir, kind):
    model, file = model_file(kind, data_dir, place)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    refused(place, model, model.name)
    assert_clean(place.parent)


@pytest.mark.data
@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_that_does_not_begin_as_its_format_does(place, data_dir, kind):
    model, file = model_file(kind, data_dir, place)
    file.write_bytes(b"\x7fELF" + bytes(60) + file.read_bytes()[64:])
    refused(place, model, model.name)
    assert_clean(place.parent)


@pytest.mark.data
@pytest.mark.parametrize("kind", FORMATS)
def test_an_empty_file(place, data_dir, kind):
    model, file = model_file(kind, data_dir, place)
    file.write_bytes(b"")
    refused(place, model, "empty")
    assert_clean(place.parent)


def two_gigabytes(place):
    (place / "m.onnx").write_bytes(b"\x08\x08\x3a\x80\x80\x80\x80\x08" + b"x" * 100)
    return place / "m.onnx"


def two_gigabytes_in_a_saved_model(place):
    (place / "saved").mkdir()
    (place / "saved/saved_model.pb").write_bytes(b"\x08\x01\x12\x80\x80\x80\x80\x08" + b"x" * 100)
    return place / "saved"


def weights_outside(place):
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor("w", TensorProto.FLOAT, [4], np.ones(4, np.float32).tobytes(), raw=True)],
    )
    weight = graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "../secret"), ("offset", "0"), ("length", "16")):
        entry = weight.external_data.add()
        entry.key, entry.value = key, value
    (place / "secret").write_bytes(bytes(16))
    (place / "model").mkdir()
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (place / "model/m.onnx").write_bytes(made.SerializeToString())
    return place / "model/m.onnx"


def zip_with(name, content=b"x"):
    def make(place):
        file = keras_file(place / "m.keras", {"class_name": "Dense", "config": {"name": "d"}})
        with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name, content)
        return file

    return make


def pickled(place):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("model/data.pkl", b"cos\nsystem\n(S'touch hacked'\ntR.")
    file = pt2_file(place / "m.pt2")
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("m/data/sample_inputs/model.pt", buffer.getvalue())
    return file


HOSTILE = {
    "2 GB claimed by an ONNX file": (two_gigabytes, "claims 2147483648 bytes"),
    "2 GB claimed by a SavedModel": (two_gigabytes_in_a_saved_model, "saved"),
    "weights outside the folder": (weights_outside, "outside its folder"),
    "a zip that leaves its folder": (zip_with("../evil"), "leaves its folder"),
    "a zip with an absolute path": (zip_with("/evil"), "absolute path"),
    "a zip bomb": (zip_with("zeros", bytes(64 * 1024**2)), "zip bomb"),
    "a Lambda layer": (lambda place: keras_file(place / "m.keras", LAMBDA), "--trust-code"),
    "a pickle that calls": (pickled, "m.pt2"),
}


@pytest.mark.worker("keras", "torch", "tensorflow")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file(place, name):
    make, says = HOSTILE[name]
    refused(place, make(place), says)
    assert_clean_of_bundles(place.parent)


def assert_clean_of_bundles(root):
    """A report may say why nothing was made; there is no bundle, and nothing else."""
    assert {path.name for path in (root / "out").glob("*")} <= {"report.html"}
    assert list((root / "scratch").iterdir()) == []
    assert list((root / "cwd").iterdir()) == []
    assert list((root / "cache/scratch").glob("*")) == []


WRITE_LAMBDA_H5 = (
    "import sys, os; os.environ['KERAS_BACKEND'] = 'openvino'\n"
    "import h5py, json\n"
    "layer = {'class_name': 'Lambda', 'config': {'name': 'evil', 'function': ['4wAA', None, None]}}\n"
    "with h5py.File(sys.argv[1], 'w') as file:\n"
    "    file.attrs['keras_version'] = '2.15.0'\n"
    "    file.attrs['model_config'] = json.dumps("
    "{'class_name': 'Sequential', 'config': {'name': 's', 'layers': [layer]}})\n"
    "    file.create_group('model_weights')\n"
)


@pytest.mark.worker("keras", "tensorflow")
def test_a_lambda_layer_in_an_h5_file(place):
    subprocess.run([interpreter("keras"), "-c", WRITE_LAMBDA_H5, place / "m.h5"], check=True)
    refused(place, place / "m.h5", "Lambda layer 'evil'", "--trust-code")
    assert_clean_of_bundles(place.parent)


# --- models that are whole and cannot be converted


def small(place, shape, operator="Relu", domain=""):
    port = helper.make_tensor_value_info
    node = helper.make_node(operator, ["image"], ["out"], name="the_node", domain=domain)
    real = TensorProto.FLOAT
    graph = helper.make_graph([node], "g", [port("image", real, shape)], [port("out", real, shape)])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.acme", 1)]
    onnx.save_model(helper.make_model(graph, opset_imports=opsets, ir_version=9), str(place / "m.onnx"))
    return place / "m.onnx"


@pytest.mark.parametrize("domain", ["com.acme", ""])
def test_an_unknown_operator_is_named_with_its_domain_and_node(place, domain):
    model = small(place, [1, 4], "Frobnicate", domain)
    refused(place, model, "Frobnicate", f"domain {domain or 'ai.onnx'}", "node 'the_node'")
    assert_clean(place.parent)


@pytest.mark.worker("onnx2tf")
@pytest.mark.parametrize("runtime", ["litert", "openvino"])
def test_dynamic_shapes_without_a_size(place, runtime):
    model = small(place, ["n", 3, "h", "w"])
    refused(place, model, "--input-shape image=", more=("--runtime", runtime))
    assert_clean_of_bundles(place.parent)


CALIBRATION = {
    "another shape": (np.zeros((40, 10, 49, 2), np.float32), "(10, 49, 2)"),
    "another dtype": (np.array(["a"] * 40), "c.npy"),
    "complex numbers": (np.zeros((40, 49, 10, 1), np.complex64), "complex64"),
    "no samples": (np.zeros((0, 49, 10, 1), np.float32), "no samples"),
    "pickled objects": (np.array([{"a": 1}] * 3, dtype=object), "c.npy"),
}


@pytest.mark.data
@pytest.mark.parametrize("name", CALIBRATION)
def test_calibration_data_that_do_not_fit(place, data_dir, name):
    samples, says = CALIBRATION[name]
    np.save(place / "c.npy", samples, allow_pickle=True)
    model, _ = model_file("tflite", data_dir, place)
    refused(place, model, says, more=("--calibration", str(place / "c.npy"), "--runtime", "litert"))
    assert_clean(place.parent)


# --- the machine


@pytest.mark.data
def test_no_permission_to_write(place, data_dir):
    """/proc takes no folders, whoever asks."""
    model, _ = model_file("tflite", data_dir, place)
    more = ("--runtime", "litert", "-o", "/proc/edgeml-out")
    refused(place, model, "/proc/edgeml-out", more=more)
    assert_clean(place.parent)


WITHOUT = "import sys\nsys.modules['{module}'] = None\nfrom edgeml.cli import main\nmain(sys.argv[1:])"


@pytest.mark.data
@pytest.mark.parametrize(
    ("runtime", "module"),
    [("litert", "ai_edge_litert"), ("openvino", "openvino"), ("onnxruntime", "onnxruntime")],
)
def test_an_engine_that_cannot_be_imported(place, data_dir, runtime, module):
    kind = {"litert": "tflite", "openvino": "openvino", "onnxruntime": "onnx"}[runtime]
    model, _ = model_file(kind, data_dir, place)
    argv = ["convert", str(model), "--runtime", runtime, "--no-measure", "-o", str(place.parent / "out")]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(module=module), *argv],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert module in done.stderr
    assert "pip install" in done.stderr
    assert "Traceback" not in done.stderr
    assert_clean_of_bundles(place.parent)


@pytest.mark.data
@pytest.mark.parametrize(
    ("runtime", "distribution"),
    [("litert", "ai_edge_litert"), ("openvino", "openvino"), ("onnxruntime", "onnxruntime")],
)
def test_an_engine_of_a_wrong_version(place, data_dir, runtime, distribution):
    """Metadata of an old version stand before the real ones on the path."""
    info = place.parent / f"old/{distribution}-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 0.1\n")
    kind = {"litert": "tflite", "openvino": "openvino", "onnxruntime": "onnx"}[runtime]
    model, _ = model_file(kind, data_dir, place)
    argv = ["convert", str(model), "--runtime", runtime, "--no-measure", "-o", str(place.parent / "out")]
    done = subprocess.run(
        [sys.executable, "-m", "edgeml", *argv],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(place.parent / "old")},
    )
    assert done.returncode == 1, done.stderr
    assert f"{distribution.replace('_', '-')} is 0.1, needs" in done.stderr
    assert f"pip install 'edgeml-runtimes[{runtime}]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert_clean_of_bundles(place.parent)


@pytest.fixture
def odd_worker(place, monkeypatch):
    """Let a shell script stand for the worker onnx2tf's interpreter."""

    def write(body):
        script = place.parent / "python"
        script.write_text(f"#!/bin/sh\n{body}\n")
        script.chmod(0o755)
        monkeypatch.setenv("EDGEML_WORKER_ONNX2TF", str(script))

    return write


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("echo 'out of luck' >&2; exit 3", "ended with exit code 3"),
        ("kill -9 $$", "killed by signal 9"),
        ("exit 0", "left no result"),
    ],
    ids=["fails", "dies", "says nothing"],
)
def test_a_worker_that_ends_badly(place, odd_worker, body, says):
    odd_worker(body)
    refused(place, small(place, [1, 4]), "worker onnx2tf", says, more=("--runtime", "litert"))
    assert_clean_of_bundles(place.parent)


def test_a_worker_that_hangs(place, odd_worker, monkeypatch):
    odd_worker("sleep 600")
    run_job = worker_step.run_job
    monkeypatch.setattr(worker_step, "run_job", lambda worker, job, _: run_job(worker, job, 1.0))
    refused(place, small(place, [1, 4]), "did not finish within 1 s", more=("--runtime", "litert"))
    assert_clean_of_bundles(place.parent)


def test_a_model_that_gives_nan_alone(place):
    model = onnx.load(REPOSITORY / "examples/digits/digits.onnx")
    (weights,) = (item for item in model.graph.initializer if item.name == "conv2")
    weights.CopyFrom(onnx.numpy_helper.from_array(np.full(weights.dims, np.nan, np.float32), "conv2"))
    onnx.save(model, place / "nan.onnx")
    refused(place, place / "nan.onnx", "nan.onnx: every output is NaN, for each of 8 samples", "weights")
    assert_clean(place.parent)
