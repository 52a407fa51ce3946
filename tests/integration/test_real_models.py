"""Published models through ``convert``: what each runtime keeps of their accuracy in int8.

Each conversion also leaves the source as it was; the hash is taken before and after.
"""

import csv
import subprocess
from importlib.util import find_spec

import numpy as np
import pytest
from edgeml_converters.channels.step import dead_channels
from edgeml_converters.convert import convert
from edgeml_converters.formats.files import hash_tree
from edgeml_converters.workers.catalogue import interpreter

from edgeml.bundle import open_bundle
from edgeml.data import DataDeclaration
from edgeml.preprocess import Postprocess, Preprocess

pytestmark = pytest.mark.data

RUNTIMES = ("litert", "onnxruntime", "openvino")
BOTH = {(runtime, scheme) for runtime in RUNTIMES for scheme in ("float32", "int8_static")}


def converted(source, **options):
    """Convert for all three runtimes without timing; gives the rows that came out, all of them made."""
    before = hash_tree(source)
    result = convert(source, **{"measure": False, "runtimes": RUNTIMES, **options})
    assert hash_tree(source) == before
    assert {row.status for row in result.rows} == {"ok"}, [(row.name, row.reason) for row in result.rows]
    for row in result.rows:
        assert row.size_bytes > 0
        assert row.measured.sqnr_db is not None
        assert row.inputs
        assert row.outputs
        assert row.tolerance is not None
    return result


# --- keyword spotting

KWS_SOURCES = [
    pytest.param("kws_ref_model", marks=pytest.mark.worker("tensorflow"), id="savedmodel"),
    pytest.param("kws_float.tflite", marks=pytest.mark.worker("tensorflow"), id="tflite"),
    pytest.param("kws_float.onnx", marks=pytest.mark.worker("onnx2tf"), id="onnx"),
]


@pytest.mark.parametrize("source", KWS_SOURCES)
def test_keyword_spotting_keeps_its_accuracy_on_every_runtime(data_dir, tmp_path, source):
    kws = data_dir / "kws"
    result = converted(
        kws / source,
        calibration=DataDeclaration(f"{kws / 'data.npz'}:calib_q"),
        evaluation=DataDeclaration(f"{kws / 'data.npz'}:test_q,test_y"),
        preprocess=Preprocess(zero_point=83, scale=0.5847029),
        output=tmp_path / "out",
    )
    assert {(row.runtime, row.scheme) for row in result.rows} == BOTH
    for row in result.rows:
        assert row.measured.float_accuracy == pytest.approx(0.928)
        assert row.drop_points <= 0.4, row.name
        # the layout of the source, whatever the converter prefers
        assert [spec.shape[1:] for spec in row.inputs] == [(49, 10, 1)], row.name
    bundle = open_bundle(tmp_path / "out" / f"{source.partition('.')[0]}-1.edgeml")
    bundle.verify()
    assert {(one.runtime, one.scheme) for one in bundle.manifest.variants} == BOTH


# --- CIFAR ResNet-8


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(
            "pretrainedResnet.h5",
            marks=[pytest.mark.worker("keras", "tensorflow"), pytest.mark.soak],
            id="h5",
        ),
        pytest.param("pretrainedResnet.tflite", marks=pytest.mark.worker("tensorflow"), id="no-signature"),
    ],
)
def test_resnet_keeps_its_accuracy_on_every_runtime(data_dir, tmp_path, monkeypatch, source):
    monkeypatch.setenv("EDGEML_CACHE_DIR", str(tmp_path / "cache"))
    ic = data_dir / "ic"
    result = converted(
        ic / source,
        calibration=DataDeclaration(f"{ic / 'data.npz'}:calib"),
        evaluation=DataDeclaration(f"{ic / 'data.npz'}:test,test_y"),
    )
    assert {(row.runtime, row.scheme) for row in result.rows} == BOTH
    for row in result.rows:
        assert row.measured.float_accuracy == pytest.approx(0.751, abs=0.002)
        assert row.drop_points <= 0.3, row.name
    # each worker's job is done once, the one included that tells the signature of what nothing here runs
    jobs = [log.name.partition("-")[0] for log in (tmp_path / "cache/logs").iterdir()]
    assert sorted(jobs) == (
        ["keras", "tensorflow", "tensorflow"] if source.endswith("h5") else ["tensorflow"]
    )


# --- person detection


