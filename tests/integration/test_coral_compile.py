"""``edgeml coral compile`` as typed, with a program in the compiler's place that does what Coral's did."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from edgeml_converters.cli import coral_compile
from edgeml_converters.coral import compile as coral_compiler

import edgeml
from edgeml.bundle import open_bundle, write_bundle
from edgeml.cli import main
from edgeml.fallback import FallbackWarning
from edgeml.manifest import FileEntry, Manifest, Variant
from edgeml.testing.coral.compiled import write_compiled
from edgeml.testing.models import make_double, make_quantized
from tests.conftest import require
from tests.fake_edgetpu_compiler import (
    FAILED,
    INTERNAL,
    V2,
    V16,
    FakeCompiler,
    Run,
    fake_compiler,
    operator_log,
    success,
)
from tests.integration.transports.ssh_server import ssh_server
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOG = operator_log(("RELU", 1, "Mapped to Edge TPU"))
X = np.arange(16, dtype=np.float32).reshape(1, 16) - 8


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder, of this machine and of others; empty afterwards, whatever happened."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    return folder


@pytest.fixture(autouse=True)
def nothing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEML_EDGETPU_COMPILER", raising=False)


@pytest.fixture(autouse=True)
def nothing_is_left(scratch: Path) -> Iterator[None]:
    yield
    assert list(scratch.glob("edgeml*")) == []


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return make_quantized(tmp_path / "models", "litert")


@pytest.fixture
def good(model: Path, tmp_path: Path) -> Run:
    """The compiler has compiled the model."""
    compiled = write_compiled(model, tmp_path / "good.tflite")
    return Run(success(1, 1), compiled=str(compiled), log=LOG)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeCompiler]:
    """Put a compiler into PATH."""

    def make(*runs: Run, version: str = V16) -> FakeCompiler:
        fake = fake_compiler(tmp_path / "coral tools", *runs, version=version)
        monkeypatch.setenv("PATH", f"{fake.path.parent}:{os.environ['PATH']}")
        return fake

    return make


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["coral", "compile", *map(str, arguments)])


def answer(*arguments: object) -> dict[str, Any]:
    done = call(*arguments, "--json")
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def fails(*arguments: object, exit_code: int = 1) -> str:
    done = call(*arguments)
    assert done.exit_code == exit_code, done.output
    return " ".join(done.stderr.split())


def files(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


# --- what it makes


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


def make_bundle(model: Path, folder: Path) -> Path:
    """Write a bundle with a float and an int8 variant, golden samples and a field of a later version."""
    double = make_double(folder, "onnxruntime")
    with edgeml.load(model) as loaded:
        spec = loaded.spec
        np.savez(folder / "golden.npz", y=loaded(X))
    np.savez(folder / "inputs.npz", x=X)
    variants = (
        Variant(
            "onnxruntime-float32", "onnxruntime", "float32", (FileEntry("variants/o/model.onnx", 0, ""),), ()
        ),
        Variant(
            "litert-int8_static",
            "litert",
            "int8_static",
            (FileEntry("variants/l/model.tflite", 0, ""),),
            ("coral-usb", "raspberry-pi-4"),
            golden=FileEntry("golden/litert-int8_static.npz", 0, ""),
            inputs=spec.inputs,
            outputs=spec.outputs,
        ),
    )
    manifest = Manifest(
        "kws",
        3,
        spec.inputs,
        spec.outputs,
        variants,
        (),
        golden_inputs="golden/inputs.npz",
        extra={"later": 1},
    )
    return_to = folder / "kws.edgeml"
    write_bundle(
        return_to,
        manifest,
        {
            "variants/o/model.onnx": double,
            "variants/l/model.tflite": model,
            "golden/litert-int8_static.npz": folder / "golden.npz",
            "golden/inputs.npz": folder / "inputs.npz",
        },
    )
    return return_to


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


def test_the_time_limit_is_the_same_in_the_library() -> None:
    assert coral_compile.TIMEOUT_S == coral_compiler.TIMEOUT_S


# --- against what the real compiler did


@pytest.mark.data
def test_what_the_real_compiler_wrote_and_logged_is_read_and_agrees(data_dir, tmp_path) -> None:
    folder = data_dir / "edgetpu_pairs"
    with (folder / "manifest.tsv").open() as table:
        rows = list(csv.DictReader(table, delimiter="\t"))
    assert len(rows) >= 50
    for number, row in enumerate(rows):
        source, log = folder / f"{row['id']}.tflite", folder / f"{row['id']}_edgetpu.log"
        text = log.read_text() if log.is_file() else ""
        total, mapped = int(row["total_ops"]), int(row["expected_mapped_ops"])
        sizes = {name: f"{int(row[f'{key}_param_bytes']) / 1024:.2f}KiB"
                 for name, key in (("on_chip", "on_chip"), ("streamed", "off_chip"))}  # fmt: skip
        run = Run(
            success(total, mapped, **sizes), compiled=str(folder / f"{row['id']}_edgetpu.tflite"), log=text
        )
        fake = fake_compiler(tmp_path / str(number), run)
        found = answer(source, "--compiler", fake.path, "--output", tmp_path / "out")
        assert (found["mapped"], found["total"]) == (mapped, total), row["id"]
        assert found["min_runtime"] == int(row["min_runtime"]), row["id"]
        assert found["subgraphs"] == 1, row["id"]
        assert found["disagreements"] == [], row["id"]
        if text:
            assert sum(one["count"] for one in found["operators"]) == total, row["id"]
            assert len(found["cpu_operators"]) == sum(
                one["count"] for one in found["operators"] if one["reason"] != "Mapped to Edge TPU"
            )


@pytest.mark.data
def test_a_log_that_says_otherwise_than_the_file_is_told_of(install, data_dir, tmp_path) -> None:
    """The log of one model beside what was made of another is what a mix-up looks like."""
    folder = data_dir / "edgetpu_pairs"
    name = "jorgitou98__N100-nMACs1485619200_quant__66279fe"
    log = (
        (folder / f"{name}_edgetpu.log")
        .read_text()
        .replace("CONV_2D                        5", "CONV_2D                        4")
    )
    install(Run(success(6, 6), compiled=str(folder / f"{name}_edgetpu.tflite"), log=log))
    found = answer(folder / f"{name}.tflite", "--output", tmp_path / "out")
    about = {one["about"]: (one["file"], one["compiler"]) for one in found["disagreements"]}
    assert about["operators in the log"] == (6, 5)
    assert about["operators on the Edge TPU in the log"] == (5, 4)
    assert about["bytes of parameters on the chip"][1] == 64
    text = call(folder / f"{name}.tflite", "--output", tmp_path / "out").stdout
    assert "they do not agree: operators in the log: 6 by the file, 5 by the compiler" in text


@pytest.mark.data
def test_what_was_predicted_otherwise_is_told_of(install, data_dir, tmp_path) -> None:
    """Of a mapping that stops early, as a search makes it, only the second attempt is expected to."""
    folder = data_dir / "edgetpu_pairs"
    name = "google-coral__deeplabv3_mnv2_dm05_pascal_quant__cdc17e7"
    other = "google-coral__deeplabv3_mnv2_dm05_pascal_quant__9ebaa5a"
    for one in (name, other):
        assert (folder / f"{one}.tflite").is_file()
    whole = write_compiled(folder / f"{name}.tflite", tmp_path / "all.tflite")
    fake = install(Run(success(72, 72), compiled=str(whole)))
    (only,) = answer(folder / f"{name}.tflite", "--output", tmp_path / "out")["disagreements"]
    assert only == {"about": "operators on the Edge TPU", "file": 72, "compiler": None, "predicted": 64}
    again = [Run(FAILED.format(said="")), Run(success(72, 72), compiled=str(whole))]
    searching = fake_compiler(tmp_path / "again", *again)
    found = answer(folder / f"{name}.tflite", "--compiler", searching.path, "--output", tmp_path / "out")
    assert found["disagreements"] == []
    assert len(fake.calls) == 1


# --- what is not believed


def test_nothing_mapped_is_a_failure_whatever_the_compiler_says(install, model, tmp_path) -> None:
    log = operator_log(
        ("RELU", 1, "Operation is working on an unsupported data type"), ("ADD", 3, "Operation not supported")
    )
    install(Run(success(4, 0), compiled=str(model), log=log))
    said = fails(model)
    assert (
        "the compiler mapped nothing to the Edge TPU: 3 × Operation not supported; 1 × Operation is" in said
    )
    assert "edgeml coral check" in said
    assert files(model.parent) == ["model.tflite"]


def test_success_without_a_file_is_a_failure_and_an_older_file_is_not_taken_for_it(install, model) -> None:
    install(Run(success(1, 1)))
    old = model.parent / "model_edgetpu.tflite"
    old.write_bytes(b"of yesterday")
    assert "it ended with exit code 0 and wrote nothing (Compilation succeeded!)" in fails(model)
    assert old.read_bytes() == b"of yesterday"


def test_a_compiler_that_says_only_its_version_failed(install, model) -> None:
    """As 15.0 did with what it could not segment."""
    install(Run(), version="15.0.340273435")
    assert "wrote nothing (Edge TPU Compiler version 15.0.340273435)" in fails(model)


@pytest.mark.parametrize("content", ["00" * 64, "1c00000054464c33" + "ff" * 99])
def test_a_file_that_is_no_compiled_model_is_a_failure(install, model, content) -> None:
    install(Run(success(1, 1), content=content))
    assert "is no compiled model that can be read" in fails(model)
    assert files(model.parent) == ["model.tflite"]


def test_a_cut_file_is_a_failure(install, good, model) -> None:
    content = Path(good.compiled).read_bytes()
    install(Run(success(1, 1), content=content[: len(content) // 2].hex()))
    assert "is no compiled model that can be read" in fails(model)


def own_compiler(folder: Path, does: str) -> Path:
    """A compiler in shell, which puts its file where $made says, of what $good says."""
    path = folder / "own" / "edgetpu_compiler"
    path.parent.mkdir()
    path.write_text(
        f"""#!/bin/sh
