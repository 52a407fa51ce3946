"""What the Edge TPU compiler takes, at both sides of each limit; how it cuts a graph; bytes of parameters."""

from __future__ import annotations

from dataclasses import replace

import pytest
from edgeml_converters.coral.graph import OPERATORS, Graph, Operator, Tensor
from edgeml_converters.coral.limits import Node, computes_shape
from edgeml_converters.coral.parameters import operator_bytes, parameters
from edgeml_converters.coral.partition import edges, partition
from edgeml_converters.coral.placement import place
from edgeml_converters.coral.reasons import (
    CONST,
    DTYPE,
    LIMIT,
    MAPPED,
    RANK,
    SUBGRAPH,
    UNKNOWN,
    UNSUPPORTED,
    VERSION,
)
from edgeml_converters.coral.rules import RULES, objection

DEFAULTS = {
    "dilation_x": 1,
    "dilation_y": 1,
    "fused_activation": 0,
    "weights_format": 0,
    "axis": 1,
    "ellipsis_mask": 0,
    "new_axis_mask": 0,
}


def tensor(*shape: int, dtype: str = "int8", constant: bool = False, values: tuple[int, ...] = ()) -> Tensor:
    return Tensor(f"t{shape}", shape, dtype, constant or bool(values), values, 1, is_variable=False)


def weights(*shape: int) -> Tensor:
    return tensor(*shape, constant=True)


def ints(*values: int) -> Tensor:
    return tensor(len(values), dtype="int32", values=values)


def one(
    kind: str, inputs: list[Tensor], *outputs: Tensor, version: int = 1, **options: int
) -> tuple[Graph, Operator]:
    """A graph of one operator."""
    tensors = (*inputs, *outputs)
    code = OPERATORS.index(kind)
    places = tuple(range(len(inputs)))
    made = tuple(range(len(inputs), len(tensors)))
    operator = Operator(0, kind, "mine", version, places, made, DEFAULTS | options, code)
    return Graph(tensors, (operator,), places, made, 1), operator


def reason(kind: str, inputs: list[Tensor], *outputs: Tensor, version: int = 1, **options: int) -> str:
    found = objection(*one(kind, inputs, *outputs, version=version, **options))
    return MAPPED if found is None else found.reason


IMAGE = tensor(1, 8, 8, 16)
ROW_LIMIT = 192 * 1024


def test_what_the_edge_tpu_lacks_is_unsupported_or_of_a_wrong_type() -> None:
    assert reason("ARG_MAX", [IMAGE], tensor(1, 8, 8, dtype="int32")) == UNSUPPORTED
    assert reason("LEAKY_RELU", [IMAGE], IMAGE) == UNSUPPORTED
    assert reason("DEQUANTIZE", [IMAGE], tensor(1, 8, 8, 16, dtype="float32")) == DTYPE
    assert reason("CUSTOM", [IMAGE], IMAGE) == DTYPE


def test_numbers_have_to_be_of_eight_bits() -> None:
    assert reason("ADD", [IMAGE, IMAGE], IMAGE) == MAPPED
    assert reason("ADD", [IMAGE, IMAGE], tensor(1, 8, 8, 16, dtype="int16")) == DTYPE
    assert reason("ADD", [tensor(1, 8, dtype="float32")], tensor(1, 8, dtype="float32")) == DTYPE
    states = tensor(1, 8, dtype="int16")
    assert reason("UNIDIRECTIONAL_SEQUENCE_LSTM", [tensor(1, 2, 8), states], tensor(1, 2, 8)) == MAPPED


def test_a_quantize_of_floats_stays_on_the_cpu_and_others_go() -> None:
    assert reason("QUANTIZE", [tensor(1, 8, 8, 3, dtype="float32")], tensor(1, 8, 8, 3)) == LIMIT
    assert reason("QUANTIZE", [tensor(1, 8, 8, 3, dtype="uint8")], tensor(1, 8, 8, 3)) == MAPPED


def test_only_three_dimensions_are_mapped() -> None:
    assert reason("ADD", [tensor(2, 8, 8, 16)], tensor(2, 8, 8, 16)) == RANK
    assert reason("ADD", [tensor(2, 8, 16)], tensor(2, 8, 16)) == MAPPED


