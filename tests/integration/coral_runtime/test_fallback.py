"""A model for the Edge TPU that goes on on the CPU: absent at the beginning, unplugged on the way."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import edgeml
from edgeml.arrays import Array
from edgeml.bundle import open_bundle, write_bundle
from edgeml.bundle_checks import check_manifest
from edgeml.errors import AcceleratorError, BundleError, InferenceError, UnsafeFileError
from edgeml.fallback import FallbackWarning
from edgeml.health import HealthPolicy
from edgeml.manifest import FileEntry, Manifest, Needs, Variant
from edgeml.selftest import run_selftest
from edgeml.targets import host
from edgeml.telemetry.reading import RingReader
from edgeml.telemetry.settings import telemetry_settings
from edgeml.tensors import TensorSpec
from edgeml.testing.coral import VARIABLE, standin_options
from tests.unit.core.release_folders import install, switch
from tests.waiting import eventually

pytestmark = pytest.mark.data
ACCELERATED, PLAIN = "litert-int8_static-edgetpu", "litert-int8_static"


@pytest.fixture
def notices() -> Iterator[list[warnings.WarningMessage]]:
    with warnings.catch_warnings(record=True, action="always") as caught:
        yield caught


@pytest.fixture
def expected(source: Path, cat: Array) -> Array:
    with edgeml.load(source) as model:
        found: Array = model(cat)
        return found


def bundle(folder: Path, compiled: Path, source: Path, *names: str, fallback: bool = True) -> Path:
    """Write a bundle of a variant for the Edge TPU, with its source or without, or for the CPU, or both."""
    accelerated, beside, plain = (
        f"variants/{ACCELERATED}/model_edgetpu.tflite",
        f"variants/{ACCELERATED}/model.tflite",
        f"variants/{PLAIN}/model.tflite",
    )
    entries = [FileEntry(name, 0, "") for name in (accelerated, *([beside] if fallback else []))]
    known = {
        ACCELERATED: Variant(
            ACCELERATED,
            "litert",
            "int8_static",
            tuple(entries),
            (host().name,),
            needs=Needs(accelerator="edgetpu"),
            fallback=beside if fallback else None,
        ),
        PLAIN: Variant(PLAIN, "litert", "int8_static", (FileEntry(plain, 0, ""),), (host().name,)),
    }
    manifest = Manifest(
        "cats",
        1,
        (TensorSpec("image", (1, 128, 128, 3), "uint8"),),
        (TensorSpec("scores", (1, 1001), "uint8"),),
        tuple(known[name] for name in names),
        (),
    )
    places = {accelerated: compiled, beside: source, plain: source}
    listed = {entry.path for variant in manifest.variants for entry in variant.files}
    path = folder / "cats-1.edgeml"
    write_bundle(path, manifest, {name: place for name, place in places.items() if name in listed})
    return path


def the_only(notices: list[warnings.WarningMessage]) -> str:
    (notice,) = notices
    assert notice.category is FallbackWarning
    return str(notice.message)


def without_device(coral: pytest.MonkeyPatch, source: Path) -> None:
    coral.setenv(VARIABLE, standin_options(source, attached="none"))


def test_a_file_with_its_source_beside_it_runs_on_the_cpu_with_one_notice(
    notices: list[warnings.WarningMessage],
    coral: pytest.MonkeyPatch,
    compiled: Path,
    source: Path,
    cat: Array,
    expected: Array,
) -> None:
    without_device(coral, source)
    model = edgeml.load(compiled, options={"device": "usb", "performance": "max"})
    for _ in range(3):
        assert (model(cat) == expected).all()
    said = the_only(notices)
    assert said.startswith(
        f"{compiled.name} runs on the CPU, from its source: compiled for the Edge TPU, and "
    )
    assert "no Edge TPU is attached: plug it in" in str(model.fallback)
    model.close()
    with pytest.raises(InferenceError, match="closed"):
        model(cat)


def test_a_file_without_its_source_says_what_is_missing(
    coral: pytest.MonkeyPatch, compiled: Path, source: Path, tmp_path: Path
) -> None:
    without_device(coral, source)
    alone = tmp_path / compiled.name
    alone.write_bytes(compiled.read_bytes())
    with pytest.raises(
        AcceleratorError, match=r"no Edge TPU is attached.*the CPU runs only the source \.tflite"
    ):
        edgeml.load(alone)


def test_a_device_that_serves_gives_no_notice(
    coral: object, compiled: Path, source: Path, cat: Array, expected: Array, tmp_path: Path
) -> None:
    for path in (compiled, bundle(tmp_path, compiled, source, ACCELERATED)):
        with warnings.catch_warnings(action="error"), edgeml.load(path) as model:
            assert (model(cat) == expected).all()
            assert model.fallback is None


def test_a_device_that_is_unplugged_costs_no_call(
    notices: list[warnings.WarningMessage],
    coral: pytest.MonkeyPatch,
    compiled: Path,
    source: Path,
    cat: Array,
    expected: Array,
    tmp_path: Path,
) -> None:
    coral.setenv(VARIABLE, standin_options(source, fail_after=2))
    path = bundle(tmp_path, compiled, source, ACCELERATED)
    fallbacks = []
    with edgeml.load(path) as model:
        for _ in range(5):
            assert (model(cat) == expected).all()
            assert model.run({"image": cat}).keys() == {"scores"}
            fallbacks.append(model.fallback is not None)
    assert fallbacks == [False, True, True, True, True]
    said = the_only(notices)
    assert said.startswith(f"cats, {ACCELERATED} runs on the CPU")
    assert "the device is gone" in said
    assert model.variant == ACCELERATED


def test_threads_go_over_together(
    notices: list[warnings.WarningMessage],
    coral: pytest.MonkeyPatch,
    compiled: Path,
    source: Path,
    cat: Array,
    expected: Array,
) -> None:
    coral.setenv(VARIABLE, standin_options(source, fail_after=20, latency_us=1000))
    right: list[bool] = []
    with edgeml.load(compiled) as model:

        def work() -> None:
            for _ in range(10):
                right.append((model(cat) == expected).all())  # noqa: PERF401 - each call tells on its own

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert right == [True] * 40
    assert the_only(notices)


def test_a_variant_without_its_source_gives_way_to_the_one_for_the_cpu(
    notices: list[warnings.WarningMessage],
    coral: pytest.MonkeyPatch,
    compiled: Path,
    source: Path,
    cat: Array,
    expected: Array,
    tmp_path: Path,
) -> None:
    path = bundle(tmp_path, compiled, source, ACCELERATED, PLAIN, fallback=False)
    coral.setattr("edgeml.loading.host", lambda: replace(host(), accelerators=("edgetpu",)))
    with edgeml.load(path) as model:
        assert (model.variant, model.fallback) == (ACCELERATED, None)
    without_device(coral, source)
    with edgeml.load(path) as model:
        assert (model(cat) == expected).all()
    assert model.variant == PLAIN
    assert f"gives way to {PLAIN}, on the CPU: " in the_only(notices)


def test_a_machine_without_an_edge_tpu_takes_the_variant_for_its_cpu_without_a_word(
    coral: pytest.MonkeyPatch, compiled: Path, source: Path, tmp_path: Path
) -> None:
    without_device(coral, source)
    path = bundle(tmp_path, compiled, source, ACCELERATED, PLAIN)
    with warnings.catch_warnings(action="error"), edgeml.load(path) as model:
        assert model.variant == PLAIN


def test_a_bundle_may_fall_back_to_its_own_files_only(compiled: Path, source: Path, tmp_path: Path) -> None:
    manifest = open_bundle(bundle(tmp_path, compiled, source, ACCELERATED)).manifest
    for other in (f"variants/{ACCELERATED}/model_edgetpu.tflite", "labels.txt", "/etc/passwd"):
        wrong = replace(manifest, variants=(replace(manifest.variants[0], fallback=other),))
        with pytest.raises(BundleError, match="which is none of its further files"):
            check_manifest(wrong, "manifest.json")


def test_a_bundle_may_name_no_library(compiled: Path, source: Path, tmp_path: Path) -> None:
    manifest = open_bundle(bundle(tmp_path, compiled, source, ACCELERATED)).manifest
    wrong = replace(manifest, variants=(replace(manifest.variants[0], options={"delegate": "evil.so"}),))
    with pytest.raises(UnsafeFileError, match="sets delegate, an engine option that names a place"):
        check_manifest(wrong, "manifest.json")


# --- on a device


@pytest.fixture
def installed(
    coral: object, compiled: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The release folder of an installed model whose only variant is for the Edge TPU."""
    monkeypatch.setenv("EDGEML_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EDGEML_TELEMETRY_FOLDER", str(tmp_path / "rings"))
    model = install(tmp_path / "home", bundle(tmp_path, compiled, source, ACCELERATED, PLAIN), ACCELERATED)
    switch(model, 1)
    return model.release_folder(1)


