"""What the compiler says, the file that it wrote and what was predicted, held against each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeml_converters.coral.check import Check
from edgeml_converters.coral.compiler_output import Said, Size, mapped_of
from edgeml_converters.coral.graph import read_graph
from edgeml_converters.coral.inspect import Compiled
from edgeml_converters.coral.reasons import MAPPED


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Something that two of them say differently. ``None``: this one says nothing of it."""

    about: str
    file: int
    """What the compiled file says: it is the truth."""
    compiler: int | None = None
    predicted: int | None = None

    def __str__(self) -> str:
        others = {"the compiler": self.compiler, "edgeml coral check": self.predicted}
        told = ", ".join(f"{number} by {who}" for who, number in others.items() if number is not None)
        return f"{self.about}: {self.file} by the file, {told}"


def disagreements(predicted: Check, compiled: Compiled, said: Said) -> tuple[Disagreement, ...]:
    """Compare what the compiler said, and what was predicted, with the file."""
    return (*_with_compiler(predicted, compiled, said), *_with_prediction(predicted, compiled))


def interface(path: Path) -> list[tuple[str, tuple[int, ...], str]]:
    """Give name, shape and dtype of each input and output of a TFLite file.

    Raises:
        ModelFileError: damaged, or no TFLite file.
    """
    graph = read_graph(path)
    tensors = [graph.tensors[index] for index in (*graph.inputs, *graph.outputs)]
    return [(one.name, one.shape, one.dtype) for one in tensors]


def _with_compiler(predicted: Check, compiled: Compiled, said: Said) -> Iterator[Disagreement]:
    total, on_cpu = predicted.total, len(compiled.on_cpu)
    counted: list[tuple[str, int, int | None]] = [
        ("operators", total, said.total),
        ("operators on the Edge TPU", total - on_cpu, said.mapped),
        ("operators on the CPU", on_cpu, said.on_cpu),
        ("parts for the Edge TPU", len({one.operator for one in compiled.packages}), said.subgraphs),
    ]
    if said.rows:
        rows = sum(row.count for row in said.rows)
        counted += [
            ("operators in the log", total, rows),
            ("operators on the Edge TPU in the log", total - on_cpu, mapped_of(said.rows)),
            *_by_kind(compiled, said),
        ]
    yield from (Disagreement(about, file, told) for about, file, told in counted if told not in {None, file})
    yield from _size("bytes of parameters on the chip", compiled.on_chip_bytes, said.on_chip)
    yield from _size("bytes of parameters streamed", compiled.streamed_bytes, said.streamed)


def _by_kind(compiled: Compiled, said: Said) -> Iterator[tuple[str, int, int]]:
    there = Counter(one.kind for one in compiled.on_cpu)
    told: Counter[str] = Counter()
    for row in said.rows:
        if row.reason != MAPPED:
            told[row.name] += row.count
    for kind in sorted(there.keys() | told.keys()):
        yield f"{kind} on the CPU in the log", there[kind], told[kind]


def _size(about: str, size_bytes: int, told: Size | None) -> Iterator[Disagreement]:
    if told is not None and not told.is_of(size_bytes):
        yield Disagreement(about, size_bytes, told.bytes)


def _with_prediction(predicted: Check, compiled: Compiled) -> Iterator[Disagreement]:
    """Compare counts, as far as the prediction knows: what is unknown may be either."""
    placements = predicted.placements
    mapped = predicted.total - len(compiled.on_cpu)
    if not placements.mapped <= mapped <= placements.mapped + placements.count("unknown"):
        yield Disagreement("operators on the Edge TPU", mapped, predicted=placements.mapped)
