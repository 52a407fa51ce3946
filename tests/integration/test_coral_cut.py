"""Models cut for the Edge TPU compiler: both parts, and the joined file, give what the whole gives."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from edgeml_converters.cli.coral import coral
from edgeml_converters.convert import convert
from edgeml_converters.coral.check import check_file
from edgeml_converters.coral.cut import cut, cut_unchecked
from edgeml_converters.coral.graph import read_graph
from edgeml_converters.coral.inspect import inspect_file
from edgeml_converters.coral.join import join
from edgeml_converters.coral.rewrites.rewriting import rewritten

from edgeml import edgetpu, plugins
from edgeml.arrays import Array
from edgeml.errors import ConversionError, ModelFileError
from edgeml.testing.coral import VARIABLE, standin_options
from edgeml.testing.coral.compiled import write_compiled
from tests.integration import coral_models


def parts(source: Path, folder: Path) -> tuple[Path, Path]:
    made = cut(source)
    body, tail = folder / "body.tflite", folder / "tail.tflite"
    body.write_bytes(made.body)
    tail.write_bytes(made.tail)
    return body, tail


def run(path: Path, values: dict[str, Array]) -> dict[str, Array]:
    with plugins.runtime("litert").load(path) as session:
        return session.run({one.name: values[one.name] for one in session.inputs})


def drawn(*names: str) -> dict[str, Array]:
    chance = np.random.default_rng(5)
    image = chance.integers(-128, 128, (1, 6, 6, 4), np.int8)
    return dict(zip(names, (image, np.array([0.25], np.float32)), strict=True))


def test_the_body_has_what_maps_and_the_tail_the_rest(tmp_path: Path) -> None:
    source = coral_models.with_stopper(tmp_path / "model.tflite")
    assert check_file(source).placements.mapped == 0
    made = cut(source)
    assert (made.mapped, made.total, made.tail_total) == (2, 2, 3)
    assert made.tensors == ("score",)
    assert made.stops == ("operator 3 (RELU_0_TO_1): Op builtin_code out of range: 152",)
    body, tail = parts(source, tmp_path)
    whole = run(source, drawn("image", "offset"))
    first = run(body, drawn("image", "offset"))
    second = run(tail, drawn("image", "offset") | first)
    assert np.array_equal(first["score"], whole["score"])
    assert np.array_equal(second["boxes"], whole["boxes"])


@pytest.mark.parametrize("signature", [False, True])
def test_a_joined_file_runs_as_the_whole_with_its_body_on_the_edge_tpu(
    tmp_path: Path, coral_standin: Path, monkeypatch: pytest.MonkeyPatch, *, signature: bool
) -> None:
    source = coral_models.with_stopper(tmp_path / "model.tflite", signature=signature)
    body, tail = parts(source, tmp_path)
    compiled, target = (
        write_compiled(body, tmp_path / "body_edgetpu.tflite"),
        tmp_path / "model_edgetpu.tflite",
    )
    target.write_bytes(join(compiled, tail))
    monkeypatch.setenv(edgetpu.VARIABLE, str(coral_standin))
    monkeypatch.setenv(VARIABLE, standin_options(body))
    assert [one.kind for one in inspect_file(target).on_cpu] == ["DEQUANTIZE", "RELU_0_TO_1", "ADD"]
    given = drawn("input_0", "input_1") if signature else drawn("image", "offset")
    whole, found = run(source, given), run(target, given)
    assert list(found) == list(whole) == (["output_0", "output_1"] if signature else ["boxes", "score"])
    for name, values in whole.items():
        assert np.array_equal(found[name], values)


def test_what_has_no_tail_is_not_cut(tmp_path: Path) -> None:
    source = coral_models.grouped(tmp_path / "model.tflite")
    source.write_bytes(rewritten(source, "int8").content)
    with pytest.raises(ConversionError, match="nothing to cut off"):
        cut(source)


def test_an_operator_that_stops_the_compiler_in_the_middle_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"operator 0 \(CONV_2D\) stops .* coral rewrite"):
        cut(coral_models.of_newer_versions(tmp_path / "model.tflite"))


def test_a_custom_operator_that_nothing_here_runs_is_cut_off_unchecked(tmp_path: Path) -> None:
    built = coral_models.Built()
    source, inner = (built.tensor(name, (1, 6, 6, 4)) for name in ("image", "inner"))
    own = built.tensor("own", (1, 6, 6, 4))
    built.convolution(source, inner, built.weights("w", 4, 3, 3, 4), built.bias("b", 4))
    built.op("CUSTOM", [inner], [own])
    built.model.operatorCodes[-1].customCode = b"TheirOwn"
    made = cut(built.write(tmp_path / "model.tflite", [source], [own]))
    assert (made.mapped, made.total, made.tail_total) == (1, 1, 1)
    assert "TheirOwn" in made.unchecked
    assert "custom operator" in made.stops[0]


def test_parts_of_different_models_are_not_joined(tmp_path: Path) -> None:
    body, tail = parts(coral_models.with_stopper(tmp_path / "model.tflite"), tmp_path)
    other = coral_models.pooled(tmp_path / "other.tflite", 1, 0)
    with pytest.raises(ConversionError, match=r"not the body of|not parts of one model"):
        join(other, tail)
    with pytest.raises(ConversionError, match=r"is no tail"):
        join(body, body)
    for end in range(0, tail.stat().st_size - 1, 97):
        cut_short = tmp_path / "short.tflite"
        cut_short.write_bytes(tail.read_bytes()[:end])
        with pytest.raises(ModelFileError, match=r"short\.tflite"):
            join(body, cut_short)


def test_both_commands_say_what_they_made(tmp_path: Path) -> None:
    source = coral_models.with_stopper(tmp_path / "model.tflite")
    done = CliRunner().invoke(coral, ["cut", str(source), "-o", str(tmp_path)], catch_exceptions=False)
    text = " ".join(done.output.split())
    assert "the compiler would stop at operator 3 (RELU_0_TO_1)" in text
    assert "2 of 2 operators run on the Edge TPU" in text
    done = CliRunner().invoke(coral, ["cut", str(source), "-o", str(tmp_path), "--json"])
    found = json.loads(done.output)
    assert (found["mapped"], found["tail_operators"], found["tensors"]) == (2, 3, ["score"])
    compiled = write_compiled(Path(found["body"]), tmp_path / "made_edgetpu.tflite")
    target = tmp_path / "joined.tflite"
    arguments = ["join", str(compiled), found["tail"], "-o", str(target)]
    assert CliRunner().invoke(coral, arguments, catch_exceptions=False).exit_code == 0
    assert len(inspect_file(target).on_cpu) == 3


def test_check_says_what_a_cut_would_gain(tmp_path: Path) -> None:
    source = coral_models.with_stopper(tmp_path / "model.tflite")
    done = CliRunner().invoke(coral, ["check", str(source)], catch_exceptions=False)
    text = " ".join(done.output.split())
    assert "edgeml coral cut model.tflite: the compiler would stop at operator 3 (RELU_0_TO_1)" in text
    assert "3 operators, 2 of 2 would be mapped" in text
    done = CliRunner().invoke(coral, ["check", str(source), "--json"], catch_exceptions=False)
    found = json.loads(done.output)
    assert (found["rewritten"], found["cut"]["mapped"], found["mapped"]) == (None, 2, 0)


def test_a_conversion_for_a_coral_names_the_cut_that_it_does_not_do(tmp_path: Path) -> None:
    source = coral_models.with_stopper(tmp_path / "model.tflite")
    result = convert(
        source, targets="coral-usb", schemes="int8_static", measure=False, output=tmp_path / "made.edgeml"
    )
    (found,) = [one for one in result.outcome.findings if one.code == "edge-tpu-stops"]
    assert found.subject == "litert-int8_static-coral"
    assert "operator 3 (RELU_0_TO_1)" in found.message
    assert "2 of the 2 operators before it" in found.message
    assert "edgeml coral cut" in found.remedy


@pytest.mark.data
def test_the_tail_of_a_real_model_is_cut_off(data_dir: Path, tmp_path: Path) -> None:
    """DeepLab with an ARG_MAX at its end: the compiler needs no cut, and the parts are equal all the same."""
    (source, *_) = sorted((data_dir / "edgetpu_pairs").glob("google-coral__deeplabv3*cdc17e7.tflite"))
    made = cut(source)
    assert (made.mapped, made.total, made.tail_total, made.stops) == (64, 64, 8, ())
    body, tail = parts(source, tmp_path)
    target = tmp_path / "joined.tflite"
    target.write_bytes(join(body, tail))
    assert check_file(target).placements.mapped == 64


def test_no_changed_bytes_raise_anything_else(tmp_path: Path) -> None:
    source = coral_models.with_stopper(tmp_path / "model.tflite", signature=True)
    body, tail = parts(source, tmp_path)
    changed, done = tmp_path / "changed.tflite", 0
    tries = {
        source: lambda: read_graph(changed) and cut_unchecked(changed, changed.read_bytes()),
        body: lambda: join(changed, tail),
        tail: lambda: join(body, changed),
    }
    for seed in range(60):
        chance = np.random.default_rng(seed)
        for path, attempt in tries.items():
            content = bytearray(path.read_bytes())
            for place in chance.integers(0, len(content), chance.choice([1, 3, 10])):
                content[place] = chance.choice([0, 1, 127, 255, chance.integers(256)])
            changed.write_bytes(content)
            with suppress(ModelFileError, ConversionError):
                attempt()
                done += 1
    assert 0 < done < 180
