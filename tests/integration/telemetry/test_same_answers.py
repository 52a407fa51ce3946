"""SQLite and PostgreSQL are given the same and say the same, bit by bit."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from edgeml_devices.server.telemetry import postgresql_rolling
from edgeml_devices.server.telemetry.postgresql_store import PostgresqlStore
from edgeml_devices.server.telemetry.sqlite_store import SqliteStore
from edgeml_devices.server.telemetry.store import Incoming, Selection, Verdict

from edgeml.telemetry.report import Lost, Report
from tests.integration.telemetry.windows import Telemetry, link, model_window

pytestmark = pytest.mark.anyio
BEGIN = 1_790_000_000.0
DAYS = 3
TARGETS = ("raspberry-pi-4", "jetson-nano", "unknown")
MODELS = (("kws", 1), ("kws", 2), ("vision", 1))


class Fleet:
    """Devices that do all that devices do: merge, lose, send again, begin epochs, be cloned."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)  # noqa: S311 - made-up data
        self.streams = [Telemetry(self.chance, f"{n:032x}", f"boot-{n}") for n in range(4)]
        self.sent: dict[int, list[Incoming]] = {}

    def request(self) -> list[Incoming]:
        chance = self.chance
        number = chance.randrange(len(self.streams))
        if number in self.sent and chance.random() < 0.2:
            return self.sent[number]
        if chance.random() < 0.05:
            self.streams[number] = Telemetry(chance, f"{chance.getrandbits(128):032x}")
        stream = self.streams[number]
        if chance.random() < 0.1:
            stream.boot_id = f"boot-{number}-{chance.randrange(3)}"
        reports = [self._report(stream) for _ in range(chance.randint(1, 4))]
        if chance.random() < 0.1:
            reports[-1] = replace(reports[-1], prev=link(chance))
        target = TARGETS[number % 3]
        request = [
            Incoming(f"device-{number}", stream.epoch, report, report.at, report.at + 1, target)
            for report in reports
        ]
        self.sent[number] = request
        return request

    def _report(self, stream: Telemetry) -> Report:
        chance = self.chance
        # whole hours, whole days and the same moments on several devices are in there
        at = BEGIN - BEGIN % 86400 + 60 * chance.randrange(0, DAYS * 1440) + chance.choice((0, 0, 0.123456))
        if chance.random() < 0.1:
            stream.seq += chance.randint(1, 3)
        fields: dict[str, Any] = {}
        if chance.random() < 0.2:
            fields["first"] = stream.seq + 1
            stream.seq += chance.randint(1, 5)
            fields["windows"] = chance.randint(1, stream.seq + 2 - fields["first"])
            fields["lost"] = Lost(chance.randint(0, 9), 3, chance.randint(0, 2), chance.randint(0, 2))
        if chance.random() < 0.2:
            fields |= {"system": {}, "energy_joules": None}
        models = tuple(
            replace(model_window(chance, chance.choice((0, 1, 7))), model=model, release=release)
            for model, release in chance.sample(MODELS, chance.randint(0, 3))
        )
        return stream.next(at, models=models, **fields)


async def all_answers(store: Any, selection: Selection) -> dict[str, Any]:
    return {
        "windows": [row async for piece in store.windows(selection) for row in piece],
        "system": [row async for piece in store.system(selection) for row in piece],
        "hours by device": await store.hours(selection, by_device=True),
        "hours": await store.hours(selection, by_device=False),
        "totals": await store.totals(),
        "samples": await store.samples(selection, 25),
        "coverage": await store.coverage(selection),
    }


def selections(chance: random.Random) -> list[Selection]:
    begin = BEGIN - BEGIN % 86400
    found = [Selection(0, 4e9)]
    for _ in range(8):
        since = begin + 3600 * chance.choice((-24, 0, 0.5, 7, 24, 30.25, 48))
        found.append(
            Selection(
                since,
                since + 3600 * chance.choice((0.25, 1, 24, 72)),
                frozenset(f"device-{n}" for n in chance.sample(range(5), 2))
                if chance.random() < 0.5
                else None,
                chance.choice((None, "kws", "none")),
                chance.choice((None, None, 2)),
                chance.choice((None, "int8")),
                chance.choice((None, *TARGETS)),
            )
        )
    return found


async def roll(store: Any) -> None:
    """Add up hours now, as happens beside in a server."""
    if isinstance(store, SqliteStore):
        while store._roller.roll():
            pass
    elif isinstance(store, PostgresqlStore):
        while await postgresql_rolling.roll(store._pool):
            pass


@pytest.mark.parametrize("seed", range(6))
async def test_random_telemetry_gives_the_same_answers(stores, seed) -> None:
    fleet = Fleet(seed)
    verdicts = []
    for step in range(60):
        requests = [fleet.request() for _ in range(fleet.chance.randint(1, 3))]
        incoming = [one for request in requests for one in request]
        answers = [await store.append(incoming) for store in stores]
        assert answers[0] == answers[1]
        verdicts += [stored.verdict for stored in answers[0]]
        if fleet.chance.random() < 0.1:
            await roll(fleet.chance.choice(stores))
        if step % 20 == 19:
            for selection in selections(fleet.chance):
                sqlite, postgresql = [await all_answers(store, selection) for store in stores]
                for question, answer in sqlite.items():
                    assert answer == postgresql[question], (question, selection)
    assert set(verdicts) == set(Verdict)
    whole = await all_answers(stores[0], Selection(0, 4e9))
    assert all(whole.values()), "a question that nothing answers proves nothing"


@pytest.mark.parametrize("seed", range(2))
async def test_sums_do_not_depend_on_when_they_are_added_up(stores, seed) -> None:
    fleet = Fleet(seed + 100)
    everything = Selection(0, 4e9)
    for _ in range(30):
        incoming = fleet.request()
        for store in stores:
            await store.append(incoming)
    before = [await all_answers(store, everything) for store in stores]
    for store, answers in zip(stores, before, strict=True):
        await roll(store)
        assert await all_answers(store, everything) == answers
    assert before[0] == before[1]


async def test_what_is_pruned_is_gone_and_totals_stay(stores) -> None:
    fleet = Fleet(7)
    for _ in range(60):
        incoming = fleet.request()
        for store in stores:
            await store.append(incoming)
    keep = BEGIN - BEGIN % 86400 + 1.25 * 86400
    totals = await stores[0].totals()
    for store in stores:
        await store.prune(keep, keep)
    for selection in selections(fleet.chance):
        sqlite, postgresql = [await all_answers(store, selection) for store in stores]
        assert sqlite == postgresql
    whole = await all_answers(stores[0], Selection(0, 4e9))
    assert whole["totals"] == totals
    assert whole["windows"]
    assert min(row.at for row in whole["windows"]) > keep
    assert min(row.hour for row in whole["hours"]) >= int(keep // 3600)
    again = fleet.sent[0]
    verdicts = [stored.verdict for store in stores for stored in await store.append(again)]
    assert Verdict.STORED not in verdicts
