"""What a compiled model says of itself, and whether several share the chip's memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeml.edgetpu import OPERATOR
from edgeml_converters.coral.graph import read_graph
from edgeml_converters.coral.package import Executable, Package, read_packages


@dataclass(frozen=True, slots=True)
class CpuOperator:
    """An operator that was left on the CPU."""

    index: int
    kind: str


@dataclass(frozen=True, slots=True)
class Compiled:
    """One compiled model."""

    path: Path
    size_bytes: int
    packages: tuple[Package, ...]
    on_cpu: tuple[CpuOperator, ...]

    @property
    def executables(self) -> tuple[Executable, ...]:
        """Those of all packages."""
        return tuple(one for package in self.packages for one in package.executables)

    @property
    def on_chip_bytes(self) -> int:
        """Parameters that stay on the chip between inferences."""
        return sum(one.parameter_bytes for one in self.executables if one.kind == "parameter_caching")

    @property
    def streamed_bytes(self) -> int:
        """Parameters that the host sends at each inference."""
        return sum(one.parameter_bytes for one in self.executables if one.kind != "parameter_caching")

    @property
    def min_runtime(self) -> int | None:
        """The oldest version of the Edge TPU's runtime that runs it."""
        return max((one.min_runtime for one in self.packages), default=None)

    @property
    def caching_tokens(self) -> frozenset[int]:
        """What it shares with those that it was compiled with."""
        return frozenset(one.caching_token for one in self.executables if one.caching_token)

    def to_json(self) -> dict[str, Any]:
        """Give what ``edgeml coral inspect --json`` prints of a file; docs/reference/json.md describes it."""
        return {
            "path": str(self.path),
            "size_bytes": self.size_bytes,
            "edgetpu_operators": len({one.operator for one in self.packages}),
            "cpu_operators": [{"index": one.index, "name": one.kind} for one in self.on_cpu],
            "min_runtime": self.min_runtime,
            "compilers": sorted({one.compiler for one in self.packages if one.compiler}),
            "parameters": {"on_chip_bytes": self.on_chip_bytes, "streamed_bytes": self.streamed_bytes},
            "caching_tokens": [str(one) for one in sorted(self.caching_tokens)],
            "executables": [_executable(one) for one in self.executables],
        }


def _executable(found: Executable) -> dict[str, Any]:
    # 64 bits are more than a JSON number holds in many readers
    return asdict(found) | {"caching_token": str(found.caching_token)}


def inspect_file(path: Path) -> Compiled:
    """Look into a compiled model.

    Raises:
        ModelFileError: missing, damaged, or no TFLite file.
        UnsafeFileError: it unpacks to far more than it holds.
    """
    graph = read_graph(path)
    on_cpu = tuple(CpuOperator(one.index, one.kind) for one in graph.operators if one.custom_code != OPERATOR)
    return Compiled(path, path.stat().st_size, read_packages(path), on_cpu)


def are_co_compiled(files: Sequence[Compiled]) -> bool | None:
    """Say whether all files were compiled together, so that their parameters stay on the chip side by side.

    ``None``: there are not two of them, or one keeps no parameters on the chip.
    """
    if len(files) <= 1 or not all(one.caching_tokens for one in files):
        return None
    return bool(frozenset.intersection(*(one.caching_tokens for one in files)))
