"""What convert puts into a bundle so that devices tell drift, and what a device then tells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import edgeml
from edgeml.bundle import open_bundle
from edgeml.cli import main
from edgeml.pipeline import prepare
from edgeml.telemetry.drift import judge
from edgeml.telemetry.features import input_features, rows_of_array
from edgeml.telemetry.fourier import fourier_sums
from edgeml.telemetry.reference import CONFIDENCE, Reference, reference_from_json
from edgeml.telemetry.report import ModelWindow

pytestmark = pytest.mark.data
SCALE = 0.5847029


@pytest.fixture(scope="module")
def kws(data_dir: Path) -> Path:
    return data_dir / "kws"


@pytest.fixture(scope="module")
def data(kws: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "test.npz"
    with np.load(kws / "data.npz") as known:
        samples = (known["test_q"].astype(np.float32) - 83) * np.float32(SCALE)
        order = np.random.default_rng(0).permutation(len(samples))
        np.savez(path, x=samples[order], y=known["test_y"][order])
    return path


def converted(kws: Path, data: Path, output: Path, *more: str) -> Path:
    half = output.parent / "half.npz"
    with np.load(data) as known:
        np.savez(half, x=known["x"][::2], y=known["y"][::2])
    arguments = ["convert", str(kws / "kws_float.tflite"), "--runtime", "litert", "--no-measure"]
    arguments += ["--evaluate", f"{half}:x,y", "--postprocess", "argmax=true", "-o", str(output), *more]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.stderr
    return output


def seen(bundle: Path, reference: Reference, samples: np.ndarray) -> ModelWindow:
    """Do what a device does with each sample."""
    with edgeml.load(bundle) as model:
        (plan,) = input_features(model.spec.inputs)
        rows, classes, confidences = [], {}, []
        for sample in samples:
            value = prepare(sample, model.spec.preprocess, model.spec.inputs[0])
            rows += rows_of_array(plan, value)
            best = model.predict(sample).best
            classes[str(best.index)] = classes.get(str(best.index), 0) + 1
            confidences.append(best.score)
    columns = dict(zip(plan.names, zip(*rows, strict=True), strict=True))
    features = {one.name: one.count(columns[one.name]) for one in reference.features}
    assert reference.confidence is not None
    sums, count = fourier_sums(
        reference, zip(*(columns[name] for name in reference.joint.features), strict=True)
    )
    return ModelWindow(
        "kws",
        1,
        classes=classes,
        features=features | {CONFIDENCE: reference.confidence.count(confidences)},
        rff_sum=sums,
        rff_count=count,
        reference=reference.digest,
    )


def test_a_device_tells_drift_by_its_bundle_alone(kws: Path, data: Path, tmp_path: Path) -> None:
    bundle = converted(kws, data, tmp_path / "kws.edgeml")
    reference = reference_from_json(open_bundle(bundle).manifest.drift)
    assert reference is not None
    with np.load(data) as known:
        other = known["x"][1::2][:300]
    assert [one.name.rpartition(".")[2] for one in reference.features] == "mean std min max detail".split()
    assert judge(reference, seen(bundle, reference, other)).findings() == ()
    louder = judge(reference, seen(bundle, reference, other * np.float32(1.3)))
    assert any(one.name.endswith(".std") for one in louder.findings())


def test_the_reference_can_be_left_out(kws: Path, data: Path, tmp_path: Path) -> None:
    bundle = converted(kws, data, tmp_path / "kws.edgeml", "--no-drift-reference")
    assert open_bundle(bundle).manifest.drift == {}


def test_the_same_data_give_the_same_reference_and_the_card_names_it(
    kws: Path, data: Path, tmp_path: Path
) -> None:
    one = open_bundle(converted(kws, data, tmp_path / "one.edgeml"))
    two = open_bundle(converted(kws, data, tmp_path / "two.edgeml"))
    assert one.manifest.drift == two.manifest.drift
    assert one.manifest.drift["digest"] in one.read("README.md").decode()
