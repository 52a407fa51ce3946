"""Rewrites for the Edge TPU compiler: more is mapped, and both files give the same on LiteRT."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.tools import flatbuffer_utils
from click.testing import CliRunner
from edgeml_converters.cli.coral import coral
from edgeml_converters.compare.outputs import SQNR_OF_EQUAL_DB
from edgeml_converters.convert import convert
from edgeml_converters.coral import guarded
from edgeml_converters.coral.check import check_file
from edgeml_converters.coral.draft import Draft
from edgeml_converters.coral.graph import graph_of
from edgeml_converters.coral.rewrites import rewriting, shapes
from edgeml_converters.coral.rewrites.rewriting import Rewrite, Rewritten, rewritten
from edgeml_converters.variants import edge_tpu

from edgeml import plugins
from edgeml.arrays import Array
from edgeml.bundle import open_bundle
from edgeml.errors import ConversionError, ModelFileError
from edgeml.words import IoDtype
from tests.integration import coral_models


def run(path: Path, given: Array) -> Array:
    with plugins.runtime("litert").load(path) as session:
        (found,) = session.run({session.inputs[0].name: given}).values()
        return found


def saved(path: Path, made: Rewritten) -> Path:
    path.write_bytes(made.content)
    return path


def counts(path: Path) -> tuple[int, int]:
    found = check_file(path)
    return found.placements.mapped, found.total


def kinds(path: Path) -> list[str]:
    return [one.kind for one in check_file(path).graph.operators]


def names(path: Path) -> tuple[list[str], list[str]]:
    with plugins.runtime("litert").load(path) as session:
        return [one.name for one in session.inputs], [one.name for one in session.outputs]


@pytest.mark.parametrize("signature", [False, True])
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_float_ports_become_those_of_the_graph(tmp_path: Path, dtype: IoDtype, *, signature: bool) -> None:
    source = coral_models.float_ports(tmp_path / "model.tflite", dtype, signature=signature)
    made = rewritten(source, dtype)
    target = saved(tmp_path / "made.tflite", made)
    assert [one.rewrite.name for one in made.changes] == ["ports"]
    assert "'image': float32 →" in made.changes[0].text
    assert counts(source) == (1, 3)
    assert counts(target) == (1, 1)
    assert names(target) == names(source)
    given = np.random.default_rng(1).standard_normal((1, 6, 6, 4)).astype(np.float32)
    assert np.abs(run(source, given) - run(target, given)).max() <= 0.4 + 1e-6  # one step


def test_uint8_ports_of_an_int8_model_leave_a_conversion_that_maps(tmp_path: Path) -> None:
    source = coral_models.float_ports(tmp_path / "model.tflite")
    target = saved(tmp_path / "made.tflite", rewritten(source, "uint8"))
    assert kinds(target) == ["QUANTIZE", "CONV_2D", "QUANTIZE"]
    assert counts(target) == (3, 3)


def test_float_ports_stay_where_they_are_wanted(tmp_path: Path) -> None:
    source = coral_models.float_ports(tmp_path / "model.tflite")
    assert rewritten(source, "float32") == Rewritten(source.read_bytes(), ())


def test_a_grouped_convolution_becomes_several(tmp_path: Path) -> None:
    source = coral_models.grouped(tmp_path / "model.tflite")
    made = rewritten(source, "int8")
    target = saved(tmp_path / "made.tflite", made)
    assert made.changes[0].changed == ("'grouped': a convolution in 4 groups → 4 convolutions",)
    assert kinds(target) == ["CONV_2D", "SPLIT", *["CONV_2D"] * 4, "CONCATENATION", "CONV_2D"]
    assert counts(source) == (0, 3)
    assert counts(target) == (8, 8)
    same(source, target)


def test_groups_of_one_channel_become_a_depthwise_convolution(tmp_path: Path) -> None:
    source = coral_models.grouped(tmp_path / "model.tflite", groups=8, channels=8, filters=16)
    target = saved(tmp_path / "made.tflite", rewritten(source, "int8"))
    assert kinds(target) == ["CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D"]
    assert counts(target) == (3, 3)
    same(source, target)


@pytest.mark.parametrize("activation", [1, 2, 3])
@pytest.mark.parametrize("zero", [-128, 7])
def test_an_activation_leaves_the_pool(tmp_path: Path, activation: int, zero: int) -> None:
    source = coral_models.pooled(tmp_path / "model.tflite", activation, zero)
    target = saved(tmp_path / "made.tflite", rewritten(source, "int8"))
    own = {1: "RELU", 2: "RELU_N1_TO_1", 3: "RELU6"}[activation]
    clamps = activation != 1 or zero != -128  # then the tensor holds 0 to 12.75
    assert kinds(source) == ["MAX_POOL_2D", "CONV_2D"]
    assert kinds(target) == ["MAX_POOL_2D", *[own] * clamps, "CONV_2D"]
    placed = [one.placement for one in check_file(target).placements.operators]
    assert placed == (["tpu", "unknown", "unknown"] if clamps else ["tpu", "tpu"])
    same(source, target)


def test_a_transposed_convolution_becomes_one_that_the_compiler_can_read(tmp_path: Path) -> None:
    source = coral_models.transposed(tmp_path / "model.tflite")
    target = saved(tmp_path / "made.tflite", rewritten(source, "int8"))
    assert check_file(source).placements.fatal
    assert kinds(target) == ["TRANSPOSE_CONV", "RELU"]
    assert [one.version for one in check_file(target).graph.operators] == [3, 2]
    assert not check_file(target).placements.fatal
    same(source, target)


def test_versions_become_what_the_operators_need(tmp_path: Path) -> None:
    source = coral_models.of_newer_versions(tmp_path / "model.tflite")
    made = rewritten(source, "int8")
    target = saved(tmp_path / "made.tflite", made)
    assert [one.version for one in check_file(target).graph.operators] == [3, 1, 1, 4]
    assert "of version 6 → 4, with a bias of zeros" in made.changes[0].text
    assert (counts(source), counts(target)) == ((0, 4), (4, 4))
    same(source, target)


def test_what_computes_a_shape_becomes_the_numbers_that_it_gives(tmp_path: Path) -> None:
    source = coral_models.of_free_batch(tmp_path / "model.tflite")
    made = rewritten(source, "int8")
    target = saved(tmp_path / "made.tflite", made)
    assert made.changes[0].changed == (
        "input 'image': [-1, 6, 6, 4] → [1, 6, 6, 4]",
        "3 operators that compute shapes → the numbers that they give",
    )
    assert check_file(source).computed_shape is not None
    assert check_file(target).computed_shape is None
    assert kinds(target) == ["CONV_2D", "RESHAPE", "FULLY_CONNECTED"]
    assert (counts(source)[0], counts(target)) == (1, (3, 3))
    flat = next(one for one in check_file(target).graph.tensors if one.name == "flat")
    assert flat.shape == (1, 288)
    same(source, target)


@pytest.mark.parametrize("keeps", [False, True])
def test_a_mean_goes_before_the_transposition(tmp_path: Path, *, keeps: bool) -> None:
    source = coral_models.pooled_in_nchw(tmp_path / "model.tflite", keeps=keeps)
    target = saved(tmp_path / "made.tflite", rewritten(source, "int8"))
    assert kinds(target) == ["CONV_2D", "MEAN", *["RESHAPE", "RESHAPE"] * keeps, "FULLY_CONNECTED"]
    assert counts(source)[0] == 2
    assert counts(target) == (5, 5) if keeps else (3, 3)
    same(source, target)


def same(source: Path, target: Path) -> None:
    """Both give the same bytes, on the kernels that devices use."""
    chance = np.random.default_rng(2)
    for _ in range(4):
        given = chance.integers(-128, 128, (1, 6, 6, 4), np.int8)
        assert np.array_equal(run(source, given), run(target, given))


def test_a_rewritten_file_needs_no_rewrite(tmp_path: Path) -> None:
    for source in (
        coral_models.float_ports(tmp_path / "ports.tflite"),
        coral_models.grouped(tmp_path / "groups.tflite"),
    ):
        target = saved(tmp_path / "made.tflite", rewritten(source, "int8"))
        assert rewritten(target, "int8").changes == ()


@pytest.mark.parametrize("make", [coral_models.float_ports, coral_models.grouped, coral_models.of_free_batch])
def test_a_truncated_or_changed_file_is_refused_in_words(
    tmp_path: Path, make: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guarded, "_has_threads", lambda: True)  # a thousand copies of this process take 20 s
    content = make(tmp_path / "model.tflite").read_bytes()
    chance, path = np.random.default_rng(3), tmp_path / "changed.tflite"
    sound, tries = 0, 300
    for end in range(0, len(content) - 1, 23):
        path.write_bytes(content[:end])
        with pytest.raises(ModelFileError, match=str(path)):
            rewritten(path, "int8", checked=False)
    for _ in range(tries):
        changed = bytearray(content)
        for place in chance.integers(0, len(content), chance.choice([1, 3, 10])):
            changed[place] = chance.choice([0, 1, 127, 255, chance.integers(256)])
        path.write_bytes(changed)
        with suppress(ModelFileError):
            rewritten(path, "int8", checked=False)  # to run it may take long: sizes are changed, too
            sound += 1
    assert 0 < sound < tries


def test_a_model_that_cannot_be_run_is_not_rewritten(tmp_path: Path) -> None:
    source = coral_models.with_custom_operator(tmp_path / "model.tflite")
    with pytest.raises(ConversionError, match="cannot be run here"):
        rewritten(source, "int8")


def test_the_command_says_what_it_changed_and_what_it_is_good_for(tmp_path: Path) -> None:
    source, target = coral_models.float_ports(tmp_path / "model.tflite"), tmp_path / "made.tflite"
    done = CliRunner().invoke(coral, ["rewrite", str(source), "-o", str(target)], catch_exceptions=False)
    assert "ports input 'image': float32 → int8" in done.output
    assert "1 of 3 operators run on the Edge TPU before, 1 of 1 after" in " ".join(done.output.split())
    done = CliRunner().invoke(coral, ["rewrite", str(source), "-o", str(target), "--json"])
    found = json.loads(done.output)
    assert found["after"] == {"mapped": 1, "total": 1}
    assert [one["name"] for one in found["rewrites"]] == ["ports"]


def test_a_conversion_for_a_coral_rewrites_in_steps_of_its_own(tmp_path: Path) -> None:
    source = coral_models.grouped(tmp_path / "model.tflite")
    result = convert(
        source, targets=("coral-usb", "raspberry-pi-4"), runtimes="litert", schemes="int8_static",
        measure=False, output=tmp_path / "made.edgeml",
    )  # fmt: skip
    steps = {row.name: [step.name for step in row.steps] for row in result.variants}
    assert steps == {"litert-int8_static-coral": ["coral-groups-int8"], "litert-int8_static": []}
    row = result.variants[0] if result.variants[0].steps else result.variants[1]
    assert row.steps[0].notes == ("'grouped': a convolution in 4 groups → 4 convolutions",)
    assert [one.code for one in row.findings] == ["edge-tpu-rewrite"]
    assert row.measured.sqnr_db == SQNR_OF_EQUAL_DB
    bundle, target = open_bundle(tmp_path / "made.edgeml"), tmp_path / "made.tflite"
    target.write_bytes(bundle.read("variants/litert-int8_static-coral/model.tflite"))
    assert counts(target) == (8, 8)


def test_a_signature_that_names_lost_tensors_is_forgotten(tmp_path: Path) -> None:
    built = coral_models.Built()
    given = built.tensor("image", (1, 6, 6, 4), "float32")
    source, target = (built.tensor(name, (1, 6, 6, 4)) for name in ("image_q", "padded"))
    built.op("QUANTIZE", [given], [source])
    built.op("RELU", [source], [target], 2)
    path = built.write(tmp_path / "model.tflite", [given], [target], signature=True)
    built.model.signatureDefs[0].outputs[0].tensorIndex = 9
    path.write_bytes(flatbuffer_utils.convert_object_to_bytearray(built.model))
    made = saved(tmp_path / "made.tflite", rewritten(path, "int8"))
    assert names(made) == (["image"], ["padded"])


def test_check_names_the_rewrite_and_what_it_would_gain(tmp_path: Path) -> None:
    source = coral_models.grouped(tmp_path / "model.tflite")
    done = CliRunner().invoke(coral, ["check", str(source)], catch_exceptions=False)
    text = " ".join(done.output.split())
    assert "make each group a convolution of its own (edgeml coral rewrite)" in text
    assert "edgeml coral rewrite model.tflite: groups 'grouped': a convolution in 4 groups →" in text
    assert "8 of 8 would be mapped then, 0 of 3 are now" in text
    done = CliRunner().invoke(coral, ["check", str(source), "--json"], catch_exceptions=False)
    found = json.loads(done.output)["rewritten"]
    assert (found["mapped"], found["total"], found["rewrites"][0]["name"]) == (8, 8, "groups")
    target = saved(tmp_path / "made.tflite", rewritten(source, "int8"))
    done = CliRunner().invoke(coral, ["check", str(target), "--json"], catch_exceptions=False)
    assert json.loads(done.output)["rewritten"] is None


@pytest.mark.data
def test_real_models_give_up_their_float_input(data_dir: Path, tmp_path: Path) -> None:
    """18 sources whose only operator on the CPU is the QUANTIZE of a float input."""
    folder = data_dir / "edgetpu_pairs"
    sources = [one for one in sorted(folder.glob("jorgitou98*.tflite")) if "_edgetpu" not in one.name]
    assert len(sources) >= 18
    for source in sources:
        mapped, total = counts(source)
        target = saved(tmp_path / "made.tflite", rewritten(source, "int8"))
        assert (mapped, counts(target)) == (total - 1, (total - 1, total - 1)), source.name


def test_a_rewrite_that_changes_the_results_is_left_out_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(draft: Draft, _: str) -> tuple[str, ...]:
        weights = draft.graph.operators[0].inputs[1]
        values = draft.values(weights)
        assert values is not None
        draft.set_values(weights, -values)
        return ("weights negated",)

    spoiling = (Rewrite("spoil", "for a test", spoil), *rewriting.REWRITES)
    monkeypatch.setattr(rewriting, "REWRITES", spoiling)
    monkeypatch.setattr(edge_tpu, "REWRITES", spoiling)
    source = coral_models.grouped(tmp_path / "model.tflite")
    made = rewritten(source, "int8")
    assert [one.rewrite.name for one in made.changes] == ["groups"]
    (reason,) = made.left_out
    assert reason.startswith("spoil: output 'score' is off by")
    done = CliRunner().invoke(coral, ["rewrite", str(source), "-o", str(tmp_path / "made.tflite")])
    assert "left out, as results would change: spoil" in done.output
    result = convert(source, targets="coral-usb", schemes="int8_static", measure=False)
    row = result.rows[0]
    assert [step.name for step in row.steps] == ["coral-groups-int8"]
    assert {one.code for one in row.findings} == {"edge-tpu-rewrite", "edge-tpu-rewrite-left-out"}


@pytest.mark.data
@pytest.mark.worker("onnx2tf")
def test_a_real_model_in_nchw_is_mapped_but_for_the_transposition_of_its_input(
    data_dir: Path, tmp_path: Path
) -> None:
    """MobileNetV2: 68 of 76 operators as it comes out of onnx2tf with float inputs and outputs."""
    result = convert(
        data_dir / "mobilenet" / "mobilenet_v2_1.0_224_float.onnx",
        targets="coral-usb", runtimes="litert", schemes="int8_static", measure=False,
        calibration=np.random.default_rng(0).normal(size=(8, 3, 224, 224)).astype(np.float32),
        output=tmp_path / "made.edgeml",
    )  # fmt: skip
    assert [step.name for step in result.rows[0].steps][-1] == "coral-means-int8"
    target = tmp_path / "made.tflite"
    bundle = open_bundle(tmp_path / "made.edgeml")
    target.write_bytes(bundle.read("variants/litert-int8_static-coral/model.tflite"))
    assert counts(target) == (73, 74)


def test_a_path_that_looks_like_markup_is_printed_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "[" / "]"
    folder.mkdir(parents=True)
    source = coral_models.float_ports(folder / "model.tflite")
    target = folder / "[bold].tflite"
    done = CliRunner().invoke(coral, ["rewrite", str(source), "-o", str(target)], catch_exceptions=False)
    assert done.exit_code == 0
    assert str(target) in done.stdout.replace("\n", "")


def test_what_is_written_to_a_variable_stays(tmp_path: Path) -> None:
    source = coral_models.of_free_batch_with_memory(tmp_path / "model.tflite")
    for checked in (False, True):
        made = rewritten(source, "int8", checked=checked)
        kinds = [one.kind for one in graph_of(source, made.content).operators]
        assert kinds == ["VAR_HANDLE", "ASSIGN_VARIABLE", "READ_VARIABLE", "RANK", "RESHAPE"]
        assert made.left_out == ()


def test_a_long_chain_of_constants_is_not_folded_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shapes, "MOST_ROUNDS", 3)
    source = coral_models.of_a_chain_of_constants(tmp_path / "model.tflite", 5)
    made = rewritten(source, "int8", checked=False)
    assert len(graph_of(source, made.content).operators) == 2 + 5 - 3