@pytest.mark.worker("tensorflow")
def test_the_person_detector_is_smaller_without_its_dead_channels_and_computes_the_same(data_dir):
    vww = data_dir / "vww"
    result = convert(
        vww / "vww_96_float.tflite",
        measure=False,
        runtimes=RUNTIMES,
        schemes="auto",
        accuracy_control=False,
        calibration=DataDeclaration(f"{vww / 'data.npz'}:calib"),
        preprocess=Preprocess(std=(255.0,)),
    )
    rows = {row.name: row for row in result.rows}
    for runtime, of_float, of_int8 in (
        ("litert", 0.18, 0.29),
        ("onnxruntime", 0.19, 0.43),
        ("openvino", 0.23, 0.54),
    ):
        for scheme, most in (("float32", of_float), ("int8_static", of_int8)):
            whole, trimmed = rows[f"{runtime}-{scheme}"], rows[f"{runtime}-{scheme}-trimmed"]
            assert trimmed.size_bytes < most * whole.size_bytes
            floor = 110 if scheme == "float32" else whole.measured.sqnr_db - 1.5
            assert trimmed.measured.sqnr_db > floor
            assert "960 of 1344 channels of 9 operators" in trimmed.steps[0].notes[0]


@pytest.mark.parametrize(
    ("model", "dead"),
    [
        ("kws/kws_float.tflite", 0),
        ("ic/pretrainedResnet.tflite", 0),
        ("face/version-RFB-320.onnx", 0),
        ("mobilenet/mobilenet_v1_0.25_128_float.onnx", 0),
        ("mobilenet/mobilenet_v2_1.0_224_float.onnx", 8),
    ],
)
def test_other_models_have_few_dead_channels_or_none(data_dir, model, dead):
    found = dead_channels(data_dir / model, "onnx" if model.endswith(".onnx") else "tflite")
    assert (found is None) is (dead == 0)
    if found is not None:
        assert sum(layer.channels for layer in found.layers) == dead
        assert not found.pays


# --- MobileNetV2


@pytest.fixture(scope="module")
def pictures(data_dir, tmp_path_factory):
    """Labels of the 50 calibration and the 450 evaluation pictures, as two CSV files."""
    folder = tmp_path_factory.mktemp("pictures")
    with (data_dir / "mobilenet/labels.csv").open(newline="") as stream:
        rows = [(row["file"], int(row["class_index"])) for row in csv.DictReader(stream)]
    for name, wanted in (("calibration", True), ("evaluation", False)):
        lines = [f"{file},{index}\n" for file, index in rows if (index % 20 == 0) is wanted]
        (folder / f"{name}.csv").write_text("file,class_index\n" + "".join(lines))
    return folder


@pytest.mark.worker("onnx2tf")
def test_mobilenet_keeps_its_accuracy_on_every_runtime(data_dir, pictures):
    images = str(data_dir / "mobilenet/images")
    result = converted(
        data_dir / "mobilenet/mobilenet_v2_1.0_224_float.onnx",
        schemes=("int8_static",),
        calibration=DataDeclaration(images, labels=str(pictures / "calibration.csv")),
        evaluation=DataDeclaration(images, labels=str(pictures / "evaluation.csv")),
        preprocess=Preprocess(mean=(127.5,), std=(127.5,), layout="nchw"),
        postprocess=Postprocess(label_offset=1),
    )
    assert {row.runtime for row in result.rows} == set(RUNTIMES)
    for row in result.rows:
        assert row.measured.float_accuracy == pytest.approx(0.862, abs=0.003)
        assert row.drop_points <= 0.5, row.name


# --- the face detector: opset 9, two outputs, no labels


def faces(outputs):
    """Give (scores [4420], boxes [4420, 4] in corner form)."""
    scores = next(array for array in outputs.values() if array.shape[-1] == 2)[0, :, 1]
    boxes = next(array for array in outputs.values() if array.shape[-1] == 4)[0]
    return scores, boxes


def overlap(left, right):
    """Intersection over union of two boxes in corner form."""
    low, high = np.maximum(left[:2], right[:2]), np.minimum(left[2:], right[2:])
    shared = np.prod(np.clip(high - low, 0, None))
    return shared / (np.prod(left[2:] - left[:2]) + np.prod(right[2:] - right[:2]) - shared)


