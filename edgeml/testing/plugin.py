"""The pytest plugin: fixtures for what happens to devices, in this project's tests and in those of others.

pytest finds it by its entry point, so it imports nothing but pytest until a test asks for a fixture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pytest

from edgeml.testing import missing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgeml.testing.devices import EmulatedDevice, PowerCut
    from edgeml.testing.networks import BadNetwork
    from edgeml.testing.serial_lines import SerialCable


MARKERS = (
    "emulated_device(board=…, engines=…, fresh=…): what the fixture emulated_device starts",
    "emulated: set on every test that uses emulated_device; leave them out by -m 'not emulated'",
)


def pytest_configure(config: pytest.Config) -> None:
    """Make the markers known."""
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that start an emulated device, before any are left out by their marks."""
    for item in items:
        if "emulated_device" in getattr(item, "fixturenames", ()):
            item.add_marker("emulated")


class MakeSerialCable(Protocol):
    """What the fixture ``serial_cable`` gives."""

    def __call__(
        self,
        *,
        baud: int | None = 115200,
        dropped: float = 0.0,
        doubled: float = 0.0,
        flipped: float = 0.0,
        messages_per_byte: float = 0.0,
        seed: int = 1,
        far: int | tuple[str, int] | None = None,
    ) -> SerialCable:
        """Plug in a cable; see :class:`~edgeml.testing.serial_lines.Noise` for what happens to its bytes."""
        ...


class MakeBadNetwork(Protocol):
    """What the fixture ``bad_network`` gives."""

    def __call__(self, target: str) -> BadNetwork:
        """Stand before a server, ``http://HOST:PORT`` or ``HOST:PORT``."""
        ...


@pytest.fixture
def serial_cable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeSerialCable]:
    """Make serial cables with a baud rate and noise; they are taken away after the test."""
    try:
        from edgeml.testing.serial_lines import Noise, SerialCable
    except ModuleNotFoundError as error:
        missing(f"serial_cable needs {error.name!r}, which this system does not have")
    cables: list[SerialCable] = []

    def make(
        *,
        baud: int | None = 115200,
        dropped: float = 0.0,
        doubled: float = 0.0,
        flipped: float = 0.0,
        messages_per_byte: float = 0.0,
        seed: int = 1,
        far: int | tuple[str, int] | None = None,
    ) -> SerialCable:
        noise = Noise(dropped, doubled, flipped, messages_per_byte, seed)
        folder = tmp_path_factory.mktemp("serial_cable")
        cables.append(SerialCable(folder, baud=baud, noise=noise, far=far))
        return cables[-1]

    yield make
    for cable in cables:
        cable.close()


@pytest.fixture
def bad_network() -> Iterator[MakeBadNetwork]:
    """Make proxies that do to connections what networks do; they are closed after the test."""
    from edgeml.testing.networks import BadNetwork

    networks: list[BadNetwork] = []

    def make(target: str) -> BadNetwork:
        networks.append(BadNetwork(target))
        return networks[-1]

    yield make
    for network in networks:
        network.close()


@pytest.fixture
def emulated_device(request: pytest.FixtureRequest) -> Iterator[EmulatedDevice]:
    """Start an emulated board, from a snapshot where there is one: fresh for each test.

    Say which by ``@pytest.mark.emulated_device(board=…, engines=…)``, or as the parameter of an indirect
    parametrization.
    """
    from edgeml.testing import devices

    marker = request.node.get_closest_marker("emulated_device")
    wanted = {} if marker is None else dict(marker.kwargs)
    if hasattr(request, "param"):
        wanted["board"] = request.param
    with devices.emulated_device(**wanted) as device:
        yield device


@pytest.fixture
def power_cut(emulated_device: EmulatedDevice) -> PowerCut:
    """Cut the power of ``emulated_device``, now or in the middle of something, and boot it again."""
    from edgeml.testing.devices import PowerCut

    return PowerCut(emulated_device)
