"""Files as the Edge TPU compiler writes them, for the stand-in; no Edge TPU could run one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from edgeml.edgetpu import OPERATOR

MIN_RUNTIME: Final = 14
TOKEN: Final = 0x5EED_0F_C0_7A_11
"""The caching token of all that is written here."""


def write_compiled(source: Path, target: Path, parameter_bytes: int = 64) -> Path:
    """Write a model with one custom operator in place of all of its operators, and without its weights.

    Inputs, outputs, their names and quantization stay. Its package says what the compiler's own would say,
    with no program for any chip in it. Needs LiteRT.

    Args:
        source: a TFLite file.
        target: the file to write.
        parameter_bytes: that it says it keeps on the chip.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model: Any = schema.ModelT.InitFromObj(schema.Model.GetRootAs(source.read_bytes()))
    graph = model.subgraphs[0]
    code, operator = schema.OperatorCodeT(), schema.OperatorT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode, code.version = OPERATOR, 1
    operator.opcodeIndex, operator.customOptions = 0, list(_options(parameter_bytes))
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


def _options(parameter_bytes: int) -> bytes:
    """Give the custom operator's options: a map with the package under its key."""
    from flatbuffers import flexbuffers

    builder = flexbuffers.Builder()
    with builder.Map():
        builder.Key("4")
        builder.Blob(_package([_executable(1, parameter_bytes), _executable(2, 0)]))
    return bytes(builder.Finish())


def _package(executables: list[bytes]) -> bytes:
    """Give a package; fields by their numbers in libedgetpu's executable.fbs."""
    import flatbuffers

    inner = flatbuffers.Builder(0)
    places = [inner.CreateString(one) for one in executables]
    inner.StartVector(4, len(places), 4)
    for place in reversed(places):
        inner.PrependUOffsetTRelative(place)
    several = inner.EndVector()
    inner.StartObject(1)
    inner.PrependUOffsetTRelativeSlot(0, several, 0)
    inner.Finish(inner.EndObject())
    outer = flatbuffers.Builder(0)
    content, compiler = outer.CreateByteVector(bytes(inner.Output())), outer.CreateString("none")
    outer.StartObject(5)
    outer.PrependInt32Slot(0, MIN_RUNTIME, 0)
    outer.PrependUOffsetTRelativeSlot(1, content, 0)
    outer.PrependUOffsetTRelativeSlot(4, compiler, 0)
    outer.Finish(outer.EndObject(), b"DWN1")
    return bytes(outer.Output())


def _executable(kind: int, parameter_bytes: int) -> bytes:
    import flatbuffers

    builder = flatbuffers.Builder(0)
    parameters = builder.CreateByteVector(bytes(parameter_bytes))
    chip = builder.CreateString("beagle")
    builder.StartObject(17)
    builder.PrependUOffsetTRelativeSlot(6, parameters, 0)
    builder.PrependUOffsetTRelativeSlot(10, chip, 0)
    builder.PrependUint16Slot(13, kind, 0)
    builder.PrependUint64Slot(14, TOKEN, 0)
    builder.Finish(builder.EndObject())
    return bytes(builder.Output())
