"""What a kept connection does when the other end ends it."""

from __future__ import annotations

import asyncio

import pytest
from edgeml_devices.simulator.connection import Connection, Endpoint

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_a_connection_that_was_ended_while_idle_is_opened_anew() -> None:
    opened = 0

    async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 304 Not Modified\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer_once, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        connection = Connection(Endpoint("127.0.0.1", port, "", None), "token")
        assert (await connection.call("GET", "/")).status == 304
        async with asyncio.timeout(60):
            while not connection._reader.at_eof():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
        assert (await connection.call("GET", "/")).status == 304
        connection.close()
    assert opened == 2
