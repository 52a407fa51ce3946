"""What ``edgeml coral compile`` makes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import edgeml
from edgeml.bundle import open_bundle, write_bundle
from edgeml.fallback import FallbackWarning
from tests.fake_edgetpu_compiler import V16
from tests.integration.coral_compile.calling import LOG, X, answer, call, fails, files, make_bundle


def test_source_and_compiled_file_lie_side_by_side(install, good, model) -> None:
    fake = install(good)
    done = call(model)
    assert done.exit_code == 0, done.output
    assert files(model.parent) == ["model.tflite", "model_edgetpu.log", "model_edgetpu.tflite"]
    assert (model.parent / "model_edgetpu.tflite").read_bytes() == Path(good.compiled).read_bytes()
    assert (model.parent / "model_edgetpu.log").read_text() == LOG
    assert "1 of 1 operators run on the Edge TPU" in done.stdout
    assert "Mapped to Edge TPU" in done.stdout
    assert "agree" not in done.stdout
    (options,) = fake.options
    assert options == ["--show_operations", "--out_dir", "out1", "--timeout_sec", "600"]


def test_machines_are_told_what_was_said_and_what_was_found(install, good, model) -> None:
    fake = install(good)
    found = answer(model)
    assert list(found)[:5] == ["schema", "source", "compiled", "log", "bundle"]
    assert (found["mapped"], found["total"], found["subgraphs"], found["min_runtime"]) == (1, 1, 1, 14)
    assert found["compiler"] == {"path": str(fake.path), "version": V16, "on": "this machine"}
    assert found["operators"] == [{"name": "RELU", "count": 1, "reason": "Mapped to Edge TPU"}]
    assert found["parameters"] == {"on_chip_bytes": 64, "streamed_bytes": 0, "remaining_bytes": 7193231}
    assert found["predicted"] == {"mapped": 0, "unknown": 1}
    assert found["disagreements"] == found["cpu_operators"] == []
    (attempt,) = found["attempts"]
    assert (attempt["outcome"], attempt["exit_code"], attempt["message"]) == ("compiled", 0, "")


def test_a_folder_gets_both(install, good, model, tmp_path) -> None:
    install(good)
    found = answer(model, "--output", tmp_path / "out" / "deep")
    assert files(tmp_path / "out" / "deep") == ["model.tflite", "model_edgetpu.log", "model_edgetpu.tflite"]
    assert (tmp_path / "out" / "deep" / "model.tflite").read_bytes() == model.read_bytes()
    assert found["compiled"] == str(tmp_path / "out" / "deep" / "model_edgetpu.tflite")
    assert files(model.parent) == ["model.tflite"]


def test_another_model_of_that_name_is_not_replaced(install, good, model, tmp_path) -> None:
    install(good)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.tflite").write_bytes(b"another")
    assert "is another model" in fails(model, "--output", tmp_path / "out", exit_code=2)
    assert files(tmp_path / "out") == ["model.tflite"]


def test_a_bundle_has_both_in_one_variant_and_runs_on_the_cpu_from_its_source(
    install, good, model, tmp_path
) -> None:
    install(good)
    found = answer(model, "--output", tmp_path / "model.edgeml")
    assert (found["bundle"], found["variant"]) == (
        str(tmp_path / "model.edgeml"),
        "litert-int8_static-edgetpu",
    )
    assert found["compiled"] is None
    (variant,) = open_bundle(tmp_path / "model.edgeml").manifest.variants
    assert variant.needs.accelerator == "edgetpu"
    assert variant.fallback == variant.files[1].path
    assert variant.targets == ("coral-usb", "coral-dev-board")
    assert variant.extra["edgetpu"] == {"compiler": V16, "min_runtime": 14, "mapped": 1, "total": 1}
    with pytest.warns(FallbackWarning, match="runs on the CPU, from its source"):
        loaded = edgeml.load(tmp_path / "model.edgeml")
    with loaded, edgeml.load(model) as plain:
        assert (loaded(X) == plain(X)).all()


def test_a_bundle_gets_the_compiled_variant_first_and_keeps_the_rest(install, good, model, tmp_path) -> None:
    install(good)
    bundle = make_bundle(model, tmp_path)
    before = open_bundle(bundle).manifest
    for _ in range(2):  # what was compiled before is replaced
        found = answer(bundle, "--output", bundle)
        after = open_bundle(bundle)
        after.verify()
        compiled, *kept = after.manifest.variants
        assert compiled.name == found["variant"] == "litert-int8_static-edgetpu"
        assert tuple(kept) == before.variants
        assert (after.manifest.release, after.manifest.extra) == (3, {"later": 1})
    assert compiled.targets == ("coral-usb",)
    assert compiled.extra["chosen_for"] == ["coral-usb"]
    assert after.read(compiled.fallback or "") == model.read_bytes()
    assert after.read(compiled.files[0].path) == Path(good.compiled).read_bytes()
    assert compiled.golden is not None
    assert kept[1].golden is not None
    assert after.read(compiled.golden.path) == after.read(kept[1].golden.path)
    assert found["source"] == str(bundle)


def test_a_bundle_without_an_int8_variant_says_how_to_make_one(install, good, model, tmp_path) -> None:
    fake = install(good)
    bundle = make_bundle(model, tmp_path)
    found = open_bundle(bundle)
    folder = found.extract(tmp_path / "extracted")
    only = replace(found.manifest, variants=found.manifest.variants[:1])
    listed = {entry.path for entry in (*only.files, *only.variants[0].files)}
    write_bundle(tmp_path / "float.edgeml", only, {name: folder / name for name in listed})
    said = fails(tmp_path / "float.edgeml", "--output", tmp_path / "new.edgeml", exit_code=2)
    assert "no int8_static variant for LiteRT" in said
    assert "edgeml convert --target coral-usb" in said
    assert fake.calls == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["{bundle}"], "say with --output NAME.edgeml"),
        (["{bundle}", "--output", "{folder}"], "say with --output NAME.edgeml"),
        (["{bundle}", "--output", "n.edgeml", "--variant", "x"], "it could be: litert-int8_static"),
        (["{model}", "--variant", "x"], "not a bundle"),
        (["{model}", "--output", "{folder}/x.tflite"], "name a bundle"),
        (["{model}", "--output", "{model}"], "name a bundle"),
        (["{model}", "--timeout-s", "0"], "timeout-s"),
        (["{model}", "--via", "carrier-pigeon://x"], "transports are:"),
    ],
)
def test_wrong_calls_say_what_is_right(install, good, model, tmp_path, arguments, says) -> None:
    fake = install(good)
    bundle = make_bundle(model, tmp_path)
    places = {"bundle": bundle, "model": model, "folder": tmp_path}
    assert says in fails(*(one.format(**places) for one in arguments), exit_code=2)
    assert fake.calls == []


@pytest.mark.parametrize("name", ["-o.tflite", "a model; $(touch x).tflite", "модель.tflite"])
def test_no_name_of_a_file_confuses_the_compiler(install, good, model, name) -> None:
    fake = install(good)
    odd = model.rename(model.with_name(name))
    answer(odd)
    assert files(odd.parent) == sorted(
        [name, *(odd.stem + end for end in ("_edgetpu.log", "_edgetpu.tflite"))]
    )
    assert len(fake.calls) == 1
