"""Connections of the standard library to a server, through the proxy that the environment names for it."""

from __future__ import annotations

import base64
import http.client
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from edgeml.errors import UsageError


@dataclass(frozen=True, slots=True)
class Route:
    """How a server is reached."""

    connection: http.client.HTTPConnection
    prefix: str = ""
    """What stands before each path: a proxy that gets no ``CONNECT`` is told the whole address."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """For the proxy, in each request."""
    proxy: str = ""
    """``HOST:PORT``; empty: there is none between."""


def open_route(server: SplitResult, timeout_s: float, context: ssl.SSLContext | None) -> Route:
    """Say how a server is reached; no connection is opened yet.

    ``HTTP_PROXY``, ``HTTPS_PROXY`` and ``NO_PROXY`` count as for :mod:`urllib.request`, and for the agent.

    Args:
        server: its address.
        timeout_s: until something comes.
        context: which authorities are trusted; ``None``: for ``http``.

    Raises:
        UsageError: the proxy's address cannot be used.
    """
    host = server.hostname or ""
    given = getproxies().get(server.scheme)
    if not given or proxy_bypass(host):
        return Route(_connection(host, server.port, timeout_s, context))
    address, port, login = _read(given, server.scheme)
    connection = _connection(address, port, timeout_s, context)
    proxy = f"{address}:{port}"
    if context is None:
        return Route(connection, f"http://{server.netloc.rpartition('@')[2]}", login, proxy)
    target = server.port or http.client.HTTPS_PORT
    connection.set_tunnel(host, target, {"Host": f"{host}:{target}"} | login)
    return Route(connection, proxy=proxy)


def _connection(
    host: str, port: int | None, timeout_s: float, context: ssl.SSLContext | None
) -> http.client.HTTPConnection:
    if context is None:
        return http.client.HTTPConnection(host, port, timeout=timeout_s)
    return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)


def _read(given: str, scheme: str) -> tuple[str, int, dict[str, str]]:
    """Give a proxy's host and port, and the header with the login in its address."""
    name = f"{scheme.upper()}_PROXY"
    parts = urlsplit(given if "://" in given else f"http://{given}")
    shown = parts.netloc.rpartition("@")[2]
    try:
        port = parts.port or http.client.HTTP_PORT
    except ValueError as error:
        raise UsageError(f"the proxy {shown!r} of {name} cannot be used: {error}") from error
    if parts.scheme != "http" or not parts.hostname:
        raise UsageError(f"the proxy {shown!r} of {name} cannot be used: write http://HOST:PORT")
    if parts.username is None:
        return parts.hostname, port, {}
    login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    basic = base64.b64encode(login.encode()).decode()
    return parts.hostname, port, {"Proxy-Authorization": f"Basic {basic}"}
