"""A cable carries bytes at its rate, with its noise, and can be pulled out."""

from __future__ import annotations

import os
import select
import socket
import time
from pathlib import Path

import pytest

from edgeml.testing.plugin import MakeSerialCable
from tests.waiting import eventually

BAUD = 115200


@pytest.fixture
def open_port():
    handles: list[int] = []

    def open_one(path: Path) -> int:
        handles.append(os.open(path, os.O_RDWR | os.O_NOCTTY))
        return handles[-1]

    yield open_one
    for handle in handles:
        os.close(handle)


def _read(handle: int, size_bytes: int, within_s: float = 60.0) -> bytes:
    data, deadline = b"", time.monotonic() + within_s
    while len(data) < size_bytes and select.select([handle], [], [], deadline - time.monotonic())[0]:
        data += os.read(handle, 4096)
    return data


def test_bytes_arrive_on_the_other_side_both_ways(serial_cable: MakeSerialCable, open_port) -> None:
    cable = serial_cable(baud=None)
    near, far = open_port(cable.port), open_port(cable.far_port)
    every = bytes(range(256))
    os.write(near, every)
    assert _read(far, 256) == every
    os.write(far, every[::-1])
    assert _read(near, 256) == every[::-1]
    assert (cable.sent_bytes, cable.received_bytes) == (256, 256)


def test_a_cable_is_as_slow_as_its_rate(serial_cable: MakeSerialCable, open_port) -> None:
    cable = serial_cable(baud=BAUD)
    near, far = open_port(cable.port), open_port(cable.far_port)
    begun = time.monotonic()
    os.write(near, bytes(3456))
    assert len(_read(far, 3456)) == 3456
    assert time.monotonic() - begun >= 3456 * 10 / BAUD - 0.03


def test_noise_is_the_same_for_the_same_seed(serial_cable: MakeSerialCable, open_port) -> None:
    arrived = []
    for seed in (1, 1, 2):
        cable = serial_cable(baud=None, flipped=0.1, seed=seed)
        os.write(open_port(cable.port), bytes(1000))
        arrived.append(_read(open_port(cable.far_port), 1000))
    assert arrived[0] == arrived[1] != arrived[2]
    assert 50 < sum(byte != 0 for byte in arrived[0]) < 200


@pytest.mark.parametrize(("noise", "fewest", "most"), [("dropped", 800, 950), ("doubled", 1050, 1200)])
def test_bytes_are_dropped_and_doubled(
    serial_cable: MakeSerialCable, open_port, noise: str, fewest: int, most: int
) -> None:
    cable = serial_cable(baud=None, **{noise: 0.1})
    os.write(open_port(cable.port), bytes(1000))
    eventually(lambda: cable.sent_bytes == 1000)
    assert fewest < len(_read(open_port(cable.far_port), 2000, within_s=2.0)) < most


def test_a_cut_takes_the_port_from_who_has_it_and_the_far_side_goes_on(
    serial_cable: MakeSerialCable, open_port
) -> None:
    cable = serial_cable(baud=None)
    near, far = open_port(cable.port), open_port(cable.far_port)
    cable.cut()
    with pytest.raises(OSError, match="Input/output error"):
        os.write(near, b"lost")
    os.write(open_port(cable.port), b"new")
    assert _read(far, 3) == b"new"


def test_the_far_end_can_be_a_console_behind_tcp_and_be_moved(
    serial_cable: MakeSerialCable, open_port
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        cable = serial_cable(baud=None, far=one.getsockname())
        first, _ = one.accept()
        os.write(open_port(cable.port), b"first")
        assert first.recv(5) == b"first"
        cable.move(other.getsockname())
        assert first.recv(1) == b""
        second, _ = other.accept()
        second.sendall(b"second")
        assert _read(open_port(cable.port), 6) == b"second"
        first.close()
        second.close()
