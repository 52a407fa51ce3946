"""Operator times of LiteRT, read from its C library in a process of its own.

LiteRT's Python packages have no profiler; the library they ship (``libLiteRt.so``) has one, in a C
interface without a promise of stability: what is read here was tried with the versions in ``_TRIED``. A
layout that differs could crash the reader, hence the separate process, run as
``python -m edgeml_runtimes.litert_profile FOLDER``: FOLDER holds ``request.json`` and ``inputs.npz``, and
gets ``answer.json``.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from ctypes import Structure, byref, c_char_p, c_int, c_int32, c_int64, c_size_t, c_uint32, c_void_p
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgeml.errors import EngineError, EngineVersionError, InferenceError
from edgeml.runtime import OperatorTime

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgeml.arrays import Array

TIMEOUT_S: Final = 300.0
_TRIED: Final = ("2.3",)
"""Versions of ai-edge-litert, by their first two numbers."""
_PACKAGE: Final = "ai_edge_litert"
_LIBRARY: Final = "libLiteRt.so"
_OPERATOR, _DELEGATED, _DELEGATED_TOO = 2, 4, 8
"""Event types: a node of the graph, and an operator inside a delegate (whatever section it is listed in)."""
_CPU: Final = 1
_WRITE: Final = 1
_KERNELS: Final = {True: 0, False: 2}
"""LiteRT's CPU kernel modes: delegates (XNNPACK), and the optimized built-in kernels."""
_MAIN_GRAPH: Final = 0
_MAX_RANK: Final = 8
_SLACK: Final = 2
"""Room for events of this multiple of the expected size, to see a layout that differs without harm."""

_Key = tuple[str, int | None, int]
"""An operator: its tag, the delegate's part it is in if any, its place in the graph or the part."""


def operator_times(
    artifact: Path,
    inputs: Mapping[int, Array],
    names: Mapping[int, str],
    *,
    threads: int,
    xnnpack: bool,
    runs: int,
) -> tuple[OperatorTime, ...]:
    """Time the operators of a TFLite file in a fresh process.

    Args:
        artifact: the file.
        inputs: arrays of the inputs' own dtypes, by the index of the tensor.
        names: names of the main graph's nodes by their index. XNNPACK's operators, which are not the
            graph's, are called ``xnnpack PART:PLACE``.
        threads: threads of the kernels.
        xnnpack: whether operators go to the XNNPACK kernels.
        runs: how many runs the means are of; one more comes before.

    Raises:
        EngineVersionError: this LiteRT is not one whose profiler is known, or lacks the library.
        InferenceError: the profiler failed or crashed.
    """
    _known_library()
    request = {
        "artifact": str(artifact.absolute()),
        "threads": threads,
        "xnnpack": xnnpack,
        "runs": runs,
        "caller": os.getpid(),
    }
    with tempfile.TemporaryDirectory(prefix="edgeml-profile-") as name:
        folder = Path(name)
        (folder / "request.json").write_text(json.dumps(request))
        arrays: dict[str, Any] = {str(index): array for index, array in inputs.items()}
        np.savez(folder / "inputs.npz", **arrays)
        _run(artifact, folder)
        rows = json.loads((folder / "answer.json").read_text())
    return tuple(_operator_time(row, names, runs) for row in rows)


def _operator_time(row: Mapping[str, Any], names: Mapping[int, str], runs: int) -> OperatorTime:
    part, index, mean_us = row["part"], row["index"], row["total_us"] / runs
    if part is None:
        return OperatorTime(names.get(index) or f"node {index}", f"{row['tag']} · built-in", mean_us)
    return OperatorTime(f"xnnpack {part}:{index}", f"{row['tag']} · XNNPACK", mean_us)


def _known_library() -> Path:
    """Give the library's path.

    Raises:
        EngineVersionError: as above.
    """
    found = version("ai-edge-litert")
    spec = importlib.util.find_spec(_PACKAGE)
    library = Path(next(iter((spec and spec.submodule_search_locations) or [""]))) / _LIBRARY
    if ".".join(found.split(".")[:2]) not in _TRIED or not library.is_file():
        raise EngineVersionError(
            f"operator times are not available with this ai-edge-litert ({found}): its profiler is known "
            f"in {', '.join(f'{tried}.*' for tried in _TRIED)} on Linux; install that, or leave --profile out"
        )
    return library


