"""The options that lead to a server, and the warning where a token would be heard."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner
from edgeml_devices.connection import Connection, server_options

from edgeml.errors import UsageError


@click.command()
@click.argument("word")
@server_options
def command(word: str, connection: Connection) -> None:
    click.echo(f"{word} {connection.server} {connection.token} {connection.ca_file}")


@pytest.fixture
def runner(monkeypatch):
    for name in ("EDGEML_SERVER", "EDGEML_TOKEN", "EDGEML_CA_FILE"):
        monkeypatch.delenv(name, raising=False)
    return CliRunner()


def test_options_win_over_the_environment(runner):
    environment = {"EDGEML_SERVER": "https://a", "EDGEML_TOKEN": "t", "EDGEML_CA_FILE": "ca.pem"}
    assert runner.invoke(command, ["x"], env=environment).output == "x https://a t ca.pem\n"
    assert (
        runner.invoke(command, ["x", "--server", "https://b"], env=environment).output
        == "x https://b t ca.pem\n"
    )


def test_an_empty_variable_counts_as_not_set(runner):
    assert runner.invoke(command, ["x"], env={"EDGEML_SERVER": ""}).output == "x None  None\n"


def test_the_server_must_be_given():
    with pytest.raises(UsageError, match="which server"):
        Connection(None, "t", None).open()


@pytest.mark.parametrize(
    "url", ["https://server", "http://127.0.0.1:8000", "http://localhost:8000", "http://[::1]:1"]
)
def test_nobody_hears_a_token_there(url, capsys):
    Connection(url, "t", None).open().close()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("url", ["http://server", "http://10.0.0.1:8000"])
def test_a_token_in_the_clear_is_warned_of(url, capsys):
    Connection(url, "t", None).open().close()
    assert f"{url} is not https: anyone on the way can read the token" in capsys.readouterr().err
    Connection(url, "", None).open().close()
    assert capsys.readouterr().err == ""
