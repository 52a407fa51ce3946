"""`edgeml bench` and `edgeml run` on a bundle: variants side by side, the declared processing applied."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from edgeml.bundle import write_bundle
from edgeml.cli import main
from edgeml.manifest import FileEntry, Manifest, Variant
from edgeml.preprocess import Postprocess, Preprocess
from edgeml.targets import host
from edgeml.tensors import TensorSpec
from edgeml.testing.models import SMALL_MODELS, make_double, make_quantized

X = np.arange(32, dtype=np.float32).reshape(2, 16)


def _edgeml(*arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments)])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that doubles, in float32 for each runtime, and an int8 variant that keeps what is positive."""
    folder = tmp_path_factory.mktemp("bundle")
    variants, files = [], {}
    for runtime, scheme in [*((name, "float32") for name in SMALL_MODELS), ("litert", "int8_static")]:
        place = folder / f"{runtime}-{scheme}"
        place.mkdir()
        model = (make_double if scheme == "float32" else make_quantized)(place, runtime)
        parts = sorted(place.iterdir(), key=lambda path: path != model)
        entries = tuple(FileEntry(f"variants/{place.name}/{part.name}", 0, "") for part in parts)
        files |= {entry.path: part for entry, part in zip(entries, parts, strict=True)}
        variants.append(Variant(place.name, runtime, scheme, entries, (host().name,)))
    labels = folder / "labels.txt"
    labels.write_text("".join(f"class {place}\n" for place in range(16)))
    manifest = Manifest(
        name="double",
        release=1,
        inputs=(TensorSpec("x", (1, 16), "float32"),),
        outputs=(TensorSpec("y", (1, 16), "float32"),),
        variants=tuple(variants),
        files=(FileEntry("labels.txt", 0, ""),),
        preprocess=Preprocess(scale=0.5),
        postprocess=Postprocess(argmax=True),
        labels="labels.txt",
    )
    path = folder / "double-1.edgeml"
    write_bundle(path, manifest, files | {"labels.txt": labels})
    return path


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", X)
    return tmp_path / "x.npy"


def test_bench_measures_every_variant(bundle: Path) -> None:
    done = _edgeml("bench", bundle, "--runs", 10, "--json")
    assert done.exit_code == 0, done.stderr
    rows = json.loads(done.stdout)["results"]
    expected = [f"{name}-float32" for name in SMALL_MODELS] + ["litert-int8_static"]
    assert [row["variant"] for row in rows] == expected
    assert {row["status"] for row in rows} == {"ok"}


@pytest.mark.parametrize("arguments", [("bench",), ("run",)])
def test_a_bundle_is_known_by_its_content_where_it_was_renamed(
    bundle: Path, samples: Path, tmp_path: Path, arguments: tuple[str]
) -> None:
    renamed = tmp_path / "double.bin"
    renamed.symlink_to(bundle)
    rest = ("--runs", 1) if arguments == ("bench",) else (samples,)
    done = _edgeml(*arguments, renamed, *rest, "--variant", "litert-float32", "--json")
    assert done.exit_code == 0, done.stderr


def test_bench_marks_the_quickest_of_several(bundle: Path) -> None:
    done = _edgeml(
        "bench", bundle, "--variant", "litert-float32", "--variant", "openvino-float32", "--runs", 50
    )
    assert done.exit_code == 0, done.stderr
    assert "litert-float32 *" in done.stdout
    assert "onnxruntime" not in done.stdout


def test_bench_names_the_variants_where_one_is_unknown(bundle: Path) -> None:
    done = _edgeml("bench", bundle, "--variant", "tpu-int4")
    assert done.exit_code == 2
    assert "it has: litert-float32, onnxruntime-float32" in done.stderr


def test_bench_refuses_an_option_that_no_runtime_of_the_bundle_has(bundle: Path) -> None:
    done = _edgeml("bench", bundle, "--option", "foo=1")
    assert done.exit_code == 2
    assert "has no option 'foo'" in done.stderr


def test_bench_takes_an_option_that_one_runtime_has(bundle: Path) -> None:
    done = _edgeml("bench", bundle, "--option", "xnnpack=false", "--runs", 5, "--json")
    assert done.exit_code == 0, done.stderr
    rows = json.loads(done.stdout)["results"]
    assert {row["status"] for row in rows if row["runtime"] == "litert"} == {"ok"}
    assert {row["status"] for row in rows if row["runtime"] != "litert"} == {"failed"}


@pytest.mark.parametrize("runtime", SMALL_MODELS)
def test_run_applies_what_the_bundle_declares(bundle: Path, samples: Path, runtime: str) -> None:
    variant = f"{runtime}-float32"
    done = _edgeml("run", bundle, samples, "--variant", variant, "--json")
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["model"], report["runtime"], report["variant"]) == (
        "double",
        runtime,
        f"{runtime}-float32",
    )
    assert [row["outputs"]["y"][0] for row in report["results"]] == X.tolist()
    assert [row["classes"][0]["label"] for row in report["results"]] == ["class 15", "class 15"]


def test_run_gives_floats_of_an_int8_variant(bundle: Path, samples: Path) -> None:
    report = json.loads(_edgeml("run", bundle, samples, "--variant", "litert-int8_static", "--json").stdout)
    assert [row["outputs"]["y"][0] for row in report["results"]] == (X / 2).tolist()
