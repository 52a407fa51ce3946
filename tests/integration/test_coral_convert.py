"""``edgeml convert`` for Coral targets, with a program in the Edge TPU compiler's place."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner
from edgeml_converters.convert import convert
from edgeml_converters.coral.cut import cut

import edgeml
from edgeml import edgetpu
from edgeml.bundle import open_bundle
from edgeml.cli import main
from edgeml.fallback import FallbackWarning
from edgeml.health import HealthPolicy
from edgeml.selftest import run_selftest
from edgeml.testing.coral import VARIABLE, standin_options
from edgeml.testing.coral.compiled import write_compiled
from tests.fake_edgetpu_compiler import V16, FakeCompiler, Run, fake_compiler, success
from tests.integration import coral_models

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeml_converters.convert import ConvertResult
    from edgeml_converters.variants.rows import Row

PLAIN = "litert-int8_static-coral"
NAME = f"{PLAIN}-edgetpu"
SAMPLES = np.random.default_rng(0).normal(size=(8, 6, 6, 4)).astype(np.float32)
IMAGES = np.random.default_rng(0).normal(size=(8, 32, 32, 3)).astype(np.float32)


@pytest.fixture(autouse=True)
def no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide a real one of whoever runs the tests."""
    monkeypatch.setenv("EDGEML_EDGETPU_COMPILER", str(tmp_path / "none"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """An int8 model that is rewritten for the Edge TPU first: 8 operators then."""
    return coral_models.grouped(tmp_path / "model.tflite")


@pytest.fixture
def made(model: Path, tmp_path: Path) -> Callable[..., ConvertResult]:
    def make(targets: Any = "coral-usb", **options: Any) -> ConvertResult:
        given = {"runtimes": "litert", "schemes": "int8_static", "measure": False}
        return convert(model, targets=targets, output=tmp_path / "out", **{**given, **options})

    return make


@pytest.fixture
def source(made: Callable[..., ConvertResult], tmp_path: Path) -> Path:
    """The int8 file that is compiled: conversions of one model and data give the same one."""
    result = made(compile_edgetpu=False)
    assert result.bundle is not None
    bundle = open_bundle(result.bundle)
    path = tmp_path / "source.tflite"
    path.write_bytes(bundle.read(bundle.manifest.variants[0].files[0].path))
    return path


@pytest.fixture
def compiler(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCompiler:
    compiled = write_compiled(source, tmp_path / "compiled.tflite", 90_000)
    fake = fake_compiler(tmp_path / "tools", Run(success(8, 8, on_chip="87.89KiB"), compiled=str(compiled)))
    monkeypatch.setenv("EDGEML_EDGETPU_COMPILER", str(fake.path))
    return fake


def the_row(result: ConvertResult) -> Row:
    (row,) = [one for one in result.rows if one.name == NAME]
    return row


def test_the_bundle_has_the_compiled_variant_whose_fallback_is_its_source(made, source, compiler) -> None:
    result = made()
    row = the_row(result)
    assert (row.status, row.accelerator, row.targets) == ("ok", "edgetpu", ("coral-usb",))
    bundle = open_bundle(result.bundle)
    bundle.verify()
    compiled, plain = bundle.manifest.variants
    assert (compiled.name, plain.name) == (NAME, PLAIN)
    assert compiled.needs.accelerator == "edgetpu"
    assert compiled.fallback == f"variants/{NAME}/model.tflite"
    assert [entry.path for entry in compiled.files] == [
        f"variants/{NAME}/model_edgetpu.tflite",
        compiled.fallback,
    ]
    assert bundle.read(compiled.fallback) == bundle.read(plain.files[0].path) == source.read_bytes()
    assert compiled.extra["edgetpu"] == {"compiler": V16, "min_runtime": 14, "mapped": 8, "total": 8}
    assert compiled.extra["chosen_for"] == ["coral-usb"]
    assert (compiled.inputs, compiled.outputs) == (plain.inputs, plain.outputs)
    assert compiled.tolerance == plain.tolerance
    assert "8 of 8 operators on the edgetpu" in result.choices[0].reason
    assert "accelerator-not-used" not in {one.code for one in result.outcome.findings}
    assert "compiler-disagrees" not in {one.code for row in result.rows for one in row.findings}


def test_the_gate_on_size_holds_the_same_file_in_check_as_in_convert(made, source, compiler) -> None:
    size = str(the_row(made()).size_bytes)
    result = made(max_size_bytes=int(size))
    assert the_row(result).status == "ok"
    done = CliRunner().invoke(main, ["check", str(result.bundle), "--max-size", size])
    assert done.exit_code == 0, done.output


@pytest.mark.filterwarnings("ignore::edgeml.loading.OtherMachineWarning")
def test_a_machine_without_an_edge_tpu_runs_the_plain_variant_and_the_compiled_one_from_its_source(
    made, compiler, tmp_path
) -> None:
    bundle = made().bundle
    with edgeml.load(bundle, variant=PLAIN) as plain:
        expected = plain(SAMPLES[:1])
    with pytest.warns(FallbackWarning, match=f"{NAME} runs on the CPU, from its source"):
        model = edgeml.load(bundle, variant=NAME)
    with model:
        assert (model(SAMPLES[:1]) == expected).all()
    installed = open_bundle(bundle).extract(tmp_path / "installed")
    assert run_selftest(installed, NAME, HealthPolicy(), timeout_s=60).passed


def test_machines_and_the_report_are_told(made, compiler) -> None:
    result = made(targets=("coral-usb", "raspberry-pi-4"))
    found = {one["name"]: one for one in result.to_json()["variants"]}
    assert found[NAME]["accelerator"] == "edgetpu"
    assert found[NAME]["mapping"]["mapped"] == 8
    assert found[NAME]["file"] == f"variants/{NAME}/model_edgetpu.tflite"
    assert found[NAME]["targets"] == ["coral-usb"]
    assert (found[PLAIN]["accelerator"], found[PLAIN]["mapping"]) == (
        None,
        None,
    )
    page = result.report.read_text()
    assert f"<strong>{NAME}</strong> was compiled: 8 of 8 operators" in page
    assert "nothing was compiled" not in page
    record = json.loads(open_bundle(result.bundle).read("record.json"))
    assert {one["name"] for one in record["variants"]} == set(found)
    assert [one.variant for one in result.choices] == [NAME, "litert-int8_static"]


@pytest.mark.data
def test_accuracy_is_that_of_its_source_and_no_time_is_claimed(made, data_dir, tmp_path, monkeypatch) -> None:
    def convert_it(**more: Any) -> ConvertResult:
        data = {"calibration": IMAGES, "evaluation": (IMAGES, np.zeros(len(IMAGES), np.int64))}
        options = {
            "targets": "coral-usb",
            "schemes": "int8_static",
            "output": tmp_path / "out",
            **data,
            **more,
        }
        return convert(data_dir / "ic" / "pretrainedResnet.tflite", **options)

    bundle = open_bundle(convert_it(measure=False, compile_edgetpu=False).bundle)
    (tmp_path / "int8.tflite").write_bytes(bundle.read(f"variants/{PLAIN}/model.tflite"))
    compiled = write_compiled(tmp_path / "int8.tflite", tmp_path / "compiled.tflite", 90_000)
    fake = fake_compiler(tmp_path / "tools", Run(success(16, 16, on_chip="87.89KiB"), compiled=str(compiled)))
    monkeypatch.setenv("EDGEML_EDGETPU_COMPILER", str(fake.path))
    result = convert_it(measure=True)
    row = the_row(result)
    (plain,) = [one for one in result.rows if one.name == PLAIN]
    assert row.measured.accuracy == plain.measured.accuracy is not None
    assert plain.measured.latency_ms is not None
    assert row.measured.latency_ms is None
    assert row.measured.peak_memory_bytes is None
    assert "not-measured" not in {one.code for one in row.findings}
    assert "compiler-disagrees" not in {one.code for one in row.findings}


def test_without_a_compiler_the_row_is_unavailable_and_says_what_to_do(made, source, tmp_path) -> None:
    result = made()
    row = the_row(result)
    assert row.status == "unavailable"
    assert f"this machine has no program {tmp_path / 'none'}" in row.reason
    assert "--compiler-via ssh://USER@HOST" in row.reason
    assert [one.variant for one in result.choices] == [PLAIN]
    (finding,) = [one for one in result.outcome.findings if one.code == "accelerator-not-used"]
    assert finding.remedy == f"do what {NAME} says"
    assert [one.name for one in open_bundle(result.bundle).manifest.variants] == [PLAIN]


@pytest.mark.parametrize(
    ("does", "says"),
    [
        (Run("\\nInternal compiler error. Aborting! ", exit_code=1), "failed (2 attempts)"),
        (Run(signal=signal.SIGSEGV), "signal 11"),
        (Run(success(8, 0), compiled="{source}"), "mapped nothing"),
    ],
    ids=["internal", "crash", "nothing"],
)
def test_a_compiler_that_fails_costs_no_other_variant(
    made, source, tmp_path, monkeypatch, does, says
) -> None:
    run = Run(does.printed, does.exit_code, does.compiled.format(source=source), signal=does.signal)
    fake = fake_compiler(tmp_path / "tools", run)
    monkeypatch.setenv("EDGEML_EDGETPU_COMPILER", str(fake.path))
    result = made()
    row = the_row(result)
    assert row.status == "failed"
    assert row.reason.startswith(f"{NAME}: ")
    assert says in row.reason
    assert [one.name for one in result.variants] == [PLAIN]


def test_nothing_is_compiled_where_nothing_is_asked_for(made, compiler) -> None:
    assert [row.name for row in made(compile_edgetpu=False).rows] == [PLAIN]
    on_a_pi = made(targets="raspberry-pi-4")
    assert [row.name for row in on_a_pi.rows] == ["litert-int8_static"]
    assert [row.name for row in made(schemes="float32").rows] == ["litert-float32"]
    assert compiler.calls == []


def test_another_machine_compiles(made, compiler) -> None:
    assert the_row(made(compile_edgetpu="local:")).status == "ok"
    (asked,) = compiler.calls
    assert Path(asked["folder"]).name.startswith("edgeml.")


def test_another_machine_that_is_not_there_is_a_reason(made, source) -> None:
    row = the_row(made(compile_edgetpu="ssh://127.0.0.1:1"))
    assert row.status == "unavailable"
    assert "ssh://127.0.0.1:1" in row.reason


def test_the_command_takes_the_machine_or_leaves_it_out(model, tmp_path, compiler) -> None:
    def call(*more: str) -> Any:
        argv = ["convert", str(model), "--target", "coral-usb", "--scheme", "int8_static", "--no-measure"]
        return CliRunner().invoke(main, [*argv, "--output", str(tmp_path / "o"), *more])

    told = call("--compiler-via", "local:")
    assert told.exit_code == 0, told.output
    assert f"{NAME} *" in told.stdout
    assert NAME not in call("--no-compile").stdout
    both = call("--compiler-via", "local:", "--no-compile")
    assert both.exit_code == 2
    assert "not both" in both.stderr


def test_a_compiled_variant_is_timed_on_a_machine_that_has_an_edge_tpu(
    made, source, compiler, coral_standin, monkeypatch
) -> None:
    """The stand-in takes the Edge TPU's place, and this machine is said to have one."""
    from edgeml import edgetpu
    from edgeml.testing.coral import VARIABLE, standin_options

    monkeypatch.setenv(edgetpu.VARIABLE, str(coral_standin))
    monkeypatch.setenv(VARIABLE, standin_options(source))
    monkeypatch.setenv("EDGEML_TARGET", "coral-usb")
    row = the_row(made(measure=True))
    assert row.status == "ok"
    assert row.measured.latency_ms is not None, row.findings


@pytest.mark.filterwarnings("ignore::edgeml.loading.OtherMachineWarning")
def test_a_model_that_stops_the_compiler_is_cut_compiled_and_joined(
    tmp_path: Path, coral_standin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = coral_models.with_stopper(tmp_path / "model.tflite")
    body = tmp_path / "body.tflite"
    body.write_bytes(cut(whole).body)
    compiled = write_compiled(body, tmp_path / "compiled.tflite", 90_000)
    fake = fake_compiler(tmp_path / "tools", Run(success(2, 2, on_chip="87.89KiB"), compiled=str(compiled)))
    monkeypatch.setenv("EDGEML_EDGETPU_COMPILER", str(fake.path))
    result = convert(
        whole, targets="coral-usb", runtimes="litert", schemes="int8_static", measure=False,
        output=tmp_path / "out",
    )  # fmt: skip
    row = the_row(result)
    assert (row.status, row.mapping["mapped"], row.mapping["total"]) == ("ok", 2, 5)
    assert [one.code for one in row.findings] == ["edge-tpu-cut"]
    assert "operator 3 (RELU_0_TO_1)" in row.findings[0].message
    assert "edge-tpu-stops" not in {one.code for one in result.outcome.findings}
    monkeypatch.setenv(edgetpu.VARIABLE, str(coral_standin))
    monkeypatch.setenv(VARIABLE, standin_options(body))
    given = {"image": SAMPLES[:1], "offset": np.array([0.25], np.float32)}
    with edgeml.load(whole) as plain, edgeml.load(result.bundle, variant=NAME) as model:
        assert model.fallback is None
        expected, found = plain.run(given), model.run(given)
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert np.array_equal(found[name], values)
