"""A device's telemetry: windows as they are due, in the real encoding, each until it is acknowledged.

It follows :mod:`edgeml.telemetry.sender` and the spool, without a disk: windows are numbered and linked, what
was not answered is sent again as it was, and a fork (409) begins a new epoch with what is not acknowledged.
"""

from __future__ import annotations

import json
import math
import random
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any, Final

from edgeml.errors import MessageError
from edgeml.telemetry.encoding import Encoded, acknowledged_from_json, batch_to_bytes, report_to_json
from edgeml.telemetry.exponential import ExponentialHistogram, histogram_of
from edgeml.telemetry.report import MOST_REPORTS, Batch, ModelWindow, Report
from edgeml_devices.simulator.connection import Reply
from edgeml_devices.simulator.plan import PlannedDevice, Window, draw, window, windows_until
from edgeml_devices.simulator.scenario import Telemetry

PATH: Final = "/v1/reports"
_BOOTED_S: Final = 100.0
"""How long a device had been up when the run began."""
_MEDIAN_S: Final = 0.02
"""Of an inference; half of them take less."""
_SIGMA: Final = 0.25
_OK: Final = 200
_FORK: Final = 409
_STATES: Final = 64
"""Different histograms that windows of the same number of calls have: they cost more than all the rest."""


@dataclass(slots=True)
class Made:
    """A window that a device has to send; a copy of the device has the same one."""

    holds: Window
    release: int
    report: Report
    missing: int = 0
    """Windows that were lost just before it."""
    sent: bool = False
    stored: bool = False


@dataclass(slots=True)
class Tally:
    """What became of one device's windows, its copy's included, each counted once."""

    windows: int = 0
    calls: dict[int, int] = field(default_factory=dict)
    """By release."""
    errors: dict[int, int] = field(default_factory=dict)
    missing: int = 0
    """Windows whose numbers were passed over."""
    epochs: int = 1
    again: int = 0
    """Windows that were sent more than once."""

    def add(self, made: Made) -> None:
        """Count a window."""
        self.windows += 1
        self.missing += made.missing
        self.calls[made.release] = self.calls.get(made.release, 0) + made.holds.calls
        self.errors[made.release] = self.errors.get(made.release, 0) + made.holds.errors