def _run(artifact: Path, folder: Path) -> None:
    """Run the process to its end.

    Raises:
        InferenceError: it gave no answer.
    """
    argv = [sys.executable, "-P", "-m", __name__, str(folder)]
    with (folder / "log").open("wb") as log:
        try:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise InferenceError(
                f"{artifact}: LiteRT's profiler did not end within {TIMEOUT_S:g} s; ask for fewer runs"
            ) from None
    if done.returncode == 0 and (folder / "answer.json").is_file():
        return
    code = done.returncode
    how = f"crashed ({signal.Signals(-code).name})" if code < 0 else f"ended with exit code {code}"
    lines = (folder / "log").read_text(errors="replace").splitlines()
    told = " ".join(line for line in lines if not line.startswith(("INFO:", "WARNING:")))[-300:]
    raise InferenceError(f"{artifact}: LiteRT's profiler {how}: {told or 'it said nothing'}")


# --- the process that reads the library


class _TensorType(Structure):
    """LiteRtRankedTensorType, which LiteRT declares stable."""

    _fields_ = (
        ("element_type", c_int),
        ("rank_and_flags", c_uint32),
        ("dimensions", c_int32 * _MAX_RANK),
        ("strides", c_uint32 * _MAX_RANK),
    )


_LAYOUT_OFFSET: Final = _TensorType.rank_and_flags.offset
_LAYOUT_BYTES: Final = ctypes.sizeof(_TensorType) - _LAYOUT_OFFSET


class Event(Structure):
    """ProfiledEventData of version 2.3 on 64-bit Linux, found by reading: not declared stable."""

    _fields_ = (
        ("tag", c_char_p),
        ("event_type", c_int),
        ("begun_us", ctypes.c_uint64),
        ("elapsed_us", ctypes.c_uint64),
        ("memory", c_int64 * 6),
        ("index", ctypes.c_uint64),
        ("subgraph", ctypes.c_uint64),
        ("source", c_int),
    )


class _Library:
    """LiteRT's C functions; a status other than 0 is an error."""

    def __init__(self, path: Path) -> None:
        self.functions = ctypes.CDLL(str(path))
        self.c = ctypes.CDLL(None)
        self.c.strdup.restype = c_void_p

    def call(self, name: str, *arguments: Any) -> None:
        function = getattr(self.functions, name, None)
        if function is None:
            raise EngineError(f"{_LIBRARY} has no {name}")
        function.restype = c_int
        status = function(*arguments)
        if status:
            raise EngineError(f"{name} gave status {status}")

    def made(self, name: str, *arguments: Any) -> c_void_p:
        """Call a function whose last argument is where it puts a handle."""
        handle = c_void_p()
        self.call(name, *arguments, byref(handle))
        return handle

    def counted(self, name: str, *arguments: Any) -> int:
        count = c_size_t()
        self.call(name, *arguments, byref(count))
        return count.value

    def add_options(self, options: c_void_p, identifier: bytes, toml: str) -> None:
        text = c_void_p(self.c.strdup(toml.encode()))  # LiteRT frees it
        free = ctypes.cast(self.c.free, c_void_p)
        part = self.made("LiteRtCreateOpaqueOptions", identifier, text, free)
        self.call("LiteRtAddOpaqueOptions", options, part)