echo "Edge TPU Compiler version {V16}"
[ "$1" = --version ] && exit 0
while [ $# -gt 1 ]; do [ "$1" = --out_dir ] && out=$2; shift; done
made=$out/model_edgetpu.tflite log=$out/model_edgetpu.log
{does}
"""
    )
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("does", "exit_code"),
    [
        ("cp {good} $out/x; ln -s x $made", 0),
        ("ln -s {good} $made", 0),
        ("cp {good} $made; mkdir $log", 0),
        ("cp {good} $made; mkfifo $log", 0),
        ("mkdir $made; cp {good} $made", 1),
        ("ln -s $made $made", 1),
        ("ln -s /dev/zero $made", 1),
        ("mkfifo $made", 1),
    ],
)
def test_what_is_no_plain_file_is_read_through_or_not_taken(good, model, tmp_path, does, exit_code) -> None:
    compiler = own_compiler(tmp_path, does.format(good=good.compiled))
    done = call(model, "--compiler", compiler)
    assert done.exit_code == exit_code, done.output
    made = model.parent / "model_edgetpu.tflite"
    assert made.is_file() is (exit_code == 0)
    assert not made.is_symlink()
    assert Path(good.compiled).is_file()
    assert "bug" not in done.stderr
    assert exit_code == 0 or "it ended with exit code" in done.stderr


@pytest.mark.parametrize("stream", [1, 2])
def test_a_compiler_that_prints_without_end_is_stopped(good, model, tmp_path, monkeypatch, stream) -> None:
    monkeypatch.setattr(coral_compiler, "_MOST_BYTES", 4 << 20)
    text = fails(model, "--compiler", own_compiler(tmp_path, f"exec cat /dev/zero >&{stream}"))
    assert "signal 25 ended it" in text
    assert "it wrote a file, or printed, more than 4.2 MB" in text


def test_only_the_end_of_what_a_compiler_prints_is_read(good, model, tmp_path) -> None:
    compiler = own_compiler(
        tmp_path,
        f"yes x | head -c 3000000; echo; cp {good.compiled} $made; truncate -s 100M $log; echo last words",
    )
    found = answer(model, "--compiler", compiler)
    assert found["mapped"] == 1
    assert (model.parent / "model_edgetpu.log").stat().st_size <= 1 << 20


def test_what_a_compiler_leaves_running_is_ended(good, model, tmp_path) -> None:
    pid = tmp_path / "pid"
    own = own_compiler(tmp_path, f"sleep 600 & echo $! >{pid}; cp {good.compiled} $made")
    answer(model, "--compiler", own)
    eventually(lambda: not is_running(int(pid.read_text())))


def test_the_compiled_file_of_another_model_is_a_failure(install, model, tmp_path) -> None:
    (tmp_path / "other").mkdir()
    other = write_compiled(make_double(tmp_path / "other", "litert"), tmp_path / "other.tflite")
    install(Run(success(1, 1), compiled=str(other)))
    assert "other inputs or outputs: it is another model's" in fails(model)


def test_a_sound_file_counts_though_the_exit_code_is_not_zero(install, good, model) -> None:
    install(replace(good, exit_code=1))
    done = call(model)
    assert done.exit_code == 0
    assert "ended with exit code 1; its file is sound" in done.stdout


# --- how it fails


def test_an_internal_error_is_tried_again_with_a_search(install, good, model) -> None:
    said = "libc++abi: terminating with uncaught exception of type std::out_of_range: vector"
    fake = install(Run(FAILED.format(said=said), exit_code=1), good)
    found = answer(model)
    first, second = found["attempts"]
    assert (first["outcome"], first["message"]) == ("internal_error", said)
    assert second["options"][-3:] == ["--search_delegate", "--delegate_search_step", "1"]
    assert [options[-3:] for options in fake.options][1] == second["options"][-3:]
    text = call(model).stdout
    assert "1 of 1 operators" in text


def test_a_search_is_said(install, good, model) -> None:
    install(Run(FAILED.format(said=""), exit_code=1), good)
    text = call(model).stdout
    assert "tried before: Compilation failed!" in text
    assert "compiled in part" in text


def test_an_older_compiler_is_run_once_more_as_it_was(install, good, model) -> None:
    fake = install(Run(INTERNAL, exit_code=1), good, version=V2)
    assert len(answer(model)["attempts"]) == 2
    assert fake.options == [["--show_operations", "--out_dir", f"out{one}"] for one in (1, 2)]


def test_an_internal_error_that_stays_is_told_with_what_to_do(install, model) -> None:
    said = "Compilation failed: Compilation failed due to large activation tensors in model."
    fake = install(Run(FAILED.format(said=said), exit_code=1))
    text = fails(model)
    assert f"the compiler failed (2 attempts): {said}; try a smaller input" in text
    assert len(fake.calls) == 2
    assert files(model.parent) == ["model.tflite"]


def test_a_model_that_is_refused_is_not_tried_again(install, model) -> None:
    said = "ERROR: Didn't find op for builtin opcode 'CONV_2D' version '6'"
    fake = install(Run(FAILED.format(said=said), exit_code=1))
    assert "builtin opcode 'CONV_2D' version '6'; export the model for an older TensorFlow Lite" in fails(
        model
    )
    assert len(fake.calls) == 1


def test_a_crash_names_the_signal(install, model) -> None:
    install(Run(signal=signal.SIGSEGV))
    text = fails(model)
    assert "signal 11 ended it" in text
    assert files(model.parent) == ["model.tflite"]


def test_a_crash_after_the_file_was_begun_is_a_crash(install, good, model) -> None:
    install(replace(good, signal=signal.SIGABRT))
    assert "signal 6 ended it" in fails(model)


def test_a_compiler_that_was_killed_may_have_lacked_memory(install, model) -> None:
    install(Run(signal=signal.SIGKILL))
    assert "signal 9 ended it; the machine may be short of memory" in fails(model)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_compiler_that_hangs_is_killed_with_what_it_started(install, good, model) -> None:
    fake = install(replace(good, hangs=True))
    text = fails(model, "--timeout-s", 4)
    assert (
        "did not end within 4 s and was killed; give it more time (edgeml coral compile --timeout-s)" in text
    )
    (asked,) = fake.calls
    assert asked["argv"][3:5] == ["--timeout_sec", "4"]
    eventually(lambda: not is_running(int(asked["pid"])))
    assert files(model.parent) == ["model.tflite"]


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_kills_the_compiler_and_leaves_nothing(install, good, model, sent, code) -> None:
    fake = install(replace(good, hangs=True))
    interrupted(model, fake, sent=sent, code=code)
    assert files(model.parent) == ["model.tflite"]


def interrupted(
    model: Path, fake: FakeCompiler, *more: str, sent: signal.Signals = signal.SIGINT, code: int = 130
) -> None:
    argv = [sys.executable, "-m", "edgeml", "coral", "compile", str(model), *more]
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as program:
        eventually(lambda: fake.calls)
        program.send_signal(sent)
        assert program.wait(20) == code
    eventually(lambda: not is_running(int(fake.calls[0]["pid"])))


@pytest.fixture
def small_disk(request: pytest.FixtureRequest, scratch: Path) -> Iterator[None]:
    """The temporary folder is a disk of so many KiB."""
    size = getattr(request, "param", 256)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(scratch)]
    done = subprocess.run(mount, check=False, capture_output=True)
    require(done.returncode == 0, "mounting a tmpfs takes root")
    yield
    subprocess.run(["umount", str(scratch)], check=True)


def test_a_full_disk_is_named_before_anything_is_done(install, good, model, small_disk) -> None:
    fake = install(good)
    text = fails(model)
    assert "the disk is full on this machine: " in text
    assert "set TMPDIR to another place" in text
    assert fake.calls == []
    assert files(model.parent) == ["model.tflite"]


def test_a_full_disk_elsewhere_is_named(url, there, good, model, small_disk) -> None:
    fake = there(good)
    assert f"the disk is full on {url}: " in fails(model, "--via", url)
    assert fake.calls == []


@pytest.mark.parametrize("small_disk", [1500], indirect=True)
def test_a_disk_that_gets_full_is_named(install, model, tmp_path, small_disk) -> None:
    compiled = write_compiled(model, tmp_path / "large.tflite", 2_000_000)
    fake = install(Run(success(1, 1), compiled=str(compiled), log=LOG))
    assert "the disk is full on this machine: " in fails(model)
    assert len(fake.calls) == 1
    assert files(model.parent) == ["model.tflite"]


@pytest.mark.parametrize("output", ["out", "out/model.edgeml"])
def test_a_full_disk_where_the_result_goes_leaves_nothing(install, model, tmp_path, output) -> None:
    compiled = write_compiled(model, tmp_path / "large.tflite", 400_000)
    install(Run(success(1, 1, on_chip="390.63KiB"), compiled=str(compiled), log=LOG))
    (tmp_path / "out").mkdir()
    code = (
        "import resource, sys; from edgeml.cli import main\n"
        "import edgeml_converters.coral.compiled_bundle as b\n"
        "real = b.make_folder\n"
        "def full(folder):\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); real(folder)\n"
        "b.make_folder = full; main(sys.argv[1:])"
    )
    argv = [sys.executable, "-c", code, "coral", "compile", str(model), "--output", str(tmp_path / output)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "disk" in done.stderr
    assert "full" in done.stderr
    assert [name for name in files(tmp_path / "out") if "edgetpu.tflite" in name or "edgeml" in name] == []


# --- what is not there


def only_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, platform: str = "") -> None:
    """Leave the usual tools in PATH, and let the machine be of another kind."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "uname", "test", "mkdir", "df", "mktemp", "rm"):
        (tools / name).symlink_to(str(shutil.which(name)))
    if platform:
        system, machine = platform.split()
        (tools / "uname").unlink()
        (tools / "uname").write_text(f'#!/bin/sh\n[ "$1" = -s ] && echo {system} || echo {machine}\n')
        (tools / "uname").chmod(0o755)
    monkeypatch.setenv("PATH", str(tools))


def test_a_machine_without_the_compiler_says_where_it_comes_from(model, tmp_path, monkeypatch) -> None:
    only_tools(tmp_path, monkeypatch)
    text = fails(model)
    assert "this machine has no program edgetpu_compiler (not in PATH, /usr/bin, /usr/local/bin)" in text
    assert "install Coral's package edgetpu-compiler" in text
    assert "--compiler-via ssh://USER@HOST" in text


@pytest.mark.parametrize("platform", ["Linux aarch64", "Darwin arm64"])
def test_a_machine_on_which_it_does_not_run_says_so(model, tmp_path, monkeypatch, platform) -> None:
    only_tools(tmp_path, monkeypatch, platform)
    text = fails(model)
    assert f"Coral's compiler runs on x86-64 Linux alone, and this is {platform}" in text
    assert "--compiler-via ssh://USER@HOST" in text
    assert "install" not in text


def test_a_machine_of_another_kind_may_have_one_all_the_same(good, model, tmp_path, monkeypatch) -> None:
    """In an emulator, or a script that starts a container."""
    fake = fake_compiler(tmp_path / "mine", good)
    only_tools(tmp_path, monkeypatch, "Darwin arm64")
    assert answer(model, "--compiler", fake.path)["mapped"] == 1


def test_the_compiler_may_be_named_by_a_variable(good, model, tmp_path, monkeypatch) -> None:
    fake = fake_compiler(tmp_path / "mine", good)
    monkeypatch.setenv("EDGEML_EDGETPU_COMPILER", str(fake.path))
    assert answer(model)["compiler"]["path"] == str(fake.path)
    monkeypatch.setenv("EDGEML_EDGETPU_COMPILER", "yours")
    assert "this machine has no program yours: " in fails(model)


def test_the_compiler_may_be_named_by_a_relative_path(good, model, tmp_path, monkeypatch) -> None:
    fake = fake_compiler(tmp_path / "mine", good)
    monkeypatch.chdir(tmp_path)
    assert answer(model, "--compiler", "mine/edgetpu_compiler")["compiler"]["path"] == str(fake.path)
    assert "this machine has no" in fails(model, "--compiler", "yours/edgetpu_compiler")


def test_what_it_prints_does_not_write_to_the_terminal(install, model) -> None:
    install(Run("\x1b]0;owned\x07Internal compiler error \x1b[2J", exit_code=1))
    assert "\x1b" not in fails(model)


def test_another_program_is_not_taken_for_it(model) -> None:
    text = fails(model, "--compiler", shutil.which("true"))
    assert "is no Edge TPU compiler that can be run: with --version it should say" in text


def test_a_program_of_another_machine_says_so(model, tmp_path) -> None:
    foreign = tmp_path / "edgetpu_compiler"
    foreign.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(200))
    foreign.chmod(0o755)
    assert "is no Edge TPU compiler that can be run" in fails(model, "--compiler", foreign)


