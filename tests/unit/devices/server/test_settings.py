"""The database's address, as people write it."""

from __future__ import annotations

from pathlib import Path

import pytest
from edgeml_devices.server.settings import ServerSettings, database_url

from edgeml.errors import UsageError


def test_without_an_address_it_is_sqlite_in_the_data_folder() -> None:
    url = ServerSettings(Path("/srv/edgeml")).url
    assert (url.drivername, url.database) == ("sqlite+aiosqlite", "/srv/edgeml/edgeml.db")


def test_an_address_gets_the_driver_that_the_server_uses() -> None:
    url = database_url("postgresql://anna:secret@db/fleet")
    assert (url.drivername, url.host, url.database) == ("postgresql+asyncpg", "db", "fleet")


@pytest.mark.parametrize("text", ["mysql://db/fleet", "fleet", "://"])
def test_other_databases_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        database_url(text)


def test_a_refused_address_does_not_show_its_password() -> None:
    with pytest.raises(UsageError) as refused:
        database_url("mysql://anna:secret@db/fleet")
    assert "secret" not in str(refused.value)
