"""Files as the Edge TPU compiler writes them, for the stand-in; no Edge TPU could run one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeml.edgetpu import OPERATOR


def write_compiled(source: Path, target: Path) -> Path:
    """Write a model with one custom operator in place of all of its operators, and without its weights.

    Inputs, outputs, their names and quantization stay. Needs LiteRT.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model: Any = schema.ModelT.InitFromObj(schema.Model.GetRootAs(source.read_bytes()))
    graph = model.subgraphs[0]
    code, operator = schema.OperatorCodeT(), schema.OperatorT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode, code.version = OPERATOR, 1
    operator.opcodeIndex, operator.customOptions = 0, b"\x00"
    kept = list(dict.fromkeys([*graph.inputs, *graph.outputs]))
    place = {index: number for number, index in enumerate(kept)}
    graph.tensors = [graph.tensors[index] for index in kept]
    for tensor in graph.tensors:
        tensor.buffer = 0
    graph.inputs = [place[index] for index in graph.inputs]
    graph.outputs = [place[index] for index in graph.outputs]
    operator.inputs, operator.outputs = graph.inputs, graph.outputs
    graph.operators, model.operatorCodes = [operator], [code]
    model.buffers, model.metadata, model.signatureDefs = [schema.BufferT()], None, None
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    target.write_bytes(builder.Output())
    return target
