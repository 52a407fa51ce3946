"""Release folders: a part of a bundle, held to the bundle's rules."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import edgeml
from edgeml.bundle import open_bundle
from edgeml.cli import main
from edgeml.errors import BundleError, UnsafeFileError, UsageError
from edgeml.installed import (
    InstalledModel,
    installed_models,
    needed_files,
    open_installed,
    open_release,
    read_installation,
    write_installation,
)
from edgeml.targets import host
from tests.unit.core.release_folders import digits, install, switch

X = np.ones((1, 8, 8, 1), np.float32)


@pytest.fixture(name="bundle", scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(name="installed")
def in_place(tmp_path: Path, bundle: Path) -> InstalledModel:
    return install(tmp_path / "home", bundle, "onnxruntime-float32")


def test_a_release_folder_holds_the_files_of_its_variants_and_what_all_share(bundle: Path) -> None:
    manifest = open_bundle(bundle).manifest
    assert {entry.path for entry in needed_files(manifest, ["litert-float32"])} == {
        "variants/litert-float32/digits.tflite",
        "golden/litert-float32.npz",
        "golden/inputs.npz",
        "labels.txt",
    }
    assert len(needed_files(manifest, ["litert-float32", "onnxruntime-float32"])) == 6
    with pytest.raises(BundleError, match="no variant 'x'"):
        needed_files(manifest, ["x"])


def test_a_part_of_a_bundle_is_a_bundle_of_the_variants_that_are_there(installed: InstalledModel) -> None:
    folder = installed.release_folder(1)
    opened = open_installed(folder)
    assert [variant.name for variant in opened.manifest.variants] == ["onnxruntime-float32"]
    opened.verify()
    assert open_release(folder).manifest == opened.manifest
    (folder / "committed").touch()
    with pytest.raises(BundleError, match="committed"):
        open_release(folder)


def test_it_is_loaded_by_its_path_as_by_its_name(
    installed: InstalledModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEML_HOME", str(installed.home))
    switch(installed, 1)
    with edgeml.load(installed.release_folder(1)) as by_path, edgeml.load("digits", follow=False) as by_name:
        assert by_path.variant == by_name.variant == "onnxruntime-float32"
        np.testing.assert_array_equal(by_path(X), by_name(X))


def test_the_first_variant_of_an_installation_is_the_one_to_load(tmp_path: Path, bundle: Path) -> None:
    for names in (("litert-float32", "onnxruntime-float32"), ("onnxruntime-float32", "litert-float32")):
        model = install(tmp_path / names[0], bundle, *names)
        with edgeml.load(model.release_folder(1)) as loaded:
            assert loaded.variant == names[0]
        with edgeml.load(model.release_folder(1), variant=names[1]) as loaded:
            assert loaded.variant == names[1]


def test_what_was_tested_here_does_not_warn_of_other_machines(tmp_path: Path, bundle: Path) -> None:
    model = install(tmp_path, bundle, "litert-float32")
    folder = model.release_folder(1)
    text = (folder / "manifest.json").read_text().replace(host().name, "raspberry-pi-4")
    rewrite(folder, text)
    edgeml.load(folder).close()  # a warning would be an error


def rewrite(folder: Path, manifest: str) -> None:
    """Install another manifest."""
    (folder / "manifest.json").write_text(manifest)
    digest = hashlib.sha256(manifest.encode()).hexdigest()
    write_installation(folder, replace(read_installation(folder), manifest_sha256=digest))


def test_a_release_folder_that_lacks_something_is_refused(installed: InstalledModel) -> None:
    (installed.release_folder(1) / "labels.txt").unlink()
    with pytest.raises(BundleError, match=r"labels\.txt is in the manifest, but missing"):
        open_installed(installed.release_folder(1))


def test_a_file_that_is_not_the_manifests_is_refused(installed: InstalledModel) -> None:
    (installed.release_folder(1) / "x.py").write_text("")
    with pytest.raises(BundleError, match=r"'x\.py' is not in the manifest"):
        open_installed(installed.release_folder(1))


def test_a_link_is_refused(installed: InstalledModel) -> None:
    labels = installed.release_folder(1) / "labels.txt"
    labels.rename(installed.folder / "labels.txt")
    labels.symlink_to("../../labels.txt")
    with pytest.raises(UnsafeFileError, match="is a link"):
        open_installed(installed.release_folder(1))


def test_hard_links_to_blobs_are_files_like_any_other(installed: InstalledModel) -> None:
    labels = installed.release_folder(1) / "labels.txt"
    os.link(labels, installed.home / "blob")
    open_installed(installed.release_folder(1)).verify()


def test_a_changed_manifest_is_refused(installed: InstalledModel) -> None:
    manifest = installed.release_folder(1) / "manifest.json"
    manifest.write_text(manifest.read_text().replace("1e-3", "1e3") + " ")
    with pytest.raises(BundleError, match="not the one that was installed"):
        open_installed(installed.release_folder(1))


def test_a_damaged_artifact_is_found_when_it_is_loaded(installed: InstalledModel) -> None:
    artifact = installed.release_folder(1) / "variants" / "onnxruntime-float32" / "digits.onnx"
    content = bytearray(artifact.read_bytes())
    content[1000] ^= 1
    artifact.write_bytes(content)
    with pytest.raises(BundleError, match="damaged"):
        edgeml.load(installed.release_folder(1))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"variants": []}, "variants: names none"),
        ({"variants": ["x"]}, "no variant 'x'"),
        ({"variants": "litert-float32"}, "variants: must be a list"),
        ({"release": 2}, "of another release"),
        ({"model": "kws"}, "of another release"),
    ],
)
def test_an_installation_that_cannot_be_is_refused(
    installed: InstalledModel, values: dict[str, object], said: str
) -> None:
    file = installed.release_folder(1) / "installed.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
    with pytest.raises(BundleError, match=said):
        open_installed(installed.release_folder(1))


def test_an_installation_is_written_as_the_reference_says(installed: InstalledModel) -> None:
    written = json.loads((installed.release_folder(1) / "installed.json").read_text())
    assert written.keys() == {"schema", "model", "release", "manifest_sha256", "variants"}
    assert written["schema"] == 1
    assert read_installation(installed.release_folder(1)).variants == ("onnxruntime-float32",)


def test_an_extracted_bundle_is_a_whole_release(tmp_path: Path, bundle: Path) -> None:
    folder = open_bundle(bundle).extract(tmp_path / "factory")
    assert len(open_installed(folder).manifest.variants) == 2
    assert open_release(bundle).manifest == open_installed(folder).manifest


def test_a_release_folder_can_be_verified_as_a_bundle_can(installed: InstalledModel) -> None:
    folder = installed.release_folder(1)
    done = CliRunner().invoke(main, ["bundle", "verify", str(folder)])
    assert (done.exit_code, "4 files" in done.output) == (0, True)
    (folder / "labels.txt").write_bytes(b"x" * (folder / "labels.txt").stat().st_size)
    assert CliRunner().invoke(main, ["bundle", "verify", str(folder)]).exit_code == 1


# --- where models lie


def test_the_running_release_is_what_current_leads_to(installed: InstalledModel) -> None:
    assert (installed.running(), installed.before()) == (None, None)
    switch(installed, 1)
    assert installed.running() == 1
    installed.previous.symlink_to("releases/0")
    assert installed.before() == 0
    installed.current.unlink()
    for target in ("factory", "releases/x", "releases/01", "elsewhere/3"):
        installed.current.symlink_to(target)
        assert installed.running() is None
        installed.current.unlink()


def test_models_are_listed_by_name(installed: InstalledModel, bundle: Path) -> None:
    (installed.home / "models" / "zebra").mkdir()
    (installed.home / "models" / ".scratch").mkdir()
    (installed.home / "models" / "file").touch()
    assert [model.name for model in installed_models(installed.home)] == ["digits", "zebra"]
    assert installed_models(installed.home / "none") == ()


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", ".hidden", "x\n"])
def test_a_name_never_leads_out_of_the_models(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be a model's name"):
        InstalledModel(tmp_path, name)
