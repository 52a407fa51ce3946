"""What the Edge TPU compiler will make of a model file, told before it is run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from edgeml.edgetpu import OPERATOR
from edgeml.errors import ModelFileError
from edgeml_converters.coral.graph import Graph, Operator, read_graph
from edgeml_converters.coral.limits import Node, computes_shape
from edgeml_converters.coral.parameters import Parameters, parameters
from edgeml_converters.coral.placement import Placements, place

SUBGRAPHS: Final = 1
"""The compiler makes one part for the Edge TPU, unless it is told to make several."""


@dataclass(frozen=True, slots=True)
class Check:
    """The prediction for one file."""

    path: Path
    graph: Graph
    placements: Placements
    parameters: Parameters

    @property
    def total(self) -> int:
        """How many operators the model has."""
        return len(self.placements.operators)

    @property
    def is_float(self) -> bool:
        """Whether nothing that the model computes is held in 8 bits: the compiler maps nothing of it."""
        made = {index for operator in self.graph.operators for index in operator.outputs}
        return not any(self.graph.tensors[index].dtype in {"int8", "uint8"} for index in made)

    @property
    def computed_shape(self) -> Operator | None:
        """The first operator whose result has a shape that is only known while the model runs.

        TensorFlow Lite then hands the graph to no delegate, and the compiler gives up: "a delegate that only
        supports static-sized tensors with a graph that has dynamic-sized tensors".
        """
        return next((one for one in self.graph.operators if computes_shape(Node(self.graph, one))), None)

    @property
    def subgraphs(self) -> int:
        """How many parts the compiler makes for the Edge TPU."""
        return SUBGRAPHS if self.placements.mapped else 0

    def to_json(self) -> dict[str, Any]:
        """Give what ``edgeml coral check --json`` prints; docs/reference/json.md describes it."""
        return {
            "operators": [
                {
                    "index": one.index,
                    "name": one.kind,
                    "placement": one.placement,
                    "reason": one.reason,
                    "remedy": one.remedy,
                }
                for one in self.placements.operators
            ],
            "mapped": self.placements.mapped,
            "total": self.total,
            "subgraphs": self.subgraphs,
            "parameters": asdict(self.parameters),
        }


def check_file(path: Path) -> Check:
    """Predict what the compiler will make of a TFLite file.

    Raises:
        ModelFileError: missing, truncated, damaged, no TFLite file, or one that is compiled already.
        UnsafeFileError: it unpacks to far more than it holds.
    """
    graph = read_graph(path)
    if any(one.custom_code == OPERATOR for one in graph.operators):
        raise ModelFileError(
            f"{path}: compiled for the Edge TPU already; check its source, or see edgeml coral inspect {path}"
        )
    placements = place(graph)
    mapped = [one.index for one in placements.operators if one.placement == "tpu"]
    return Check(path, graph, placements, parameters(graph, mapped))