def recorded() -> dict[str, int]:
    """Give the calls by variant."""
    report = RingReader(Path(telemetry_settings().folder)).read()
    return {window.variant: window.calls for window in report.models}


def test_telemetry_tells_a_model_on_the_edge_tpu_from_one_that_fell_back(
    notices: list[warnings.WarningMessage],
    installed: Path,
    coral: pytest.MonkeyPatch,
    source: Path,
    cat: Array,
) -> None:
    with edgeml.load("cats") as model:
        model(cat)
        assert recorded() == {ACCELERATED: 1}
    without_device(coral, source)
    with edgeml.load("cats") as model:
        model(cat)
        assert recorded()[f"{ACCELERATED}+cpu"] == 1
        assert model.variant == ACCELERATED
    assert the_only(notices)


def test_telemetry_tells_from_when_on_it_fell_back(
    notices: list[warnings.WarningMessage],
    installed: Path,
    coral: pytest.MonkeyPatch,
    source: Path,
    cat: Array,
    expected: Array,
) -> None:
    coral.setenv(VARIABLE, standin_options(source, fail_after=3))
    with edgeml.load("cats") as model:
        for _ in range(3):
            assert (model(cat) == expected).all()
        before = model._loaded
        assert (model(cat) == expected).all()
        eventually(lambda: model._loaded is not before, "the fall is noticed", every_s=0.01)
        for _ in range(5):
            assert (model(cat) == expected).all()
        found = recorded()
    assert found == {ACCELERATED: 4, f"{ACCELERATED}+cpu": 5}
    assert the_only(notices)


def test_a_self_test_says_that_it_ran_on_the_cpu(
    installed: Path, coral: pytest.MonkeyPatch, source: Path
) -> None:
    policy = HealthPolicy()
    result = run_selftest(installed, ACCELERATED, policy, timeout_s=60)
    assert (result.passed, "on the CPU" in result.detail) == (True, False)
    without_device(coral, source)
    result = run_selftest(installed, ACCELERATED, policy, timeout_s=60)
    assert result.passed
    assert "; on the CPU, from its source: " in result.detail
    assert "no Edge TPU is attached" in result.detail
