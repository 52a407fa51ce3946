"""What hears the beats of applications."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgeml import health
from edgeml.health import HealthBeat, beat_from_bytes
from tests.waiting import eventually


class Agent:
    """What listens to beats on a device."""

    def __init__(self, home: Path) -> None:
        self.receiver = health.listen(home)
        self.beats: list[HealthBeat] = []

    def hear(self) -> list[HealthBeat]:
        """Give all beats that came so far."""
        try:
            while True:
                self.beats.append(beat_from_bytes(self.receiver.recv(65536)))
        except BlockingIOError:
            return self.beats

    def hears(self, wanted: Callable[[HealthBeat], bool]) -> HealthBeat:
        """Wait for a beat."""
        eventually(lambda: any(map(wanted, self.hear())))
        return next(filter(wanted, self.beats))

    def last(self) -> dict[tuple[str, int], HealthBeat]:
        """Give the last beat of each release in each process."""
        return {(beat.process, beat.release): beat for beat in self.hear() if beat.state != "load_failed"}
