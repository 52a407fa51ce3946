"""What stores do beyond single requests: days end, processes work at once, data goes on while it is read."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections import Counter
from copy import deepcopy
from pathlib import Path

import pytest
from edgeml_devices.server.telemetry import day_files
from edgeml_devices.server.telemetry import streams as stream_rules
from edgeml_devices.server.telemetry.postgresql_store import PostgresqlStore
from edgeml_devices.server.telemetry.sqlite_store import SqliteStore
from edgeml_devices.server.telemetry.store import Incoming, Selection, Verdict

from tests.integration.telemetry.windows import Telemetry

pytestmark = pytest.mark.anyio
BEGIN = 1_790_000_000.0
ALL = Selection(0, 4e9)
DAY_S = 86400


def incoming(stream: Telemetry, at: float, device: str = "d") -> Incoming:
    report = stream.next(at, models=())
    return Incoming(device, stream.epoch, report, at, at, "pi")


async def times(store) -> list[float]:
    return [row.at async for piece in store.system(ALL) for row in piece]


@pytest.fixture
def stream() -> Telemetry:
    return Telemetry(random.Random(1))  # noqa: S311 - made-up data


async def sqlite_at(folder: Path, days: float) -> SqliteStore:
    return await SqliteStore.open(folder, lambda: BEGIN + days * DAY_S)


async def test_windows_of_some_requests_ago_are_known_again(store, stream) -> None:
    sent = [incoming(stream, BEGIN + 60 * number) for number in range(20)]
    for one in sent:
        assert [stored.verdict for stored in await store.append([one])] == [Verdict.STORED]
    for one in sent[-16:]:
        assert [stored.verdict for stored in await store.append([one])] == [Verdict.DUPLICATE]
    assert len(await times(store)) == 20


async def test_of_a_copied_device_what_was_stored_long_ago_is_told_from_what_it_alone_has(store) -> None:
    first = Telemetry(random.Random(1))  # noqa: S311 - made-up data
    common = [incoming(first, BEGIN + 60 * number) for number in range(5)]
    copy = deepcopy(first)
    copy.chance = random.Random(2)  # noqa: S311 - as above
    for one in (*common, *(incoming(first, BEGIN + 60 * number) for number in range(5, 50))):
        assert [stored.verdict for stored in await store.append([one])] == [Verdict.STORED]
    again = await store.append(common[1:])
    assert [stored.verdict for stored in again] == [Verdict.DUPLICATE] * 4
    own = [incoming(copy, BEGIN + 7 + 60 * number) for number in range(5, 8)]
    forked = await store.append([*common[2:], *own])
    assert {stored.verdict for stored in forked} == {Verdict.FORK}
    assert forked[0].acked_through == 4
    assert {stored.verdict for stored in await store.append(own)} == {Verdict.FORK}
    assert len(await times(store)) == 50


async def test_streams_are_known_on_the_next_day_and_after_days_without_a_server(tmp_path, stream) -> None:
    sent = []
    for day in (0, 1, 5, 6):
        store = await sqlite_at(tmp_path, day)
        again = await store.append(sent)
        assert {stored.verdict for stored in again} <= {Verdict.DUPLICATE}
        sent = [incoming(stream, BEGIN + day * DAY_S)]
        assert [stored.verdict for stored in await store.append(sent)] == [Verdict.STORED]
        await store.close()
    assert len(day_files.days_of(tmp_path)) == 4
    store = await sqlite_at(tmp_path, 6)
    assert len(await times(store)) == 4
    await store.close()


async def test_a_clock_that_goes_back_does_not_lead_back_to_an_older_file(tmp_path, stream) -> None:
    for day in (1, 0):
        store = await sqlite_at(tmp_path, day)
        await store.append([incoming(stream, BEGIN)])
        await store.close()
    assert len(day_files.days_of(tmp_path)) == 1


async def test_a_day_whose_file_was_being_made_when_the_server_died_is_made_again(tmp_path, stream) -> None:
    store = await sqlite_at(tmp_path, 0)
    sent = [incoming(stream, BEGIN)]
    await store.append(sent)
    await store.close()
    tomorrow = day_files.file_of(tmp_path, day_files.day_of(BEGIN + DAY_S))
    sqlite3.connect(tomorrow).execute("PRAGMA journal_mode = WAL").connection.close()
    store = await sqlite_at(tmp_path, 1)
    assert [stored.verdict for stored in await store.append(sent)] == [Verdict.DUPLICATE]
    await store.close()


async def test_after_pruning_the_last_file_with_windows_streams_are_still_known(tmp_path, stream) -> None:
    store = await sqlite_at(tmp_path, 0)
    sent = [incoming(stream, BEGIN)]
    await store.append(sent)
    await store.close()
    store = await sqlite_at(tmp_path, 100)
    await store.prune(BEGIN + 90 * DAY_S, 0)
    assert len(day_files.days_of(tmp_path)) == 1
    assert await times(store) == []
    assert [stored.verdict for stored in await store.append(sent)] == [Verdict.DUPLICATE]
    await store.close()


async def test_files_of_a_newer_version_are_refused(tmp_path) -> None:
    from edgeml.errors import ServerError

    store = await sqlite_at(tmp_path, 0)
    await store.close()
    file = day_files.file_of(tmp_path, day_files.day_of(BEGIN))
    sqlite3.connect(file).execute("PRAGMA user_version = 99").connection.close()
    with pytest.raises(ServerError, match="newer version"):
        await sqlite_at(tmp_path, 0)


async def test_a_device_may_begin_so_many_streams_and_no_more(store, monkeypatch) -> None:
    monkeypatch.setattr(stream_rules, "MOST_EPOCHS", 3)
    begun = [Telemetry(random.Random(n)) for n in range(5)]  # noqa: S311 - made-up data
    first = [(await store.append([incoming(one, BEGIN)]))[0].verdict for one in begun]
    assert first == [Verdict.STORED] * 3 + [Verdict.FORK] * 2
    second = [(await store.append([incoming(one, BEGIN + 60)]))[0].verdict for one in begun]
    assert second == first
    other = Telemetry(random.Random(9))  # noqa: S311 - as above
    assert (await store.append([incoming(other, BEGIN, "other")]))[0].verdict is Verdict.STORED
    assert len(await times(store)) == 7


async def test_it_is_read_while_it_is_written(store, stream) -> None:
    await store.append([incoming(stream, BEGIN + n) for n in range(2500)])
    reading = store.system(ALL)
    first = await anext(reading)
    stored = await store.append([incoming(stream, BEGIN + 5000)])
    assert stored[0].verdict is Verdict.STORED
    assert len(first) + sum([len(piece) async for piece in reading]) == 2500
    assert len(await times(store)) == 2501


async def test_processes_that_store_the_same_streams_at_once_store_each_window_once(postgres) -> None:
    url = postgres.create()
    stores = [await PostgresqlStore.open(url) for _ in range(3)]
    chance = random.Random(2)  # noqa: S311 - made-up data
    streams = [Telemetry(chance) for _ in range(6)]
    sent = []
    for round_ in range(15):
        requests = [[incoming(stream, BEGIN + round_ * 60 + n, f"d{n}")] for n, stream in enumerate(streams)]
        sent += [one.at for request in requests for one in request]

        async def send(store, own=requests) -> list:
            chance.shuffle(own)
            return await store.append([one for request in own for one in request])

        answers = await asyncio.gather(*(send(store, list(requests)) for store in stores), roll(stores[0]))
        verdicts = Counter(stored.verdict for answer in answers[:3] for stored in answer)
        assert verdicts == {Verdict.STORED: 6, Verdict.DUPLICATE: 12}
    assert sorted(await times(stores[1])) == sorted(sent)
    for store in stores:
        await store.close()
    postgres.drop(url)


async def roll(store: PostgresqlStore) -> None:
    from edgeml_devices.server.telemetry import postgresql_rolling

    await postgresql_rolling.roll(store._pool)