def test_one_row_has_to_fit_a_tile_unless_x_is_spread() -> None:
    fits, not_ = tensor(1, 1, ROW_LIMIT // 8, 8), tensor(1, 1, ROW_LIMIT // 8 + 1, 8)
    for kind in ("LOGISTIC", "CONCATENATION", "STRIDED_SLICE"):
        assert reason(kind, [fits], fits) == MAPPED
        assert reason(kind, [not_], not_) == LIMIT
    assert reason("PAD", [not_], not_) == MAPPED
    assert reason("MAX_POOL_2D", [not_], not_) == MAPPED


def test_weights_and_biases_have_to_be_constant() -> None:
    kernel, bias = weights(16, 3, 3, 16), tensor(16, dtype="int32", constant=True)
    assert reason("CONV_2D", [IMAGE, kernel, bias], IMAGE) == MAPPED
    assert reason("CONV_2D", [IMAGE, tensor(16, 3, 3, 16), bias], IMAGE) == CONST
    assert reason("FULLY_CONNECTED", [tensor(1, 16), tensor(4, 16)], tensor(1, 4)) == CONST
    assert reason("TRANSPOSE_CONV", [ints(1, 8, 8, 16), tensor(16, 3, 3, 16), IMAGE], IMAGE) == CONST


def test_unequal_dilation_is_refused_of_kernels_in_two_dimensions_only() -> None:
    for kernel, expected in ((weights(16, 3, 3, 16), LIMIT), (weights(16, 3, 1, 16), MAPPED)):
        assert reason("CONV_2D", [IMAGE, kernel], IMAGE, dilation_y=2) == expected
    assert reason("CONV_2D", [IMAGE, weights(16, 3, 3, 16)], IMAGE, dilation_x=2, dilation_y=2) == MAPPED


def test_grouped_convolutions_are_not_known() -> None:
    assert reason("CONV_2D", [IMAGE, weights(16, 3, 3, 4)], IMAGE) == UNKNOWN


def test_fully_connected_makes_one_row() -> None:
    assert reason("FULLY_CONNECTED", [tensor(1, 16), weights(4, 16)], tensor(1, 4)) == MAPPED
    assert reason("FULLY_CONNECTED", [tensor(2, 16), weights(4, 16)], tensor(2, 4)) == LIMIT
    assert reason("FULLY_CONNECTED", [tensor(1, 16), weights(4, 16)], tensor(1, 4), weights_format=1) == LIMIT


def test_pools_and_concatenations_have_no_activation_inside() -> None:
    for kind in ("AVERAGE_POOL_2D", "MAX_POOL_2D", "CONCATENATION"):
        assert reason(kind, [IMAGE], IMAGE) == MAPPED
        assert reason(kind, [IMAGE], IMAGE, fused_activation=1) == LIMIT
    assert reason("CONCATENATION", [IMAGE, IMAGE, weights(1, 8, 8, 16)], IMAGE) == LIMIT
    assert reason("CONCATENATION", [IMAGE, weights(1, 8, 8, 16)], IMAGE) == UNKNOWN


@pytest.mark.parametrize(
    ("shape", "axes", "expected"),
    [
        ((1, 7, 7, 16), (1, 2), MAPPED),
        ((1, 7, 7, 16), (-3, -2), MAPPED),
        ((1, 7, 7, 16), (0, 1), LIMIT),
        ((1, 7, 7, 16), (3,), MAPPED),
        ((1, 7, 7, 15), (3,), LIMIT),
        ((1, 64, 128, 16), (1, 2), MAPPED),
        ((1, 128, 128, 16), (1, 2), UNKNOWN),
        ((1, 256, 128, 16), (1, 2), LIMIT),
    ],
)
def test_mean_reduces_so_much(shape: tuple[int, ...], axes: tuple[int, ...], expected: str) -> None:
    assert reason("MEAN", [tensor(*shape), ints(*axes)], tensor(1, shape[-1])) == expected


def test_a_scalar_is_not_reduced() -> None:
    assert reason("MEAN", [tensor(), ints(0)], tensor()) == UNKNOWN


def test_sum_may_reduce_any_number_of_channels() -> None:
    assert reason("SUM", [tensor(1, 7, 7, 15), ints(3)], tensor(1, 7, 7)) == MAPPED


def test_shapes_that_are_computed_are_to_be_fixed() -> None:
    shape = tensor(2, dtype="int32")
    graph, operator = one("RESHAPE", [IMAGE, shape], tensor(1, 1024))
    found = objection(graph, operator)
    assert found is not None
    assert found.reason == DTYPE
    assert "fix the model's shapes (a batch of 1)" in found.remedy
    assert computes_shape(Node(graph, operator))
    assert not computes_shape(Node(*one("RESHAPE", [IMAGE, ints(1, 1024)], tensor(1, 1024))))


def test_the_batch_is_not_padded() -> None:
    assert reason("PAD", [IMAGE, ints(0, 0, 1, 1, 1, 1, 0, 0)], tensor(1, 10, 10, 16)) == MAPPED
    assert reason("PAD", [IMAGE, ints(0, 1, 0, 0, 0, 0, 0, 0)], tensor(2, 8, 8, 16)) == RANK
    assert reason("PAD", [IMAGE, ints(1, 0, 0, 0, 0, 0, 0, 0)], IMAGE) == LIMIT


def test_reshape_has_to_fit_a_row_of_tiles() -> None:
    assert reason("RESHAPE", [tensor(1, 40, 40, 255), ints(1)], tensor(1, 1600, 3, 85)) == MAPPED
    assert reason("RESHAPE", [tensor(1, 144, 40, 40), ints(1)], tensor(1, 144, 1600)) == LIMIT
    assert reason("RESHAPE", [tensor(1, 1600, 3, 85), ints(1)], tensor(1, 4800, 85)) == LIMIT


@pytest.mark.parametrize("kind", ["RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"])
@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (33, 33, MAPPED),
        (20, 40, MAPPED),
        (20, 41, UNKNOWN),
        (20, 10, UNKNOWN),
        (33, 513, LIMIT),
        (1, 33, LIMIT),
    ],
)
def test_resizing_is_known_up_to_twice(kind: str, before: int, after: int, expected: str) -> None:
    assert reason(kind, [tensor(1, before, before, 8), ints(1)], tensor(1, after, after, 8)) == expected


