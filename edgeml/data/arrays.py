"""Samples from ``.npz`` and ``.npy``, read one by one so that memory does not grow with their number.

A ``.npy`` is read, not mapped: mapped pages would count as the process's memory.
"""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import numpy as np
from numpy.lib import format as npy_format

from edgeml.arrays import Array
from edgeml.errors import DataError
from edgeml.pipeline import CHANNELS, IMAGE_RANK
from edgeml.tensors import TensorSpec

if TYPE_CHECKING:
    from edgeml.data.reader import RawSample

LARGEST_SAMPLE_BYTES: Final = 1 << 30
"""A single sample larger than this is taken for a damaged or hostile header."""
PLAIN_KINDS: Final = "biuf"
"""numpy's letters for what a sample may hold: booleans and real numbers."""


@dataclass(frozen=True, slots=True)
class Member:
    """One array in a file: where it stands and what its header says."""

    path: Path
    key: str
    """Name inside an ``.npz``; empty for a ``.npy``."""
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool

    def __str__(self) -> str:
        """Render as ``data.npz:x``."""
        return f"{self.path}:{self.key}" if self.key else str(self.path)


def members(path: Path) -> dict[str, Member]:
    """Read the headers of every array in an ``.npz``.

    Raises:
        DataError: not a readable npz, or pickled objects in it.
    """
    with _opened_zip(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".npy")]
        found = {}
        for name in names:
            key = name.removesuffix(".npy")
            with archive.open(name) as stream:
                found[key] = _header(stream, path, key, archive.getinfo(name).file_size)
    return found


def npy_member(path: Path) -> Member:
    """Read the header of a ``.npy``.

    Raises:
        DataError: damaged, or pickled objects in it.
    """
    with _reading(path), path.open("rb") as stream:
        return _header(stream, path, "", path.stat().st_size)


def read_npy(path: Path) -> Array:
    """Read a whole ``.npy``; for labels."""
    return read_whole(npy_member(path))


def read_whole(member: Member) -> Array:
    """Read one array whole; for labels, and for arrays in Fortran order, which cannot be streamed.

    Raises:
        DataError: truncated, damaged, or larger than ``LARGEST_SAMPLE_BYTES``.
    """
    size_bytes = math.prod(member.shape) * member.dtype.itemsize
    if size_bytes > LARGEST_SAMPLE_BYTES:
        raise DataError(
            f"{member}: has {size_bytes} bytes and would be read whole, at most {LARGEST_SAMPLE_BYTES} are; "
            + ("save it in C order (np.ascontiguousarray)" if member.fortran else "is it what you meant?")
        )
    with _stream(member) as stream:
        return npy_format.read_array(stream, allow_pickle=False)


def holds_one_sample(member: Member, spec: TensorSpec) -> bool:
    """Say whether an array is one sample of an input, rather than samples along its first axis."""
    shape, sides = member.shape, spec.shape[1:]
    if len(spec.shape) == 1:
        return shape == spec.shape and shape != (1,)
    fits = len(shape) == len(sides) and all(w is None or w == g for w, g in zip(sides, shape, strict=True))
    picture = len(spec.shape) == IMAGE_RANK + 1 and member.dtype == np.uint8
    return fits or (picture and len(shape) == IMAGE_RANK and shape[-1] in CHANNELS) or len(shape) == 0


def samples_in(member: Member, spec: TensorSpec) -> int:
    """Count the samples of an array."""
    return 1 if holds_one_sample(member, spec) else member.shape[0]


def read_samples(
    chosen: Mapping[str, tuple[Member, TensorSpec]], indices: Sequence[int]
) -> Iterator[RawSample]:
    """Read the samples at ``indices`` (ascending) of one array for each input, one sample at a time.

    Raises:
        DataError: a file is truncated or damaged.
    """
    with ExitStack() as stack:
        rows = {
            name: _rows(member, indices, stack, single=holds_one_sample(member, spec))
            for name, (member, spec) in chosen.items()
        }
        for _ in indices:
            yield {name: next(row) for name, row in rows.items()}


def _rows(member: Member, indices: Sequence[int], stack: ExitStack, *, single: bool) -> Iterator[Array]:
    if member.fortran or single:
        whole = read_whole(member)
        yield from ([whole] if single else (whole[index] for index in indices))
        return
    shape = member.shape[1:]
    size_bytes = math.prod(shape) * member.dtype.itemsize
    if size_bytes > LARGEST_SAMPLE_BYTES:
        raise DataError(f"{member}: one sample has {size_bytes} bytes; is the first axis the samples'?")
    stream = stack.enter_context(_stream(member))
    _skip_header(stream)
    position = 0
    for index in indices:
        with _reading(member):
            if index > position:
                stream.seek((index - position) * size_bytes, 1)
            data = stream.read(size_bytes)
        if len(data) != size_bytes:
            raise DataError(f"{member}: truncated in sample {index} of {member.shape[0]}")
        position = index + 1
        sample = np.frombuffer(bytearray(data), member.dtype).reshape(shape)
        yield sample if member.dtype.isnative else sample.astype(member.dtype.newbyteorder("="))


def _header(stream: IO[bytes], path: Path, key: str, size_bytes: int) -> Member:
    where = f"{path}:{key}" if key else str(path)
    with _reading(where):
        version = npy_format.read_magic(stream)
        if version not in {(1, 0), (2, 0)}:
            raise DataError(f"{where}: npy version {version} holds records, not plain numbers")
        reader = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
        shape, fortran, dtype = reader(stream)
        begin = stream.tell()
    if dtype.hasobject:
        raise DataError(
            f"{where}: holds pickled Python objects, which are not read because they can run code; "
            "save a plain numeric array"
        )
    if dtype.kind not in PLAIN_KINDS + "US":
        raise DataError(f"{where}: dtype {dtype} is not a plain number")
    claimed = math.prod(shape) * dtype.itemsize
    if begin + claimed != size_bytes:
        raise DataError(f"{where}: truncated or damaged: {size_bytes - begin} of {claimed} bytes are there")
    return Member(path, key, tuple(int(side) for side in shape), dtype, bool(fortran and len(shape) > 1))


def _skip_header(stream: IO[bytes]) -> None:
    version = npy_format.read_magic(stream)
    (npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0)(stream)


@contextmanager
def _stream(member: Member) -> Iterator[IO[bytes]]:
    if not member.key:
        with _reading(member), member.path.open("rb") as stream:
            yield stream
        return
    with _opened_zip(member.path) as archive, archive.open(f"{member.key}.npy") as stream:
        yield stream


@contextmanager
def _opened_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    with _reading(path), zipfile.ZipFile(path) as archive:
        yield archive


@contextmanager
def _reading(what: object) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise DataError(f"{what}: damaged, or not an npz: {error}") from error
    except (ValueError, TypeError, OverflowError, SyntaxError, tokenize.TokenError) as error:
        raise DataError(f"{what}: not a plain numpy array: {error}") from error
    except OSError as error:
        raise DataError(f"{what}: cannot be read: {error.strerror or error}") from error