class _Compiled:
    """A compiled model with its profiler, input and output buffers. Freed by the end of the process."""

    def __init__(self, library: _Library, request: Mapping[str, Any]) -> None:
        self.library = library
        made = library.made
        self.environment = made("LiteRtCreateEnvironment", c_int(0), None)
        model = made("LiteRtCreateModelFromFile", self.environment, os.fsencode(request["artifact"]))
        options = made("LiteRtCreateOptions")
        library.call("LiteRtSetOptionsHardwareAccelerators", options, c_int(_CPU))
        library.add_options(options, b"runtime_options_string", "enable_profiling = true\n")
        kernels = _KERNELS[request["xnnpack"]]
        library.add_options(
            options, b"xnnpack", f"num_threads = {request['threads']}\nkernel_mode = {kernels}\n"
        )
        self.handle = made("LiteRtCreateCompiledModel", self.environment, model, options)
        self.place, self.signature = self._main_signature(model)
        self.profiler = made("LiteRtCompiledModelGetProfiler", self.handle)
        self.buffers: dict[str, ctypes.Array[c_void_p]] = {}

    def _main_signature(self, model: c_void_p) -> tuple[c_size_t, c_void_p]:
        """Give the signature of the main graph, which is the one that the driver runs."""
        made, counted = self.library.made, self.library.counted
        graph = made("LiteRtGetModelSubgraph", model, c_size_t(_MAIN_GRAPH))
        for place in map(c_size_t, range(counted("LiteRtGetNumModelSignatures", model))):
            signature = made("LiteRtGetModelSignature", model, place)
            if made("LiteRtGetSignatureSubgraph", signature).value == graph.value:
                return place, signature
        raise EngineError("the main graph has no signature")

    def prepare(self, inputs: Mapping[int, Array]) -> None:
        """Resize and fill the inputs, and allocate the outputs."""
        call = self.library.call
        arrays = [inputs[self._tensor_index("Input", place)] for place in self._places("Input")]
        for place, array in enumerate(arrays):
            if self._tensor_type("Input", place)[1] != array.shape:
                sides = (c_int * array.ndim)(*array.shape)
                call(
                    "LiteRtCompiledModelResizeInputTensor",
                    self.handle,
                    self.place,
                    c_size_t(place),
                    sides,
                    c_size_t(array.ndim),
                )
        self.buffers["Input"] = self._allocated("Input", [_layout(array.shape) for array in arrays])
        for buffer, array in zip(self.buffers["Input"], arrays, strict=True):
            self._fill(c_void_p(buffer), array)
        count = len(self._places("Output"))
        layouts = ctypes.create_string_buffer(max(1, count) * _LAYOUT_BYTES)
        call(
            "LiteRtGetCompiledModelOutputTensorLayouts",
            self.handle,
            self.place,
            c_size_t(count),
            layouts,
            ctypes.c_bool(True),  # noqa: FBT003 - allocate now
        )
        parts = [layouts.raw[place * _LAYOUT_BYTES :][:_LAYOUT_BYTES] for place in range(count)]
        self.buffers["Output"] = self._allocated("Output", parts)

    def run(self) -> None:
        sides = (
            part
            for buffers in (self.buffers["Input"], self.buffers["Output"])
            for part in (c_size_t(len(buffers)), buffers)
        )
        self.library.call("LiteRtRunCompiledModel", self.handle, self.place, *sides)

    def timed_run(self) -> list[Event]:
        """Run once and give what the profiler noted."""
        call = self.library.call
        call("LiteRtResetProfiler", self.profiler)
        call("LiteRtStartProfiler", self.profiler)
        begun = time.perf_counter()
        self.run()
        took_us = (time.perf_counter() - begun) * 1e6
        call("LiteRtStopProfiler", self.profiler)
        count = c_int()
        call("LiteRtGetNumProfilerEvents", self.profiler, byref(count))
        events = (Event * (count.value * _SLACK))()
        call("LiteRtGetProfilerEvents", self.profiler, count, events)
        return checked_events(events, count.value, took_us)

    def _places(self, side: str) -> range:
        return range(self.library.counted(f"LiteRtGetNumSignature{side}s", self.signature))

    def _tensor(self, side: str, place: int) -> c_void_p:
        return self.library.made(f"LiteRtGetSignature{side}TensorByIndex", self.signature, c_size_t(place))

    def _tensor_index(self, side: str, place: int) -> int:
        index = c_uint32()
        self.library.call("LiteRtGetTensorIndex", self._tensor(side, place), byref(index))
        return index.value

    def _tensor_type(self, side: str, place: int) -> tuple[_TensorType, tuple[int, ...]]:
        found = _TensorType()
        self.library.call("LiteRtGetRankedTensorType", self._tensor(side, place), byref(found))
        rank = found.rank_and_flags & 0x7F
        return found, tuple(found.dimensions[:rank])

    def _allocated(self, side: str, layouts: Sequence[bytes]) -> ctypes.Array[c_void_p]:
        buffers = []
        for place, layout in enumerate(layouts):
            kind, _ = self._tensor_type(side, place)
            ctypes.memmove(ctypes.addressof(kind) + _LAYOUT_OFFSET, layout, _LAYOUT_BYTES)
            needs = self.library.made(
                f"LiteRtGetCompiledModel{side}BufferRequirements", self.handle, self.place, c_size_t(place)
            )
            name = "LiteRtCreateManagedTensorBufferFromRequirements"
            buffers.append(self.library.made(name, self.environment, byref(kind), needs))
        return (c_void_p * len(buffers))(*(buffer.value for buffer in buffers))

    def _fill(self, buffer: c_void_p, array: Array) -> None:
        size = self.library.counted("LiteRtGetTensorBufferPackedSize", buffer)
        if size != array.nbytes:
            raise EngineError(f"an input buffer has {size} bytes, its array {array.nbytes}")
        memory = c_void_p()
        self.library.call("LiteRtLockTensorBuffer", buffer, byref(memory), c_int(_WRITE))
        ctypes.memmove(memory, np.ascontiguousarray(array).ctypes.data, size)
        self.library.call("LiteRtUnlockTensorBuffer", buffer)


