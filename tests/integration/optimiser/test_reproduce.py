"""``edgeml reproduce``: a conversion again, from its record."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from edgeml_converters.convert import convert

from edgeml import targets
from edgeml.bundle import open_bundle
from edgeml.cli import main
from edgeml.errors import UsageError
from tests.integration.optimiser import broken_int8


def edgeml(*words: object) -> Any:
    return CliRunner().invoke(main, list(map(str, words)))


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Convert a network that int8 ruins, from files in a folder; gives the folder with ``out.edgeml``."""
    folder = tmp_path_factory.mktemp("made")
    broken_int8.digits_onnx(folder)
    pictures, labels = broken_int8.held_out_digits()
    np.savez(folder / "calibration.npz", x=np.concatenate(broken_int8.calibration_digits()))
    np.savez(folder / "evaluation.npz", x=np.concatenate(pictures), y=labels)
    done = edgeml(
        *("convert", folder / "outlier.onnx", "--runtime", "onnxruntime", "--runtime", "openvino"),
        *("--calibration", f"{folder}/calibration.npz:x", "--evaluate", f"{folder}/evaluation.npz:x,y"),
        *("--no-measure", "--no-cache", "--output", folder / "out.edgeml"),
    )
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def made(converted: Path, tmp_path: Path) -> Iterator[Path]:
    """The folder as it was after the conversion, whatever tests do to it."""
    shutil.copytree(converted, tmp_path / "as it was")
    yield converted
    shutil.rmtree(converted)
    shutil.move(tmp_path / "as it was", converted)


def test_everything_comes_out_byte_for_byte(made: Path) -> None:
    done = edgeml("reproduce", made / "out.edgeml", "--no-cache", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["same"] is True
    assert {one["variant"]: one["differences"] for one in found["variants"]} == {
        "onnxruntime-float32": [],
        "onnxruntime-int8_static-equalized": [],
        "openvino-float32": [],
        "openvino-int8_static-equalized": [],
    }
    assert found["circumstances"] == []


def test_a_record_alone_will_do_and_data_may_have_moved(made: Path) -> None:
    edgeml("bundle", "extract", made / "out.edgeml", "record.json", "--output", made / "taken")
    shutil.move(made / "calibration.npz", made / "moved.npz")
    words = ("reproduce", made / "taken/record.json", "--model", made / "outlier.onnx")
    assert edgeml(*words).exit_code == 1
    done = edgeml(*words, "--calibration", f"{made}/moved.npz:x", "--output", made / "again.edgeml")
    assert done.exit_code == 0, done.output
    assert "the same" in done.stdout
    assert (made / "again.edgeml").exists()


def test_labels_and_slices_of_their_own_may_have_moved_too(made: Path) -> None:
    pictures, labels = broken_int8.held_out_digits()
    np.save(made / "x.npy", np.concatenate(pictures))
    np.save(made / "y.npy", labels)
    np.save(made / "part.npy", np.arange(len(labels)) % 2)
    done = edgeml(
        *("convert", made / "outlier.onnx", "--runtime", "onnxruntime", "--no-measure"),
        *("--evaluate", made / "x.npy", "--labels", made / "y.npy", "--slices", made / "part.npy"),
        *("--output", made / "labelled.edgeml"),
    )
    assert done.exit_code == 0, done.output
    (made / "new").mkdir()
    for name in ("x.npy", "y.npy", "part.npy"):
        shutil.move(made / name, made / "new" / name)
    words = ("reproduce", made / "labelled.edgeml", "--model", made / "outlier.onnx")
    assert edgeml(*words, "--evaluate", made / "new/x.npy").exit_code == 1
    places = ("--evaluate", made / "new/x.npy", "--labels", made / "new/y.npy")
    done = edgeml(*words, *places, "--slices", made / "new/part.npy")
    assert done.exit_code == 0, done.output
    done = edgeml("reproduce", made / "out.edgeml", "--labels", made / "new/y.npy")
    assert done.exit_code == 2
    assert "y.npy: the recorded conversion had no such data" in done.stderr


def test_other_data_are_told_and_what_they_changed(made: Path) -> None:
    np.savez(made / "few.npz", x=np.concatenate(broken_int8.calibration_digits()[:40]) * 0.5)
    done = edgeml("reproduce", made / "out.edgeml", "--calibration", f"{made}/few.npz:x", "--json")
    assert done.exit_code == 3
    found = json.loads(done.stdout)
    assert found["circumstances"] == ["the calibration data are others: 100 samples then, 40 now"]
    changed = {one["variant"] for one in found["variants"] if one["differences"]}
    assert changed == {"onnxruntime-int8_static-equalized", "openvino-int8_static-equalized"}


def test_another_model_is_refused(made: Path) -> None:
    shutil.copy(broken_int8.DIGITS / "digits.onnx", made / "outlier.onnx")
    done = edgeml("reproduce", made / "out.edgeml")
    assert done.exit_code == 1
    assert "is not the model that was converted" in done.stderr
    (made / "outlier.onnx").unlink()
    done = edgeml("reproduce", made / "out.edgeml")
    assert done.exit_code == 1
    assert "give it with --model" in done.stderr


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 1}', "\0"])
def test_what_is_no_record_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text(text)
    done = edgeml("reproduce", tmp_path / "record.json")
    assert done.exit_code == 1
    assert "record.json" in done.stderr