def test_softmax_is_over_so_many_values() -> None:
    assert reason("SOFTMAX", [tensor(1, 16384)], tensor(1, 16384)) == MAPPED
    assert reason("SOFTMAX", [tensor(1, 16385)], tensor(1, 16385)) == LIMIT


def test_the_first_axis_is_not_split() -> None:
    source, half = tensor(2, 32, 64), tensor(1, 32, 64)
    assert reason("SPLIT", [ints(0), source], half, half) == LIMIT
    assert reason("SPLIT", [ints(0), source], source) == MAPPED
    assert reason("SPLIT", [ints(-1), source], tensor(2, 32, 32), tensor(2, 32, 32)) == MAPPED


def test_slices_go_step_by_step() -> None:
    at = ints(0, 0, 0, 0)
    assert reason("STRIDED_SLICE", [IMAGE, at, at, ints(1, 1, 1, 1)], IMAGE) == MAPPED
    assert reason("STRIDED_SLICE", [IMAGE, at, at, ints(1, 2, 1, 1)], IMAGE) == LIMIT
    assert reason("STRIDED_SLICE", [IMAGE, at, at, ints(1, 1, 1, 1)], IMAGE, new_axis_mask=1) == LIMIT


def test_a_transpose_has_to_fit_a_tile_twice() -> None:
    assert reason("TRANSPOSE", [tensor(1, 288, 288)], tensor(1, 288, 288)) == MAPPED
    assert reason("TRANSPOSE", [tensor(1, 320, 320)], tensor(1, 320, 320)) == LIMIT


def test_what_no_compiled_model_shows_is_unknown() -> None:
    for kind in ("RELU", "SQUEEZE", "SPACE_TO_DEPTH", "RSQRT"):
        assert reason(kind, [IMAGE], IMAGE) == UNKNOWN
    assert reason("PACK", [IMAGE, IMAGE], tensor(1, 1, 2, 8, 16)) == LIMIT
    assert reason("PRELU", [IMAGE, weights(8, 8, 16)], IMAGE) == LIMIT
    assert reason("PRELU", [IMAGE, weights(1, 1, 16)], IMAGE) == UNKNOWN


def test_versions_are_seen_unknown_or_refused() -> None:
    for version, expected in ((3, MAPPED), (5, UNKNOWN), (6, VERSION)):
        assert reason("CONV_2D", [IMAGE, weights(16, 3, 3, 16)], IMAGE, version=version) == expected
    assert reason("GELU", [IMAGE], IMAGE) == VERSION


def test_every_operator_of_the_rules_has_a_name_in_the_schema() -> None:
    assert set(RULES) <= set(OPERATORS)
    assert OPERATORS.index("QUANTIZE") == 114
    assert OPERATORS.index("BATCH_MATMUL") == 126


def chain(*kinds: str, reads: dict[int, tuple[int, ...]] | None = None) -> Graph:
    """Operators one behind the other; ``reads`` says of some which tensors they read; 0 is the input."""
    operators = []
    for index, kind in enumerate(kinds):
        inputs, code = (reads or {}).get(index, (index,)), OPERATORS.index(kind)
        operators.append(Operator(index, kind, "", 1, inputs, (index + 1,), DEFAULTS, code))
    return Graph((tensor(1, 8, 8, 16),) * (len(kinds) + 1), tuple(operators), (0,), (len(kinds),), 1)


def placements(graph: Graph) -> str:
    return "".join(one.placement[0] for one in place(graph).operators)


def test_what_comes_before_the_first_part_does_not_hurt() -> None:
    assert placements(chain("CAST", "CAST", "ADD", "MUL")) == "cctt"


