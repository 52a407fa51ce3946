"""Every transport keeps the contract."""

from __future__ import annotations

import pytest

from edgeml import plugins
from edgeml.errors import UsageError
from edgeml.testing.transports import TransportContract


class TestLocal(TransportContract):
    @pytest.fixture
    def transport_url(self) -> str:
        return "local:"


def test_local_takes_nothing_behind_the_colon():
    with pytest.raises(UsageError, match="'local:', with nothing behind it"):
        plugins.transport("local:/tmp")


def test_an_unknown_transport_names_the_known_ones():
    with pytest.raises(UsageError, match=r"transports are: .*local"):
        plugins.transport("carrier-pigeon:home")
