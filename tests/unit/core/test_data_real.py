"""The real data sets are read as their descriptions say."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeml.converter import Calibration
from edgeml.data import open_data, parse_preprocess
from edgeml.preprocess import Preprocess
from edgeml.tensors import TensorSpec

pytestmark = pytest.mark.data

KWS = (TensorSpec("input_1", (None, 49, 10, 1), "float32"),)
MOBILENET = (TensorSpec("input", (1, 3, 224, 224), "float32"),)


def test_keywords_are_stored_as_integers_and_come_out_as_the_numbers_they_stand_for(data_dir: Path) -> None:
    source = data_dir / "kws" / "data.npz"
    declared = parse_preprocess(["zero_point=83 scale=0.5847029"])

    data: Calibration = open_data(f"{source}:calib_q,calib_y", inputs=KWS, preprocess=declared)

    with np.load(source) as arrays:
        expected = (arrays["calib_q"].astype(np.float32) - 83) * np.float32(0.5847029)
    assert len(data) == 100
    assert np.array_equal(np.concatenate([sample["input_1"] for sample in data]), expected)


def test_cifar_keeps_its_range_and_its_labels(data_dir: Path) -> None:
    data = open_data(
        f"{data_dir}/ic/data.npz:test,test_y", inputs=(TensorSpec("x", (None, 32, 32, 3), "float32"),)
    )

    assert data.labels is not None
    assert np.bincount(data.labels).size == 10
    first = next(iter(data))["x"]
    assert first.shape == (1, 32, 32, 3)
    assert first.max() > 200


def test_wake_word_pictures_span_zero_to_one(data_dir: Path) -> None:
    data = open_data(
        f"{data_dir}/vww/data.npz:calib",
        inputs=(TensorSpec("x", (1, 96, 96, 3), "float32"),),
        preprocess=Preprocess(scale=1 / 255),
        limit=10,
    )

    assert data.labels is None
    assert all(0 <= float(sample["x"].min()) <= float(sample["x"].max()) <= 1 for sample in data)


def test_imagenet_labels_by_file_name_and_by_csv_agree(data_dir: Path) -> None:
    images = data_dir / "mobilenet" / "images"

    by_name = open_data(images, inputs=MOBILENET, labels=r"pattern:^(\d+)_")
    by_csv = open_data(images, inputs=MOBILENET, labels=str(data_dir / "mobilenet" / "labels.csv"))

    assert by_name.labels is not None
    assert by_csv.labels is not None
    assert len(by_name) == len(by_csv) == 500
    assert dict(zip(map(by_name.name_of, range(500)), by_name.labels.tolist(), strict=True)) == dict(
        zip(map(by_csv.name_of, range(500)), by_csv.labels.tolist(), strict=True)
    )


def test_a_csv_chooses_the_calibration_images(data_dir: Path, tmp_path: Path) -> None:
    with (data_dir / "mobilenet" / "labels.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if int(row["class_index"]) % 20 == 0]
    chosen = tmp_path / "calibration.csv"
    chosen.write_text("file,class_index\n" + "".join(f"{row['file']},{row['class_index']}\n" for row in rows))

    data = open_data(data_dir / "mobilenet" / "images", inputs=MOBILENET, labels=str(chosen))

    assert data.labels is not None
    assert set((data.labels % 20).tolist()) == {0}
    assert len(data) == 50


def test_face_pictures_of_any_size_fit_the_detector(data_dir: Path) -> None:
    data = open_data(
        data_dir / "face" / "images",
        inputs=(TensorSpec("input", (1, 3, 240, 320), "float32"),),
        preprocess=parse_preprocess(["resize=240x320 mean=127 std=128 layout=nchw"]),
    )

    sizes = {raw["input"].shape for raw in data.raw()}
    samples = list(data)
    assert len(sizes) > 1
    assert all(sample["input"].shape == (1, 3, 240, 320) for sample in samples)
    assert all(-1 <= float(sample["input"].min()) < float(sample["input"].max()) <= 1 for sample in samples)


PEAK = """
import json, resource, sys
from edgeml.data import open_data, parse_preprocess
from edgeml.tensors import TensorSpec
data = open_data(
    sys.argv[1],
    inputs=(TensorSpec("x", (1, 3, 224, 224), "float32"),),
    preprocess=parse_preprocess(["resize=256 crop=224 mean=127.5 std=127.5 layout=nchw"]),
)
next(iter(data))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
count = sum(1 for _ in range(2) for _ in data)
print(json.dumps([count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before]))
"""


def test_a_thousand_images_take_no_more_memory_than_one(data_dir: Path) -> None:
    """As float32 they would be 574 MiB."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK, data_dir / "mobilenet" / "images"],
        capture_output=True,
        text=True,
        check=True,
    )

    count, grown_kib = json.loads(done.stdout)
    assert count == 1000
    assert grown_kib < 16 * 1024
