"""The real models that edgeml and the stock quantizers are compared on, and their data as arrays in files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from edgeml import plugins
from edgeml.arrays import Array
from tests.benchmarks.stock_faces import f1_of, faces, joined
from tests.integration import quantize_models as models


@dataclass(frozen=True)
class Data:
    """Prepared inputs [N, …] in float32; ``labels`` are indices of the output, ``None``: as float answers."""

    calibration: Sequence[Array]
    evaluation: Sequence[Array]
    labels: Array | None


@dataclass(frozen=True)
class Model:
    """A model, the file that each runtime's conversion begins with, and what is said of its data."""

    title: str
    files: Mapping[str, str]
    """By runtime, in the data folder."""
    data: Callable[[Path], Data]
    samples: str
    finds_faces: bool = False

    @property
    def metric(self) -> str:
        """As ``edgeml convert`` takes it."""
        return "tests.benchmarks.stock_faces:f1" if self.finds_faces else "top1"

    def reference(self, outputs: Array) -> Array:
        """Give labels of a float model's outputs, for data that have none."""
        return outputs if self.finds_faces else outputs.argmax(1)

    def accuracy(self, outputs: Array, labels: Array) -> float:
        """Give per cent."""
        if self.finds_faces:
            return 100 * float(np.mean([f1_of(*pair) for pair in zip(outputs, labels, strict=True)]))
        return 100 * models.top1(outputs, labels)


def _everywhere(file: str) -> dict[str, str]:
    return dict.fromkeys(("litert", "onnxruntime", "openvino"), file)


def _kws(data: Path) -> Data:
    task = models.kws(data)
    return Data(_rows(task.calibration.arrays), _rows(task.evaluation), task.labels)


def _ic(data: Path) -> Data:
    task = models.ic(data)
    return Data(_rows(task.calibration.arrays), _rows(task.evaluation), task.labels)


def _vww(data: Path) -> Data:
    calibration = _rows(models.vww(data).calibration.arrays)
    evaluation = [_picture(path, 96, 0.0, 255.0).transpose(1, 2, 0) for path, _ in _evaluation_rows(data)]
    return Data(calibration, evaluation, None)


def _mobilenet(side: int) -> Callable[[Path], Data]:
    def data(folder: Path) -> Data:
        rows = models.mobilenet_rows(folder)
        calibration = [_picture(path, side, 127.5, 127.5) for path, index in rows if index % 20 == 0]
        judged = _evaluation_rows(folder)
        evaluation = [_picture(path, side, 127.5, 127.5) for path, _ in judged]
        return Data(calibration, evaluation, np.array([index + 1 for _, index in judged]))

    return data


def _face(data: Path) -> Data:
    """Take the detector's own six pictures and those of the others that float finds a face in."""
    rows = models.mobilenet_rows(data)
    calibration = [_wide(path) for path, index in rows if index % 20 == 0]
    own = [data / "face" / "images" / f"{number}.jpg" for number in range(1, 7)]
    others = [path for path, _ in _evaluation_rows(data)]
    with plugins.runtime("onnxruntime").load(data / FACE_FILE) as session:
        name = session.inputs[0].name
        pictures = [_wide(path) for path in (*own, *others)]
        found = [one for one in pictures if len(faces(joined(session.run({name: one[None]}))))]
    return Data([*calibration, *pictures[: len(own)]], found, None)


def _wide(path: Path) -> Array:
    return models.image(path, (320, 240), 127.0, 128.0)[0]


def _evaluation_rows(data: Path) -> list[tuple[Path, int]]:
    """Give the 450 images that nothing is calibrated with."""
    return [(path, index) for path, index in models.mobilenet_rows(data) if index % 20]


def _picture(path: Path, side: int, middle: float, half: float) -> Array:
    return models.image(path, (side, side), middle, half)[0]


def _rows(arrays: Sequence[Array]) -> list[Array]:
    return [array[0] for array in arrays]


FACE_FILE: Final = "face/version-RFB-320.onnx"
MODELS: Final[Mapping[str, Model]] = {
    "kws": Model(
        "keyword spotting, DS-CNN",
        _everywhere("kws/kws_float.onnx") | {"litert": "kws/kws_float.tflite"},
        _kws,
        "100 calibration inputs, 500 evaluation inputs",
    ),
    "ic": Model(
        "CIFAR-10, ResNet-8",
        _everywhere("ic/pretrainedResnet.tflite"),
        _ic,
        "200 calibration images, 1,000 evaluation images",
    ),
    "vww": Model(
        "person detection, MobileNetV1 0.25 at 96 pixels",
        _everywhere("vww/vww_96_float.tflite"),
        _vww,
        "100 calibration images, 450 others, without labels: agreement with float",
    ),
    "mobilenet-v1": Model(
        "ImageNet, MobileNetV1 0.25 at 128 pixels",
        _everywhere("mobilenet/mobilenet_v1_0.25_128_float.onnx"),
        _mobilenet(128),
        "50 calibration images, 450 evaluation images",
    ),
    "mobilenet-v2": Model(
        "ImageNet, MobileNetV2 1.0 at 224 pixels",
        _everywhere("mobilenet/mobilenet_v2_1.0_224_float.onnx"),
        _mobilenet(224),
        "50 calibration images, 450 evaluation images",
    ),
    "face": Model(
        "face detector RFB-320",
        _everywhere(FACE_FILE),
        _face,
        "50 calibration images and the detector's own 6; judged on these 6 and on 105 other images in which "
        "float finds a face, without labels: accuracy is the mean F1 against what float finds",
        finds_faces=True,
    ),
}