@pytest.mark.worker("onnx2tf")
def test_the_face_detector_finds_the_same_faces_on_every_runtime(data_dir, tmp_path):
    face = data_dir / "face"
    pictures = DataDeclaration(str(face / "images"))
    result = converted(
        face / "version-RFB-320.onnx",
        calibration=pictures,
        evaluation=pictures,
        preprocess=Preprocess(resize=(240, 320), mean=(127,), std=(128,), layout="nchw"),
        golden=6,
        output=tmp_path,
        name="face",
    )
    assert {(row.runtime, row.scheme) for row in result.rows} == BOTH
    files = open_bundle(tmp_path / "face-1.edgeml").extract(tmp_path / "face")
    golden = {row.name: dict(np.load(files / f"golden/{row.name}.npz")) for row in result.rows}
    for row in result.rows:
        compared = {one.name: one for one in row.outputs_compared}
        if row.name != "onnxruntime-float32":
            assert set(compared) == {"scores", "boxes"}, row.name
        quantized = row.scheme == "int8_static"
        for one in compared.values():
            assert one.cosine > (0.99 if quantized else 0.99999), (row.name, one)
        for index in range(6):
            outputs, reference = (
                {name: array[index : index + 1] for name, array in golden[which].items()}
                for which in (row.name, "onnxruntime-float32")
            )
            (scores, boxes), (sure, wanted) = faces(outputs), faces(reference)
            # a picture has several faces, and which of them is the surest may change: one place is compared
            best = sure.argmax()
            assert sure[best] > 0.9
            assert scores[best] == pytest.approx(sure[best], abs=0.1 if quantized else 1e-3), (
                row.name,
                index,
            )
            # half in common is what benchmarks take for the same box; small faces are ten pixels wide
            assert overlap(boxes[best], wanted[best]) > (0.5 if quantized else 0.999), (row.name, index)


# --- PyTorch and scikit-learn

EXPORT = """
import sys, torch
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from edgeml_converters.formats.objects import export_object
torch.manual_seed(0)
model = torch.nn.Sequential(
    torch.nn.Conv2d(1, 8, 3), torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Flatten(),
    torch.nn.Linear(72, 10), torch.nn.Softmax(-1),
)
export_object(model, torch.zeros(1, 1, 8, 8), Path(sys.argv[1]))
"""


@pytest.mark.worker("torch")
def test_a_torch_module_and_its_program_convert_for_every_runtime(tmp_path, repository):
    """The module is exported where PyTorch is; its .pt2 is what convert makes of it anywhere."""
    argv = [
        interpreter("torch"),
        "-W",
        "ignore",
        "-c",
        EXPORT,
        tmp_path,
        repository,
        repository / "converters",
    ]
    subprocess.run(argv, check=True, capture_output=True)
    samples = np.random.default_rng(0).normal(size=(64, 1, 8, 8)).astype(np.float32)
    np.save(tmp_path / "samples.npy", samples)
    result = converted(
        tmp_path / "model.pt2",
        calibration=str(tmp_path / "samples.npy"),
        output=tmp_path / "out",
    )
    assert {(row.runtime, row.scheme) for row in result.rows} == BOTH
    for row in result.rows:
        assert [spec.shape for spec in row.inputs] == [(1, 1, 8, 8)], row.name
        assert row.measured.sqnr_db > (80 if row.scheme == "float32" else 20), row.name


def test_a_fitted_classifier_is_judged_by_the_class_it_gives(require, tmp_path):
    """Without a word about outputs: the first one of scikit-learn's models is the class itself."""
    for name in ("sklearn", "skl2onnx"):
        require(find_spec(name), f"{name} is not installed: pip install 'edgeml-converters[sklearn]'")
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier

    digits = load_digits()
    features, labels = digits.data.astype(np.float32) / 16, digits.target
    estimator = MLPClassifier((32,), max_iter=600, random_state=0).fit(features[:1000], labels[:1000])
    np.savez(tmp_path / "e.npz", x=features[1000:1400], y=labels[1000:1400])
    result = convert(
        estimator,
        example_inputs=features[:1],
        evaluation=DataDeclaration(str(tmp_path / "e.npz")),
        runtimes=("onnxruntime",),
        measure=False,
        name="digits",
        output=tmp_path / "out",
    )
    (row,) = result.rows
    assert row.status == "ok", row.reason
    assert row.measured.accuracy == pytest.approx(
        estimator.score(features[1000:1400], labels[1000:1400]), abs=0.003
    )
    assert result.bundle is not None