def test_the_first_part_wins_however_short() -> None:
    found = place(chain("ADD", "CAST", "ADD", "ADD", "ADD"))
    assert [one.placement for one in found.operators] == ["tpu", "cpu", "cpu", "cpu", "cpu"]
    assert [one.reason for one in found.operators] == [MAPPED, UNSUPPORTED, SUBGRAPH, SUBGRAPH, SUBGRAPH]
    assert found.split is not None
    assert (found.split.index, found.split.kind, found.split.mapped_without) == (1, "CAST", 5)
    assert "operator 1 (CAST) ends the part on the Edge TPU" in str(found.operators[4].remedy)


def test_a_branch_beside_what_is_refused_is_mapped() -> None:
    graph = chain("ADD", "CAST", "MUL", "ADD", reads={2: (1,), 3: (2, 3)})
    assert placements(graph) == "tctc"


def test_operators_that_are_refused_behind_the_cut_keep_their_reason() -> None:
    found = place(chain("ADD", "ARG_MAX", "ADD", "CAST"))
    assert [one.reason for one in found.operators] == [MAPPED, UNSUPPORTED, SUBGRAPH, UNSUPPORTED]


def test_a_model_that_ends_in_what_is_refused_is_not_split() -> None:
    found = place(chain("ADD", "MUL", "ARG_MAX"))
    assert found.mapped == 2
    assert found.split is None


def test_variables_are_there_at_once() -> None:
    graph = chain("ADD", "CAST", "MUL", reads={2: (2,)})
    variable = replace(graph.tensors[2], is_variable=True)
    graph = replace(graph, tensors=(*graph.tensors[:2], variable, *graph.tensors[3:]))
    assert placements(graph) == "tct"


def test_operators_that_wait_for_one_another_never_run() -> None:
    graph = chain("ADD", "MUL", reads={0: (2,)})
    found = partition(edges(graph), frozenset({0, 1}))
    assert (found.of, found.first) == ((-1, -1), -1)
    assert placements(graph) == "cc"


def test_what_hangs_on_the_unknown_is_unknown_and_the_rest_is_not() -> None:
    found = place(chain("ADD", "RELU", "ADD", "CAST", "ADD"))
    assert [one.placement for one in found.operators] == ["tpu", "unknown", "unknown", "cpu", "cpu"]
    assert found.mapped == 1
    assert "operator 1 (RELU) may end" in str(found.operators[2].remedy)
    assert found.operators[4].reason == SUBGRAPH


def test_nothing_is_mapped_where_the_compiler_cannot_read_the_model() -> None:
    graph = chain("ADD", "QUANTIZE")
    newer = replace(graph, operators=(graph.operators[0], replace(graph.operators[1], version=3)))
    found = place(newer)
    assert found.fatal == ("ERROR: Didn't find op for builtin opcode 'QUANTIZE' version '3'",)
    assert [one.placement for one in found.operators] == ["cpu", "cpu"]
    assert [one.reason for one in found.operators] == [found.fatal[0], VERSION]
    assert place(replace(graph, subgraphs=2)).mapped == 0


@pytest.mark.parametrize(
    ("kind", "kernel", "expected"),
    [
        ("CONV_2D", (16, 3, 3, 16), 16 * (9 * 16 + 8)),
        ("CONV_2D", (33, 3, 3, 3), 48 * (9 * 4 + 8)),
        ("CONV_2D", (65, 1, 1, 5), 128 * (8 + 8)),
        ("FULLY_CONNECTED", (256, 256), 67_584),
        ("DEPTHWISE_CONV_2D", (1, 3, 3, 16), 16 * (9 * 3 + 8)),
        ("DEPTHWISE_CONV_2D", (1, 3, 3, 32), 32 * (9 * 4 + 4)),
        ("ADD", (1, 1, 1, 20), 32 * 11),
        ("ADD", (1, 2, 1, 20), 0),
        ("SOFTMAX", (1, 2), 0),
    ],
)
def test_parameters_by_the_formulas(kind: str, kernel: tuple[int, ...], expected: int) -> None:
    assert operator_bytes(*one(kind, [IMAGE, weights(*kernel)], IMAGE)) == expected


@pytest.mark.parametrize(
    ("rows", "columns", "verdict", "streams"),
    [
        (1024, 5904, "fits", False),
        (1152, 5904, "borderline", False),
        (2048, 5904, "streams", True),
        (16, 9504, "streams", True),
    ],
)
def test_parameters_fit_border_or_stream(rows: int, columns: int, verdict: str, *, streams: bool) -> None:
    graph, _ = one("FULLY_CONNECTED", [tensor(1, columns), weights(rows, columns)], tensor(1, rows))
    found = parameters(graph, [0])
    assert found.verdict == verdict
    assert found.on_chip_bytes + found.streamed_bytes == found.total_bytes
    assert (found.streamed_bytes > 0) == streams
