"""Rings that strangers write: any process of the device may put a file into the folder."""

from __future__ import annotations

import fcntl
import json
import os
import struct
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from edgeml_devices.server.telemetry import bounds, wire
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeml.telemetry import recorder
from edgeml.telemetry.encoding import batch_to_bytes, report_to_json
from edgeml.telemetry.merging import merge_models
from edgeml.telemetry.reading import MOST_RINGS, Drained, RingReader
from edgeml.telemetry.report import Batch
from edgeml.telemetry.ring import CALL, HEADER, MAGIC, MOST_SLOTS, PAGE, Layout, vector
from edgeml.telemetry.settings import TelemetrySettings
from tests.unit.core.telemetry.reports import window as window_of_minute

NAME = "0123456789abcdef"
LAYOUT = Layout(64, CALL.size, 8, 8)
LOOK_WITHIN_S = 5.0


@pytest.fixture(name="folder")
def with_one_good_ring(tmp_path: Path) -> Iterator[Path]:
    with recorder("good", settings=TelemetrySettings(folder=str(tmp_path), slots=64)) as one:
        one.record(0.5, "cat")
        yield tmp_path


def described(**changes: object) -> bytes:
    return json.dumps({"model": "m", "ring": NAME, "pid": 1} | changes).encode()


def header(description: bytes, **changes: int) -> bytes:
    known = {"version": 1, "state": 0, "size": CALL.size, "slots": 64, "labels": 8, "errors": 8}
    numbers = known | {"length": len(description), "emptied_at": 0} | changes
    return HEADER.pack(MAGIC, *numbers.values()) + description


def ring(description: bytes, entries: bytes = b"", **changes: int) -> bytes:
    return header(description, **changes).ljust(LAYOUT.slots_at, b"\0") + entries.ljust(64 * CALL.size, b"\0")


def call(number: int, latency_s: float = 0.5, end: float = 1.0, label: int = 0) -> bytes:
    return CALL.pack(end, -latency_s, 0.0, 0.0, 0.0, 0, label, 0, number)


def read_with(folder: Path, content: bytes) -> Drained:
    (folder / f"{NAME}.ring").write_bytes(content)
    reader = RingReader(folder)
    drained = reader.read()
    assert [window.calls for window in drained.models if window.model == "good"] == [1]
    assert reader.read().damaged == 0  # told once
    return drained


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x",
        b"\0" * 100_000,
        header(described()),
        header(b"{" * 3000),
        header(b"[" * 3000),
        header(b"\xff\xfe"),
        header(described(), length=2**31),
        header(described(), version=2),
        header(described(), slots=2**31),
        header(described(), slots=0),
        header(described(), size=8),
        header(described(), labels=2**31),
        header(described(), emptied_at=2**60),
        header(described(model="../../etc/passwd")),
        header(described(model="")),
        header(described(variant="a\nb")),
        header(described(ring="fedcba9876543210")),
        header(described(release=-1)),
        header(described(release=2**80)),
        header(described(created="nan")),
        header(described(features=["a"] * 100, of=NAME)),
        header(described(of="..")),
        ring(described(), call(0) + call(2**64 - 63)),
    ],
)
def test_a_file_that_is_no_sound_ring_is_passed_over_and_counted(folder: Path, content: bytes) -> None:
    drained = read_with(folder, content)
    is_short = content == header(described())  # a ring that was cut: nothing is in it
    assert drained.damaged == (0 if is_short else 1)


