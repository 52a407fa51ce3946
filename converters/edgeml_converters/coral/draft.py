"""A TFLite file in object form while it is changed, with the edits that rewrites, cuts and joins share.

Only the main graph is changed; others (control flow) stay as they are.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgeml.arrays import Array
from edgeml.errors import EngineMissingError, ModelFileError
from edgeml.figures import shorten
from edgeml_converters.coral.graph import OPERATORS, read_graph

DTYPES: Final = {0: "float32", 2: "int32", 3: "uint8", 4: "int64", 6: "bool", 7: "int16", 9: "int8"}
"""Tensor type numbers of TFLite's schema whose values are read and written here."""
TYPES: Final = {name: number for number, name in DTYPES.items()}
_OLD_CODE_MAX: Final = 127
_NAME_CHARACTERS: Final = 60


@dataclass(slots=True)
class Draft:
    """A model that is being rewritten; tensors are named by their index in the main graph."""

    model: Any

    @property
    def graph(self) -> Any:
        """The main graph."""
        return self.model.subgraphs[0]

    def tensor(self, index: int) -> Any:
        """Give a tensor."""
        return self.graph.tensors[index]

    def dtype(self, index: int) -> str:
        """Give a tensor's dtype; of types that nothing here reads, a text that equals no dtype."""
        number = int(self.tensor(index).type)
        return DTYPES.get(number, f"type {number}")

    def shape(self, index: int) -> tuple[int, ...]:
        """Give a tensor's stored shape."""
        found = self.tensor(index).shape
        return () if found is None else tuple(int(side) for side in found)

    def name(self, index: int) -> str:
        """Give a tensor's name."""
        found = self.tensor(index).name
        return found.decode(errors="replace") if found else ""

    def told(self, index: int) -> str:
        """Give a tensor's name as a person is told it: converters glue many into one."""
        return repr(shorten(self.name(index), _NAME_CHARACTERS))

    def scale(self, index: int) -> tuple[float, int] | None:
        """Give scale and zero point of a tensor that is quantized as a whole; ``None``: it is not."""
        found = self.tensor(index).quantization
        if found is None or found.scale is None or len(found.scale) != 1:
            return None
        zero_points = found.zeroPoint
        return float(found.scale[0]), 0 if zero_points is None or not len(zero_points) else int(
            zero_points[0]
        )

    def is_constant(self, index: int) -> bool:
        """Say whether the file holds a tensor's values."""
        data = self.model.buffers[self.tensor(index).buffer].data
        return data is not None and len(data) > 0

    def values(self, index: int) -> Array | None:
        """Give the values of a constant; ``None``: it is none, or of a type or size that is not read."""
        if not self.is_constant(index) or self.dtype(index) not in TYPES:
            return None
        content = bytes(self.model.buffers[self.tensor(index).buffer].data)
        dtype = np.dtype(self.dtype(index))
        shape = self.shape(index)
        if len(content) != dtype.itemsize * int(np.prod(shape, dtype=np.int64)):
            return None
        return np.frombuffer(content, dtype).reshape(shape)

    def kind(self, operator: Any) -> str:
        """Give the name of an operator's kind."""
        code = self.model.operatorCodes[operator.opcodeIndex]
        number = max(int(code.builtinCode), int(code.deprecatedBuiltinCode))
        return OPERATORS[number] if 0 <= number < len(OPERATORS) else f"builtin code {number}"

    def version(self, operator: Any) -> int:
        """Give an operator's version."""
        return int(self.model.operatorCodes[operator.opcodeIndex].version)

    def readers(self) -> dict[int, list[Any]]:
        """Give the operators that read each tensor."""
        found: dict[int, list[Any]] = {}
        for operator in self.graph.operators:
            for index in dict.fromkeys(inputs_of(operator)):
                found.setdefault(index, []).append(operator)
        return found

    def makers(self) -> dict[int, Any]:
        """Give the operator that computes each tensor."""
        return {index: one for one in self.graph.operators for index in outputs_of(one)}

    def code(self, kind: str, version: int) -> int:
        """Give the place of an operator code, which is added where it is missing."""
        from ai_edge_litert import schema_py_generated as schema

        number = OPERATORS.index(kind)
        for place, one in enumerate(self.model.operatorCodes):
            if max(int(one.builtinCode), int(one.deprecatedBuiltinCode)) == number and one.version == version:
                return place
        made = schema.OperatorCodeT()
        made.builtinCode, made.version = number, version
        made.deprecatedBuiltinCode = min(number, _OLD_CODE_MAX)
        self.model.operatorCodes.append(made)
        return len(self.model.operatorCodes) - 1

    def operator(
        self,
        kind: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        version: int,
        options: Any = None,
    ) -> Any:
        """Make an operator; the caller puts it into the graph."""
        from ai_edge_litert import schema_py_generated as schema

        made = schema.OperatorT()
        made.opcodeIndex = self.code(kind, version)
        made.inputs, made.outputs = list(inputs), list(outputs)
        if options is not None:
            name = type(options).__name__.removesuffix("T")
            made.builtinOptionsType = getattr(schema.BuiltinOptions, name)
            made.builtinOptions = options
        return made

    def replace(self, operator: Any, several: Sequence[Any]) -> None:
        """Put operators in an operator's place."""
        place = next(place for place, one in enumerate(self.graph.operators) if one is operator)
        self.graph.operators[place : place + 1] = several

    def add(self, like: int, name: str, shape: Sequence[int], values: Array | None = None) -> int:
        """Add a tensor of the type and quantization of another; with values it is a constant."""
        made = copy.deepcopy(self.tensor(like))
        made.name, made.shape = name.encode(), [int(side) for side in shape]
        made.shapeSignature, made.sparsity, made.isVariable = None, None, False
        made.buffer = self._buffer(values)
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def add_constant(self, name: str, values: Array) -> int:
        """Add a constant that is not quantized."""
        from ai_edge_litert import schema_py_generated as schema

        made = schema.TensorT()
        made.name, made.shape, made.type = name.encode(), list(values.shape), TYPES[str(values.dtype)]
        made.buffer, made.hasRank = self._buffer(values), True
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def set_values(self, index: int, values: Array) -> None:
        """Make a tensor a constant."""
        tensor = self.tensor(index)
        tensor.shape, tensor.shapeSignature = list(values.shape), None
        tensor.buffer = self._buffer(values)

    def _buffer(self, values: Array | None) -> int:
        """Give a buffer of the values' own: tensors may share one, so none is ever written to."""
        from ai_edge_litert import schema_py_generated as schema

        if values is None:
            return 0
        made = schema.BufferT()
        made.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        self.model.buffers.append(made)
        return len(self.model.buffers) - 1

    def add_metadata(self, name: str, data: bytes) -> None:
        """Add an entry that no engine reads."""
        from ai_edge_litert import schema_py_generated as schema

        made = schema.MetadataT()
        made.name, made.buffer = name.encode(), self._buffer(np.frombuffer(data, np.uint8))
        self.model.metadata = [*(self.model.metadata or []), made]

    def part(self, operators: Sequence[Any], inputs: Sequence[int], outputs: Sequence[int]) -> Draft:
        """Give a model of some of the operators; signature and metadata stay behind."""
        model, graph = copy.copy(self.model), copy.copy(self.graph)
        graph.operators, graph.inputs, graph.outputs = list(operators), list(inputs), list(outputs)
        model.subgraphs, model.signatureDefs = [graph, *model.subgraphs[1:]], None
        model.metadata, model.metadataBuffer = None, None
        held = model.buffers
        model.buffers = []  # they hold the weights, which need not be copied
        alone = Draft(copy.deepcopy(model))
        alone.model.buffers = [copy.copy(one) for one in held]
        alone.tidy()
        return alone

    def tidy(self) -> None:
        """Drop the tensors, operator codes and weights that nothing uses any more."""
        graph = self.graph
        named = [
            item.tensorIndex
            for one in self.model.signatureDefs or []
            if one.subgraphIndex == 0
            for item in (*(one.inputs or []), *(one.outputs or []))
        ]
        used = {*graph.inputs, *graph.outputs, *named}
        for one in graph.operators:
            used.update(inputs_of(one), outputs_of(one), one.intermediates or [])
        places = {old: new for new, old in enumerate(sorted(used))} | {-1: -1}
        graph.tensors = [graph.tensors[old] for old in sorted(used)]
        graph.inputs = [places[index] for index in graph.inputs]
        graph.outputs = [places[index] for index in graph.outputs]
        for one in graph.operators:
            one.inputs = [places[int(index)] for index in _numbers(one.inputs)]
            one.outputs = [places[index] for index in outputs_of(one)]
            if one.intermediates is not None:
                one.intermediates = [places[int(index)] for index in one.intermediates]
        for signature in self.model.signatureDefs or []:
            if signature.subgraphIndex == 0:
                for item in (*(signature.inputs or []), *(signature.outputs or [])):
                    item.tensorIndex = places[item.tensorIndex]
        self._drop_codes()
        self._drop_values()

    def _drop_codes(self) -> None:
        every = [one for graph in self.model.subgraphs for one in graph.operators]
        used = sorted({one.opcodeIndex for one in every})
        places = {old: new for new, old in enumerate(used)}
        for one in every:
            one.opcodeIndex = places[one.opcodeIndex]
        self.model.operatorCodes = [self.model.operatorCodes[old] for old in used]

    def _drop_values(self) -> None:
        kept = {tensor.buffer for graph in self.model.subgraphs for tensor in graph.tensors}
        kept.update(one.buffer for one in self.model.metadata or [])
        kept.update(self.model.metadataBuffer or [])
        for place, buffer in enumerate(self.model.buffers):
            if place not in kept:
                buffer.data = None


