"""The owner of telemetry is killed again and again, answers are lost, the server is away, tails are torn.

What the collector has at the end is what was recorded, each inference once.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeml.telemetry.posting import Poster
from edgeml.telemetry.report import Batch
from edgeml.telemetry.segments import frame_bytes
from edgeml.telemetry.sender import Outcome, Sender
from edgeml.telemetry.spool import open_spool
from tests.faults import telemetry_processes
from tests.faults.tiny_collector import TOKEN, Answer, Collector, CollectorServer

ROOT = Path(__file__).parents[2]
SEED = 20261126
WINDOW_S = 0.05


@pytest.fixture
def place() -> Iterator[Path]:
    memory = Path("/dev/shm")  # noqa: S108 - a folder of its own in it
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


def process(*arguments: object) -> Any:
    return subprocess.Popen(
        [sys.executable, "-m", telemetry_processes.__name__, *map(str, arguments)],
        stdout=subprocess.PIPE if arguments[0] == "device" else None,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


class Weather:
    """What happens to requests: answers that are lost, and times when the server is away."""

    def __init__(self, dice: random.Random) -> None:
        self._dice, self._away = dice, 0
        self.lost_answers = 0

    def before(self, _batch: Batch) -> Answer | None:
        if self._away == 0 and self._dice.random() < 0.05:
            self._away = 6
        self._away = max(0, self._away - 1)
        return (503, b"", {}) if self._away else None

    def after(self, _batch: Batch) -> bool:
        arrives = self._dice.random() > 0.15
        self.lost_answers += not arrives
        return arrives


def tear_tail(spool: Path, dice: random.Random) -> None:
    """Leave a frame that was begun, as a power cut does."""
    segments = sorted(spool.glob("*.seg"))
    if segments:
        frame = frame_bytes(10**6, zlib.compress(dice.randbytes(300)))
        with segments[-1].open("ab") as file:
            file.write(frame[: dice.randrange(1, len(frame) - 1)])


def run_chaos(place: Path, collector: Collector, kills: int) -> tuple[int, int]:
    """Give how many inferences were recorded, and how many answers were lost."""
    dice = random.Random(SEED)  # noqa: S311
    weather = Weather(dice)
    home, rings = place / "home", place / "rings"
    with CollectorServer(collector) as server:
        counted = [place / f"counted {number}" for number in range(2)]
        recorders = [process("recorder", rings, path, 0.005) for path in counted]
        collector.before, collector.after = weather.before, weather.after
        killed = 0
        while killed < kills or (weather.lost_answers == 0 and killed < 10 * kills):
            killed += 1
            device = process("device", home, rings, server.url, WINDOW_S)
            device.stdout.read(1)  # it begins
            with pytest.raises(subprocess.TimeoutExpired):
                device.wait(dice.uniform(0.0, 0.6))
            device.kill()
            assert device.wait() == -signal.SIGKILL
            device.stdout.close()
            if dice.random() < 0.2:
                tear_tail(home / "spool", dice)
        for one in recorders:
            one.terminate()
        assert [one.wait() for one in recorders] == [0, 0]
        collector.before, collector.after = lambda _batch: None, lambda _batch: True
        device = process("device", home, rings, server.url, WINDOW_S)
        device.stdout.read(1)
        with pytest.raises(subprocess.TimeoutExpired):
            device.wait(1.0)
        device.terminate()
        assert device.wait() == 0
        device.stdout.close()
        poster = Poster(server.url, TOKEN)
        with open_spool(home / "spool") as spool:  # type: ignore[union-attr]
            sender = Sender(spool, poster)
            while sender.send() is Outcome.SENT:
                pass
            assert spool.waiting == 0
        poster.close()
        return sum(int(path.read_text()) for path in counted), weather.lost_answers


@pytest.mark.parametrize("kills", [pytest.param(500, marks=pytest.mark.soak), 12])
def test_each_inference_arrives_once_whatever_is_killed(place: Path, kills: int) -> None:
    collector = Collector()
    recorded, lost_answers = run_chaos(place, collector, kills)
    lost = [report.lost for _, report in collector.stored]
    overwritten = sum(one.overwritten for one in lost)
    assert sum(one.evicted + one.damaged for one in lost) == 0
    assert collector.calls() + overwritten == recorded > 0
    assert len(collector.streams) == 1
    (epoch,) = collector.streams
    assert set(collector.numbers(epoch).values()) == {1}
    print(
        f"{kills} kills, {lost_answers} answers lost, {len(collector.stored)} reports, {recorded} inferences"
    )


def test_without_the_key_the_same_chaos_stores_inferences_twice(place: Path) -> None:
    collector = Collector(has_key=False)
    recorded, lost_answers = run_chaos(place, collector, kills=12)
    assert lost_answers > 0
    assert collector.calls() > recorded
