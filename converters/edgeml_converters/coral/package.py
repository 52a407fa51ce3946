"""What the Edge TPU compiler wrote into a compiled model: packages of executables, with what each needs.

Fields are named by their numbers in libedgetpu's schema (executable/executable.fbs).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from edgeml.edgetpu import OPERATOR
from edgeml.errors import ModelFileError
from edgeml.flatbuffer import DAMAGE, Flatbuffer
from edgeml.formats import check_file
from edgeml.wire import mapped
from edgeml_converters.coral.flexbuffer import read_map

Kind = Literal["stand_alone", "parameter_caching", "execution_only"]
_KINDS: Final[tuple[Kind, ...]] = ("stand_alone", "parameter_caching", "execution_only")
_IDENTIFIER: Final = b"DWN1"
_PACKAGE, _MORE_PACKAGES = "4", "7"
"""Keys of the operator's options (libedgetpu, tflite/custom_op_data.cc)."""
_NUMBERS: Final = {
    0: "uint8", 1: "uint16", 2: "int32", 3: "bfloat16", 4: "float16", 5: "float32", 8: "int8", 9: "int16",
}  # fmt: skip
MOST_EXECUTABLES: Final = 16
"""Of a package; there are two where parameters are kept on the chip."""
MOST_LAYERS: Final = 1024
_NAME_CHARACTERS: Final = 1000


@dataclass(frozen=True, slots=True)
class Layer:
    """An input or output of an executable."""

    name: str
    shape: tuple[int, int, int]
    """y, x and channels."""
    dtype: str
    size_bytes: int
    """With padding."""
    scale: float
    zero_point: int


@dataclass(frozen=True, slots=True)
class Executable:
    """A program for the chip."""

    kind: Kind
    parameter_bytes: int
    caching_token: int
    """The parameters of executables with the same token stay on the chip side by side."""
    instruction_bytes: int
    scratch_bytes: int
    tile_bytes: int
    """Memory for activations that it uses of each tile."""
    batch: int
    chip: str
    estimated_cycles: int
    """A lower bound, of multiplications alone; 0 from compilers of 2021 on."""
    inputs: tuple[Layer, ...]
    outputs: tuple[Layer, ...]


@dataclass(frozen=True, slots=True)
class Package:
    """What one Edge TPU operator holds."""

    operator: int
    """The operator's index in the compiled model."""
    min_runtime: int
    compiler: str
    executables: tuple[Executable, ...]


def read_packages(path: Path) -> tuple[Package, ...]:
    """Read the packages of a compiled model, in the order of its operators; none: it was not compiled.

    Raises:
        ModelFileError: missing, damaged, or no TFLite file.
        UnsafeFileError: it unpacks to far more than it holds.
    """
    check_file(path, "tflite")
    try:
        with mapped(path) as data:
            options = tuple(_options(Flatbuffer(path, data)))
        return tuple(
            _package(path, operator, content) for operator, found in options for content in _contents(found)
        )
    except DAMAGE as error:
        raise ModelFileError(
            f"{path}: damaged: what the Edge TPU compiler wrote cannot be read; compile its source again"
        ) from error


def _options(reader: Flatbuffer) -> Iterator[tuple[int, bytes]]:
    """Give index and options of each operator for the Edge TPU."""
    model = reader.follow(0)
    codes = [reader.text(table, 1) for table in reader.tables(model, 1)]
    for index, table in enumerate(reader.tables(reader.tables(model, 2)[0], 3)):
        if codes[reader.scalar(table, 0, "<I")] == OPERATOR:
            yield index, reader.content(table, 5)


def _contents(options: bytes) -> Iterator[memoryview]:
    found = read_map(options)
    more = found.get(_MORE_PACKAGES)
    packages = [found.get(_PACKAGE), *(more if isinstance(more, list) else ())]
    for package in packages:
        if not isinstance(package, memoryview):
            raise IndexError
        yield package


def _package(path: Path, operator: int, content: memoryview) -> Package:
    data = bytes(content)
    if data[4:8] != _IDENTIFIER:
        raise IndexError
    reader = Flatbuffer(path, data)
    table = reader.checked(reader.follow(0))
    several = Flatbuffer(path, reader.content(table, 1))
    root = several.checked(several.follow(0))
    programs = several.strings(root, 0)
    if len(programs) > MOST_EXECUTABLES:
        raise IndexError
    executables = tuple(_executable(path, one) for one in programs)
    return Package(operator, reader.scalar(table, 0, "<i"), reader.text(table, 4), executables)


def _executable(path: Path, content: bytes) -> Executable:
    reader = Flatbuffer(path, content)
    table = reader.checked(reader.follow(0))
    return Executable(
        kind=_KINDS[reader.scalar(table, 13, "<H")],
        parameter_bytes=reader.vector(table, 6, 1)[1],
        caching_token=reader.scalar(table, 14, "<Q"),
        instruction_bytes=sum(reader.vector(one, 0, 1)[1] for one in reader.tables(table, 5)),
        scratch_bytes=reader.scalar(table, 4, "<i"),
        tile_bytes=reader.scalar(table, 12, "<i"),
        batch=reader.scalar(table, 3, "<i"),
        chip=reader.text(table, 10),
        estimated_cycles=reader.scalar(table, 16, "<q"),
        inputs=_layers(reader, table, 8),
        outputs=_layers(reader, table, 9),
    )


def _layers(reader: Flatbuffer, table: int, field: int) -> tuple[Layer, ...]:
    tables = reader.tables(table, field)
    if len(tables) > MOST_LAYERS:
        raise IndexError
    return tuple(_layer(reader, one) for one in tables)


def _layer(reader: Flatbuffer, table: int) -> Layer:
    y, x, z = (reader.scalar(table, field, "<i") for field in (2, 3, 4))
    kind = reader.scalar(table, 6, "<h")
    numerics = reader.table(table, 5)
    return Layer(
        name=reader.text(table, 0)[:_NAME_CHARACTERS],
        shape=(y, x, z),
        dtype=_NUMBERS.get(kind, f"type {kind}"),
        size_bytes=reader.scalar(table, 1, "<i"),
        scale=reader.real(numerics, 1) if numerics else 0.0,
        zero_point=reader.scalar(numerics, 0, "<i") if numerics else 0,
    )
