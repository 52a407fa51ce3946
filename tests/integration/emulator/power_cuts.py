"""A board whose power is cut at random instants, with a card that loses what was not flushed."""

from __future__ import annotations

import hashlib
import json
import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from edgeml_devices.emulator.machine.card import Card, Fate
from edgeml_devices.emulator.machine.machine import Machine

from edgeml.bundle import open_bundle
from edgeml.bundle_place import MANIFEST
from edgeml.installed import needed_files
from tests.integration.emulator.fleets import HOME, VARIANT, Fleet, release
from tests.waiting import eventually

MODEL = f"{HOME}/models/digits"
NAME = "hall-1"
GOOD = (1, 2)
REFUSED = 3
"""Gives other outputs than it promises: is installed and tested, and never switched to."""
ROLLED_BACK = 4
"""Is switched to, and rolled back: no application says that it is alive."""
FATES: tuple[Fate, ...] = ("keep", "lose", "some")
SETTLED_WITHIN_S = 300
ENDED = "ended"
MOST_IN_A_ROW = 6
"""Cuts in one installation."""
CLOCKS = ("seconds", "writes", "flushes")
"""An instant is one of these: what a device installs takes long, and is written in few of those seconds."""
LEAST_LEFT = 0.5
"""Of an installation, once it was cut: what was lost is done again."""
SLOWER_AFTER_BOOT = 2.0
"""An installation that goes on, the start of its agent included, than one without a cut."""
HEALTH = {"probation_s": 2.0, "max_starts": MOST_IN_A_ROW + 1}
_HASHES = f"cd {MODEL} && readlink current && cd current/ && find . -type f -exec sha256sum {{}} +"
_FILES = f"cd {HOME} && find . -not -path './logs/*' -not -name '.*.new' | sort"
"""Scratch files aside: the next write of the same file clears the one that a cut left."""


@dataclass
class CutBoard:
    """The board, what it may hold, and how each cut ended."""

    machine: Machine
    card: Card
    fleet: Fleet
    chance: random.Random
    folder: Path
    good: int = 0
    """The release that is to be found again whatever fails."""
    took: dict[int, tuple[float, ...]] = field(default_factory=dict)
    """Of each release: what the clocks count from an order to its end without a cut."""
    shapes: set[str] = field(default_factory=set)
    """Of the paths that are there when nothing was cut, without their numbers."""
    cut_in: list[tuple[str, int, Fate, int]] = field(default_factory=list)
    """Of each cut: the state it fell into, the release on its way, the card's fate, the blocks lost."""

    @property
    def cuts(self) -> int:
        """Give how many fell into an installation that had not ended by what was on the card."""
        return sum(state != ENDED for state, *_ in self.cut_in)

    def prepare(self) -> None:
        """Publish the releases, and see once what each does without a cut."""
        self._expected = {}
        for number, bundle in (
            (1, release(self.folder, 1, **HEALTH)),
            (2, release(self.folder, 2, **HEALTH)),
            (REFUSED, release(self.folder, REFUSED, wrong=True, **HEALTH)),
            (ROLLED_BACK, release(self.folder, ROLLED_BACK, heartbeat="required", **HEALTH)),
        ):
            self.fleet.shop.do("publish", bundle)
            self._expected[number] = _hashes(bundle)
        for number in (1, 2, REFUSED, ROLLED_BACK, 1):
            self.order(number)
            self.settle(number)
            self.shapes |= _shapes(self.machine.sh(_FILES))

    def order(self, number: int) -> None:
        """Tell the device to run a release."""
        self._ordered_at = self._clocks()
        self._entry = self.record()["entry"]
        body = {"release": number, "hold": False}
        status, answer = self.fleet.server.call("PUT", f"/v1/devices/{NAME}/models/digits", body)
        assert status in {200, 204}, answer

    def settle(self, number: int) -> None:
        """Wait until nothing is on its way, and hold what runs to what may."""
        wanted = number if number in GOOD else self.good
        what = f"release {number} to end: {self.cut_in[-1:]}"
        eventually(lambda: self._has_ended(number, self.record()), what, SETTLED_WITHIN_S, every_s=0.5)
        # before, another order of this release would be the same attempt
        eventually(self._is_reported, f"{what}, and be reported", SETTLED_WITHIN_S, every_s=0.5)
        if not self.cut_in:
            self.took[number] = tuple(
                now - then for now, then in zip(self._clocks(), self._ordered_at, strict=True)
            )
        self.good = wanted
        assert self.runs_a_verified_release() == wanted

    def cut(self) -> None:
        """Order another release, cut the power at an instant, boot, perhaps cut it again; let it end then."""
        number = self.chance.choice([*(one for one in GOOD if one != self.good), REFUSED, ROLLED_BACK])
        self.order(number)
        for _ in range(self.chance.randint(1, MOST_IN_A_ROW)):
            self._wait_for_an_instant(number)
            fate = self.chance.choice(FATES)
            self.machine.power_cut()
            lost = self.card.power_cut(fate, self.chance)
            self.machine.restart()
            record = self.record()
            state = ENDED if self._has_ended(number, record) else str(record["state"])
            self.cut_in.append((state, number, fate, lost))
            print(*self.cut_in[-1], flush=True)
            assert self.runs_a_verified_release() in {self.good, number} - {REFUSED}, self.cut_in[-1]
            if state == ENDED:
                break
        self.settle(number)
        assert _shapes(self.machine.sh(_FILES)) <= self.shapes, self.cut_in[-1]

    def _wait_for_an_instant(self, number: int) -> None:
        """Let one of the clocks go on for a random part of what it does without a cut, or of what is left."""
        which = self.chance.randrange(len(CLOCKS))
        begun, took = self._clocks(), self.took[number]
        left = took[which] - (begun[which] - self._ordered_at[which])
        goes_on = max(left, LEAST_LEFT * took[which]) * self.chance.random()
        last = begun[0] + SLOWER_AFTER_BOOT * took[0]
        while (now := self._clocks())[which] < begun[which] + goes_on and now[0] < last:
            time.sleep(0.001)

    def _clocks(self) -> tuple[float, ...]:
        return time.monotonic(), self.card.writes, self.card.flushes

    def _has_ended(self, number: int, record: Mapping[str, Any]) -> bool:
        return record["entry"] > self._entry and (record["state"], record["target"]) == ("IDLE", number)

    def _is_reported(self) -> bool:
        """Say whether the server knows how the last order ended."""
        status, answer = self.fleet.server.call("GET", f"/v1/devices/{NAME}")
        assert status == 200, answer
        ordered, told = (answer["models"]["digits"][part] for part in ("assigned", "status"))
        ended = told["state"] == "IDLE" and told["result"] is not None
        return ended and (told["target"], told["attempt"]) == (ordered["release"], ordered["attempt"])

    def record(self) -> Mapping[str, Any]:
        """Give what the model's state file says."""
        said = self.machine.sh(f"cat {MODEL}/state.json 2>/dev/null || echo '{{}}'")
        return {"state": "", "target": None, "entry": 0} | json.loads(said)

    def runs_a_verified_release(self) -> int:
        """Give the release that ``current`` leads to, once each of its files is as it was signed."""
        link, *lines = self.machine.sh(_HASHES).splitlines()
        number = int(link.removeprefix("releases/"))
        found = {
            path.removeprefix("./"): sha256 for sha256, path in (line.split(maxsplit=1) for line in lines)
        }
        assert self._expected[number].items() <= found.items(), f"release {number} is damaged"
        return number


def _hashes(bundle: Path) -> dict[str, str]:
    with ZipFile(bundle) as opened:
        manifest = hashlib.sha256(opened.read(MANIFEST)).hexdigest()
    needed = needed_files(open_bundle(bundle).manifest, (VARIANT,))
    return {entry.path: entry.sha256 for entry in needed} | {MANIFEST: manifest}


def _shapes(files: str) -> set[str]:
    """Give paths with N for every number, hash and epoch."""
    return {re.sub(r"[0-9a-f-]{16,}|\d+", "N", line) for line in files.splitlines()}
