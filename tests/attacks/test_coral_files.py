"""Hostile TFLite files before the reader of graphs: refused in our words, in little memory and time."""

from __future__ import annotations

import random
import time
import tracemalloc
from contextlib import suppress
from pathlib import Path

import flatbuffers
import pytest
from edgeml_converters.coral.check import check_file
from edgeml_converters.coral.flexbuffer import read_map
from edgeml_converters.coral.graph import read_graph
from edgeml_converters.coral.inspect import inspect_file
from edgeml_converters.coral.package import _options
from hypothesis import given
from hypothesis import strategies as st

from edgeml.errors import ModelFileError, UnsafeFileError
from edgeml.flatbuffer import DAMAGE, Flatbuffer
from edgeml.formats import check_file as check_format

SOURCES = ("google-coral__split_concat__cdc17e7", "ricardodeazambuja__gabor_64x64_p4__be71d6d")
MOST_MEMORY = 100


def shared(repeats: int) -> bytes:
    """A model whose subgraphs are one, and in it tensors that are one: few bytes, repeats² tensors."""
    builder = flatbuffers.Builder(0)

    def table(fields: int, slots: dict[int, int]) -> int:
        builder.StartObject(fields)
        for slot, offset in slots.items():
            builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
        return int(builder.EndObject())

    def vector(item: int) -> int:
        builder.StartVector(4, repeats, 4)
        for _ in range(repeats):
            builder.PrependUOffsetTRelative(item)
        return int(builder.EndVector())

    tensor = table(8, {})
    subgraph = table(5, {0: vector(tensor)})
    builder.Finish(table(8, {2: vector(subgraph)}), b"TFL3")
    return bytes(builder.Output())


def test_parts_that_lie_over_one_another_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(shared(20_000))
    began = time.process_time()
    for reader in (lambda: check_format(path, "tflite"), lambda: read_graph(path)):
        with pytest.raises(UnsafeFileError, match="lie over one another"):
            reader()
    assert time.process_time() - began < 20


@pytest.fixture(scope="module")
def options(data_dir: Path) -> bytes:
    """What the compiler put into the operator for the Edge TPU."""
    path = data_dir / "edgetpu_pairs" / f"{SOURCES[0]}_edgetpu.tflite"
    ((_, found),) = _options(Flatbuffer(path, path.read_bytes()))
    return found


@pytest.mark.data
@pytest.mark.parametrize("source", SOURCES)
def test_a_truncated_file_is_refused_wherever_it_ends(data_dir: Path, tmp_path: Path, source: str) -> None:
    content = (data_dir / "edgetpu_pairs" / f"{source}.tflite").read_bytes()
    path = tmp_path / "model.tflite"
    for end in range(0, len(content) - 1, 7):
        path.write_bytes(content[:end])
        with pytest.raises(ModelFileError, match=r"truncated|damaged|empty|not a model|plausible"):
            check_file(path)


@pytest.mark.data
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("compiled", [False, True], ids=["source", "compiled"])
@given(seed=st.integers(0, 2**32 - 1))
def test_no_changed_bytes_raise_anything_else_or_take_much_memory(
    data_dir: Path, tmp_path_factory: pytest.TempPathFactory, source: str, *, compiled: bool, seed: int
) -> None:
    name = f"{source}_edgetpu.tflite" if compiled else f"{source}.tflite"
    content = bytearray((data_dir / "edgetpu_pairs" / name).read_bytes())
    size_bytes = len(content)
    chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
    for _ in range(chance.choice([1, 3, 20])):
        # half of them where a compiled file has its options, not in what the chip will run
        place = chance.choice([chance.randrange(size_bytes), -1 - chance.randrange(min(size_bytes, 2000))])
        content[place] = chance.choice([0, 1, 4, 127, 255, chance.randrange(256)])
    path = tmp_path_factory.getbasetemp() / "changed.tflite"
    path.write_bytes(content)
    tracemalloc.start()
    said = str(path)
    try:
        (inspect_file if compiled else check_file)(path).to_json()
    except ModelFileError as error:
        said = str(error)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert str(path) in said
    assert peak < MOST_MEMORY * size_bytes + 2_000_000


@given(st.binary(max_size=300))
def test_no_bytes_of_options_raise_anything_else(content: bytes) -> None:
    with suppress(*DAMAGE):
        read_map(content)


@pytest.mark.data
def test_no_changed_end_of_options_raises_anything_else(options: bytes) -> None:
    assert isinstance(read_map(options)["4"], memoryview)
    for seed in range(500):
        chance = random.Random(seed)  # noqa: S311 - as above
        end = bytearray(options[-80:])
        for _ in range(chance.choice([1, 3])):
            end[chance.randrange(len(end))] = chance.randrange(256)
        with suppress(*DAMAGE):
            read_map(options[:-80] + end)
