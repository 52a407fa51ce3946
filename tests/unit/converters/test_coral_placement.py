"""Whatever graph a file holds, every operator gets an answer, and the answers fit one another."""

from __future__ import annotations

from edgeml_converters.coral.graph import OPERATORS, Graph, Operator, Tensor
from edgeml_converters.coral.parameters import parameters
from edgeml_converters.coral.partition import edges, partition
from edgeml_converters.coral.placement import place
from edgeml_converters.coral.reasons import MAPPED
from edgeml_converters.coral.rules import RULES
from hypothesis import given
from hypothesis import strategies as st

OPTIONS = (
    *("dilation_x", "dilation_y", "fused_activation", "weights_format", "axis", "ellipsis_mask"),
    "new_axis_mask",
)
KINDS = st.sampled_from([*RULES, "CUSTOM", "DEQUANTIZE", "CAST", "ARG_MAX"])
DTYPES = st.sampled_from(["int8", "int8", "int8", "uint8", "int16", "int32", "float32", "type 99"])


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    return Tensor(
        draw(st.text(max_size=3)),
        tuple(draw(st.lists(st.integers(-1, 9) | st.integers(-(2**31), 2**31 - 1), max_size=5))),
        draw(DTYPES),
        draw(st.booleans()),
        tuple(draw(st.lists(st.integers(-5, 5), max_size=4))),
        draw(st.integers(0, 3)),
        draw(st.booleans()),
    )


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Any operators over any tensors, in any order, with cycles and with inputs and outputs missing."""
    every = draw(st.lists(tensors(), min_size=1, max_size=8))
    places = st.lists(st.integers(-1, len(every) - 1), max_size=4)
    operators = []
    for index, kind in enumerate(draw(st.lists(KINDS, max_size=10))):
        options = {name: draw(st.integers(-2, 3)) for name in OPTIONS}
        inputs, outputs = draw(places), [one for one in draw(places) if one >= 0]
        version, code = draw(st.integers(0, 8)), OPERATORS.index(kind)
        operators.append(Operator(index, kind, "mine", version, tuple(inputs), tuple(outputs), options, code))
    return Graph(tuple(every), tuple(operators), (0,), (), draw(st.sampled_from([1, 1, 1, 2])))


@given(graphs())
def test_every_operator_gets_an_answer(graph: Graph) -> None:
    found = place(graph)
    assert [one.index for one in found.operators] == list(range(len(graph.operators)))
    for one in found.operators:
        assert (one.placement == "tpu") == (one.reason == MAPPED) == (one.remedy is None)
    mapped = [one.index for one in found.operators if one.placement == "tpu"]
    sizes = parameters(graph, mapped)
    assert sizes.total_bytes == sizes.on_chip_bytes + sizes.streamed_bytes
    assert sizes.total_bytes >= 0
    if found.split is not None:
        assert found.operators[found.split.index].placement != "tpu"


@given(graphs(), st.sets(st.integers(0, 9)))
def test_the_cut_is_that_of_repeated_scans(graph: Graph, taken: set[int]) -> None:
    """As TensorFlow Lite describes it: scan in order, join what is ready and of the epoch's kind, again."""
    found = partition(edges(graph), frozenset(taken))
    made = {tensor for operator in graph.operators for tensor in operator.outputs}
    ready = {*graph.inputs, -1, *(set(range(len(graph.tensors))) - made)}
    ready |= {place for place, one in enumerate(graph.tensors) if one.is_constant or one.is_variable}
    makers = {tensor: operator.index for operator in graph.operators for tensor in operator.outputs}
    epoch_of = [-1] * len(graph.operators)
    epoch = 0
    while True:
        kind: bool | None = None
        grew = True
        while grew:
            grew = False
            for operator in graph.operators:
                is_taken = operator.index in taken
                if epoch_of[operator.index] >= 0 or not ready.issuperset(operator.inputs):
                    continue
                if kind in {None, is_taken}:
                    kind, grew = is_taken, True
                    epoch_of[operator.index] = epoch
                    ready |= {one for one in operator.outputs if makers[one] == operator.index}
        if kind is None:
            break
        epoch += 1
    assert found.of == tuple(epoch_of)
