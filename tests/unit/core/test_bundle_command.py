"""``edgeml bundle``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgeml.bundle import open_bundle, write_bundle
from edgeml.cli import main
from edgeml.manifest import DataEntry, FileEntry, Latency, Manifest, Measured, Variant
from edgeml.preprocess import Preprocess
from edgeml.telemetry.reference import FeatureReference, Reference, reference_to_json, with_digest
from edgeml.tensors import TensorSpec

MODEL = "variants/litert-int8_static/model.tflite"


@pytest.fixture(name="path")
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    (tmp_path / "model").write_bytes(b"weights" * 1000)
    (tmp_path / "labels").write_bytes(b"yes\nno\n")
    variant = Variant(
        "litert-int8_static",
        "litert",
        "int8_static",
        (FileEntry(MODEL, 0, ""),),
        ("raspberry-pi-4", "host"),
        measured=Measured(
            accuracy=0.925, float_accuracy=0.928, metric="top1", latency_ms=Latency(0.05, 0.06, 0.07)
        ),
    )
    manifest = Manifest(
        "kws",
        1,
        (TensorSpec("x", (1, 49, 10, 1), "float32"),),
        (TensorSpec("y", (1, 12), "float32"),),
        (variant,),
        (),
        preprocess=Preprocess(scale=0.5),
        data=(DataEntry("calibration", 100, "a" * 64),),
    )
    path = tmp_path / "kws-1.edgeml"
    write_bundle(path, manifest, {MODEL: tmp_path / "model", "labels.txt": tmp_path / "labels"})
    return path


def test_inspect_shows_signature_variants_and_files(path: Path) -> None:
    result = CliRunner().invoke(main, ["bundle", "inspect", str(path)])
    assert result.exit_code == 0, result.stderr
    for said in (
        "kws, release 1",
        "x float32[1,49,10,1]",
        "scale=0.5",
        "calibration: 100 samples",
        "top1",
        "0.925",
        "+0.30",
        "0.050",
        "raspberry-pi-4 host",
        "7.0 kB",
        "labels.txt",
    ):
        assert said in result.stdout


def test_inspect_shows_what_drift_is_told_by(path: Path) -> None:
    bundle = open_bundle(path)
    feature = FeatureReference("x", (0.0,), (50, 50))
    reference = with_digest(Reference(100, (feature,), classes={"yes": 60, "no": 40}))
    damaged = {"digest": "0" * 16, "count": "many"}
    for drift, said in (
        (reference_to_json(reference), f"1 feature and 2 classes of 100 inferences ({reference.digest})"),
        (damaged, "damaged: drift: count: must be a whole number"),
    ):
        other = path.with_name("other.edgeml")
        write_bundle(
            other,
            replace(bundle.manifest, drift=drift, files=()),
            {MODEL: path.parent / "model", "labels.txt": path.parent / "labels"},
        )
        result = CliRunner().invoke(main, ["bundle", "inspect", str(other)])
        assert result.exit_code == 0, result.stderr
        assert said in result.stdout


def test_inspect_json_is_the_manifest(path: Path) -> None:
    shape = json.loads(CliRunner().invoke(main, ["bundle", "inspect", str(path), "--json"]).stdout)
    assert (shape["schema"], shape["bundle"], shape["size_bytes"]) == (1, str(path), path.stat().st_size)
    assert shape["manifest"]["variants"][0]["files"][0]["size_bytes"] == 7000


def test_verify_passes_a_whole_bundle(path: Path) -> None:
    result = CliRunner().invoke(main, ["bundle", "verify", str(path)])
    assert (result.exit_code, result.stdout) == (0, f"{path}: 2 files, all as the manifest lists them\n")


def test_verify_names_the_damaged_file_and_fails(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"yes\nno\n", b"no\nyes\n"))
    result = CliRunner().invoke(main, ["bundle", "verify", str(path)])
    assert result.exit_code == 1
    assert "labels.txt is damaged" in result.stderr
    machine = CliRunner().invoke(main, ["bundle", "verify", str(path), "--json"])
    assert machine.exit_code == 1
    shape = json.loads(machine.stdout)
    assert (shape["schema"], shape["status"]) == (1, "damaged")
    assert {file["path"]: file["status"] for file in shape["files"]} == {MODEL: "ok", "labels.txt": "damaged"}


def test_extract_makes_an_extracted_bundle(path: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["bundle", "extract", str(path)])
    assert (result.exit_code, result.stdout) == (0, "kws-1: 3 files\n")
    assert open_bundle(tmp_path / "kws-1").manifest == open_bundle(path).manifest
    again = CliRunner().invoke(main, ["bundle", "extract", str(path)])
    assert again.exit_code == 1
    assert "not an empty folder" in again.stderr


def test_extract_takes_a_variant_or_single_files(path: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        main, ["bundle", "extract", str(path), "--variant", "litert-int8_static", "-o", "one", "--json"]
    )
    assert json.loads(done.stdout) == {"schema": 1, "bundle": str(path), "folder": "one", "files": [MODEL]}
    assert (tmp_path / "one" / MODEL).stat().st_size == 7000
    CliRunner().invoke(main, ["bundle", "extract", str(path), "labels.txt", "-o", "two"])
    assert [place.name for place in (tmp_path / "two").iterdir()] == ["labels.txt"]
    unknown = CliRunner().invoke(main, ["bundle", "extract", str(path), "--variant", "x"])
    assert unknown.exit_code == 2
    assert "its variants are: litert-int8_static" in unknown.stderr


def test_a_variant_that_suits_no_target_says_what_it_loses(path: Path, tmp_path: Path) -> None:
    opened = open_bundle(path)
    (variant,) = opened.manifest.variants
    poor = replace(variant, targets=(), measured=replace(variant.measured, accuracy=0.916))
    worse = tmp_path / "worse.edgeml"
    files = {MODEL: tmp_path / "model", "labels.txt": tmp_path / "labels"}
    write_bundle(worse, replace(opened.manifest, variants=(poor,), files=()), files)
    result = CliRunner().invoke(main, ["bundle", "inspect", str(worse)])
    assert "none (loses 1.20 points)" in result.stdout


def test_a_file_of_another_kind_is_not_a_damaged_bundle(tmp_path: Path) -> None:
    (tmp_path / "data.toml").write_text("[evaluation]\n")
    result = CliRunner().invoke(main, ["bundle", "inspect", str(tmp_path / "data.toml")])
    assert result.exit_code == 1
    assert "data.toml is not a bundle: a bundle is a zip called NAME.edgeml" in result.stderr


@pytest.mark.parametrize("command", ["inspect", "verify", "extract"])
def test_what_is_no_bundle_is_one_message(tmp_path: Path, command: str) -> None:
    result = CliRunner().invoke(main, ["bundle", command, str(tmp_path / "nothing.edgeml")])
    assert (result.exit_code, result.stderr) == (1, f"error: no such bundle: {tmp_path / 'nothing.edgeml'}\n")


@pytest.mark.parametrize("command", [[], ["inspect"], ["verify"], ["extract"]])
def test_every_help_has_an_example(command: list[str]) -> None:
    assert (
        "edgeml bundle "
        in CliRunner().invoke(main, ["bundle", *command, "--help"]).stdout.partition("Example")[2]
    )
