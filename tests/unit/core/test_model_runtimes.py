"""``Model`` over every runtime, on models of three operators."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import edgeml
from edgeml.bundle import open_bundle, write_bundle
from edgeml.errors import BundleError, InputNameError, ModelFileError
from edgeml.manifest import FileEntry, Manifest, Variant
from edgeml.preprocess import Preprocess
from edgeml.targets import host
from edgeml.tensors import Shape, TensorSpec
from edgeml.testing.models import make_crossed, make_double, make_quantized
from edgeml.words import RUNTIMES, RuntimeName

X = np.arange(16, dtype=np.float32)[None]

pytestmark = pytest.mark.parametrize("runtime", RUNTIMES)


def make_bundle(
    folder: Path, artifact: Path, runtime: RuntimeName, names: tuple[str, str], shape: Shape = (1, 16)
) -> Path:
    """Write a bundle with its own names for the inputs and outputs of one artifact."""
    files = {f"variants/v/{place.name}": place for place in (artifact, *artifact.parent.glob("*.bin"))}
    variant = Variant(
        "v", runtime, "float32", tuple(FileEntry(name, 0, "") for name in files), (host().name,)
    )
    inputs, outputs = ((TensorSpec(name, shape, "float32"),) for name in names)
    manifest = Manifest("small", 7, inputs, outputs, (variant,), (), preprocess=Preprocess(scale=3.0))
    write_bundle(folder / "small-7.edgeml", manifest, files)
    return folder / "small-7.edgeml"


def test_one_array_gives_one_array(tmp_path: Path, runtime: RuntimeName) -> None:
    with edgeml.load(make_double(tmp_path, runtime)) as model:
        assert model.runtime == runtime
        np.testing.assert_array_equal(model(X), 2 * X)
        np.testing.assert_array_equal(model.run({"x": X})["y"], 2 * X)


def test_several_inputs_go_by_name_and_several_outputs_come_by_name(
    tmp_path: Path, runtime: RuntimeName
) -> None:
    with edgeml.load(make_crossed(tmp_path, runtime)) as model:
        found = model(left=X, right=X)
        np.testing.assert_array_equal(found["total"], 2 * X)
        np.testing.assert_array_equal(found["product"], X * X)
        prediction = model.predict({"left": X[0], "right": X[0]})
        np.testing.assert_array_equal(prediction.outputs["product"], X * X)
        with pytest.raises(InputNameError, match="several inputs, pass each by its name: left, right"):
            model(X)
        with pytest.raises(InputNameError, match="input 'right' is missing"):
            model.predict(X)


def test_an_int8_artifact_takes_float_and_gives_float(tmp_path: Path, runtime: RuntimeName) -> None:
    """``y = max(x, 0)`` with scale 0.5 and zero point 10."""
    path = make_bundle(tmp_path, make_quantized(tmp_path, runtime), runtime, ("x", "y"))
    with edgeml.load(path) as model:
        np.testing.assert_array_equal(model(X - 4), np.maximum(X - 4, 0))
        stored = model(np.full((1, 16), 14, np.int8))
        assert (stored.dtype, stored[0, 0]) == (np.int8, 14)
        assert model.spec.inputs[0].dtype == "float32"


def test_a_bundle_names_what_its_artifact_calls_otherwise(tmp_path: Path, runtime: RuntimeName) -> None:
    path = make_bundle(tmp_path, make_double(tmp_path, runtime), runtime, ("sound", "scores"))
    with edgeml.load(path) as model:
        np.testing.assert_array_equal(model(X), 2 * X)
        assert model.run({"sound": X}).keys() == {"scores"}
        np.testing.assert_array_equal(model.predict(X[0]).outputs["scores"], 6 * X)
        with pytest.raises(InputNameError, match="no input 'x'; inputs are: sound"):
            model.run({"x": X})


def test_a_manifest_that_says_another_shape_than_the_artifact_is_refused(
    tmp_path: Path, runtime: RuntimeName
) -> None:
    path = make_bundle(tmp_path, make_double(tmp_path, runtime), runtime, ("x", "y"), (1, 4, 4))
    with pytest.raises(BundleError, match=r"says x float32\[1,4,4\], variant v has x float32\[1,16\]"):
        edgeml.load(path)


def test_an_artifact_of_several_files_is_cached_whole(
    tmp_path: Path, runtime: RuntimeName, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEML_CACHE_DIR", str(tmp_path / "cache"))
    path = make_bundle(tmp_path, make_double(tmp_path, runtime), runtime, ("x", "y"))
    edgeml.load(path).close()
    (folder,) = (tmp_path / "cache" / "variants").iterdir()
    wanted = {entry.path for entry in open_bundle(path).manifest.variants[0].files}
    assert {place.relative_to(folder).as_posix() for place in folder.rglob("*") if place.is_file()} == wanted
    if runtime == "openvino":
        (folder / "variants" / "v" / "model.bin").unlink()
    with edgeml.load(path) as model:
        np.testing.assert_array_equal(model(X), 2 * X)


def test_a_truncated_file_is_refused(tmp_path: Path, runtime: RuntimeName) -> None:
    artifact = make_double(tmp_path, runtime)
    artifact.write_bytes(artifact.read_bytes()[:-20])
    with pytest.raises(ModelFileError, match="truncated"):
        edgeml.load(artifact)
