"""``--server``, ``--token``, ``--ca-file``: how the commands find the server. Light to import."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from edgeml.errors import EngineMissingError, UsageError

if TYPE_CHECKING:
    from edgeml_devices.api_client import ApiClient


@dataclass(frozen=True, slots=True)
class Connection:
    """Which server, and as whom."""

    server: str | None
    token: str
    ca_file: Path | None

    @property
    def server_url(self) -> str:
        """The server's address.

        Raises:
            UsageError: none was given.
        """
        if not self.server:
            raise UsageError("which server? Give its address: --server https://HOST, or set EDGEML_SERVER")
        return self.server

    def open(self) -> ApiClient:
        """Give a client; warn where the token would travel in the clear.

        Raises:
            UsageError: no address, or one that cannot be a server's.
            EngineMissingError: this install has no HTTP client.
        """
        try:
            from edgeml_devices.api_client import ApiClient
        except ModuleNotFoundError as error:
            raise EngineMissingError(
                f"this needs {error.name!r}. Install it: pip install 'edgeml-devices[operator]'"
            ) from error
        if self.token and not is_unheard(self.server_url):
            click.echo(
                f"{click.style('warning:', fg='yellow', bold=True)} {self.server_url} is not https: "
                "anyone on the way can read the token",
                err=True,
            )
        return ApiClient(self.server_url, self.token, self.ca_file)


def server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the three options; it takes ``connection`` in their place."""

    @wraps(command)
    def call(*args: Any, server: str | None, token: str | None, ca_file: Path | None, **options: Any) -> Any:
        return command(*args, connection=Connection(server, token or "", ca_file), **options)

    for option in reversed(_OPTIONS):
        option(call)
    return call


_OPTIONS = (
    click.option("--server", metavar="URL", envvar="EDGEML_SERVER", help="The server (EDGEML_SERVER)."),
    click.option("--token", metavar="TOKEN", envvar="EDGEML_TOKEN", help="Who you are (EDGEML_TOKEN)."),
    click.option(
        "--ca-file",
        metavar="FILE",
        envvar="EDGEML_CA_FILE",
        type=click.Path(path_type=Path),
        help="Authorities that sign the server's certificate (EDGEML_CA_FILE).",
    ),
)


def is_unheard(server_url: str) -> bool:
    """Say whether nobody can listen on the way: TLS, or this machine itself."""
    parts = urlsplit(server_url)
    if parts.scheme == "https" or parts.hostname == "localhost":
        return True
    try:
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False
