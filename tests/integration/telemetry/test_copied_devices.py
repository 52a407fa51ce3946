"""Cards that are copied with windows in flight, and cards restored from a back-up, against a real server."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edgeml.telemetry.posting import Poster
from edgeml.telemetry.sender import Outcome, Sender
from edgeml.telemetry.spool import Spool, open_spool
from tests.integration.server_process import ServerProcess
from tests.integration.telemetry.senders import enrolled
from tests.unit.core.telemetry.reports import window

BEGIN = time.time() - 20 * 3600
CALLS = 60
"""Of a window."""


@pytest.fixture
def poster(server: ServerProcess) -> Iterator[Poster]:
    poster = Poster(server.url, enrolled(server, "hall-2"))
    yield poster
    poster.close()


def opened(card: Path) -> Spool:
    spool = open_spool(card)
    assert spool is not None
    return spool


def live(card: Path, poster: Poster, numbers: range, *, is_away: bool = False) -> str:
    """Make windows, sending each unless the server is away; give the epoch."""
    with opened(card) as spool:
        sender = Sender(spool, poster, boot="boot")
        for number in numbers:
            one = replace(window(number), clock="synced", at=BEGIN + 60 * number)
            spool.append(one, {})
            while not is_away and (outcome := sender.send()) is not Outcome.IDLE:
                assert outcome is Outcome.SENT
        return spool.state.epoch


def stored(server: ServerProcess) -> float:
    """Give how many windows' calls are stored."""
    begin = BEGIN - 600
    status, answer = server.call("GET", f"/v1/telemetry/rate?model=kws&since={begin}&until={begin + 90_000}")
    assert status == 200, answer
    return sum(one["calls"] for one in answer["answers"]) / CALLS


def test_two_copies_that_go_on_count_what_both_have_once(
    server: ServerProcess, poster: Poster, tmp_path: Path
) -> None:
    card, copy = tmp_path / "card", tmp_path / "copy"
    live(card, poster, range(10))
    live(card, poster, range(10, 15), is_away=True)
    shutil.copytree(card, copy)
    epoch = live(card, poster, range(15, 60))
    assert live(copy, poster, range(100, 103)) != epoch
    assert live(card, poster, range(60, 63)) == epoch
    live(copy, poster, range(103, 105))
    assert stored(server) == 63 + 5


def test_a_card_restored_from_a_backup_has_nothing_counted_twice(
    server: ServerProcess, poster: Poster, tmp_path: Path
) -> None:
    card, backup = tmp_path / "card", tmp_path / "backup"
    live(card, poster, range(10))
    live(card, poster, range(10, 40), is_away=True)
    shutil.copytree(card, backup)
    live(card, poster, range(40, 90))
    shutil.rmtree(card)
    shutil.copytree(backup, card)
    live(card, poster, range(90, 95))
    assert stored(server) == 95


def test_a_resumed_copy_counts_though_its_windows_look_like_those_of_the_first(
    server: ServerProcess, poster: Poster, tmp_path: Path
) -> None:
    """A machine resumed from a snapshot: the same boot, windows of the same end, length and calls."""
    card, copy = tmp_path / "card", tmp_path / "copy"
    epoch = live(card, poster, range(10))
    shutil.copytree(card, copy)
    live(card, poster, range(10, 50))
    assert live(copy, poster, range(10, 13)) != epoch
    assert stored(server) == 50 + 3