def test_what_is_compiled_already_or_no_tflite_is_not_compiled(install, good, model, tmp_path) -> None:
    fake = install(good)
    assert "compiled for the Edge TPU already" in fails(good.compiled)
    assert "edgeml convert" in fails(make_double(tmp_path, "onnxruntime"))
    assert fake.calls == []


def test_machines_are_told_of_errors(install, model) -> None:
    install(Run(signal=signal.SIGSEGV))
    done = call(model, "--json")
    found = json.loads(done.stdout)
    assert found["error"]["type"] == "ConversionError"
    assert "signal 11" in found["error"]["message"]


# --- elsewhere


@pytest.fixture(params=["local", "ssh"])
def url(request: pytest.FixtureRequest, scratch: Path, tmp_path: Path) -> Iterator[str]:
    """Another machine, whose PATH has the compiler; this one's has it too, and fails."""
    if request.param == "local":
        yield "local:"
        return
    (tmp_path / "sshd").mkdir()
    there = tmp_path / "there"
    with ssh_server(
        tmp_path / "sshd", f"SetEnv PATH={there}:{os.environ['PATH']} TMPDIR={scratch}"
    ) as server:
        yield server.url


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeCompiler]:
    def make(*runs: Run) -> FakeCompiler:
        fake = fake_compiler(tmp_path / "there", *runs)
        monkeypatch.setenv("PATH", f"{fake.path.parent}:{os.environ['PATH']}")
        return fake

    return make


