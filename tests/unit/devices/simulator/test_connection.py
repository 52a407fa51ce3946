"""What a kept connection does when the other end ends it."""

from __future__ import annotations

import asyncio
import socket

import pytest
from edgeml_devices.simulator import fleet
from edgeml_devices.simulator.connection import Connection, Endpoint, LostError, endpoint_of
from edgeml_devices.simulator.plan import plan
from edgeml_devices.simulator.scenario import Scenario
from edgeml_devices.simulator.world import World

from edgeml.errors import ServerError

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


@pytest.mark.parametrize(
    "answer",
    [b"garbage\r\n\r\n", b"\r\n\r\n", b"HTTP/1.1 two\r\n\r\n", b"HTTP/1.1 200\r\nContent-Length: x\r\n\r\n"],
)
async def test_what_does_not_speak_http_gives_no_answer(answer: bytes) -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(say, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        connection = Connection(Endpoint("127.0.0.1", port, "", None), "token")
        with pytest.raises(LostError, match="no answer of HTTP; is this an edgeml server"):
            await connection.call("GET", "/")


async def test_devices_that_nobody_lets_in_give_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "_ANSWER_S", 0.5)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        there = endpoint_of(f"http://127.0.0.1:{unused.getsockname()[1]}")
        scenario = Scenario(devices=3)
        waiting = fleet.Fleet(World(scenario, there, "run", releases={}), plan(scenario))
        with pytest.raises(ServerError, match=r"lets nobody in: .* 3 devices wait; is the server running"):
            await waiting.enrol("token")


async def test_a_network_that_goes_in_the_middle_of_an_answer_loses_it() -> None:
    async def answer_half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + bytes(50))
        await writer.drain()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(answer_half, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        connection = Connection(Endpoint("127.0.0.1", port, "", None), "token")
        with pytest.raises(LostError):
            await connection.download("/", 0, lambda _: connection.close())
