"""The SD card in memory, as QEMU's own tools use it."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from edgeml_devices.emulator.machine.card import BLOCK_BYTES, SECTOR_BYTES, Card

from tests.conftest import require

SIZE_BYTES = 1 << 20


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base.raw"
    path.write_bytes(b"\x11" * SIZE_BYTES)
    return path


@pytest.fixture
def card(base: Path, tmp_path: Path) -> Iterator[Card]:
    require(shutil.which("qemu-io") is not None, "no qemu-io: apt-get install qemu-utils")
    with Card(base, tmp_path / "card.sock") as card:
        yield card


def do(card: Card, *commands: str) -> str:
    """Have QEMU do it in one connection; commands are those of qemu-io."""
    words = [word for command in commands for word in ("-c", command)]
    target = f"nbd:unix:{card.address}"
    done = subprocess.run(
        ["qemu-io", "-f", "raw", "-t", "writeback", *words, target],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


def holds(card: Card, pattern: int, offset: int, length: int) -> bool:
    return "Pattern verification failed" not in do(card, f"read -P {pattern} {offset} {length}")


def lose(card: Card) -> int:
    return card.power_cut("lose", random.Random(0))  # noqa: S311 - no secret


def test_it_is_the_disk_until_it_is_written(card: Card, base: Path) -> None:
    assert card.size_bytes == SIZE_BYTES
    assert holds(card, 0x11, 0, SIZE_BYTES)
    do(card, "write -P 0x22 512 5000")
    assert holds(card, 0x22, 512, 5000)
    assert holds(card, 0x11, 0, 512)
    assert holds(card, 0x11, 5512, 4096)
    assert base.read_bytes() == b"\x11" * SIZE_BYTES


def test_what_was_flushed_stays_and_what_was_not_is_lost(base: Path, tmp_path: Path) -> None:
    # without QEMU: its tools flush whenever they close
    with Card(base, tmp_path / "card.sock") as card:
        card._write(0, b"\x22" * BLOCK_BYTES, through=False)
        card._flush()
        card._write(BLOCK_BYTES, b"\x33" * BLOCK_BYTES, through=True)
        card._write(2 * BLOCK_BYTES, b"\x44" * BLOCK_BYTES, through=False)
        assert lose(card) == 1
        assert card._read(0, 3 * BLOCK_BYTES) == b"".join(
            bytes([value]) * BLOCK_BYTES for value in (0x22, 0x33, 0x11)
        )


def test_the_guests_flush_and_write_through_reach_it(card: Card) -> None:
    do(card, "write -P 0x22 0 4096", "flush")
    assert card.flushes >= 1
    assert card.writes == 1
    do(card, "write -f -P 0x33 4096 4096")
    assert lose(card) == 0
    assert holds(card, 0x22, 0, 4096)
    assert holds(card, 0x33, 4096, 4096)


def test_in_part_half_is_lost_and_one_block_is_torn(base: Path, tmp_path: Path) -> None:
    with Card(base, tmp_path / "card.sock") as card:
        card._write(0, b"\x22" * (8 * BLOCK_BYTES), through=False)
        assert card.power_cut("some", random.Random(3)) == 4  # noqa: S311 - no secret
        blocks = [card._read(place * BLOCK_BYTES, BLOCK_BYTES) for place in range(8)]
    assert sum(block == b"\x11" * BLOCK_BYTES for block in blocks) == 4
    assert sum(block == b"\x22" * BLOCK_BYTES for block in blocks) == 3
    (torn,) = (block for block in blocks if len(set(block)) == 2)
    assert torn.count(b"\x22") % SECTOR_BYTES == 0
    assert torn == b"\x22" * torn.count(b"\x22") + b"\x11" * torn.count(b"\x11")


def test_the_same_seed_loses_the_same(base: Path, tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        with Card(base, tmp_path / name) as card:
            card._write(0, bytes(range(256)) * 256, through=False)
            card.power_cut("some", random.Random(7))  # noqa: S311 - no secret
            found.append(card._read(0, 65536))
    assert found[0] == found[1]


def test_what_is_outside_the_disk_is_refused(card: Card) -> None:
    said = subprocess.run(
        ["qemu-io", "-f", "raw", "-c", f"write {SIZE_BYTES} 512", f"nbd:unix:{card.address}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert said.returncode != 0
    assert holds(card, 0x11, 0, 512)