def inputs_of(operator: Any) -> list[int]:
    """Give the tensors that an operator reads, without those left out."""
    return [int(index) for index in _numbers(operator.inputs) if index >= 0]


def outputs_of(operator: Any) -> list[int]:
    """Give the tensors that an operator computes."""
    return [int(index) for index in _numbers(operator.outputs)]


def _numbers(given: Any) -> Any:
    return () if given is None else given


def read_draft(path: Path) -> Draft:
    """Read a TFLite file to rewrite it.

    Raises:
        ModelFileError: missing, truncated, damaged, no TFLite file; or its weights lie outside the file.
        UnsafeFileError: it unpacks to far more than it holds.
        EngineMissingError: LiteRT, whose tools read the file, is not installed.
    """
    read_graph(path)
    return parsed(path, path.read_bytes())


def parsed(path: Path, content: bytes) -> Draft:
    """Parse a file's content; ``path`` is for messages. Raises as :func:`read_draft`."""
    try:
        from ai_edge_litert.tools import flatbuffer_utils
    except ModuleNotFoundError as error:
        raise EngineMissingError(
            "rewriting a TFLite file needs 'ai-edge-litert'. "
            "Install it: pip install 'edgeml-core[workstation]'"
        ) from error
    try:
        model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
        _check(model)
        _without_lost_names(model)
    except Exception as error:
        raise ModelFileError(
            f"{path}: damaged: it does not parse as a TFLite model; copy it again from its source"
        ) from error
    return Draft(model)