class Stream:
    """One device's windows, or those of a copy of it."""

    __slots__ = (
        "_boot",
        "_copy",
        "_device",
        "_epochs",
        "_link",
        "_missing",
        "_most",
        "_next",
        "_number",
        "_run",
        "_telemetry",
        "epoch",
        "stored",
        "waiting",
    )

    def __init__(
        self, device: PlannedDevice, telemetry: Telemetry, run: str, stored: Tally, copy: int = 0
    ) -> None:
        """Begin with no window.

        Args:
            device: whose.
            telemetry: what it measures.
            run: name of this run; tells its streams from those of others with the same seed.
            stored: where windows are counted that the server has.
            copy: 0: the device itself.
        """
        self._device, self._telemetry, self._run, self._copy = device, telemetry, run, copy
        self.stored = stored
        self._boot = self._hex("boot", 32)
        self._epochs = self._number = self._next = self._missing = 0
        self._link, self._most = "", MOST_REPORTS
        self.epoch = self._hex("epoch", 32)
        self.waiting: deque[Made] = deque()

    def copied(self) -> Stream:
        """Give what a copy of the disk would be: the same epoch, numbers and windows that wait."""
        copy = Stream(self._device, self._telemetry, self._run, self.stored, self._copy + 1)
        copy.epoch = self.epoch  # its boot is its own: another machine started from the copied disk
        copy._number, copy._next, copy._link = self._number, self._next, self._link
        copy._missing = self._missing
        copy.waiting = deque(self.waiting)
        return copy

    def make(self, until_s: float, began_at: float, model: str, release: int) -> None:
        """Make the windows that ended by a moment.

        Args:
            until_s: seconds of the run.
            began_at: when the run began, Unix seconds of the true clock.
            model: what inferences were of.
            release: which of it ran.
        """
        device, length_s = self._device, self._telemetry.window_s
        for number in range(self._number, windows_until(device, self._telemetry, until_s)):
            holds = window(device, self._telemetry, number, self._copy)
            end_s = device.phase_s + (number + 1) * length_s
            link = self._hex(f"link {number}", 16)
            report = Report(
                seq=self._next,
                link=link,
                boot_id=self._boot,
                start_s=_BOOTED_S + end_s - length_s,
                end_s=_BOOTED_S + end_s,
                at=began_at + end_s + device.clock_off_s,
                prev=self._link,
                clock="unsynced" if device.clock_off_s else "synced",
                models=(self._model(model, release, holds, number),),
            )
            if holds.is_lost:
                self._missing += 1
            else:
                self.waiting.append(Made(holds, release, report, self._missing))
                self._missing = 0
            self._number, self._next, self._link = number + 1, self._next + 1, link

    def batch(self, now_s: float, wall_s: float) -> tuple[list[Made], Encoded]:
        """Give what is to be sent next, and how it goes over the wire."""
        sent = [self.waiting[place] for place in range(min(self._most, len(self.waiting)))]
        for made in sent:
            self.stored.again += made.sent
            made.sent = True
        head = Batch(self.epoch, self._boot, _BOOTED_S + now_s, wall_s)
        return sent, batch_to_bytes(head, [report_to_json(made.report) for made in sent])

    def judge(self, sent: list[Made], reply: Reply) -> str | None:
        """Take the server's answer; give why it is no good, or ``None``."""
        if reply.status == _OK:
            try:
                through = acknowledged_from_json(reply.body).acked_through
            except MessageError as error:
                return str(error)
            if through < sent[0].report.seq:
                return f"nothing was stored of windows {sent[0].report.seq} to {sent[-1].report.seq}"
            self._most = MOST_REPORTS
            self._acknowledge(min(through, sent[-1].report.seq))
            return None
        if reply.status == _FORK:
            self._fork(sent, _acked_through(reply))
            return None
        return f"HTTP {reply.status}: {reply.body[:200].decode(errors='replace')}"

    def _acknowledge(self, through: int) -> None:
        while self.waiting and self.waiting[0].report.seq <= through:
            made = self.waiting.popleft()
            if not made.stored:
                made.stored = True
                self.stored.add(made)

    def _fork(self, sent: list[Made], through: int | None) -> None:
        if through is None and len(sent) > 1:
            self._most = 1  # window by window, to see from which on it is another stream
            return
        if through is not None and through >= sent[0].report.seq:
            self._acknowledge(min(through, sent[-1].report.seq))
        self._epochs += 1
        self.stored.epochs += 1
        self.epoch = self._hex(f"epoch {self._epochs}", 32)
        self._next, self._link, self._missing = 0, "", 0
        renumbered = []
        for made in self.waiting:
            report = replace(made.report, seq=self._next, prev=self._link)
            # the copy has the window under its old number still; no gap stays
            renumbered.append(replace(made, report=report, missing=0))
            self._next, self._link = self._next + 1, report.link
        self.waiting = deque(renumbered)

    def _hex(self, what: str, digits: int) -> str:
        names = (self._run, self._device.number, self._copy, what)
        return "".join(
            f"{int(draw(self._device.seed, *names, place) * 2**32):08x}" for place in range(digits // 8)
        )

    def _model(self, model: str, release: int, holds: Window, number: int) -> ModelWindow:
        errors = {"InferenceError": holds.errors} if holds.errors else {}
        state = int(_STATES * draw(self._device.seed, self._device.number, number, "latency"))
        latency = {"total": _latency(holds.calls - holds.errors, state)}
        return ModelWindow(model, release, "litert-float32", "litert", holds.calls, errors, latency)


_LATENCIES: Final[dict[tuple[int, int], ExponentialHistogram]] = {}
_MOST_LATENCIES: Final = 10_000


def _latency(calls: int, state: int) -> ExponentialHistogram:
    """Give a histogram of so many inferences: log-normal, in seconds."""
    found = _LATENCIES.get((calls, state))
    if found is None:
        chance = random.Random(f"{calls}/{state}")  # noqa: S311 - made-up data
        found = histogram_of(chance.lognormvariate(math.log(_MEDIAN_S), _SIGMA) for _ in range(calls))
        if len(_LATENCIES) < _MOST_LATENCIES:
            _LATENCIES[calls, state] = found
    return found


def _acked_through(reply: Reply) -> int | None:
    try:
        found: Any = json.loads(reply.body)
        through = found["error"]["acked_through"]
    except (ValueError, LookupError, TypeError):
        return None
    return through if isinstance(through, int) and not isinstance(through, bool) else None
