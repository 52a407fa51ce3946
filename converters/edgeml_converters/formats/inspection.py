"""What a model file holds, read without running it: operators, parameters, MACs, size by layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final

from edgeml import plugins
from edgeml.converter import State
from edgeml.errors import EdgemlError, EngineMissingError, ModelFileError
from edgeml.tensors import Shape, TensorSpec
from edgeml.words import FORMAT_OF_RUNTIME
from edgeml_converters.formats.files import hash_tree, size_bytes
from edgeml_converters.formats.scheme import state_of

READER: Final = {"onnx": "onnx", "tflite": "ai-edge-litert", "openvino": "openvino"}
"""The distribution that reads a format."""
WORKER: Final = {"savedmodel": "tensorflow", "keras": "tensorflow", "pt2": "torch"}
"""The worker that reads what nothing else does."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One operator of the graph, as stored."""

    name: str
    kind: str
    parameters: int
    size_bytes: int
    """Of the constants that it uses first."""
    macs: int | None
    """Multiply-accumulates of one inference; ``None`` where a shape is not known."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a model file holds."""

    path: Path
    state: State
    sha256: str
    size_bytes: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    layers: tuple[Layer, ...]
    runtimes: Mapping[str, str]
    """Runtime to ``yes``, or the reason why not."""
    notes: tuple[str, ...]

    @property
    def operators(self) -> dict[str, int]:
        """Operator to how often it occurs, most frequent first."""
        return dict(Counter(layer.kind for layer in self.layers).most_common())

    @property
    def parameters(self) -> int:
        """Values in all constants that operators use."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def macs(self) -> int | None:
        """Multiply-accumulates of one inference; ``None`` if nothing is known of them."""
        known = [layer.macs for layer in self.layers if layer.macs is not None]
        return sum(known) if known else None

    def to_json(self) -> dict[str, Any]:
        """Give what ``edgeml inspect --json`` prints; docs/reference/json.md describes it."""
        return {
            "path": str(self.path),
            "format": self.state.format,
            "scheme": self.state.scheme,
            "sha256": self.sha256,
            "size_bytes": self.size_bytes,
            "inputs": [_spec(spec) for spec in self.inputs],
            "outputs": [_spec(spec) for spec in self.outputs],
            "operators": self.operators,
            "parameters": self.parameters,
            "macs": self.macs,
            "layers": [
                {
                    "name": layer.name,
                    "kind": layer.kind,
                    "parameters": layer.parameters,
                    "size_bytes": layer.size_bytes,
                    "macs": layer.macs,
                }
                for layer in self.layers
            ],
            "runtimes": dict(self.runtimes),
            "notes": list(self.notes),
        }


def inspect_model(path: Path) -> Inspection:
    """Look into a model file, as far as that goes without its framework.

    Raises:
        ModelFileError: missing, damaged, foreign.
        UnsafeFileError: a hostile file.
    """
    state = state_of(path)
    notes: list[str] = []
    layers: tuple[Layer, ...] = ()
    try:
        layers = _layers(state, path)
    except ModuleNotFoundError as error:
        notes.append(f"operators are not shown: {READER[state.format]} is not installed ({error.name})")
    if state.format in WORKER:
        notes.append(
            f"operators are not shown: {state.format} is read by the worker {WORKER[state.format]}; "
            f"convert it to see more (edgeml plan {path.name} shows the way)"
        )
    inputs, outputs, runtimes = _signature(path, state)
    if any(layer.macs is None for layer in layers):
        notes.append("operators whose shapes are not known are left out of the MACs")
    size = size_bytes(path)
    return Inspection(path, state, hash_tree(path), size, inputs, outputs, layers, runtimes, tuple(notes))


def _layers(state: State, path: Path) -> tuple[Layer, ...]:
    try:
        match state.format:
            case "onnx":
                return _onnx_layers(path)
            case "tflite":
                return _tflite_layers(path)
            case "openvino":
                return _openvino_layers(path)
            case _:
                return ()
    except (ModuleNotFoundError, EdgemlError):
        raise
    except Exception as error:
        raise ModelFileError(f"{path}: cannot be read: {str(error).strip()[:200]}") from error


def _signature(
    path: Path, state: State
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...], dict[str, str]]:
    """Give inputs and outputs from a runtime that loads the file, and say which runtimes can."""
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    runtimes: dict[str, str] = {}
    for runtime, format_ in FORMAT_OF_RUNTIME.items():
        if format_ != state.format:
            runtimes[runtime] = f"no: reads {format_}; edgeml convert makes one"
            continue
        try:
            with plugins.runtime(runtime).load(path) as session:
                inputs, outputs = session.inputs, session.outputs
            runtimes[runtime] = "yes"
        except EngineMissingError as error:
            runtimes[runtime] = f"not here: {error}"
        except EdgemlError as error:
            runtimes[runtime] = f"no: {error}"
    return inputs, outputs, runtimes


def _onnx_layers(path: Path) -> tuple[Layer, ...]:
    import onnx

    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    shapes: dict[str, Shape] = {}
    for value in (*model.graph.input, *model.graph.value_info, *model.graph.output):
        sides = value.type.tensor_type.shape.dim
        shapes[value.name] = tuple(side.dim_value or None for side in sides)
    constants = {one.name: one for one in model.graph.initializer}
    shapes |= {name: tuple(one.dims) for name, one in constants.items()}
    layers, seen = [], set()
    for place, node in enumerate(model.graph.node):
        own = [name for name in node.input if name in constants and name not in seen]
        seen.update(own)
        sizes = [len(constants[name].raw_data) or constants[name].ByteSize() for name in own]
        layers.append(
            Layer(
                name=node.name or (node.output[0] if node.output else str(place)),
                kind=node.op_type,
                parameters=sum(prod(constants[name].dims) for name in own),
                size_bytes=sum(sizes),
                macs=_onnx_macs(node, shapes),
            )
        )
    return tuple(layers)


def _onnx_macs(node: Any, shapes: Mapping[str, Shape]) -> int | None:
    if node.op_type not in {"Conv", "ConvTranspose", "Gemm", "MatMul", "QLinearConv"}:
        return 0
    weights = shapes.get(node.input[3 if node.op_type == "QLinearConv" else 1])
    source, target = shapes.get(node.input[0]), shapes.get(node.output[0])
    if weights is None or None in weights:
        return None
    if node.op_type in {"Conv", "QLinearConv"}:
        return _product(target, *weights[1:])
    if node.op_type == "ConvTranspose":
        return _product(source, *weights[1:])
    transposed = any(one.name == "transB" and one.i for one in node.attribute)
    return _product(target, weights[-1] if transposed else weights[-2]) if len(weights) > 1 else None


def _tflite_layers(path: Path) -> tuple[Layer, ...]:
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(str(path))
    kinds = {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}
    layers, seen = [], set()
    for graph in model.subgraphs:
        for operator in graph.operators:
            code = model.operatorCodes[operator.opcodeIndex]
            number = max(code.builtinCode, code.deprecatedBuiltinCode)
            kind = code.customCode.decode() if code.customCode else kinds.get(number, str(number))
            parameters = size = 0
            for index in operator.inputs:
                if index < 0:
                    continue
                tensor = graph.tensors[index]
                data = model.buffers[tensor.buffer].data
                if data is not None and len(data) and tensor.buffer not in seen:
                    seen.add(tensor.buffer)
                    parameters += prod(int(side) for side in _sides(tensor))
                    size += len(data)
            outputs = [graph.tensors[index] for index in operator.outputs]
            name = outputs[0].name.decode() if outputs else kind
            layers.append(Layer(name, kind, parameters, size, _tflite_macs(kind, operator, graph)))
    return tuple(layers)


def _tflite_macs(kind: str, operator: Any, graph: Any) -> int | None:
    if kind not in {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "BATCH_MATMUL"}:
        return 0
    weights = _sides(graph.tensors[operator.inputs[1]])
    target = _sides(graph.tensors[operator.outputs[0]])
    match kind:
        case "CONV_2D":
            return _product(target, *weights[1:])
        case "DEPTHWISE_CONV_2D":
            return _product(target, *weights[1:3])
        case "FULLY_CONNECTED" | "BATCH_MATMUL":
            return _product(target, weights[-1] if kind == "FULLY_CONNECTED" else weights[-2])
        case _:
            return _product(_sides(graph.tensors[operator.inputs[2]]), *weights[:3])


def _openvino_layers(path: Path) -> tuple[Layer, ...]:
    import openvino as ov

    model = ov.Core().read_model(path)
    layers, seen = [], set()
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        if kind in {"Constant", "Parameter", "Result"}:
            continue
        parameters = size = 0
        for port in node.inputs():
            before = port.get_source_output().get_node()
            if before.get_type_name() == "Constant" and before.get_name() not in seen:
                seen.add(before.get_name())
                values = prod(before.get_output_shape(0))
                parameters += values
                size += values * before.get_output_element_type(0).bitwidth // 8
        layers.append(Layer(node.get_friendly_name(), kind, parameters, size, _openvino_macs(kind, node)))
    return tuple(layers)


def _openvino_macs(kind: str, node: Any) -> int | None:
    if kind not in {"Convolution", "GroupConvolution", "MatMul", "ConvolutionBackpropData"}:
        return 0
    shapes = [
        tuple(None if side.is_dynamic else side.get_length() for side in shape)
        for shape in (
            node.input(0).get_partial_shape(),
            node.input(1).get_partial_shape(),
            node.output(0).get_partial_shape(),
        )
    ]
    source, weights, target = shapes
    match kind:
        case "Convolution":
            return _product(target, *weights[1:])
        case "GroupConvolution":
            return _product(target, *weights[2:])
        case "ConvolutionBackpropData":
            return _product(source, *weights[1:])
        case _:
            transposed = bool(node.get_attributes().get("transpose_b", False))
            return _product(target, weights[-1] if transposed else weights[-2]) if len(weights) > 1 else None


def _product(shape: Shape | None, *factors: int | None) -> int | None:
    """Multiply sides and factors; a free batch counts as 1, any other unknown side makes it unknown."""
    if shape is None:
        return None
    sides = [1 if place == 0 and side is None else side for place, side in enumerate(shape)]
    known = [side for side in (*sides, *factors) if side is not None]
    return prod(known) if len(known) == len(sides) + len(factors) else None


def _sides(tensor: Any) -> tuple[int, ...]:
    return () if tensor.shape is None else tuple(int(side) for side in tensor.shape)


def _spec(spec: TensorSpec) -> dict[str, Any]:
    quantization = spec.quantization
    return {
        "name": spec.name,
        "shape": list(spec.shape),
        "dtype": spec.dtype,
        "scale": list(quantization.scale) if quantization is not None else None,
        "zero_point": list(quantization.zero_point) if quantization is not None else None,
    }
