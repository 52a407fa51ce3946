"""Runs the part of a source model that a compiled one has in its custom operator; ``standin.c`` starts it.

Over the socket that is its standard input it is told which tensors are taken and given (count, then size
and name of each), answers with 0 or the length and text of an error, and then for each call takes the
inputs' bytes and answers in the same way, the outputs' bytes behind the 0. Numbers are of 32 bits.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from edgeml.engine_text import engine_text

_NUMBER: Final = struct.Struct("=I")
_TEXT_BYTES: Final = 1000
_REFUSALS: Final = (OSError, RuntimeError, ValueError, TypeError, LookupError, struct.error)


class _GoneError(Exception):
    """The other side closed the socket."""


@dataclass(frozen=True, slots=True)
class Port:
    """A tensor that the custom operator takes or gives."""

    name: str
    size_bytes: int


def cut(source: Path, taken: tuple[Port, ...], given: tuple[Port, ...]) -> bytearray:
    """Give the part of a model between tensors of these names.

    Raises:
        LookupError: the model has no such tensor, or none that is computed.
    """
    model: Any = schema.ModelT.InitFromObj(schema.Model.GetRootAs(source.read_bytes()))
    graph = model.subgraphs[0]
    writers = {index: operator for operator in graph.operators for index in operator.outputs}
    names: dict[str, int] = {}
    for index, tensor in enumerate(graph.tensors):
        name = (tensor.name or b"").decode(errors="replace")
        if name not in names or index in writers:
            names[name] = index
    graph.inputs = [_index(names, port, source) for port in taken]
    graph.outputs = [_index(names, port, source) for port in given]
    needed, seen = set(), {*graph.inputs}
    waiting = list(graph.outputs)
    while waiting:
        index = waiting.pop()
        if index in seen or index not in writers:
            continue
        needed.add(id(writers[index]))
        seen.update(writers[index].outputs)
        waiting.extend(writers[index].inputs)
    graph.operators = [operator for operator in graph.operators if id(operator) in needed]
    model.signatureDefs = None
    import flatbuffers

    builder = flatbuffers.Builder(source.stat().st_size)
    builder.Finish(model.Pack(builder), b"TFL3")
    content: bytearray = builder.Output()
    return content


def _index(names: dict[str, int], port: Port, source: Path) -> int:
    if port.name not in names:
        raise LookupError(f"{source} has no tensor {port.name!r}: the compiled model was made of another")
    return names[port.name]


def interpreter_of(content: bytes, *, xnnpack: bool) -> Any:
    """Open a model, on the kernels of XNNPACK or on the built-in ones."""
    kernels = OpResolverType.AUTO if xnnpack else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    found = Interpreter(model_content=content, experimental_op_resolver_type=kernels)
    found.allocate_tensors()
    return found


def serve(source: Path, line: socket.socket, *, xnnpack: bool) -> None:
    """Answer until the other side closes."""
    taken, given = _ports(line), _ports(line)
    try:
        interpreter = interpreter_of(bytes(cut(source, taken, given)), xnnpack=xnnpack)
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        for port, detail in zip((*taken, *given), (*inputs, *outputs), strict=True):
            size = int(np.prod(detail["shape"])) * np.dtype(detail["dtype"]).itemsize
            if size != port.size_bytes:
                raise ValueError(f"{port.name} has {port.size_bytes} bytes, in the source {size}")
    except _REFUSALS as error:
        _refuse(line, error)
        return
    line.sendall(_NUMBER.pack(0))
    while True:
        for port, detail in zip(taken, inputs, strict=True):
            data = np.frombuffer(_receive(line, port.size_bytes), detail["dtype"])
            interpreter.set_tensor(detail["index"], data.reshape(detail["shape"]))
        try:
            interpreter.invoke()
        except _REFUSALS as error:
            _refuse(line, error)
            continue
        results = [interpreter.get_tensor(detail["index"]).tobytes() for detail in outputs]
        line.sendall(b"".join([_NUMBER.pack(0), *results]))


def _ports(line: socket.socket) -> tuple[Port, ...]:
    (count,) = _NUMBER.unpack(_receive(line, _NUMBER.size))
    found = []
    for _ in range(count):
        size, length = struct.unpack("=II", _receive(line, 8))
        found.append(Port(_receive(line, length).decode(errors="replace"), size))
    return tuple(found)


def _receive(line: socket.socket, size: int) -> bytes:
    parts = []
    while size:
        part = line.recv(min(size, 1 << 20))
        if not part:
            raise _GoneError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _refuse(line: socket.socket, error: BaseException) -> None:
    text = engine_text(error).encode()[:_TEXT_BYTES] or b"refused"
    line.sendall(_NUMBER.pack(len(text)) + text)


def main() -> None:
    """Serve the model that the command line names."""
    with Path(os.devnull).open("wb") as nothing:  # the engine's chatter is not the caller's
        os.dup2(nothing.fileno(), 2)
    with socket.socket(fileno=0) as line:
        try:
            serve(Path(sys.argv[1]), line, xnnpack=sys.argv[2] != "off")
        except (_GoneError, ConnectionError):
            return


if __name__ == "__main__":
    main()
