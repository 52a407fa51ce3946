"""Weights of 0: which are set, how LiteRT stores them, and when ``convert`` makes such a variant."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from edgeml_converters.convert import convert
from edgeml_converters.quantize import tflite_model
from edgeml_converters.quantize.tflite_sparse import sparsely_stored
from edgeml_converters.reproduce import reproduce
from edgeml_runtimes.litert import LiteRTOptions

from edgeml import plugins
from edgeml.arrays import Array
from edgeml.bundle import open_bundle
from edgeml.cli import main
from edgeml.data import DataDeclaration
from edgeml.errors import QuantizationError
from tests.integration.optimiser import broken_int8, redundant
from tests.integration.optimiser.broken_int8 import converted
from tests.integration.quantize_models import Samples, only, outputs, run_step, top1

STEP = "litert-int8-static"


def calibration() -> Samples:
    return Samples(redundant.NAME, broken_int8.calibration_digits())


def quantized(source: Path, folder: Path, **settings: Any) -> Path:
    return run_step(STEP, source, folder, calibration(), **settings).artifact


def kinds(path: Path) -> list[str]:
    model = tflite_model.parse(path.read_bytes())
    names = tflite_model.operators(model)
    return [names[operator.opcodeIndex] for operator in model.subgraphs[0].operators]


def right(path: Path) -> float:
    pictures, labels = broken_int8.held_out_digits()
    return top1(only(outputs("litert", path, pictures)), labels)


# --- the quantizer


@pytest.mark.parametrize("method", ["default", "minmax"])
def test_redundant_weights_make_a_smaller_file_that_is_as_right(tmp_path: Path, method: str) -> None:
    source = redundant.tflite(tmp_path)
    plain = quantized(source, tmp_path / "plain", method=method)
    pruned = quantized(source, tmp_path / "pruned", method=method, sparsity=0.8)
    assert pruned.stat().st_size < 0.6 * plain.stat().st_size
    assert right(pruned) >= right(source) - 0.005
    assert kinds(pruned).count("DENSIFY") == 2
    assert "DENSIFY" not in kinds(plain)


def test_the_record_says_how_many_weights_became_zero_and_how_they_are_stored(tmp_path: Path) -> None:
    made = run_step(STEP, redundant.tflite(tmp_path), tmp_path / "out", calibration(), sparsity=0.8)
    total = 16 * 9 + 256 * 9 * 16 + 64 * 9 * 256
    assert f"{int(0.8 * total)} of {total} weights set to 0 in 3 operators, 3 biases corrected" in made.notes
    assert made.notes[-1] == "weights of 2 operators stored sparsely"


def test_the_same_data_give_the_same_bytes(tmp_path: Path) -> None:
    source = redundant.tflite(tmp_path)
    one, two = (quantized(source, tmp_path / name, sparsity=0.5).read_bytes() for name in ("a", "b"))
    assert one == two


def test_biases_take_back_what_pruning_shifts(tmp_path: Path) -> None:
    """Means of the outputs over the calibration data stay; weights alone would move them."""
    source = broken_int8.DIGITS / "digits.tflite"
    samples = broken_int8.calibration_digits()
    found = [
        only(outputs("litert", path, samples)).mean(axis=0)
        for path in (source, quantized(source, tmp_path / "pruned", sparsity=0.2))
    ]
    spread = only(outputs("litert", source, samples)).std()
    assert np.abs(found[0] - found[1]).max() < 0.1 * spread


@pytest.mark.parametrize("step", ["onnxruntime-int8-static", "openvino-int8-static", "litert-int8-dynamic"])
def test_what_gains_nothing_refuses_with_the_reason(tmp_path: Path, step: str) -> None:
    source = broken_int8.DIGITS / ("digits.tflite" if step.startswith("litert") else "digits.onnx")
    if step.startswith("openvino"):
        source = run_step("onnx-to-openvino", source, tmp_path / "ir").artifact
    with pytest.raises(QuantizationError, match=r"no faster|not pruned here"):
        run_step(step, source, tmp_path / "out", calibration(), sparsity=0.3)


# --- the file


@pytest.mark.parametrize("share", [0.6, 0.97])
@pytest.mark.parametrize("quantize", [False, True])
def test_sparsely_stored_weights_compute_the_same_to_the_last_bit(
    tmp_path: Path, share: float, quantize: bool
) -> None:
    source = broken_int8.DIGITS / "digits.tflite"
    if quantize:
        source = quantized(source, tmp_path / "int8")
    model = tflite_model.parse(source.read_bytes())
    random = np.random.default_rng(0)
    for tensor in model.subgraphs[0].tensors:
        data = model.buffers[tensor.buffer].data
        if data is None or len(np.atleast_1d(tensor.shape)) < 4 or not len(data):
            continue
        values = np.frombuffer(bytes(data), np.int8 if quantize else np.float32).copy()
        values[random.random(values.size) < share] = 0
        model.buffers[tensor.buffer].data = np.frombuffer(values.tobytes(), np.uint8)
    zeroed, packed = tmp_path / "zeroed.tflite", tmp_path / "packed.tflite"
    zeroed.write_bytes(tflite_model.content(model))
    content, stored = sparsely_stored(zeroed.read_bytes())
    packed.write_bytes(content)
    assert stored >= 2
    assert packed.stat().st_size < zeroed.stat().st_size
    assert all(
        np.array_equal(computed(zeroed, xnnpack), computed(packed, xnnpack)) for xnnpack in (True, False)
    )


def computed(path: Path, xnnpack: bool) -> Array:
    with plugins.runtime("litert").load(path, LiteRTOptions(xnnpack=xnnpack)) as session:
        found = [session.run({redundant.NAME: item}) for item in broken_int8.calibration_digits()[:20]]
    return np.concatenate([only(one) for one in found])


def test_a_model_without_zeros_stays_as_it_is() -> None:
    content = (broken_int8.DIGITS / "digits.tflite").read_bytes()
    assert sparsely_stored(content) == (content, 0)


# --- convert


def test_a_search_for_size_takes_the_smallest_file_that_loses_no_more_than_allowed(tmp_path: Path) -> None:
    source = redundant.tflite(tmp_path)
    out = tmp_path / "out.edgeml"
    result = converted(source, "litert", schemes="auto", objective="size", max_drop=0.5, output=out)
    rows = {row.name: row for row in result.rows}
    plain = rows["litert-int8_static"]
    (pruned,) = (row for name, row in rows.items() if "-pruned" in name)
    assert result.choices[0].variant == pruned.name
    assert pruned.settings.sparsity >= 0.8
    assert pruned.size_bytes < 0.6 * plain.size_bytes
    assert pruned.drop_points <= 0.5
    assert pruned.size_bytes < 60_000
    (told,) = (finding for finding in pruned.findings if finding.code == "pruned")
    assert "makes the file smaller" in told.message
    opened = open_bundle(out)
    opened.verify()
    assert pruned.name in {variant.name for variant in opened.manifest.variants}
    trials = [one for one in opened_record(out)["tried"] if "of the weights at 0" in one["settings"]]
    assert 4 <= len(trials) <= 6
    assert {"chosen", "unused"} == {one["fate"] for one in trials}
    assert any("smallest file" in one["verdict"] for one in trials)


def opened_record(bundle: Path) -> dict[str, Any]:
    with zipfile.ZipFile(bundle) as archive:
        found: dict[str, Any] = json.loads(archive.read("record.json"))
    return found


def test_what_a_search_found_is_found_again(tmp_path: Path) -> None:
    out = tmp_path / "out.edgeml"
    source = redundant.tflite(tmp_path)
    data = broken_int8.held_out_file(tmp_path)
    convert(
        source,
        runtimes="litert",
        schemes="auto",
        objective="size",
        calibration=DataDeclaration(f"{data}:x"),
        evaluation=DataDeclaration(f"{data}:x,y"),
        measure=False,
        output=out,
    )
    again = reproduce(out, source=source)
    assert again.same
    assert any("-pruned" in one.name for one in again.variants)


def test_a_model_that_needs_its_weights_gets_no_pruned_variant_and_a_reason(tmp_path: Path) -> None:
    source = broken_int8.DIGITS / "digits.tflite"
    result = converted(source, "litert", schemes="auto", objective="size", max_drop=0.5)
    rows = {row.name: row for row in result.rows}
    assert not any("-pruned" in name for name in rows)
    (told,) = (finding for finding in rows["litert-int8_static"].findings if finding.code == "not-pruned")
    assert "makes the file no smaller: 30.6 kB against 30.6 kB" in told.message
    assert "accuracy drop" in told.message


def test_where_nothing_may_be_lost_and_all_is_needed_the_first_trial_says_so(tmp_path: Path) -> None:
    source = broken_int8.DIGITS / "digits.tflite"
    result = converted(source, "litert", schemes="auto", objective="size", max_drop=-50.0)
    assert not any(row.settings.sparsity for row in result.outcome.data.tried)


@pytest.mark.parametrize("options", [{"schemes": "auto"}, {"objective": "size"}])
def test_without_a_search_for_size_nothing_is_pruned(tmp_path: Path, options: dict[str, Any]) -> None:
    result = converted(redundant.tflite(tmp_path), "litert", **options)
    assert not any(row.settings.sparsity for row in result.outcome.data.tried)


def test_a_gate_on_size_is_held_by_zeros(tmp_path: Path) -> None:
    source = redundant.tflite(tmp_path)
    result = converted(source, "litert", schemes="auto", max_size_bytes=120_000)
    rows = {row.name: row for row in result.rows}
    assert rows["litert-int8_static"].status == "gate"
    assert "-pruned" in (result.choices[0].variant or "")


def test_a_share_that_is_asked_for_is_made_where_it_gains_and_refused_with_a_reason_elsewhere(
    tmp_path: Path,
) -> None:
    result = converted(broken_int8.DIGITS / "digits.onnx", "onnxruntime", "openvino", sparsity=0.3)
    pruned = [row for row in result.rows if row.name.endswith("-int8_static-pruned30")]
    assert {row.status for row in pruned} == {"unavailable"}
    assert all("no faster with" in row.reason for row in pruned)
    made = converted(redundant.tflite(tmp_path), "litert", sparsity=0.3, max_drop=1.0).rows[-1]
    assert (made.name, made.status) == ("litert-int8_static-pruned30", "ok")
    assert {finding.code for finding in made.findings} & {"pruned", "not-pruned"}


def test_a_share_that_costs_too_much_breaks_the_gate(tmp_path: Path) -> None:
    source = broken_int8.DIGITS / "digits.tflite"
    made = converted(source, "litert", sparsity=0.7, max_drop=1.0).rows[-1]
    assert (made.name, made.status) == ("litert-int8_static-pruned70", "gate")
    assert "accuracy drop" in made.reason


def test_without_time_no_trial_begins_and_a_finding_says_so(tmp_path: Path) -> None:
    result = converted(redundant.tflite(tmp_path), "litert", schemes="auto", objective="size", budget_s=0.0)
    assert not any(row.settings.sparsity for row in result.outcome.data.tried)
    (told,) = (one for one in result.rows[-1].findings if one.code == "budget-spent")
    assert "more weights at 0" in told.message


def test_a_model_without_convolutions_tells_that_zeros_gain_nothing(tmp_path: Path) -> None:
    """Its dense weights could be 0, but the file would hold them all the same."""
    done = convert(
        redundant.dense(tmp_path),
        runtimes="litert",
        schemes="auto",
        objective="size",
        calibration=np.random.default_rng(1).normal(size=(40, 64)).astype(np.float32),
        measure=False,
        use_cache=False,
    )
    rows = {row.name: row for row in done.rows}
    (told,) = (one for one in rows["litert-int8_static"].findings if one.code == "not-pruned")
    assert "no convolution has float weights of its own" in told.message


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("2:4", "no runtime here is faster with N:M patterns"),
        ("much", "give the share"),
        ("1", "between 0 and 1"),
        ("0.3", "prune makes variants of int8_static"),
    ],
)
def test_the_command_refuses_what_would_gain_nothing(given: str, said: str) -> None:
    model = str(broken_int8.DIGITS / "digits.tflite")
    done = CliRunner().invoke(main, ["convert", model, "--prune", given, "--scheme", "float32"])
    assert done.exit_code == 2
    assert said in done.output
