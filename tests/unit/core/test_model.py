"""``edgeml.load`` and ``Model`` on real engines."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import edgeml
from edgeml.bundle import open_bundle, write_bundle
from edgeml.errors import (
    BundleError,
    EngineMissingError,
    InferenceError,
    InputNameError,
    InputShapeError,
    ModelFileError,
    UsageError,
)
from edgeml.loading import OtherMachineWarning
from edgeml.manifest import FileEntry, Latency, Manifest, Measured, Needs, Variant
from edgeml.preprocess import Postprocess, Preprocess
from edgeml.settings import settings
from edgeml.targets import host
from edgeml.tensors import TensorSpec

pytestmark = pytest.mark.data
FILES = {"litert": "kws_float.tflite", "onnxruntime": "kws_float.onnx"}
LABELS = [f"word {place}" for place in range(12)]


@pytest.fixture(name="kws")
def folder(data_dir: Path) -> Path:
    return data_dir / "kws"


@pytest.fixture(name="x", scope="module")
def sample() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(1, 49, 10, 1)).astype(np.float32)


def make(path: Path, kws: Path, *, latency: dict[str, float] | None = None, **changes: object) -> Path:
    """Write a bundle of the keyword spotter with a variant for LiteRT and one for ONNX Runtime."""
    latency = {"litert": 1.0, "onnxruntime": 2.0} if latency is None else latency
    variants = tuple(
        Variant(
            name=f"{runtime}-float32",
            runtime=runtime,
            scheme="float32",
            files=(FileEntry(f"variants/{runtime}-float32/{FILES[runtime]}", 0, ""),),
            targets=(host().name,),
            measured=Measured(latency_ms=Latency(p50, p50, p50)),
        )
        for runtime, p50 in latency.items()
    )
    labels = path.parent / "labels"
    labels.write_text("\n".join(LABELS))
    manifest = Manifest(
        "kws",
        3,
        (TensorSpec("mfcc", (1, 49, 10, 1), "float32"),),
        (TensorSpec("scores", (1, 12), "float32"),),
        variants,
        (),
        postprocess=Postprocess(argmax=True, top=2),
        labels="labels.txt",
    )
    files = {entry.path: kws / FILES[one.runtime] for one in variants for entry in one.files}
    write_bundle(path, replace(manifest, **changes), {**files, "labels.txt": labels})
    return path


@pytest.fixture(name="bundle")
def made(tmp_path: Path, kws: Path) -> Path:
    return make(tmp_path / "kws-3.edgeml", kws)


@pytest.mark.parametrize("runtime", FILES)
def test_a_model_file_is_loaded_by_its_content(
    kws: Path, tmp_path: Path, x: np.ndarray, runtime: str
) -> None:
    link = tmp_path / "model"
    link.symlink_to(kws / FILES[runtime])
    with edgeml.load(link) as model:
        assert model.runtime == runtime
        assert (model.release, model.variant) == (None, None)
        y = model(x)
        assert y.shape == (1, 12)
        (name,) = (spec.name for spec in model.spec.inputs)
        np.testing.assert_array_equal(model(**{name: x}), y)
        np.testing.assert_array_equal(next(iter(model.run({name: x}).values())), y)


def test_a_bundle_gives_its_fastest_variant_and_its_own_names(bundle: Path, x: np.ndarray) -> None:
    with edgeml.load(bundle) as model:
        assert (model.name, model.release, model.variant, model.runtime) == (
            "kws",
            3,
            "litert-float32",
            "litert",
        )
        assert model.run({"mfcc": x}).keys() == {"scores"}
        np.testing.assert_array_equal(model(mfcc=x), model(x))
        assert "kws release 3, litert-float32 on litert" in repr(model)


def test_runtime_and_variant_can_be_asked_for(bundle: Path, x: np.ndarray) -> None:
    with edgeml.load(bundle, runtime="onnxruntime") as other, edgeml.load(bundle) as model:
        assert other.variant == "onnxruntime-float32"
        np.testing.assert_allclose(other(x), model(x), atol=1e-4)
    with edgeml.load(bundle, variant="onnxruntime-float32", threads=2) as other:
        assert other.runtime == "onnxruntime"
    with pytest.raises(UsageError, match="its variants are: litert-float32, onnxruntime-float32"):
        edgeml.load(bundle, variant="x")


def test_predict_prepares_the_sample_and_names_the_class(tmp_path: Path, kws: Path, x: np.ndarray) -> None:
    path = make(tmp_path / "b.edgeml", kws, preprocess=Preprocess(scale=2.0, mean=(1.0,)))
    with edgeml.load(path) as model:
        prediction = model.predict(x[0])
        scores = model(x * 2 - 1)[0]
        assert prediction.index == scores.argmax()
        assert prediction.label == LABELS[scores.argmax()]
        assert len(prediction.classes) == 2
        np.testing.assert_array_equal(prediction.outputs["scores"][0], scores)
        with pytest.raises(InputNameError, match="no input 'x'"):
            model.predict({"x": x})


def test_an_int8_file_predicts_real_numbers(kws: Path, x: np.ndarray) -> None:
    with edgeml.load(kws / "kws_ref_model_int8.tflite") as model:
        (spec,) = model.spec.inputs
        stored = np.zeros((1, 49, 10, 1), spec.dtype)
        assert model(stored).dtype == np.int8
        (output,) = model.predict(stored[0]).outputs.values()
        assert output.dtype == np.float32
        assert model(x).dtype == np.float32


def test_what_does_not_fit_is_said_before_the_engine(bundle: Path, x: np.ndarray) -> None:
    with edgeml.load(bundle) as model:
        with pytest.raises(InputShapeError, match="add the batch dimension"):
            model(x[0])
        with pytest.raises(InputNameError, match="no input 'mfc'; inputs are: mfcc"):
            model(mfc=x)
        with pytest.raises(InputNameError, match="not both"):
            model(x, mfcc=x)
        with pytest.raises(InputNameError, match="missing"):
            model()
        with pytest.raises(InputNameError):
            model.run([x])  # type: ignore[arg-type] # the mistake under test


def test_a_closed_model_says_so(bundle: Path, x: np.ndarray) -> None:
    model = edgeml.load(bundle)
    model.close()
    model.close()
    with pytest.raises(InferenceError, match="closed"):
        model(x)


def test_an_extracted_bundle_is_used_in_place(tmp_path: Path, bundle: Path, x: np.ndarray) -> None:
    folder = open_bundle(bundle).extract(tmp_path / "extracted")
    cache = settings().cache_dir / "variants"
    before = set(cache.glob("*"))
    with edgeml.load(folder) as model:
        assert model(x).shape == (1, 12)
    assert set(cache.glob("*")) == before


def test_an_installed_model_is_loaded_by_its_name(
    tmp_path: Path, bundle: Path, x: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEML_HOME", str(tmp_path / "home"))
    with pytest.raises(UsageError, match=r"no installed model 'kws'; installed in .*models: none"):
        edgeml.load("kws")
    installed = tmp_path / "home" / "models" / "kws"
    (installed / "releases").mkdir(parents=True)
    open_bundle(bundle).extract(installed / "releases" / "3")
    (installed / "current").symlink_to("releases/3")
    with edgeml.load("kws") as model:
        assert model.release == 3
        assert model(x).shape == (1, 12)
    with pytest.raises(UsageError, match=r"installed in .*models: kws"):
        edgeml.load("kwz")


def test_another_kind_of_machine_warns(tmp_path: Path, bundle: Path, kws: Path) -> None:
    manifest = open_bundle(bundle).manifest
    foreign = tuple(
        replace(one, targets=("x86-64-amx",), needs=Needs(cpu_features=("none_such",)))
        for one in manifest.variants
    )
    path = make(tmp_path / "other.edgeml", kws, variants=foreign)
    with pytest.warns(OtherMachineWarning, match="this CPU lacks none_such") as caught:
        edgeml.load(path).close()
    assert caught[0].filename == __file__


def test_the_recorded_options_are_applied(tmp_path: Path, kws: Path, bundle: Path) -> None:
    (litert, _) = open_bundle(bundle).manifest.variants
    path = make(
        tmp_path / "o.edgeml",
        kws,
        variants=(replace(litert, options={"no_such_option": "1"}),),
        latency={"litert": 1.0},
    )
    with pytest.raises(UsageError, match="no_such_option"):
        edgeml.load(path)


# --- the cache


def test_a_damaged_cache_is_filled_again(
    tmp_path: Path, bundle: Path, x: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEML_CACHE_DIR", str(tmp_path / "fresh"))
    with edgeml.load(bundle) as model:
        wanted = model(x)
    (cached,) = (settings().cache_dir / "variants").glob("*/variants/litert-float32/*.tflite")
    cached.write_bytes(b"TFL3" * 100)
    with edgeml.load(bundle) as model:
        np.testing.assert_array_equal(model(x), wanted)


def test_a_cache_that_cannot_be_written_says_what_to_do(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EDGEML_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.raises(BundleError, match="set EDGEML_CACHE_DIR"):
        edgeml.load(bundle)


def test_what_a_killed_process_left_in_the_cache_is_removed(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEML_CACHE_DIR", str(tmp_path / "fresh"))
    old, young = (tmp_path / "fresh" / "variants" / name for name in (".old", ".young"))
    for scratch in (old, young):
        scratch.mkdir(parents=True)
    os.utime(old, (0, 0))
    edgeml.load(bundle).close()
    assert not old.exists()
    assert young.exists()


LOAD = (
    "import sys, numpy, edgeml; print(edgeml.load(sys.argv[1])(numpy.zeros((1, 49, 10, 1), 'float32')).shape)"
)


def test_processes_that_load_at_once_all_get_the_model(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEML_CACHE_DIR", str(tmp_path / "fresh"))
    running = [
        subprocess.Popen([sys.executable, "-c", LOAD, str(bundle)], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert [process.communicate()[0] for process in running] == ["(1, 12)\n"] * 4
    assert len(list((tmp_path / "fresh" / "variants").iterdir())) == 1  # and no scratch folder


def test_threads_may_share_a_model(bundle: Path) -> None:
    inputs = [np.full((1, 49, 10, 1), value, np.float32) for value in range(4)]
    with edgeml.load(bundle) as model:
        wanted = [model(x) for x in inputs]
        wrong: list[int] = []

        def work(place: int) -> None:
            results = [model(inputs[place]) for _ in range(200)]
            wrong.extend(place for y in results if not np.array_equal(y, wanted[place]))

        threads = [threading.Thread(target=work, args=(place,)) for place in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


# --- what cannot be loaded


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no such file"):
        edgeml.load(tmp_path / "model.onnx")
    with pytest.raises(ModelFileError, match="no such file"):
        edgeml.load("model.onnx")
    with pytest.raises(BundleError, match="no such bundle"):
        edgeml.load("kws-1.edgeml")


def test_a_format_that_no_runtime_reads_asks_to_convert(data_dir: Path) -> None:
    with pytest.raises(ModelFileError, match="a Keras model, which no runtime reads: run edgeml convert"):
        edgeml.load(data_dir / "ic" / "pretrainedResnet.h5")


def test_a_runtime_that_does_not_read_the_format(kws: Path) -> None:
    with pytest.raises(ModelFileError, match="is a TFLite file, which onnxruntime does not read"):
        edgeml.load(kws / "kws_float.tflite", runtime="onnxruntime")
    with pytest.raises(UsageError, match="no runtime 'none_such'"):
        edgeml.load(kws / "kws_float.tflite", runtime="none_such")


def test_a_model_file_has_no_variants(kws: Path) -> None:
    with pytest.raises(UsageError, match="a model file, not a bundle"):
        edgeml.load(kws / "kws_float.tflite", variant="litert-float32")
    with pytest.raises(UsageError, match="use 1 or more"):
        edgeml.load(kws / "kws_float.tflite", threads=0)


def test_a_bundle_whose_only_engine_is_missing_says_how_to_install_it(
    tmp_path: Path, bundle: Path, kws: Path
) -> None:
    (litert, _) = open_bundle(bundle).manifest.variants
    future = replace(litert, runtime_version=">=99")
    unknown = replace(litert, name="tvm-float32", runtime="tvm")
    for one, said in (
        (future, "needs ai-edge-litert >=99"),
        (unknown, r"pip install 'edgeml-runtimes\[tvm\]'"),
    ):
        path = make(tmp_path / "b.edgeml", kws, variants=(one,), latency={"litert": 1.0})
        with pytest.raises(edgeml.EdgemlError, match=said):
            edgeml.load(path)


def test_a_damaged_artifact_is_refused(tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEML_CACHE_DIR", str(tmp_path / "fresh"))
    content = bundle.read_bytes()
    place = content.index(b"TFL3") + 5000
    bundle.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    with pytest.raises(BundleError, match="damaged"):
        edgeml.load(bundle)


def test_loading_imports_the_chosen_engine_only(bundle: Path) -> None:
    code = (
        "import sys, edgeml\nedgeml.load(sys.argv[1])\n"
        "print([n for n in ('onnxruntime', 'openvino', 'tensorflow', 'click', 'rich') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(bundle)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_nothing_here_warns(bundle: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        edgeml.load(bundle).close()
    assert issubclass(EngineMissingError, edgeml.EdgemlError)
