"""Every transport keeps the contract."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING

import pytest
from edgeml_devices.emulator import tools
from edgeml_devices.emulator.boards import board_named
from edgeml_devices.emulator.images.image import ImageRequest
from edgeml_devices.emulator.machine.line import Line
from edgeml_devices.emulator.machine.starting import Wanted, start_machine

from edgeml import plugins
from edgeml.errors import TransportError, UsageError
from edgeml.testing.transports import RemoteTransportContract, TransportContract
from tests.integration.emulator.built_images import built, shared_cache
from tests.integration.transports.serial_line import SerialLine, SerialServer
from tests.integration.transports.ssh_server import SshServer, ssh_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgeml_devices.emulator.machine.machine import Machine

    from edgeml.transport import Transport

KILL_CONNECTIONS = (
    "for served in $(pgrep -P $(pgrep -o dropbear)); do pkill -9 -P $served; kill -9 $served; done"
)
PASSWORD = "secret word"  # noqa: S105 - of a board made for the test


class OneConnection:
    """Tests of a class share a connection, until one of them loses it: connecting takes seconds."""

    @pytest.fixture(scope="class")
    def kept(self) -> Iterator[list[Transport]]:
        kept: list[Transport] = []
        yield kept
        for one in kept:
            one.close()

    @pytest.fixture
    def transport(self, unconnected: Transport, kept: list[Transport]) -> Iterator[Transport]:
        opened = kept.pop() if kept else unconnected
        if opened is unconnected:
            opened.connect()
        yield opened
        try:
            opened.run(["true"], 60)
        except TransportError:
            opened.close()
        else:
            kept.append(opened)


class TestLocal(TransportContract):
    @pytest.fixture
    def transport_url(self) -> str:
        return "local:"


class TestSsh(OneConnection, RemoteTransportContract):
    """Against a real sshd, as whoever runs the tests."""

    @pytest.fixture(scope="class")
    def server(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
        with ssh_server(tmp_path_factory.mktemp("sshd")) as server:
            yield server

    @pytest.fixture
    def transport_url(self, server: SshServer) -> str:
        return server.url

    @pytest.fixture
    def cut(self, server: SshServer) -> Callable[[], None]:
        return server.cut


class TestSerial(OneConnection, RemoteTransportContract):
    """A shell behind a log-in on a pseudo-terminal, through a port that can be pulled out."""

    large_bytes = 60_000

    @pytest.fixture(scope="class")
    def line(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SerialLine]:
        shell = ["busybox", "sh"] if shutil.which("busybox") else ["dash"]
        line = SerialLine(tmp_path_factory.mktemp("port"), shell, user="root", password=PASSWORD)
        yield line
        line.close()

    @pytest.fixture
    def transport_url(self, line: SerialLine, monkeypatch: pytest.MonkeyPatch) -> str:
        monkeypatch.setenv("BOARD_PASSWORD", PASSWORD)
        return f"{line.url}?user=root&password_env=BOARD_PASSWORD"

    @pytest.fixture
    def observer(self, kept: list[Transport]) -> Iterator[Transport]:
        while kept:  # the port is for one
            kept.pop().close()
        with plugins.transport("local:") as opened:
            yield opened

    @pytest.fixture
    def cut(self, line: SerialLine) -> Callable[[], None]:
        return line.restart


class TestSerialOverTcp(OneConnection, RemoteTransportContract):
    """The same through pyserial's ``socket://``, as terminal servers give consoles."""

    large_bytes = 60_000

    @pytest.fixture(scope="class")
    def server(self) -> Iterator[SerialServer]:
        server = SerialServer(["bash", "--norc"])
        yield server
        server.close()

    @pytest.fixture
    def transport_url(self, server: SerialServer) -> str:
        return server.url

    @pytest.fixture
    def cut(self, server: SerialServer) -> Callable[[], None]:
        return server.cut


class TestEmulatorInUserMode(TransportContract):
    """Debian's programs under an emulated processor; connections share the folder that the URL names."""

    @pytest.fixture(scope="class")
    def image(self) -> Iterator[None]:
        with built(ImageRequest(), tools.TO_RUN_IN_USER_MODE):
            yield

    @pytest.fixture
    def transport_url(
        self,
        image: None,  # noqa: ARG002 - must be there
        own_cache: None,  # noqa: ARG002 - the next line is to hold
        monkeypatch: pytest.MonkeyPatch,
        tmp_path_factory: pytest.TempPathFactory,
    ) -> str:
        monkeypatch.setenv("EDGEML_CACHE_DIR", str(shared_cache()))
        return f"emulator:raspberry-pi-4?mode=user&folder={tmp_path_factory.mktemp('board')}"


class TestEmulatedMachine(OneConnection, RemoteTransportContract):
    """A whole machine, one for all these tests."""

    large_bytes = 6_000_000
    """More than SSH sends ahead: a cut half way has to cut something off."""
    slowness = 8.0

    @pytest.fixture(scope="class")
    def machine(self) -> Iterator[Machine]:
        with built(ImageRequest(), tools.TO_BOOT) as image, pytest.MonkeyPatch.context() as patch:
            patch.setenv("EDGEML_CACHE_DIR", str(shared_cache()))
            wanted = Wanted(board_named("raspberry-pi-4"), ImageRequest(image.engines))
            with start_machine(wanted) as machine:
                yield machine

    @pytest.fixture
    def transport_url(
        self,
        machine: Machine,
        own_cache: None,  # noqa: ARG002 - the next line is to hold
        monkeypatch: pytest.MonkeyPatch,
    ) -> str:
        monkeypatch.setenv("EDGEML_CACHE_DIR", str(shared_cache()))
        return f"emulator:raspberry-pi-4?machine={machine.name}"

    @pytest.fixture
    def cut(self, machine: Machine) -> Callable[[], None]:
        """Kill what serves the connections, over the serial line; what these started is left to find out."""

        def kill() -> None:
            with Line(machine.ports.serial, machine.name) as line:
                line.wait_for_shell(60)
                line.run(KILL_CONNECTIONS, 60)
            time.sleep(1)  # clients that did not just wait for an answer notice a moment later

        return kill


def test_local_takes_nothing_behind_the_colon():
    with pytest.raises(UsageError, match="'local:', with nothing behind it"):
        plugins.transport("local:/tmp")


def test_an_unknown_transport_names_the_known_ones():
    with pytest.raises(UsageError, match=r"transports are: .*local"):
        plugins.transport("carrier-pigeon:home")
