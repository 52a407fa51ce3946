"""Damaged files: whatever was done to them, the answer is samples or a DataError, nothing else."""

from __future__ import annotations

import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeml.data import open_data
from edgeml.errors import DataError
from edgeml.tensors import TensorSpec

VECTOR = (TensorSpec("x", (None, 4), "float32"),)
PICTURE = (TensorSpec("x", (None, None, None, 3), "float32"),)
ARRAYS = ("stored.npz", "packed.npz", "plain.npy", "table.csv")
PICTURES = ("p.png", "p.jpg", "p.bmp", "p.gif", "p.webp", "p.tif", "p.ppm")
TIMES = 120


def write(path: Path) -> None:
    values = np.random.default_rng(1).random((20, 4)).astype(np.float32)
    if path.name == "stored.npz":
        np.savez(path, x=values, y=np.arange(20))
    elif path.name == "packed.npz":
        np.savez_compressed(path, x=values, y=np.arange(20))
    elif path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".csv":
        path.write_text("a,b,c,d,y\n" + "1,2,3,4,0\n" * 5)
    else:
        Image.fromarray(np.random.default_rng(2).integers(0, 255, (24, 24, 3), np.uint8)).save(path)


def damaged(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.randint(1, 6)):
        place = chance.randrange(len(changed))
        kind = chance.random()
        if kind < 0.7:
            changed[place] = chance.randrange(256)
        elif kind < 0.85 and place:
            del changed[place:]
        else:
            changed[place:place] = chance.randbytes(4)
    return bytes(changed)


@pytest.mark.parametrize("name", [*ARRAYS, *PICTURES])
def test_any_damage_gives_samples_or_a_data_error(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    write(path)
    sound = path.read_bytes()
    chance = random.Random(name)  # noqa: S311 - a repeatable test, not a secret
    refused = 0
    for _ in range(TIMES):
        path.write_bytes(damaged(sound, chance))
        try:
            for sample in open_data(path, inputs=PICTURE if name in PICTURES else VECTOR):
                assert sample["x"].dtype == np.float32
        except DataError as error:
            assert name in str(error)  # noqa: PT017 - it need not be raised
            refused += 1
    assert refused > 0


def test_a_picture_of_two_gigapixels_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 50_000, 40_000, 8, 2, 0, 0, 0))
    content = (
        b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )
    (tmp_path / "bomb.png").write_bytes(content)

    with pytest.raises(DataError, match=r"bomb\.png: too large to be decoded safely"):
        list(open_data(tmp_path / "bomb.png", inputs=PICTURE))


def test_a_sample_of_a_gibibyte_is_refused_before_it_is_read(tmp_path: Path) -> None:
    header = str({"descr": "|u1", "fortran_order": False, "shape": (2, (1 << 30) + 1)}).encode() + b"\n"
    path = tmp_path / "x.npy"
    with path.open("wb") as stream:
        stream.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
        stream.truncate(stream.tell() + 2 * ((1 << 30) + 1))

    with pytest.raises(DataError, match="is the first axis the samples'"):
        list(open_data(path, inputs=VECTOR))


def test_numbers_too_large_for_the_model_become_infinite_for_the_lints_to_find(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.full((1, 4), 1e300))

    (sample,) = open_data(tmp_path / "x.npy", inputs=VECTOR)

    assert np.isinf(sample["x"]).all()