def test_another_machine_compiles(url, there, good, model, scratch) -> None:
    fake = there(good)
    found = answer(model, "--via", url)
    assert found["compiler"] == {"path": str(fake.path), "version": V16, "on": url}
    assert (model.parent / "model_edgetpu.tflite").read_bytes() == Path(good.compiled).read_bytes()
    assert (model.parent / "model_edgetpu.log").read_text() == LOG
    (asked,) = fake.calls
    assert asked["folder"].startswith(f"{scratch}/edgeml.")
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(
    ("does", "says"),
    [
        (Run(FAILED.format(said=""), exit_code=1), "failed (2 attempts)"),
        (Run(signal=signal.SIGSEGV), "signal 11"),
        (Run(success(1, 1)), "wrote nothing"),
        (Run(success(1, 1), content="00" * 64), "no compiled model"),
    ],
    ids=["internal", "crash", "nothing", "garbage"],
)
def test_what_fails_there_fails_as_here_and_leaves_nothing(url, there, model, scratch, does, says) -> None:
    there(does)
    assert says in fails(model, "--via", url)
    assert files(model.parent) == ["model.tflite"]
    assert list(scratch.iterdir()) == []


def test_a_compiler_that_hangs_there_is_killed(url, there, good, model, scratch) -> None:
    fake = there(replace(good, hangs=True))
    assert "did not end within 4 s and was killed" in fails(model, "--via", url, "--timeout-s", 4)
    eventually(lambda: not is_running(int(fake.calls[0]["pid"])))
    assert list(scratch.iterdir()) == []


