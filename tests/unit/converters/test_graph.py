"""The cheapest faithful path, and what it lacks."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from edgeml_converters.graph import Availability, Plan, plan, this_machine

from edgeml.converter import Requirement, State, StepRequest, StepResult
from edgeml.errors import PlanError
from edgeml.words import Format, Scheme


@dataclass(frozen=True)
class Edge:
    """A step that is never run."""

    name: str
    source: State
    target: State
    requires: tuple[Requirement, ...]
    cost: float

    def run(self, request: StepRequest) -> StepResult:
        raise NotImplementedError


def edge(source: str, target: str, cost: float = 1.0, *needs: str) -> Edge:
    requires = tuple(
        Requirement("worker", need.removeprefix("worker:"))
        if need.startswith("worker:")
        else Requirement("distribution", need)
        for need in needs
    )
    return Edge(f"{source} to {target}", state(source), state(target), requires, cost)


def state(text: str) -> State:
    format_, _, scheme = text.partition("/")
    known: tuple[Format, Scheme] = (format_, scheme or "float32")  # type: ignore[assignment] # the tests spell them
    return State(*known)


EVERYTHING = Availability(lambda _: None, lambda _: None)
NOTHING = Availability(lambda _: "not installed", lambda _: "not installed")


def without(*names: str) -> Availability:
    def look(name: str) -> str | None:
        return "not installed" if name in names else None

    return Availability(look, look)


def path(found: Plan) -> list[str]:
    return [str(found.source), *(str(step.target) for step in found.steps)]


def test_a_model_that_is_there_already_needs_no_step() -> None:
    assert plan(state("onnx"), state("onnx"), [], NOTHING) == Plan(state("onnx"), state("onnx"), (), ())


def test_the_cheaper_of_two_ways_is_taken() -> None:
    steps = [
        edge("savedmodel", "onnx", 3),
        edge("onnx", "openvino", 3),
        edge("savedmodel", "openvino", 5),
    ]
    assert path(plan(state("savedmodel"), state("openvino"), steps, EVERYTHING)) == [
        "savedmodel/float32",
        "openvino/float32",
    ]


def test_a_way_that_lacks_nothing_comes_before_a_cheaper_one_that_does() -> None:
    steps = [
        edge("savedmodel", "openvino", 1, "worker:tensorflow"),
        edge("savedmodel", "onnx", 50),
        edge("onnx", "openvino", 50),
    ]
    found = plan(state("savedmodel"), state("openvino"), steps, without("tensorflow"))
    assert path(found) == ["savedmodel/float32", "onnx/float32", "openvino/float32"]
    assert found.runnable


def test_of_ways_that_all_lack_something_the_one_that_lacks_least_is_shown() -> None:
    steps = [
        edge("keras", "tflite", 9, "worker:tensorflow"),
        edge("keras", "onnx", 1, "worker:torch"),
        edge("onnx", "tflite", 1, "worker:onnx2tf"),
    ]
    found = plan(state("keras"), state("tflite"), steps, NOTHING)
    assert [item.requirement.name for item in found.missing] == ["tensorflow"]
    assert not found.runnable


@pytest.mark.parametrize(
    ("requirement", "command"),
    [
        ("worker:tensorflow", "edgeml workers install tensorflow"),
        ("openvino", "pip install 'edgeml-core[workstation]'"),
        ("some-engine", "pip install some-engine"),
    ],
)
def test_a_plan_that_cannot_be_run_says_which_command_brings_what(requirement: str, command: str) -> None:
    found = plan(state("keras"), state("tflite"), [edge("keras", "tflite", 1, requirement)], NOTHING)
    assert [item.command for item in found.missing] == [command]
    with pytest.raises(PlanError, match="keras to tflite") as caught:
        found.require_runnable()
    assert command in str(caught.value)


def test_a_quantization_starts_from_the_float_model() -> None:
    steps = [
        edge("tflite", "tflite/int8_weights", 0.1),
        edge("tflite/int8_weights", "tflite/int8_static", 0.1),
        edge("tflite", "tflite/int8_static", 9),
    ]
    assert path(plan(state("tflite"), state("tflite/int8_static"), steps, EVERYTHING)) == [
        "tflite/float32",
        "tflite/int8_static",
    ]


def test_quantized_numbers_may_be_translated_to_another_format() -> None:
    steps = [edge("onnx", "onnx/int8_static"), edge("onnx/int8_static", "openvino/int8_static")]
    assert path(plan(state("onnx"), state("openvino/int8_static"), steps, EVERYTHING)) == [
        "onnx/float32",
        "onnx/int8_static",
        "openvino/int8_static",
    ]


def test_a_float_goal_is_never_reached_through_rounded_numbers() -> None:
    steps = [edge("onnx", "onnx/float16", 0.1), edge("onnx/float16", "openvino", 0.1)]
    with pytest.raises(PlanError, match="no conversion steps lead from onnx/float32 to openvino/float32"):
        plan(state("onnx"), state("openvino"), steps, EVERYTHING)


def test_a_quantized_source_is_not_quantized_a_second_time() -> None:
    with pytest.raises(PlanError, match="quantized already"):
        plan(
            state("tflite/int8_static"),
            state("tflite/int16x8"),
            [edge("tflite", "tflite/int16x8")],
            EVERYTHING,
        )


def test_a_missing_way_says_which_steps_would_make_it() -> None:
    steps = [edge("pt2", "onnx"), edge("tflite", "openvino")]
    with pytest.raises(PlanError) as caught:
        plan(state("pt2"), state("openvino"), steps, EVERYTHING)
    assert "From pt2/float32 there is a step to: onnx/float32" in str(caught.value)
    assert "to openvino/float32 there is a step from: tflite/float32" in str(caught.value)


def test_this_machine_finds_what_is_installed_without_importing_it() -> None:
    available = this_machine()
    assert available.reason(Requirement("distribution", "numpy")) is None
    assert available.reason(Requirement("distribution", "no-such-engine")) == "not installed"
