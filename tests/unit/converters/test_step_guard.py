"""What stands around the tool of every step: its errors become ours, and the source stays as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from edgeml_converters.steps.step import FormatStep, state, tool_errors

from edgeml.converter import StepRequest, StepResult
from edgeml.errors import ConversionError, EngineMissingError, ModelFileError, QuantizationError

MODEL = Path("model.xml")


def test_what_a_tool_raises_names_step_and_source() -> None:
    with pytest.raises(ConversionError) as caught, tool_errors("the-step", MODEL):
        raise RuntimeError("no such operator")
    assert str(caught.value) == "the-step: model.xml: no such operator"


def test_a_step_chooses_the_error_and_what_to_do_next() -> None:
    guard = tool_errors("the-step", MODEL, kind=QuantizationError, failed="failed", remedy="keep float32")
    with pytest.raises(QuantizationError) as caught, guard:
        raise ValueError("odd")
    assert str(caught.value) == "the-step: model.xml failed: odd; keep float32"


def test_a_tool_that_is_not_there_says_how_to_get_it() -> None:
    with pytest.raises(EngineMissingError, match="pip install"), tool_errors("the-step", MODEL):
        raise ModuleNotFoundError("No module named 'tool'", name="tool")


@pytest.mark.parametrize("error", [ModelFileError("damaged"), MemoryError(), PermissionError("no")])
def test_our_errors_and_those_of_the_machine_pass(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, tool_errors("the-step", MODEL):
        raise error
    assert caught.value is error


def test_a_source_whose_weights_change_meanwhile_is_noticed(tmp_path: Path) -> None:
    source = tmp_path / "model.xml"
    source.write_text('<?xml version="1.0"?><net name="m" version="11"><layers/><edges/></net>')
    weights = tmp_path / "model.bin"
    weights.write_bytes(b"before")

    def writes_to_its_source(request: StepRequest) -> StepResult:
        weights.write_bytes(b"after!")
        return StepResult(request.output_dir / "model.tflite")

    step = FormatStep("the-step", state("openvino"), state("tflite"), (), 1.0, writes_to_its_source)
    with pytest.raises(ConversionError, match="was changed while it was converted"):
        step.run(StepRequest(source, tmp_path))
