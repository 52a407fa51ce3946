"""Operators are summed by type, and a type keeps its name when it is quantized."""

import pytest
from edgeml_converters.report.operators import by_type

from edgeml.runtime import OperatorTime


def kinds(*names):
    return [
        one.kind for one in by_type([OperatorTime(str(place), one, 1.0) for place, one in enumerate(names)])
    ]


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        ("Conv · float", "QLinearConv · uint8", "Conv"),
        ("Gemm · float", "QGemm · uint8", "Gemm"),
        ("FullyConnected · brgemm_f32", "FullyConnectedQuantizedLegacy · jit_i8", "FullyConnected"),
        (
            "Convolution (NHWC, F32) IGEMM · XNNPACK", "Convolution (NHWC, QC8) IGEMM · XNNPACK",
            "Convolution IGEMM",
        ),
        ("Average Pooling (NHWC) Average Pooling · XNNPACK", "Average Pooling · XNNPACK", "Average Pooling"),
        ("Softmax (NC, F32) · XNNPACK", "SOFTMAX · built-in", "Softmax"),
    ],
)  # fmt: skip
def test_a_quantized_operator_is_of_the_type_that_it_was(before, after, kind):
    assert kinds(before, after) == [kind]


def test_what_quantization_adds_has_a_type_of_its_own():
    assert kinds("QuantizeLinear · float", "Conv · float") == ["Conv", "QuantizeLinear"]


def test_times_are_summed_and_the_slowest_stands_first():
    found = by_type(
        [
            OperatorTime("a", "Relu", 10.0),
            OperatorTime("b", "Conv · x", 20.0),
            OperatorTime("c", "Conv · y", 10.0),
        ]
    )
    assert [(one.kind, one.count, one.mean_ms, one.share) for one in found] == [
        ("Conv", 2, 0.03, 0.75),
        ("Relu", 1, 0.01, 0.25),
    ]


def test_operators_too_quick_for_the_clock_have_no_share():
    assert [one.share for one in by_type([OperatorTime("a", "Relu", 0.0)])] == [0.0]
