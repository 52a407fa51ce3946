"""The owner of a spool dies before and after every call that changes a file, as a process and with its power.

Each window is a digit of a number in base 4, which is summed over all reports: a window that is lost is a 0,
one that is counted twice a 2, wherever merging has put it.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pytest

from edgeml.telemetry.encoding import report_from_json
from edgeml.telemetry.merging import add_lost
from edgeml.telemetry.report import Lost, Report
from edgeml.telemetry.spool import Spool, open_spool
from tests.faults.power_cut_disk import Disk
from tests.unit.core.telemetry.reports import window

BUDGET_BYTES = 48 * 1024


def digit(number: int, boot_id: str = "boot") -> Report:
    made = window(number, boot_id=boot_id)
    return replace(made, models=(replace(made.models[0], calls=4**number),))


def opened(folder: Path) -> Spool:
    spool = open_spool(folder, budget_bytes=BUDGET_BYTES)
    assert spool is not None
    return spool


@dataclass(frozen=True)
class Work:
    """What a spool has when a process opens it, and what that process does until it is killed."""

    before: Callable[[Spool], None]
    steps: tuple[Callable[[Spool], None], ...]
    appended: int
    """By ``before``."""


@dataclass(frozen=True)
class Append:
    """Appends a window."""

    number: int
    boot_id: str = "boot"

    def __call__(self, spool: Spool) -> None:
        spool.append(digit(self.number, self.boot_id), {"ring": self.number})


def filled(*numbers: int, reboots: bool = False) -> Callable[[Spool], None]:
    def fill(spool: Spool) -> None:
        for number in numbers:
            Append(number, f"boot {number}" if reboots else "boot")(spool)

    return fill


def full(reboots: bool) -> int:
    """Give how many windows fit before one more makes the spool merge or give up."""
    with tempfile.TemporaryDirectory() as folder:
        spool = opened(Path(folder) / "spool")
        count = 0
        while True:
            Append(count, f"boot {count}" if reboots else "boot")(spool)
            if any(one.span_s for one in spool._files.segments) or spool.state.total_lost != Lost():
                spool.close()
                return count - 2  # a body's length differs by a few bytes
            count += 1


def sent(spool: Spool) -> None:
    spool.batch(most=40)


def acknowledged(spool: Spool) -> None:
    spool.acknowledge(30)
    spool.batch(most=1)


def works() -> dict[str, Work]:
    merging, evicting = full(reboots=False), full(reboots=True)
    return {
        "append": Work(filled(), tuple(Append(number) for number in range(12)), 0),
        "merge": Work(
            filled(*range(merging)), tuple(Append(merging + number) for number in range(4)), merging
        ),
        "evict": Work(
            filled(*range(evicting), reboots=True),
            tuple(Append(evicting + number, f"boot {number}") for number in range(4)),
            evicting,
        ),
        "acknowledge": Work(filled(*range(40)), (sent, acknowledged, Append(40), sent), 40),
        "refuse": Work(filled(*range(12)), (lambda spool: spool.refuse(3), Append(12)), 12),
        "epoch": Work(filled(*range(30)), (Spool.begin_epoch, Append(30)), 30),
    }


WORKS = works()


@pytest.fixture
def disk() -> Iterator[Path]:
    memory = Path("/dev/shm")  # noqa: S108 - a folder of its own in it
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


def killed_at(work: Work, folder: Path, call: int, *, after: bool, cut: bool) -> tuple[int, bool]:
    """Give how many steps were done, and whether the process lived to the end."""
    done, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        with suppress(BaseException):
            os.close(done)
            disk = Disk(folder, call, after=after, cut=cut)
            disk.install()
            disk.armed = True
            spool = opened(folder / "spool")
            for step in work.steps:
                step(spool)
                disk._real["write"](told, b".")
            spool.close()
            os._exit(0)
        os._exit(1)
    os.close(told)
    with os.fdopen(done, "rb") as pipe:
        steps = len(pipe.read())
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return steps, False
    assert os.WEXITSTATUS(status) == 0, "the child failed"
    return steps, True


def digits(total: int) -> list[int]:
    found = []
    while total:
        total, last = divmod(total, 4)
        found.append(last)
    return found


@pytest.mark.parametrize("cut", [False, True], ids=["kill", "power-cut"])
@pytest.mark.parametrize("name", WORKS)
@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.soak), 7])
def test_nothing_is_lost_uncounted_or_doubled_whatever_call_the_process_dies_at(
    disk: Path, name: str, cut: bool, every: int
) -> None:
    work = WORKS[name]
    with opened(disk / "before") as spool:
        work.before(spool)
    call, kills = 0, 0
    while True:
        ended = []
        for after in (False, True):
            place = disk / f"{call}-{after}"
            place.mkdir()
            shutil.copytree(disk / "before", place / "spool")
            steps, has_ended = killed_at(work, place, call, after=after, cut=cut)
            ended.append(has_ended)
            kills += not has_ended
            check(work, place / "spool", steps)
            shutil.rmtree(place)
        if all(ended):
            break
        call += every
    assert kills > 5


def check(work: Work, folder: Path, steps: int) -> None:
    appended = work.appended + sum(isinstance(step, Append) for step in work.steps[:steps])
    with opened(folder) as spool:
        found = [report_from_json(one.text) for one in spool._next(10**9, 10**9)]
        lost = add_lost([spool.state.lost, *(one.lost for one in found)])
        counts = digits(sum(model.calls for one in found for model in one.models))
        assert set(counts) <= {0, 1}
        assert appended <= len(counts) <= appended + 1
        assert counts.count(0) == lost.evicted + spool.state.acked_through + 1
        assert (lost.damaged, lost.overwritten) == (0, 0)
        assert all(other.begins > one.seq for one, other in pairwise(found))
        if found:
            assert spool.state.positions == {"ring": len(counts) - 1}
            assert (spool.last_seq, spool.state.link) == (found[-1].seq, found[-1].link)
