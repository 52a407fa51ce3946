"""Disks that take nothing, or not everything: what fits in memory waits there, the rest is counted."""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from edgeml.telemetry.encoding import report_from_json
from edgeml.telemetry.merging import add_lost
from edgeml.telemetry.report import Report
from edgeml.telemetry.spool import Spool, open_spool
from tests.unit.core.telemetry.reports import window


def opened(folder: Path) -> Spool:
    spool = open_spool(folder)
    assert spool is not None
    return spool


def digit(number: int) -> Report:
    """Give a window that is a digit of a sum in base 4."""
    made = window(number)
    return replace(made, models=(replace(made.models[0], calls=4**number),))


def reports(spool: Spool) -> list[Report]:
    return [report_from_json(one.text) for one in spool._next(10**9, 10**9)]


def calls(spool: Spool) -> int:
    return sum(model.calls for one in reports(spool) for model in one.models)


def limited(work: Callable[[], None], size_bytes: int) -> None:
    """Work in a child whose files may be so large; the child's asserts are the test's."""
    pid = os.fork()
    if pid == 0:
        code = 1
        with suppress(BaseException):
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(
                resource.RLIMIT_FSIZE, (size_bytes, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
            )
            work()
            code = 0
        os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0


def unlimited() -> None:
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def test_windows_wait_in_memory_until_the_disk_takes_them(tmp_path: Path) -> None:
    def work() -> None:
        spool = opened(tmp_path / "spool")
        for number in range(20):
            spool.append(digit(number), {"ring": number})
        assert spool.held > 0
        assert spool.state.positions == {"ring": 19 - spool.held}  # as much as would be read again
        unlimited()
        spool.append(digit(20), {"ring": 20})
        assert spool.held == 0
        spool.close()

    limited(work, 4096)
    with opened(tmp_path / "spool") as spool:
        assert calls(spool) == sum(4**number for number in range(21))
        assert [one.seq for one in reports(spool)] == list(range(21))
        assert add_lost(one.lost for one in reports(spool)).evicted == 0


def test_what_does_not_fit_in_memory_is_merged_and_then_counted(tmp_path: Path) -> None:
    def work() -> None:
        spool = opened(tmp_path / "spool")
        for number in range(300):
            boots = "a" if number < 150 else f"boot {number}"  # of one boot, then never again
            spool.append(replace(digit(number), boot_id=boots), {"ring": number})
        unlimited()
        spool.append(digit(300), {"ring": 300})
        assert spool.held == 0
        spool.close()

    limited(work, 4096)
    with opened(tmp_path / "spool") as spool:
        found, total = reports(spool), calls(spool)
        present = {number for number in range(301) if total // 4**number % 4 == 1}
        assert total == sum(4**number for number in present)
        assert add_lost(one.lost for one in found).evicted == 301 - len(present) > 0
        assert spool.last_seq == found[-1].seq


def test_a_process_that_is_killed_on_a_full_disk_reads_again_what_was_not_kept(tmp_path: Path) -> None:
    def work() -> None:
        spool = opened(tmp_path / "spool")
        for number in range(20):
            spool.append(digit(number), {"ring": number})
        os._exit(0)  # as a kill: nothing is written any more

    limited(work, 4096)
    with opened(tmp_path / "spool") as spool:
        kept = len(reports(spool))
        assert 0 < kept < 20
        assert spool.state.positions == {"ring": kept - 1}


def test_nothing_is_sent_that_could_not_be_marked_as_sent(tmp_path: Path) -> None:
    def work() -> None:
        spool = opened(tmp_path / "spool")
        spool.append(digit(0), {})
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
            spool.batch()
        unlimited()
        assert len(spool.batch()) == 1

    limited(work, 2**20)


def test_on_a_full_disk_what_the_server_has_makes_room(tmp_path: Path) -> None:
    spool = open_spool(tmp_path / "spool", budget_bytes=64 * 1024)
    assert spool is not None
    for number in range(60):
        spool.append(digit(number), {})
    spool.batch(most=1000)
    state = tmp_path / "spool" / "state.json"
    before = state.read_bytes()

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        with suppress(OSError):
            spool.acknowledge(50)
        os._exit(0)

    limited(work, 2**20)
    assert state.read_bytes() == before
    sizes = [path.stat().st_size for path in sorted((tmp_path / "spool").glob("*.seg"))]
    assert sizes.count(0) >= 2
    spool.close()
    with open_spool(tmp_path / "spool", budget_bytes=64 * 1024) as again:  # type: ignore[union-attr]
        assert [one.seq for one in reports(again)][-9:] == list(range(51, 60))
        assert again.state.lost.damaged == 0


def test_a_folder_that_cannot_be_made_is_an_error_of_the_system(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        open_spool(tmp_path / "file" / "spool")
