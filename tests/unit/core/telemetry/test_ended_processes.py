"""What ended, forked and killed processes recorded is read, once, and their rings do not pile up."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from pathlib import Path

import pytest

from edgeml.telemetry.reading import Drained, RingReader
from tests.conftest import REPOSITORY
from tests.unit.core.telemetry.rings import PROGRAM, WAIT_S, begin, calls, python


def test_what_is_overwritten_while_it_is_read_is_counted_and_never_torn(tmp_path: Path) -> None:
    program = """
        one = recorder("m", settings=TelemetrySettings(folder=sys.argv[1], slots=64))
        for number in range(1, 200_001):
            one.record(number, number % 1000)
    """
    process, reader, read = python(tmp_path, program), RingReader(tmp_path), []
    while process.poll() is None:
        read.append(reader.read())
        reader.kept()
    read.append(reader.read())
    assert process.communicate() == ("", "")
    lost = sum(drained.overwritten for drained in read)
    assert sum(calls(drained) > 0 for drained in read) > 5
    assert lost > 0
    assert sum(map(calls, read)) + lost == 200_000
    samples = [sample for drained in read for window in drained.models for sample in window.samples]
    assert {str(round(sample.latency_s or 0) % 1000) == sample.label for sample in samples} == {True}


def test_a_ring_of_an_ended_process_is_read_and_then_taken_away(tmp_path: Path) -> None:
    program = """
        one = recorder("m", settings=own)
        for _ in range(7): one.record(0.1)
    """
    python(tmp_path, program).communicate(timeout=WAIT_S)
    (ring,) = tmp_path.iterdir()
    assert ring.stat().st_blocks * 512 < 150_000  # what was not used is given back
    reader = RingReader(tmp_path)
    drained = reader.read()
    assert (calls(drained), drained.models[0].killed) == (7, 0)
    assert ring.exists()
    assert calls(RingReader(tmp_path).read()) == 7  # as nothing was kept
    reader.kept()
    assert list(tmp_path.iterdir()) == []
    assert reader.read().positions == {}


def test_what_was_kept_before_a_restart_is_not_read_again(tmp_path: Path) -> None:
    python(tmp_path, "recorder('m', settings=own).record(0.1)").communicate(timeout=WAIT_S)
    positions = RingReader(tmp_path).read().positions
    assert RingReader(tmp_path, positions).read() == Drained()
    assert list(tmp_path.iterdir()) == []


def test_a_forked_child_records_into_a_ring_of_its_own(tmp_path: Path) -> None:
    program = """
        one = recorder("m", settings=own)
        one.record(0.1, "parent")
        child = os.fork()
        if child == 0:
            for _ in range(3): one.record(0.1, "child", features={"a": 1.0})
            os._exit(0)
        os.waitpid(child, 0)
        one.record(0.1, "parent")
        print("ready", flush=True)
        sys.stdin.read()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM + textwrap.dedent(program), str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=REPOSITORY,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    reader = RingReader(tmp_path)
    (window,) = reader.read().models
    assert window.classes == {"parent": 2, "child": 3}
    assert (window.processes, window.killed) == (2, 1)
    process.kill()
    process.communicate()
    (window,) = reader.read().models
    assert (window.calls, window.processes, window.killed) == (0, 1, 1)


def test_a_child_that_outlives_its_parent_does_not_keep_its_ring_alive(tmp_path: Path) -> None:
    program = """
        one = recorder("m", settings=own)
        one.record(0.1)
        if os.fork() == 0:
            print(os.getpid(), flush=True)
            sys.stdin.read()
            os._exit(0)
        os.kill(os.getpid(), 9)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM + textwrap.dedent(program), str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=REPOSITORY,
    )
    process.wait(WAIT_S)
    assert process.stdout is not None
    assert process.stdout.readline()
    (window,) = RingReader(tmp_path).read().models
    assert (window.calls, window.killed) == (1, 1)
    process.communicate()


RECORD_UNTIL_KILLED = """
import mmap
seen = mmap.mmap(os.open(sys.argv[2], os.O_RDWR), 8)
one = recorder("m", settings=TelemetrySettings(folder=sys.argv[1], slots=2**20))
number = 0
while True:
    number += 1
    one.record(number, number % 7)
    seen[:8] = number.to_bytes(8, "little")
"""


def kill_one(folder: Path, pause_s: float) -> None:
    """Kill a process while it records: what it had recorded is read, in its order, and nothing else."""
    seen = folder / "seen"
    seen.write_bytes(bytes(8))
    rings = folder / "rings"
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM + RECORD_UNTIL_KILLED, str(rings), str(seen)], cwd=REPOSITORY
    )
    try:
        deadline = threading.Event()
        while seen.read_bytes() == bytes(8):
            assert process.poll() is None
            deadline.wait(0.001)
        deadline.wait(pause_s)
    finally:
        process.kill()
        process.wait()
    known = int.from_bytes(seen.read_bytes(), "little")
    reader = RingReader(rings)
    drained = reader.read()
    (window,) = drained.models
    assert (drained.overwritten, drained.damaged, window.killed) == (0, 0, 1)
    assert window.calls in {known, known + 1}
    assert window.latency["total"].sum_nano == window.calls * (window.calls + 1) // 2 * 10**9
    assert window.classes == Counter(str(number % 7) for number in range(1, window.calls + 1))
    reader.kept()
    assert list(rings.iterdir()) == []


def test_a_process_killed_while_it_records_loses_nothing(tmp_path: Path) -> None:
    for pause_s in (0.0, 0.003, 0.02):
        kill_one(tmp_path, pause_s)


@pytest.mark.soak
def test_hundreds_of_processes_killed_while_they_record_lose_nothing(tmp_path: Path) -> None:
    noise = random.Random(os.getpid())  # noqa: S311
    for _ in range(150):
        kill_one(tmp_path, noise.expovariate(200))


def test_rings_that_nobody_reads_are_bounded_and_what_they_held_is_counted(tmp_path: Path) -> None:
    reader = RingReader(tmp_path)
    with begin(tmp_path) as first:
        for _ in range(5):
            first.record(0.1)
        before = reader.read()
    for number in range(1, 41):
        with begin(tmp_path) as one:
            for _ in range(number):
                one.record(0.1, features={"a": 1.0})
    used = sum(ring.stat().st_blocks * 512 for ring in tmp_path.iterdir())
    assert used < 20 * 160_000 + 60 * 8192
    after = reader.read()
    assert (calls(before), after.overwritten > 100) == (5, True)
    assert calls(after) + after.overwritten == 40 * 41 // 2
    assert sum(window.killed for window in after.models) == 0
    reader.kept()
    assert list(tmp_path.iterdir()) == []


def test_a_ring_that_is_emptied_does_no_harm_to_a_call_under_way(tmp_path: Path) -> None:
    program = """
        from edgeml.telemetry.ring import PLAIN_CALL
        first = recorder("m", settings=own)
        first.record(0.1)
        ring = first.ring()
        first.close()
        for _ in range(40):
            with recorder("m", settings=own) as one: one.record(0.1)
        for _ in range(3000):
            number, place = next(ring.places)
            PLAIN_CALL.pack_into(ring.map, place, 2.0, 1.0, number)
        print("went on")
    """
    assert python(tmp_path, program).communicate(timeout=WAIT_S) == ("went on\n", "")


def test_a_ring_that_holds_nothing_leaves_no_file(tmp_path: Path) -> None:
    with begin(tmp_path) as one:
        one.ring()
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []
