"""A card writes sectors whole, not blocks: a power cut may tear the last block of a file system's journal."""

from __future__ import annotations

import random
import struct
from dataclasses import replace
from pathlib import Path

from edgeml_devices.emulator.machine.card import BLOCK_BYTES, SECTOR_BYTES, Card, raw_copy
from edgeml_devices.emulator.machine.launch import Setup, Snapshot
from edgeml_devices.emulator.machine.machine import Machine

JBD2_MAGIC = 0xC03B3998
COMMIT_BLOCK = 2


def tear_last_commit(card: Card) -> None:
    """Leave of the journal's last commit block its first sector."""
    commits = {}
    for place, block in card._durable.items():
        magic, kind, sequence = struct.unpack(">III", block[:12])
        if (magic, kind) == (JBD2_MAGIC, COMMIT_BLOCK):
            commits[sequence] = place
    place = commits[max(commits)]
    card._durable[place] = card._durable[place][:SECTOR_BYTES].ljust(BLOCK_BYTES, b"\x5a")


def test_a_board_boots_though_the_last_commit_of_its_journal_is_torn(
    setup: Setup, snapshot: Snapshot, tmp_path: Path
) -> None:
    raw_copy(snapshot.disk, tmp_path / "card.raw")
    with (
        Card(tmp_path / "card.raw", tmp_path / "card.sock") as card,
        Machine.start(replace(setup, card=card.address), snapshot=snapshot) as machine,
    ):
        machine.sh("for number in 1 2 3; do echo $number >/opt/synced; sync /opt/synced; done")
        machine.power_cut()
        card.power_cut("lose", random.Random(0))  # noqa: S311 - no secret
        tear_last_commit(card)
        machine.restart()
        assert machine.sh("cat /opt/synced").strip() == "3"
