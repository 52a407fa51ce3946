"""Makes the rows of several runtimes at once, a process for each runtime.

A process rather than a thread: quantizers hold Python's lock most of the time. A fresh one rather than a
fork: engines keep threads of their own, which a fork loses. It is given the source and the data as this
process has them, and hands its rows back in a file; each evaluates on one thread, so as many run as there are
cores. What several runtimes' plans begin with is done once, before.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Final, cast

from edgeml.atomic import replacing_file
from edgeml.converter import QuantizerSettings
from edgeml.errors import EdgemlError
from edgeml.findings import Finding
from edgeml.signals import unwinding
from edgeml_converters.graph import Plan
from edgeml_converters.search.making import in_turn
from edgeml_converters.search.trials import Budget
from edgeml_converters.sensitivity.noise import Sensitivity
from edgeml_converters.variants.make import Maker
from edgeml_converters.variants.prepare import planned
from edgeml_converters.variants.rows import INTERRUPTED, Made, Row, Status
from edgeml_converters.variants.trimmed import all_plans

HANDED_OVER_S: Final = 20.0
"""Time that processes which were told to stop have to hand over what they made."""


@dataclass(frozen=True, slots=True)
class Share:
    """What one process makes."""

    rows: tuple[Row, ...]
    maker: Maker
    budget: Budget
    result: Path
    """Where it hands over what it made."""


@dataclass(frozen=True, slots=True)
class Handed:
    """What one process made."""

    made: Made
    tried: Sequence[Row]
    rankings: Mapping[str, tuple[Sensitivity, ...]]
    findings: Sequence[Finding]


@dataclass(slots=True)
class Crew:
    """The processes at work."""

    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    stopped: bool = False
    killed: bool = False

    def work(self, share: Share, tell: Callable[[str], None]) -> Handed | str:
        """Run one process to its end; gives what it made, or why it ended without.

        Raises:
            EdgemlError: as ``in_turn`` raises it.
        """
        with _started(share) as process:
            self.processes.append(process)
            if self.killed:  # while it was started
                self.kill()
            elif self.stopped:
                process.send_signal(signal.SIGINT)
            for line in process.stdout or ():
                tell(line.decode().rstrip("\n"))
        if not share.result.exists():
            ended = f"its process ended with code {process.returncode}: {_last_line(share)}"
            return INTERRUPTED if self.stopped else ended
        with share.result.open("rb") as file:
            handed: Handed | EdgemlError = pickle.load(file)  # noqa: S301 - of the process that was started
        if isinstance(handed, EdgemlError):
            raise handed
        return handed

    def stop(self) -> None:
        """Tell every process to hand over what it has."""
        self.stopped = True
        for process in self.processes:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """End every process that is still there or comes, with what it started."""
        self.killed = True
        for process in self.processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def at_once(rows: Sequence[Row], plans: Mapping[str, Plan], maker: Maker, budget: Budget, jobs: int) -> Made:
    """Make each row that was planned, of up to ``jobs`` runtimes at once.

    Raises:
        KeyboardInterrupt: it was interrupted, and nothing usable was made.
    """
    wanted = [row for row in rows if row.status == "ok"]
    runtimes = list(dict.fromkeys(row.runtime for row in wanted))
    if jobs < 2 or len(runtimes) < 2:  # noqa: PLR2004
        return in_turn(rows, plans, maker, budget)
    _make_shared([plans[row.name] for row in wanted], maker)
    shares = [
        _share(name, [row for row in wanted if row.runtime == name], maker, budget) for name in runtimes
    ]
    crew = Crew()
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(crew.work, share, maker.executor.progress) for share in shares]
        try:
            results = [future.result() for future in futures]
        except KeyboardInterrupt:
            for future in futures:
                future.cancel()
            crew.stop()
            results = _handed_over(futures, crew)
        except BaseException:
            crew.kill()
            raise
    made = _joined(rows, runtimes, results, maker)
    if crew.stopped:  # also where all was handed over before a process heard of it
        made = replace(made, interrupted=True)
    if made.interrupted and all(row.status != "ok" for row in made.rows):
        raise KeyboardInterrupt
    return made


def _make_shared(plans: Sequence[Plan], maker: Maker) -> None:
    """Do what the plans of several rows begin with; what fails is told by the rows themselves."""
    for plan in plans:
        for length in range(len(plan.steps), 0, -1):
            begin = plan.steps[:length]
            if sum(one.steps[:length] == begin for one in plans) > 1 and begin[-1].target.scheme == "float32":
                with suppress(EdgemlError):
                    maker.executor.make(begin, QuantizerSettings(), None)
                break


def _share(runtime: str, rows: Sequence[Row], maker: Maker, budget: Budget) -> Share:
    scratch = maker.executor.scratch / f"of-{runtime}"
    scratch.mkdir()
    return Share(tuple(rows), maker.for_process(scratch), budget, scratch / "handed.pickle")


@contextmanager
def _started(share: Share) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process and hand it its share; its input stays open as long as this process lives."""
    argv = [sys.executable, "-P", "-m", "edgeml_converters.search.crew"]
    pipe = subprocess.PIPE
    with (
        _chatter(share).open("wb") as chatter,
        subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=chatter, start_new_session=True) as process,
    ):
        given = cast("BinaryIO", process.stdin)
        with suppress(BrokenPipeError):  # it died early, which its exit code tells
            pickle.dump(sys.path, given)
            pickle.dump(share, given)
            given.flush()
        try:
            yield process
        finally:
            with suppress(BrokenPipeError):
                given.close()


def _chatter(share: Share) -> Path:
    """Name the file of what engines and a crash print."""
    return share.result.with_suffix(".stderr")


def _last_line(share: Share) -> str:
    lines = _chatter(share).read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it printed nothing"


def _handed_over(futures: Sequence[Future[Handed | str]], crew: Crew) -> list[Handed | str]:
    """Wait for what processes that were told to stop hand over; a second interrupt ends them."""
    try:
        wait(futures, HANDED_OVER_S)
    finally:
        crew.kill()
    return [INTERRUPTED if one.cancelled() else one.result() for one in futures]


def _joined(
    rows: Sequence[Row], runtimes: Sequence[str], results: Sequence[Handed | str], maker: Maker
) -> Made:
    """Put together what the processes made, in the order in which it was asked for."""
    found: dict[str, Row] = {}
    interrupted = False
    for runtime, result in zip(runtimes, results, strict=True):
        if isinstance(result, str):
            interrupted = interrupted or result == INTERRUPTED
            status: Status = "unavailable" if result == INTERRUPTED else "failed"
            lost = (one for one in rows if one.runtime == runtime and one.status == "ok")
            found |= {one.name: one.without(status, result) for one in lost}
            continue
        interrupted = interrupted or result.made.interrupted
        found |= {row.name: row for row in result.made.rows}
        maker.tried += result.tried
        maker.rankings |= result.rankings
        maker.executor.findings += [one for one in result.findings if one not in maker.executor.findings]
    asked = [found.pop(row.name, row) if row.status == "ok" else row for row in rows]
    return Made((*asked, *found.values()), interrupted)


def main() -> None:
    """Make a share that is read from the input, and hand it over."""
    sys.path[:] = pickle.load(sys.stdin.buffer)  # noqa: S301 - written by the process that started this one
    share: Share = pickle.load(sys.stdin.buffer)  # noqa: S301
    threading.Thread(target=_end_with_parent, daemon=True).start()
    told = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # engines that print do not print into what is told

    def tell(doing: str) -> None:
        print(doing, file=told)

    maker = share.maker.here(tell)
    plans = all_plans(*planned(maker.request, maker.executor.source.state))
    handed: Handed | EdgemlError
    try:
        counted = f"{share.rows[0].runtime} variant"  # other processes count theirs
        made = in_turn(share.rows, plans, maker, share.budget, counted=counted)
        handed = Handed(made, maker.tried, maker.rankings, maker.executor.findings)
    except EdgemlError as error:
        handed = error
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # what was made is handed over
    with replacing_file(share.result) as scratch, scratch.open("wb") as file:
        pickle.dump(handed, file)


def _end_with_parent() -> None:
    """End when the process that started this one is gone, however it went.

    Without the buffer of ``sys.stdin``: Python aborts if a thread holds its lock when the process ends.
    """
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    from edgeml_converters.search.crew import main  # under its name, by which what it hands over is read

    with unwinding():
        main()