def test_a_record_with_anything_else_in_a_place_is_one_message(made: Path) -> None:
    record = json.loads(open_bundle(made / "out.edgeml").read("record.json"))
    for place, other in (
        (("source",), None),
        (("source", "sha256"), 3),
        (("options",), []),
        (("options", "gates"), None),
        (("options", "targets"), 5),
        (("options", "input_shapes"), "x"),
        (("options", "golden"), "many"),
        (("tools",), None),
        (("data", 0), None),
        (("variants", 0), []),
        (("variants", 0, "status"), None),
    ):
        damaged = copy.deepcopy(record)
        within: Any = damaged
        for step in place[:-1]:
            within = within[step]
        within[place[-1]] = other
        (made / "record.json").write_text(json.dumps(damaged))
        done = edgeml("reproduce", made / "record.json")
        assert done.exit_code == 1, place
        assert str(place[-1]) in done.stderr
        assert "bug" not in done.stderr


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a conversion is asked for, which is not done."""
    found: dict[str, Any] = {}

    def noted(_: Path, **options: Any) -> None:
        found.update(options)
        raise UsageError("enough is known")

    monkeypatch.setattr("edgeml_converters.reproduce.convert", noted)
    return found


def with_options(made: Path, **options: Any) -> Path:
    """Write the record with other options beside the model."""
    record = json.loads(open_bundle(made / "out.edgeml").read("record.json"))
    record["options"] |= options
    (made / "record.json").write_text(json.dumps(record))
    return made / "record.json"


def test_all_that_decides_what_is_made_is_said_again(made: Path, asked: dict[str, Any]) -> None:
    """An argument of convert that is new belongs into the record and the call, or among these."""
    edgeml("reproduce", made / "out.edgeml")
    decides_nothing = {"source", "example_inputs", "max_latency_ms", "threads", "resume", "jobs"}
    assert set(signature(convert).parameters) - set(asked) == decides_nothing


def test_a_target_of_ones_own_is_given_again(made: Path, asked: dict[str, Any]) -> None:
    record = with_options(made, targets=["my-board", "raspberry-pi-4"])
    done = edgeml("reproduce", record)
    assert done.exit_code == 2
    assert "was for 'my-board', which is no target here" in done.stderr
    assert not asked
    shutil.copy(Path(targets.__file__).parent / "raspberry-pi-5.toml", made / "my-board.toml")
    edgeml("reproduce", record, "--target", made / "my-board.toml")
    assert [(one.name, one.cpu) for one in asked["targets"]] == [
        ("my-board", "Cortex-A76"),
        ("raspberry-pi-4", "Cortex-A72"),
    ]
    done = edgeml("reproduce", record, "--target", made / "my-board.toml", "--target", "coral-usb")
    assert done.exit_code == 2
    assert "--target coral-usb: the recorded conversion was for my-board, raspberry-pi-4" in done.stderr


def test_a_machine_of_no_known_class_is_the_target_again(
    made: Path, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    nameless = replace(targets.host(), name="aarch64", architecture="aarch64")
    monkeypatch.setattr("edgeml_converters.reproduce.host", lambda: nameless)
    edgeml("reproduce", with_options(made, targets=["aarch64"]))
    assert asked["targets"] == (nameless,)


def test_a_name_in_a_record_leads_to_no_file(made: Path, asked: dict[str, Any]) -> None:
    shutil.copy(Path(targets.__file__).parent / "raspberry-pi-5.toml", made / "theirs.toml")
    for name in (str(made / "theirs.toml"), "host"):
        done = edgeml("reproduce", with_options(made, targets=[name]))
        assert done.exit_code == 2
        assert "is no target here" in done.stderr
    assert not asked


def test_a_record_lets_no_model_run_code_nor_sends_it_anywhere(made: Path, asked: dict[str, Any]) -> None:
    """A bundle may come from a stranger, and the model with it."""
    with_options(made, trust_code=True, compiler_via="ssh://stranger@host", compiles=True)
    edgeml("reproduce", made / "record.json")
    assert (asked["trust_code"], asked["compile_edgetpu"]) == (False, True)
    edgeml("reproduce", made / "record.json", "--trust-code", "--compiler-via", "ssh://me@here")
    assert (asked["trust_code"], asked["compile_edgetpu"]) == (True, "ssh://me@here")