def _check(model: Any) -> None:
    """Look at what edits rely on, and the reader of graphs does not look at; raises IndexError."""
    graph = model.subgraphs[0]
    for name in ("tensors", "operators", "inputs", "outputs"):
        if getattr(graph, name) is None:
            setattr(graph, name, [])
    for one in graph.operators:
        for index in one.intermediates or []:
            graph.tensors[index]
    for every in model.subgraphs:
        for tensor in every.tensors or []:
            model.buffers[tensor.buffer]


def _without_lost_names(model: Any) -> None:
    """Forget signatures of tensors that are not there: some tools leave them, LiteRT does not mind."""
    for one in model.signatureDefs or []:
        count = len(model.subgraphs[one.subgraphIndex].tensors or [])
        items = (*(one.inputs or []), *(one.outputs or []))
        if any(item.tensorIndex >= count for item in items):
            model.signatureDefs = None
            return


def content(draft: Draft) -> bytes:
    """Give the bytes of the rewritten model."""
    from ai_edge_litert.tools import flatbuffer_utils

    for graph in draft.model.subgraphs:
        for one in graph.operators or []:
            if one.customOptions is not None:  # megabytes of a compiled model: a list is packed byte by byte
                one.customOptions = np.array(one.customOptions, np.uint8)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(draft.model))