def _layout(shape: tuple[int, ...]) -> bytes:
    whole = _TensorType(0, len(shape), shape)
    return bytes(whole)[_LAYOUT_OFFSET:]


def checked_events(events: ctypes.Array[Event], count: int, took_us: float) -> list[Event]:
    """Give the operators' events.

    Raises:
        EngineError: they cannot be what they are read as.
    """
    size = ctypes.sizeof(Event) * count
    if any(bytes(events)[size:]):
        raise EngineError("the profiler's events are larger than expected")
    kept = [event for event in events[:count] if event.event_type in (_OPERATOR, _DELEGATED, _DELEGATED_TOO)]
    if not kept or any(not event.tag or event.elapsed_us > took_us for event in kept):
        raise EngineError("the profiler's events are not of the expected layout")
    return kept


def _keys(events: Sequence[Event]) -> list[_Key]:
    """Give the key of each event; parts are the stretches that a delegate runs."""
    keys: list[_Key] = []
    parts, last = 0, None
    for event in events:
        tag = event.tag.decode(errors="replace")
        if event.event_type == _OPERATOR:
            last = None
            keys.append((tag, None, event.index))
            continue
        # Within a part the indices grow; a smaller one begins the next.
        parts += last is None or event.index <= last
        last = event.index
        keys.append((tag, parts - 1, event.index))
    return keys


def main(folder: Path) -> None:
    """Profile what the folder's request names, and write the answer."""
    request = json.loads((folder / "request.json").read_text())
    with np.load(folder / "inputs.npz") as stored:
        inputs = {int(index): stored[index] for index in stored.files}
    model = _Compiled(_Library(_known_library()), request)
    model.prepare(inputs)
    model.run()
    totals: Counter[_Key] = Counter()
    for _ in range(request["runs"]):
        # What a loop or a branch runs is in its own time.
        events = [event for event in model.timed_run() if event.subgraph == _MAIN_GRAPH]
        for key, event in zip(_keys(events), events, strict=True):
            totals[key] += event.elapsed_us
        if os.getppid() != request["caller"]:  # whoever asked is gone
            return
    rows = [
        {"tag": tag, "part": part, "index": index, "total_us": total}
        for (tag, part, index), total in totals.items()
    ]
    (folder / "answer.json").write_text(json.dumps(rows))


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except EngineError as error:
        sys.exit(str(error))