def test_what_is_no_file_is_passed_over(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    secret = tmp_path_factory.mktemp("other") / "secret"
    secret.write_bytes(ring(described(), call(0) + call(1)))
    (folder / f"{NAME}.ring").symlink_to(secret)
    os.mkfifo(folder / "1123456789abcdef.ring")
    (folder / "2123456789abcdef.ring").mkdir()
    (folder / "no ring at all.ring").write_bytes(b"x")
    (folder / ("x" * 200)).write_bytes(b"x")
    drained = RingReader(folder).read()
    assert [window.model for window in drained.models] == ["good"]
    assert drained.damaged == 3


def test_numbers_that_cannot_be_are_counted_as_nothing(folder: Path) -> None:
    entries = call(0) + b"".join(
        call(number + 1, latency_s, end, label=9999)
        for number, (latency_s, end) in enumerate(
            [(float("nan"), 1.0), (float("inf"), 1.0), (1e300, float("nan")), (0.5, float("inf"))]
        )
    )
    (window,) = (one for one in read_with(folder, ring(described(), entries)).models if one.model == "m")
    assert window.calls == 4
    assert window.classes == {"other": 4}
    assert window.latency["total"].total == 4
    assert window.latency["total"].max <= 1e9
    for sample in window.samples:
        assert 0 <= (sample.latency_s or 0) <= 1e9
        assert 0 <= sample.at <= time.time()


def test_a_text_with_control_characters_is_cleaned(folder: Path) -> None:
    content = bytearray(ring(described(), call(0) + call(1, label=1)))
    text = b"\xff\x1b[31m<b>\0\n\xff\xfe"
    content[PAGE : PAGE + len(text)] = text
    (window,) = (one for one in read_with(folder, bytes(content)).models if one.model == "m")
    (label,) = window.classes
    assert label.isprintable()
    assert len(label) < 64


def test_gaps_without_end_do_not_hold_up_the_reader(folder: Path) -> None:
    slots = 2**18
    entries = bytearray(slots * CALL.size)
    for number in range(1, slots, 2):
        CALL.pack_into(entries, number * CALL.size, 1.0, -0.5, 0.0, 0.0, 0.0, 0, 0, 0, number)
    content = header(described(), slots=slots).ljust(LAYOUT.slots_at, b"\0") + bytes(entries)
    begun = time.process_time()
    assert read_with(folder, content).damaged == 1
    assert time.process_time() - begun < LOOK_WITHIN_S


def test_more_rings_than_can_be_read_leave_the_known_ones_their_place(folder: Path) -> None:
    reader = RingReader(folder)
    assert reader.read().models[0].calls == 1
    kept = []
    for number in range(MOST_RINGS + 50):
        path = folder / f"{number:016x}.ring"
        path.write_bytes(ring(described(ring=path.stem), call(0) + call(1)))
        kept.append(path.open("rb"))
        fcntl.flock(kept[-1], fcntl.LOCK_EX)
    drained = reader.read()
    assert sum(window.calls for window in drained.models) == MOST_RINGS - 1
    assert reader.read().models == ()
    for file in kept:
        file.close()
    assert sum(window.killed for window in reader.read().models) == MOST_RINGS - 1
    reader.kept()
    assert sum(window.calls for window in reader.read().models) == 51


def test_a_ring_that_says_it_is_huge_takes_no_memory(folder: Path) -> None:
    names = [f"feature {number}" for number in range(32)]
    entry = vector(32).pack(*([1.0] * 33), 1 + MOST_SLOTS)  # a lap ahead: all numbers are looked at
    with (folder / f"{NAME}.ring").open("wb") as file:
        description = described(of="f" * 16, features=names)
        file.write(header(description, size=len(entry), slots=MOST_SLOTS, labels=0, errors=0))
        file.seek(PAGE + len(entry))
        file.write(entry)
        file.truncate(PAGE + len(entry) * MOST_SLOTS)
    reader = RingReader(folder)
    tracemalloc.start()
    try:
        reader.read()
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most_bytes < 32 * 1024 * 1024


def test_hours_that_are_said_to_be_seconds_do_not_have_a_report_refused(folder: Path) -> None:
    with recorder("slow", settings=TelemetrySettings(folder=str(folder))) as one:
        for _ in range(2000):
            one.record(12_300_000.0)
    windows = merge_models([*RingReader(folder).read().models] * 2)
    report = replace(window_of_minute(0), link="0" * 16, models=windows)
    batch = batch_to_bytes(Batch("0" * 32, "boot", 1.0, 1.0), [report_to_json(report)])
    bounds.check(wire.decode(batch.body, batch.content_type, batch.content_encoding))


@settings(max_examples=300)
@given(
    place=st.integers(0, LAYOUT.size_bytes - 1),
    changed=st.binary(min_size=1, max_size=24),
    cut=st.integers(0),
)
def test_any_damage_is_borne(
    tmp_path_factory: pytest.TempPathFactory, place: int, changed: bytes, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("rings")
    content = bytearray(
        ring(described(), call(0) + b"".join(call(number, label=1) for number in range(1, 20)))
    )
    if place > PAGE:
        place = LAYOUT.slots_at + place % (20 * CALL.size)
    content[place : place + len(changed)] = changed
    (folder / f"{NAME}.ring").write_bytes(bytes(content)[: cut % (2 * len(content)) or None])
    reader = RingReader(folder)
    drained = reader.read()
    assert sum(window.calls for window in drained.models) <= 64
    reader.kept()
    assert list(folder.iterdir()) == []


def test_a_struct_is_as_the_reader_takes_it() -> None:
    assert struct.calcsize("=5dIHHQ") == CALL.size == 56
