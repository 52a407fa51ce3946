"""``emulator:`` — an emulated board, as a transport: its mode decides what runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeml_devices.emulator.address import emulator_address
from edgeml_devices.emulator.machine_transport import MachineTransport
from edgeml_devices.emulator.user.transport import UserTransport

if TYPE_CHECKING:
    from edgeml.transport import Transport


def emulator_transport(url: str) -> Transport:
    """Give the transport that a URL's mode asks for, unconnected.

    Raises:
        UsageError: the URL is written in another way, or names no board.
    """
    address = emulator_address(url)
    if address.mode == "user":
        return UserTransport(address)
    return MachineTransport(address)
