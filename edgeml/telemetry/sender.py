"""Sends the spool's windows: one request at a time, as gently as the server asks for."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Protocol

from edgeml.errors import MessageError, ServerError
from edgeml.telemetry.clock import boot_clock, boot_id
from edgeml.telemetry.encoding import acknowledged_from_json, batch_to_bytes
from edgeml.telemetry.report import MOST_REPORTS, Batch
from edgeml.telemetry.spool import Spool, Waiting
from edgeml.telemetry.spool_files import LOG

PATH: Final = "/v1/reports"
_FIRST_WAIT_S: Final = 2.0
_LONGEST_WAIT_S: Final = 900.0
_LONGEST_RETRY_AFTER_S: Final = 3600.0
_OK: Final = 200
_FORK: Final = 409
_TOO_LARGE: Final = 413
_REFUSED: Final = frozenset({400, 422})
_STRANGER: Final = frozenset({401, 410})
"""The server does not know this device, or not any more."""
_STRANGER_S: Final = 3600.0
"""A server that was restored from a backup may know it again."""
_FORKS_AGAIN_S: Final = 3600.0
"""Between epochs none of which the server takes: each writes all that waits anew."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server answered."""

    status: int
    body: bytes = b""
    retry_after_s: float | None = None


class Post(Protocol):
    """Posts to the server as this device."""

    def __call__(self, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Give the answer, whatever its status.

        Raises:
            ServerError: there was none.
        """
        ...


class Outcome(StrEnum):
    """What came of an attempt."""

    IDLE = "idle"
    """Nothing waits."""
    SENT = "sent"
    """Windows were stored, or one was given up; more may wait."""
    LATER = "later"
    """The server cannot be reached or is busy: again after ``wait_s``."""
    STOPPED = "stopped"
    """The server does not know this device; it is asked again in an hour."""


class Sender:
    """Empties a spool. For the thread that owns it."""

    def __init__(
        self,
        spool: Spool,
        post: Post,
        *,
        clock: Callable[[], float] = time.time,
        since_boot: Callable[[], float] = boot_clock,
        boot: str | None = None,
    ) -> None:
        self._spool, self._post, self._clock, self._since_boot = spool, post, clock, since_boot
        self._boot = boot_id() if boot is None else boot
        self._most = MOST_REPORTS
        self._failures = self._forks = 0
        self._is_stopped = False
        self.not_before_s = -math.inf
        """By ``since_boot``: an attempt before is none."""

    def send(self) -> Outcome:
        """Send one batch, if one is due. Raises nothing: what fails is tried again."""
        if self._since_boot() < self.not_before_s:
            return Outcome.STOPPED if self._is_stopped else Outcome.LATER
        try:
            return self._send()
        except ServerError as error:
            return self._later(str(error))
        except OSError as error:
            return self._later(f"the spool: {error}")

    def _send(self) -> Outcome:
        waiting = self._spool.batch(self._most)
        if not waiting:
            return Outcome.IDLE
        batch = Batch(self._spool.state.epoch, self._boot, self._since_boot(), self._clock())
        encoded = batch_to_bytes(batch, [one.text for one in waiting])
        headers = {"Content-Type": encoded.content_type, "Content-Encoding": encoded.content_encoding}
        return self._judge(waiting, self._post(PATH, encoded.body, headers))

    def _judge(self, waiting: Sequence[Waiting], reply: Reply) -> Outcome:
        if reply.status == _OK:
            return self._stored(waiting, reply)
        if reply.status in _STRANGER:
            if not self._is_stopped:
                LOG.error("the server refuses this device's telemetry: %s; it is kept here", _said(reply))
            self._is_stopped, self.not_before_s = True, self._since_boot() + _STRANGER_S
            return Outcome.STOPPED
        if reply.status == _FORK:
            return self._forked(waiting, reply)
        if reply.status == _TOO_LARGE or reply.status in _REFUSED:
            return self._refused(waiting, reply)
        return self._later(_said(reply), reply.retry_after_s)

    def _refused(self, waiting: Sequence[Waiting], reply: Reply) -> Outcome:
        if len(waiting) > 1:
            self._most = max(1, len(waiting) // 2)
            return Outcome.SENT
        if not isinstance(_refusal(reply).get("error"), dict):
            return self._later(f"{_said(reply)}, but not from an edgeml server")
        LOG.error("the server refuses window %d, given up: %s", waiting[0].seq, _said(reply))
        self._spool.refuse(waiting[0].seq)
        return Outcome.SENT

    def _stored(self, waiting: Sequence[Waiting], reply: Reply) -> Outcome:
        try:
            answer = acknowledged_from_json(reply.body)
        except MessageError as error:
            return self._later(f"{error}; is this the address of an edgeml server?")
        if answer.acked_through < waiting[0].seq:
            return self._later(f"the server stored nothing of windows {waiting[0].seq} to {waiting[-1].seq}")
        self._failures = self._forks = 0
        self._is_stopped = False
        self._most = min(2 * self._most, MOST_REPORTS)
        # not beyond what was sent: another copy of this device may have sent those numbers
        self._spool.acknowledge(min(answer.acked_through, waiting[-1].seq))
        return Outcome.SENT

    def _forked(self, waiting: Sequence[Waiting], reply: Reply) -> Outcome:
        through = _acked_in_refusal(reply)
        if through is None and len(waiting) > 1:
            self._most = 1  # window by window, to see from which on it is another stream
            return Outcome.SENT
        if through is not None and through >= waiting[0].seq:
            self._spool.acknowledge(min(through, waiting[-1].seq))
        LOG.warning("another copy of this device sends telemetry, or an older one did: a new epoch begins")
        self._spool.begin_epoch()
        self._forks += 1
        if self._forks == 1:
            return Outcome.SENT
        self.not_before_s = self._since_boot() + _FORKS_AGAIN_S
        return Outcome.LATER

    def _later(self, why: str, retry_after_s: float | None = None) -> Outcome:
        self._failures += 1
        LOG.log(30 if self._failures == 1 else 10, "telemetry is kept for later: %s", why)
        longest = min(_FIRST_WAIT_S * 2.0 ** min(self._failures - 1, 30), _LONGEST_WAIT_S)
        wait_s = longest * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        asked_s = min(retry_after_s or 0.0, _LONGEST_RETRY_AFTER_S)
        self.not_before_s = self._since_boot() + max(wait_s, asked_s)
        return Outcome.LATER


def _said(reply: Reply) -> str:
    error = _refusal(reply).get("error")
    message = str(error.get("message", "")) if isinstance(error, dict) else ""
    return f"HTTP {reply.status}" + (f": {message[:200]}" if message else "")


def _acked_in_refusal(reply: Reply) -> int | None:
    found = _refusal(reply)
    inner = found.get("error")
    through = found.get("acked_through", inner.get("acked_through") if isinstance(inner, dict) else None)
    return through if isinstance(through, int) and not isinstance(through, bool) else None


def _refusal(reply: Reply) -> dict[str, Any]:
    try:
        found = json.loads(reply.body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
