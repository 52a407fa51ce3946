"""How a serial port is written."""

from __future__ import annotations

import pytest
from edgeml_devices.transports.serial import SerialTransport
from edgeml_devices.transports.serial_console import BlockSize
from edgeml_devices.transports.serial_port import SerialAddress, serial_address

from edgeml.errors import TransportError, UsageError


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("serial:///dev/ttyUSB0", ("/dev/ttyUSB0", 115_200, None, None, 0.0)),
        ("serial:///dev/ttyUSB0?baud=9600&txdelay=5", ("/dev/ttyUSB0", 9600, None, None, 0.005)),
        ("serial:///dev/ttyUSB0?user=root", ("/dev/ttyUSB0", 115_200, "root", None, 0.0)),
        ("serial:///dev/ttyS0?user=pi&password_env=PI", ("/dev/ttyS0", 115_200, "pi", "rasp&berry", 0.0)),
        ("serial://COM3", ("COM3", 115_200, None, None, 0.0)),
        ("serial:socket://10.0.0.5:5000?user=root", ("socket://10.0.0.5:5000", 115_200, "root", None, 0.0)),
        (
            "serial:rfc2217://10.0.0.5:5000?ign_set_control=1&baud=57600",
            ("rfc2217://10.0.0.5:5000?ign_set_control=1", 57_600, None, None, 0.0),
        ),
    ],
)
def test_a_port_is_written_as_a_url(monkeypatch, url, address):
    monkeypatch.setenv("PI", "rasp&berry")
    assert serial_address(url) == SerialAddress(url, *address)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("serial:", "write it as"),
        ("serial:///", "write it as"),
        ("serial:///dev/ttyUSB0?baud=fast", "write it as"),
        ("serial:///dev/ttyUSB0?baud=0", "baud is from 1"),
        ("serial:///dev/ttyUSB0?txdelay=-1", "txdelay is milliseconds"),
        ("serial:///dev/ttyUSB0?speed=9600", "'speed' is no option"),
        ("serial:///dev/ttyUSB0?password_env=EDGEML_NOT_SET", "EDGEML_NOT_SET with the password is not set"),
    ],
)
def test_what_cannot_be_read_is_refused(url, says):
    with pytest.raises(UsageError, match=says):
        serial_address(url)


def test_a_port_that_is_not_there_is_an_error():
    with pytest.raises(TransportError, match="No such file"):
        SerialTransport("serial:///dev/edgeml-no-such-port").connect()


def test_a_url_that_pyserial_does_not_know_is_refused():
    with pytest.raises(UsageError, match="carrier"):
        SerialTransport("serial:carrier://pigeon").connect()


def test_nobody_listening_is_an_error():
    with pytest.raises(TransportError, match="refused"):
        SerialTransport("serial:socket://127.0.0.1:1").connect()


def test_blocks_become_smaller_when_damaged_and_larger_when_they_arrive():
    size = BlockSize(100, 800)
    sizes = []
    for arrived in (False, False, False, False, True, True, True, True, True):
        size.good() if arrived else size.bad()
        sizes.append(size.bytes)
    assert sizes == [400, 200, 100, 100, 100, 100, 100, 200, 200]