def test_ctrl_c_kills_it_there_too(url, there, good, model, scratch) -> None:
    fake = there(replace(good, hangs=True))
    interrupted(model, fake, "--via", url)
    assert list(scratch.iterdir()) == []


def test_what_it_leaves_running_there_is_ended(url, good, model, tmp_path, scratch) -> None:
    pid = tmp_path / "pid"
    own = own_compiler(tmp_path, f"sleep 600 & echo $! >{pid}; ln -s {good.compiled} $made")
    answer(model, "--via", url, "--compiler", own)
    eventually(lambda: not is_running(int(pid.read_text())))
    assert not (model.parent / "model_edgetpu.tflite").is_symlink()
    assert list(scratch.iterdir()) == []


def test_printing_there_without_end_is_stopped(url, good, model, tmp_path, monkeypatch, scratch) -> None:
    monkeypatch.setattr(coral_compiler, "_MOST_BYTES", 4 << 20)
    own = own_compiler(tmp_path, "exec cat /dev/zero")
    assert "signal 25 ended it" in fails(model, "--via", url, "--compiler", own)
    assert list(scratch.iterdir()) == []


def test_two_compilations_there_at_once_do_not_meet(url, good, model, tmp_path, scratch) -> None:
    own = own_compiler(tmp_path, f"sleep 1; [ -e model.tflite ] && cp {good.compiled} $made")
    argv = [sys.executable, "-m", "edgeml", "coral", "compile", str(model), "--via", url]
    programs = [
        subprocess.Popen([*argv, "--compiler", str(own), "-o", str(tmp_path / name)], stderr=subprocess.PIPE)
        for name in ("first", "second.edgeml", "first")
    ]
    for program in programs:
        assert program.communicate(timeout=60)[1].count(b"error") == 0
        assert program.returncode == 0
    assert files(tmp_path / "first") == ["model.tflite", "model_edgetpu.log", "model_edgetpu.tflite"]
    assert open_bundle(tmp_path / "second.edgeml").manifest.variants[0].needs.accelerator == "edgetpu"
    assert list(scratch.iterdir()) == []


