"""The stand-in for the Edge TPU answers as the source model does, and fails as it is told to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType, load_delegate
from PIL import Image

from edgeml.arrays import Array
from edgeml.errors import UsageError
from edgeml.testing.coral import VARIABLE, build_standin, standin_options
from tests.conftest import DATA

COMPILED = "_edgetpu.tflite"
PAIRS = [
    "coral/mobilenet_v1_0.25_128_quant",
    "edgetpu_pairs/google-coral__deeplabv3_mnv2_dm05_pascal_quant__cdc17e7",
    "edgetpu_pairs/google-coral__split_concat__cdc17e7",
    "edgetpu_pairs/jorgitou98__N32-nMACs41287680_quant__66279fe",
    "edgetpu_pairs/ricardodeazambuja__gabor_64x64_7k_4o_2s__be71d6d",
]
"""Wholly on the Edge TPU, with operators behind it, of several outputs, with float input and output."""


@pytest.fixture
def source(data_dir: Path) -> Path:
    return data_dir / f"{PAIRS[0]}.tflite"


def opened(model: Path, delegate: Any = None, kernels: OpResolverType = OpResolverType.AUTO) -> Any:
    delegates = [delegate] if delegate is not None else None
    found = Interpreter(str(model), experimental_delegates=delegates, experimental_op_resolver_type=kernels)
    found.allocate_tensors()
    return found


def compiled(source: Path, standin: Path, **options: object) -> Any:
    texts = {"source": str(source)} | {key: str(value) for key, value in options.items()}
    return opened(source.with_name(source.stem + COMPILED), load_delegate(str(standin), texts))


def answers(interpreter: Any, seed: int = 0) -> list[bytes]:
    random = np.random.default_rng(seed)
    for detail in interpreter.get_input_details():
        values: Array = random.integers(0, 256, detail["shape"])
        if detail["shape"][-1] == 3:  # noise is background to a segmenter
            with Image.open(DATA / "coral" / "cat.bmp") as cat:
                pixels = np.asarray(cat.resize(tuple(detail["shape"][2:0:-1])), np.int64)
            values = (pixels + values // 8).clip(0, 255)
        if detail["dtype"] == np.float32:
            values = values / 255
        interpreter.set_tensor(detail["index"], values.astype(detail["dtype"]))
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"]).tobytes() for detail in interpreter.get_output_details()]


@pytest.mark.data
@pytest.mark.parametrize("pair", PAIRS, ids=[Path(pair).name for pair in PAIRS])
def test_a_compiled_model_answers_as_its_source_byte_for_byte(
    pair: str, data_dir: Path, coral_standin: Path
) -> None:
    source = data_dir / f"{pair}.tflite"
    ours, theirs = compiled(source, coral_standin), opened(source)
    for seed in range(3):
        found = answers(ours, seed)
        assert found == answers(theirs, seed)
        assert len(set(found[0])) > 1, "an answer that says something"


@pytest.mark.data
def test_the_built_in_kernels_answer_where_they_are_asked_for(data_dir: Path, coral_standin: Path) -> None:
    source = data_dir / "edgetpu_pairs" / "google-coral__deeplabv3_mnv2_dm05_pascal_quant__9ebaa5a.tflite"
    model = source.with_name(source.stem + COMPILED)
    kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    with pytest.raises(RuntimeError, match="failed to delegate RESIZE_BILINEAR"):
        opened(source)
    delegate = load_delegate(str(coral_standin), {"source": str(source), "xnnpack": "off"})
    assert answers(opened(model, delegate, kernels)) == answers(opened(source, kernels=kernels))


@pytest.mark.data
def test_the_environment_holds_options_too(
    source: Path, coral_standin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, standin_options(source))
    model = opened(source.with_name(source.stem + COMPILED), load_delegate(str(coral_standin)))
    assert answers(model) == answers(opened(source))


@pytest.mark.parametrize(
    ("attached", "device", "is_there"),
    [
        ("none", "", False),
        ("usb", "", True),
        ("usb", ":0", True),
        ("usb", "usb", True),
        ("usb", "usb:0", True),
        ("usb", "usb:1", False),
        ("usb", "pci", False),
        ("pci", "pci:0", True),
    ],
)
def test_a_device_is_there_or_not_as_it_is_told(
    attached: str, device: str, is_there: bool, coral_standin: Path
) -> None:
    options = {"attached": attached, "device": device}
    if is_there:
        load_delegate(str(coral_standin), options)
        return
    with pytest.raises(ValueError, match="Failed to load delegate"):
        load_delegate(str(coral_standin), options)


@pytest.mark.parametrize(
    ("key", "value"),
    [("speed", "1"), ("Performance", "Fast"), ("latency_us", "-1"), ("fail_after", "soon")],
)
def test_it_refuses_options_that_it_does_not_know(key: str, value: str, coral_standin: Path) -> None:
    with pytest.raises(ValueError, match=f"stand-in: no option {key}={value}"):
        load_delegate(str(coral_standin), {key: value})


@pytest.mark.data
def test_a_call_takes_the_latency_that_was_asked_for(source: Path, coral_standin: Path) -> None:
    model = compiled(source, coral_standin, latency_us=200_000)
    begin = time.monotonic()
    assert answers(model) == answers(opened(source))
    assert time.monotonic() - begin >= 0.2


@pytest.mark.data
def test_the_device_is_gone_after_so_many_calls(source: Path, coral_standin: Path) -> None:
    model = compiled(source, coral_standin, fail_after=2)
    assert answers(model) == answers(model)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"the device is gone.*EdgeTpuDelegateForCustomOp"):
            answers(model)


@pytest.mark.data
def test_a_device_that_is_gone_is_gone_for_all_models_until_another_is_plugged_in(
    source: Path, coral_standin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load() -> Any:
        return opened(source.with_name(source.stem + COMPILED), load_delegate(str(coral_standin)))

    monkeypatch.setenv(VARIABLE, standin_options(source, fail_after=3))
    one, other = load(), load()
    assert answers(one) == answers(other) == answers(one)
    for model in (other, one):
        with pytest.raises(RuntimeError, match="the device is gone"):
            answers(model)
    with pytest.raises(ValueError, match="Failed to load delegate"):
        load()
    monkeypatch.setenv(VARIABLE, standin_options(source, fail_after=3))
    assert answers(load()) == answers(opened(source))


@pytest.mark.data
def test_a_source_that_dies_fails_the_call_and_no_more(source: Path, coral_standin: Path) -> None:
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before = set(children.read_text().split())
    model = compiled(source, coral_standin)
    (child,) = set(children.read_text().split()) - before
    os.kill(int(child), signal.SIGKILL)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"source model ended.*EdgeTpuDelegateForCustomOp"):
            answers(model)


@pytest.mark.data
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("edgetpu_pairs/google-coral__split_concat__cdc17e7.tflite", "was made of another"),
        ("coral/none.tflite", "No such file"),
    ],
)
def test_another_source_is_refused(wrong: str, words: str, data_dir: Path, coral_standin: Path) -> None:
    model = data_dir / f"{PAIRS[0]}{COMPILED}"
    delegate = load_delegate(str(coral_standin), {"source": str(data_dir / wrong)})
    with pytest.raises(RuntimeError, match=words):
        opened(model, delegate)


@pytest.mark.data
def test_a_missing_python_is_named(source: Path, coral_standin: Path) -> None:
    with pytest.raises(RuntimeError, match="cannot start /nowhere/python"):
        compiled(source, coral_standin, python="/nowhere/python")


@pytest.mark.data
def test_nothing_is_left_once_the_interpreter_is_gone(source: Path, coral_standin: Path) -> None:
    model = compiled(source, coral_standin)
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before = set(children.read_text().split())
    assert before
    del model
    assert len(set(children.read_text().split())) < len(before)


@pytest.mark.data
def test_a_delegate_that_goes_before_its_interpreter_ends_the_process(
    source: Path, coral_standin: Path
) -> None:
    program = """
import sys
from ai_edge_litert.interpreter import Interpreter, OpResolverType, load_delegate
from PIL import Image
library, source, model = sys.argv[1:]
delegate = load_delegate(library, {"source": source})
interpreter = Interpreter(model, experimental_delegates=[delegate])
raw = interpreter._interpreter
del delegate, interpreter
print("not reached")
"""
    model = source.with_name(source.stem + COMPILED)
    command = [sys.executable, "-c", program, str(coral_standin), str(source), str(model)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "destroyed while an interpreter uses it" in done.stderr
    assert "not reached" not in done.stdout


def test_a_compiler_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no-such-cc cannot be run: No such file"):
        build_standin(tmp_path, ["no-such-cc"])


def test_what_a_compiler_says_is_passed_on(tmp_path: Path, coral_standin: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot compile .*standin\.c: .*nowhere"):
        build_standin(tmp_path / "nowhere", ["cc"])
