"""What an installed model records of its calls, without any word of its application."""

from __future__ import annotations

import io
import time
from pathlib import Path

import numpy as np
import pytest

import edgeml
from edgeml.errors import InferenceError, InputShapeError
from edgeml.preprocess import Postprocess
from edgeml.tally import FEATURES_EVERY_S
from edgeml.telemetry.reading import RingReader
from edgeml.telemetry.reference import FeatureReference, Reference, reference_to_json, with_digest
from edgeml.telemetry.report import ModelWindow
from edgeml.telemetry.settings import telemetry_settings
from tests.unit.core.release_folders import digits, install, looked_up, switch, times
from tests.waiting import eventually

X = np.ones((1, 16), np.float32)


@pytest.fixture(name="home")
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEML_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EDGEML_TELEMETRY_FOLDER", str(tmp_path / "rings"))
    return tmp_path / "home"


def recorded(reader: RingReader | None = None) -> ModelWindow:
    reader = RingReader(Path(telemetry_settings().folder)) if reader is None else reader
    (window,) = reader.read().models
    return window


def test_a_call_is_recorded_with_its_release_and_its_latency(home: Path, tmp_path: Path) -> None:
    switch(install(home, times(tmp_path / "made", 2.0, 7)), 7)
    with edgeml.load("times") as model:
        for _ in range(5):
            model(X)
        model.run({"x": X})
        window = recorded()
    assert (window.model, window.release, window.variant) == ("times", 7, "onnxruntime-float32")
    assert (window.runtime, window.calls) == ("onnxruntime", 6)
    assert set(window.latency) == {"total"}
    assert 0 < window.latency["total"].min <= window.latency["total"].max < 5


def test_a_prediction_is_recorded_once_with_class_confidence_and_stages(home: Path, tmp_path: Path) -> None:
    declared = Postprocess(softmax=True, argmax=True)
    switch(install(home, digits(tmp_path / "made", postprocess=declared)), 1)
    labels = []
    with edgeml.load("digits") as model:
        for value in range(4):
            prediction = model.predict(np.full((8, 8, 1), value, np.float32))
            labels.append(prediction.label)
        window = recorded()
    assert window.calls == 4
    assert window.classes == {label: labels.count(label) for label in labels}
    assert window.confidence is not None
    assert 0 < window.confidence.max <= 1
    assert set(window.latency) == {"total", "preprocess", "run", "postprocess"}
    stages = [window.latency[stage].sum_nano for stage in ("preprocess", "run", "postprocess")]
    assert sum(stages) == pytest.approx(window.latency["total"].sum_nano, rel=1e-6)


def test_errors_of_the_engine_are_recorded_and_those_of_the_caller_are_not(
    home: Path, tmp_path: Path
) -> None:
    switch(install(home, looked_up(tmp_path, 1)), 1)
    with edgeml.load("looked_up") as model:
        model(np.array([1], np.int64))
        with pytest.raises(InferenceError):
            model(np.array([5], np.int64))
        with pytest.raises(InferenceError):
            model.predict(np.array([5], np.int64))
        with pytest.raises(InputShapeError):
            model(np.zeros((2, 2), np.int64))
        window = recorded()
    assert (window.calls, window.errors) == (3, {"InferenceError": 2})


def test_features_are_recorded_where_the_bundle_has_a_reference(home: Path, tmp_path: Path) -> None:
    mean = FeatureReference("picture.mean", (1.0, 2.0), (1, 1, 1), mean=1.5, std=1.0)
    reference = with_digest(Reference(3, (mean,)))
    switch(install(home, digits(tmp_path / "made", drift=reference_to_json(reference))), 1)
    reader = RingReader(Path(telemetry_settings().folder), references=lambda _name, _release: reference)
    with edgeml.load("digits") as model:
        for value in (0.5, 1.5, 2.5):
            model(np.full((1, 8, 8, 1), value, np.float32))
            time.sleep(FEATURES_EVERY_S)
        model.predict(np.full((8, 8, 1), 2.5, np.float32))
        window = recorded(reader)
    assert (window.calls, window.reference) == (4, reference.digest)
    assert window.features == {"picture.mean": (1, 1, 2)}


def test_each_release_has_a_window_of_its_own(home: Path, tmp_path: Path) -> None:
    install(home, times(tmp_path / "made", 1.0, 1))
    model_folder = install(home, times(tmp_path / "made", 2.0, 2))
    switch(model_folder, 1)
    with edgeml.load("times") as model:
        model(X)
        switch(model_folder, 2)
        eventually(lambda: model.release == 2, "release 2 is taken", every_s=0.01)
        model(X)
        model(X)
    windows = RingReader(Path(telemetry_settings().folder)).read().models
    assert [(window.release, window.calls, window.killed) for window in windows] == [(1, 1, 0), (2, 2, 0)]


def test_what_is_switched_off_is_not_recorded(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEML_TELEMETRY", "off")
    switch(install(home, times(tmp_path / "made", 2.0, 7)), 7)
    with edgeml.load("times") as model:
        assert model(X)[0, 0] == 2
        assert RingReader(Path(telemetry_settings().folder)).read().models == ()


def test_a_pinned_model_and_one_by_its_path_are_not_recorded(home: Path, tmp_path: Path) -> None:
    installed = install(home, times(tmp_path / "made", 2.0, 7))
    switch(installed, 7)
    with edgeml.load("times", follow=False) as model:
        model(X)
    with edgeml.load(installed.release_folder(7)) as model:
        model(X)
    assert RingReader(Path(telemetry_settings().folder)).read().models == ()


def test_inputs_are_kept_as_arrays_where_the_owner_allows_it(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEML_TELEMETRY_SAMPLES", "raw")
    switch(install(home, looked_up(tmp_path, 1)), 1)
    with edgeml.load("looked_up") as model:
        model(np.array([1], np.int64))
        with pytest.raises(InferenceError):
            model(np.array([5], np.int64))
        with pytest.raises(InferenceError):
            model.predict(np.array([6], np.int64))
        window = recorded()
    found = {
        (sample.why, int(np.load(io.BytesIO(sample.raw))["x"][0]))
        for sample in window.samples
        if sample.raw is not None
    }
    assert found == {("random", 1), ("error", 5), ("error", 6)}
