"""Every transport keeps the contract."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgeml import plugins
from edgeml.errors import UsageError
from edgeml.testing.transports import RemoteTransportContract, TransportContract
from tests.integration.transports.ssh_server import SshServer, ssh_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class TestLocal(TransportContract):
    @pytest.fixture
    def transport_url(self) -> str:
        return "local:"


class TestSsh(RemoteTransportContract):
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


def test_local_takes_nothing_behind_the_colon():
    with pytest.raises(UsageError, match="'local:', with nothing behind it"):
        plugins.transport("local:/tmp")


def test_an_unknown_transport_names_the_known_ones():
    with pytest.raises(UsageError, match=r"transports are: .*local"):
        plugins.transport("carrier-pigeon:home")
