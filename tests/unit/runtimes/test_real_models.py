"""Published models give on our drivers what their authors measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeml import plugins
from edgeml.arrays import Array
from edgeml.runtime import TensorTap

pytestmark = pytest.mark.data

FLOAT_KEYWORDS = [("litert", "kws_float.tflite"), ("onnxruntime", "kws_float.onnx")]


@pytest.fixture(scope="module")
def keywords(data_dir: Path) -> tuple[Array, Array, Array]:
    """Stored samples [500, 49, 10, 1] int8, the floats they stand for, and the labels."""
    with np.load(data_dir / "kws" / "data.npz") as data:
        stored = data["test_q"]
        floats = ((stored.astype(np.float32) - data["zero_point"]) * data["scale"]).astype(np.float32)
        return stored, floats, data["test_y"]


@pytest.mark.parametrize(("runtime", "file"), FLOAT_KEYWORDS)
def test_float_keyword_spotting_has_its_published_accuracy(
    data_dir: Path, keywords: tuple[Array, Array, Array], runtime: str, file: str
) -> None:
    _, floats, labels = keywords
    with plugins.runtime(runtime).load(data_dir / "kws" / file) as session:
        name, output = session.inputs[0].name, session.outputs[0].name
        right = sum(
            int(session.run({name: floats[place : place + 1]})[output].argmax()) == label
            for place, label in enumerate(labels)
        )
    assert right / len(labels) == pytest.approx(0.928, abs=0.002)


def test_float_and_stored_callers_of_int8_keyword_spotting_agree(
    data_dir: Path, keywords: tuple[Array, Array, Array]
) -> None:
    stored, floats, labels = keywords
    with plugins.runtime("litert").load(data_dir / "kws" / "kws_ref_model_int8.tflite") as session:
        (source,), (result,) = session.inputs, session.outputs
        right = 0
        for place, label in enumerate(labels):
            as_float = session.run({source.name: floats[place : place + 1]})[result.name]
            as_stored = session.run({source.name: stored[place : place + 1]})[result.name]
            assert result.quantization is not None
            scale, zero_point = result.quantization.scale[0], result.quantization.zero_point[0]
            assert as_float == pytest.approx((as_stored.astype(np.float32) - zero_point) * scale)
            right += int(as_stored.argmax()) == label
    assert right / len(labels) > 0.85


def test_a_batch_gives_what_its_samples_give_alone(
    data_dir: Path, keywords: tuple[Array, Array, Array]
) -> None:
    _, floats, _ = keywords
    for runtime, file in FLOAT_KEYWORDS:
        with plugins.runtime(runtime).load(data_dir / "kws" / file) as session:
            name, output = session.inputs[0].name, session.outputs[0].name
            whole = session.run({name: floats[:4]})[output]
            alone = [session.run({name: floats[place : place + 1]})[output] for place in range(4)]
        assert whole == pytest.approx(np.concatenate(alone), abs=1e-5)


def test_a_model_without_a_signature_is_called_like_its_tensors(data_dir: Path) -> None:
    with plugins.runtime("litert").load(data_dir / "ic" / "pretrainedResnet.tflite") as session:
        assert session.inputs[0].shape[1:] == (32, 32, 3)
        assert session.inputs[0].name


@pytest.mark.parametrize(
    ("runtime", "file"),
    [
        ("litert", "kws/kws_float.tflite"),
        ("litert", "ic/pretrainedResnet_quant.tflite"),
        ("onnxruntime", "kws/kws_float.onnx"),
        ("onnxruntime", "face/version-RFB-320.onnx"),
    ],
)
def test_showing_tensors_does_not_change_the_outputs(data_dir: Path, runtime: str, file: str) -> None:
    driver = plugins.runtime(runtime)
    assert isinstance(driver, TensorTap)
    with driver.load(data_dir / file) as session, driver.load_tapped(data_dir / file) as tapped:
        random = np.random.default_rng(0)
        given = {
            spec.name: random.random([side or 1 for side in spec.shape], np.float32)
            for spec in session.inputs
        }
        plain, shown = session.run(given), tapped.run(given)
    assert len(shown) > 10
    for name, array in plain.items():
        assert shown[name] == pytest.approx(array, abs=1e-5)


@pytest.mark.parametrize(
    ("runtime", "file"),
    [
        ("litert", "ic/pretrainedResnet.tflite"),
        ("onnxruntime", "mobilenet/mobilenet_v1_0.25_128_float.onnx"),
    ],
)
def test_closing_frees_the_memory(data_dir: Path, runtime: str, file: str) -> None:
    driver = plugins.runtime(runtime)

    def load_and_run() -> None:
        with driver.load(data_dir / file) as session:
            spec = session.inputs[0]
            session.run({spec.name: np.zeros([side or 1 for side in spec.shape], np.float32)})

    for _ in range(5):
        load_and_run()
    before = _resident_bytes()
    for _ in range(30):
        load_and_run()
    assert _resident_bytes() - before < 10 << 20


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
