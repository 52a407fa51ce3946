"""Power cuts on a board, its card's write cache included: always a verified release, without a hand on it."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from edgeml_devices.emulator.machine.card import Card, raw_copy
from edgeml_devices.emulator.machine.launch import Setup, Snapshot
from edgeml_devices.emulator.machine.machine import Machine

from tests.integration.emulator.fleets import Fleet
from tests.integration.emulator.power_cuts import NAME, CutBoard
from tests.integration.publish.workshop import Workshop
from tests.integration.server_process import ServerProcess

CUTS = int(os.environ.get("EDGEML_TEST_POWER_CUTS", "200"))
SEED = int(os.environ.get("EDGEML_TEST_SEED", "20261126"))


@pytest.fixture
def board(setup: Setup, snapshot: Snapshot, tmp_path: Path) -> Iterator[CutBoard]:
    raw_copy(snapshot.disk, tmp_path / "card.raw")
    with (
        ServerProcess(tmp_path / "server") as server,
        Card(tmp_path / "card.raw", tmp_path / "card.sock") as card,
        Machine.start(replace(setup, card=card.address), snapshot=snapshot) as machine,
    ):
        shop = Workshop(tmp_path / "workshop", server.url, server.admin_token, "digits")
        shop.do("repo", "init")
        fleet = Fleet(server, shop, {})
        fleet.join(NAME, machine)
        board = CutBoard(machine, card, fleet, random.Random(SEED), tmp_path)  # noqa: S311 - no secret
        board.prepare()
        yield board


@pytest.mark.soak
def test_a_verified_release_runs_after_each_power_cut(board: CutBoard) -> None:
    while board.cuts < CUTS:
        board.cut()