def test_a_machine_that_is_lost_is_an_error_and_its_compiler_is_killed(
    good, model, scratch, tmp_path
) -> None:
    fake = fake_compiler(tmp_path / "there", replace(good, hangs=True))
    (tmp_path / "sshd").mkdir()
    with ssh_server(tmp_path / "sshd", f"SetEnv TMPDIR={scratch}") as server:
        argv = [sys.executable, "-m", "edgeml", "coral", "compile", str(model), "--via", server.url]
        argv += ["--compiler", str(fake.path)]
        with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as program:
            eventually(lambda: fake.calls)
            server.cut()
            _, said = program.communicate(timeout=30)
        assert program.returncode == 1
        assert "the connection was lost" in said
        eventually(lambda: not is_running(int(fake.calls[0]["pid"])))
    assert files(model.parent) == ["model.tflite"]
    shutil.rmtree(next(scratch.glob("edgeml.*")))  # nobody is left to remove it


def test_a_machine_without_the_compiler_is_named(url, model) -> None:
    text = fails(model, "--via", url, "--compiler", "no_such_compiler")
    assert f"{url} has no program no_such_compiler" in text


def test_a_machine_that_cannot_be_reached_is_named(model, tmp_path) -> None:
    text = fails(model, "--via", "ssh://127.0.0.1:1")
    assert "ssh://127.0.0.1:1" in text
