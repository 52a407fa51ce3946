"""Networks drawn by a seed, of what dead channels pass, stop at and hide behind."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgeml.arrays import Array

SHAPE = (1, 3, 9, 9)
DEAD = 0.45
"""Share of channels whose weights are 0, or what weight decay leaves of them."""
PARTS = (
    "mixed",
    "mixed",
    "depthwise",
    "activation",
    "activation",
    "pool",
    "joined",
    "scaled",
    "around",
    "grouped",
)


class Drawn:
    """A network that is being drawn, from its input on."""

    def __init__(self, seed: int) -> None:
        self.chance = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.constants: dict[str, Array] = {}
        self.last, self.channels = "x", SHAPE[1]

    def model(self) -> Any:
        for _ in range(int(self.chance.integers(3, 9))):
            getattr(self, self.chance.choice(PARTS))()
        self.put("GlobalAveragePool", self.last)
        self.put("Flatten", self.last)
        self.put("Gemm", self.last, self.constant(self.killed(0, self.channels, 5)), self.bias(5))
        graph = helper.make_graph(
            self.nodes,
            "drawn",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, SHAPE)],
            [helper.make_tensor_value_info(self.last, onnx.TensorProto.FLOAT, [1, 5])],
            [numpy_helper.from_array(value, name) for name, value in self.constants.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    def put(self, kind: str, *takes: str, **options: Any) -> str:
        self.last = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, takes, [self.last], name=self.last, **options))
        return self.last

    def constant(self, values: Array) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = values
        return name

    def bias(self, count: int) -> str:
        values = self.chance.normal(size=count) * self.chance.choice([0, 1, 1], size=count)
        return self.constant(values.astype(np.float32))

    def killed(self, axis: int, *shape: int) -> Array:
        weights = np.moveaxis(self.chance.normal(size=shape).astype(np.float32), axis, 0)
        for channel in np.flatnonzero(self.chance.random(len(weights)) < DEAD):
            weights[channel] *= np.float32(self.chance.choice([0, 1e-30]))
        return np.moveaxis(weights, 0, axis)

    def mixed(self) -> None:
        made, side = int(self.chance.choice([4, 8, 12])), int(self.chance.choice([1, 3]))
        weights = self.killed(int(self.chance.integers(0, 2)), made, self.channels, side, side)
        more = [self.bias(made)] if self.chance.random() < 0.7 else []
        self.put("Conv", self.last, self.constant(weights), *more, pads=[side // 2] * 4)
        self.channels = made

    def depthwise(self) -> None:
        weights = self.constant(self.killed(0, self.channels, 1, 3, 3))
        pads = [int(self.chance.integers(0, 2))] * 4 if self.chance.random() < 0.5 else [1] * 4
        self.put("Conv", self.last, weights, self.bias(self.channels), group=self.channels, pads=pads)

    def activation(self) -> None:
        kind = str(self.chance.choice(["Relu", "Sigmoid", "Tanh", "LeakyRelu", "HardSwish", "Clip"]))
        limits = [self.constant(np.float32(one)) for one in (-1, 1.5)] if kind == "Clip" else []
        self.put(kind, self.last, *limits)

    def pool(self) -> None:
        kind = str(self.chance.choice(["MaxPool", "AveragePool"]))
        self.put(kind, self.last, kernel_shape=[3, 3], pads=[1] * 4)

    def joined(self) -> None:
        taken = self.last
        sides = [
            self.put(
                "Conv",
                taken,
                self.constant(self.killed(0, *[self.channels] * 2, 1, 1)),
                self.bias(self.channels),
            )
            for _ in range(2)
        ]
        live = self.chance.random() < 0.5
        self.put(str(self.chance.choice(["Add", "Mul"])), sides[0], taken if live else sides[1])

    def scaled(self) -> None:
        if self.chance.random() < 0.5:
            spread = self.constant(self.chance.uniform(0.1, 2, self.channels).astype(np.float32))
            self.put("BatchNormalization", self.last, *(self.bias(self.channels) for _ in range(3)), spread)
            return
        values = self.constants[self.bias(self.channels)].reshape(-1, 1, 1)
        self.put(str(self.chance.choice(["Mul", "Add", "Sub"])), self.last, self.constant(values))

    def around(self) -> None:
        self.put("Pad", self.last, self.constant(np.array([0, 0, 1, 1, 0, 0, 1, 1])))

    def grouped(self) -> None:
        if self.channels % 4 == 0:
            weights = self.killed(0, self.channels, self.channels // 4, 1, 1)
            self.put("Conv", self.last, self.constant(weights), group=4)
