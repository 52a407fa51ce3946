"""Engine options: typed, read from texts, refused with the known ones named."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from edgeml_runtimes.options import as_options, parse_options

from edgeml import plugins
from edgeml.errors import UsageError
from edgeml.runtime import RuntimeOptions
from edgeml.testing.models import make_double


@dataclass(frozen=True, slots=True)
class Options(RuntimeOptions):
    fast: bool = False
    level: Literal["low", "high"] = "low"
    places: tuple[str, ...] = ()
    folder: str = ""


def test_every_kind_of_field_is_read() -> None:
    texts = {"threads": "3", "fast": "on", "level": "high", "places": "a, b", "folder": "/x=y"}
    assert parse_options(Options, "mine", texts) == Options(3, True, "high", ("a", "b"), "/x=y")


def test_dashes_stand_for_underscores() -> None:
    assert plugins.runtime("onnxruntime").options({"inter-op-threads": "2"}) == plugins.runtime(
        "onnxruntime"
    ).options({"inter_op_threads": "2"})


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"level": "middle"}, "'middle' is not one of low, high"),
        ({"fast": "maybe"}, "neither true nor false"),
        ({"threads": "1.5"}, "not a whole number"),
        ({"threads": "0"}, "use 1 or more"),
        ({"quick": "1"}, "mine has no option 'quick'; it has: threads, fast, level, places, folder"),
    ],
)
def test_a_wrong_text_is_a_usage_error(texts: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_options(Options, "mine", texts)


def test_options_of_another_runtime_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="litert cannot take Options"):
        plugins.runtime("litert").load(make_double(tmp_path, "litert"), Options())


def test_plain_options_carry_the_number_of_threads_over() -> None:
    assert as_options(Options, "mine", RuntimeOptions(threads=4)) == Options(threads=4)


def test_an_unknown_provider_names_the_available_ones(tmp_path: Path) -> None:
    runtime = plugins.runtime("onnxruntime")
    with pytest.raises(UsageError, match=r"no provider CUDAX.*CPUExecutionProvider"):
        runtime.load(make_double(tmp_path, "onnxruntime"), runtime.options({"providers": "CUDAX"}))


def test_an_unknown_device_names_the_available_ones(tmp_path: Path) -> None:
    runtime = plugins.runtime("openvino")
    with pytest.raises(UsageError, match=r"no device 'ABACUS'.*CPU"):
        runtime.load(make_double(tmp_path, "openvino"), runtime.options({"device": "ABACUS"}))
