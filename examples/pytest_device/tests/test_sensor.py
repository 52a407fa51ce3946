"""On a cable that damages one byte in a hundred: what is read is what was sent."""

import os
import threading

from sensor import line, readings

from edgeml.testing.plugin import MakeSerialCable


def test_no_damaged_line_is_taken_for_a_reading(serial_cable: MakeSerialCable) -> None:
    cable = serial_cable(baud=115200, dropped=0.005, flipped=0.005, seed=7)
    device = os.open(cable.far_port, os.O_WRONLY | os.O_NOCTTY)
    sent = [1000 + number for number in range(200)]
    threading.Thread(target=os.write, args=(device, b"".join(map(line, sent)))).start()
    found = readings(cable.port, 100)
    os.close(device)
    assert set(found) <= set(sent)
    assert found == sorted(found)
