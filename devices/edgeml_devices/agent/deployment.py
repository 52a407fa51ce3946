"""One model on this device: its record, what it is to be, and the tools that states work with."""

from __future__ import annotations

import logging
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from edgeml.errors import BundleError
from edgeml.health import HealthPolicy
from edgeml.installed import InstalledModel
from edgeml.manifest import Manifest
from edgeml.manifest_json import loads
from edgeml.processes import ended_within, kill_session
from edgeml.selftest import SelftestResult
from edgeml.targets import Target
from edgeml_devices.agent.beats import Beats
from edgeml_devices.agent.blobs import BlobStore
from edgeml_devices.agent.config import AgentConfig
from edgeml_devices.agent.failures import DETAIL_LIMIT, StepFailedError, StoppedError, disk_failure
from edgeml_devices.agent.fetch import Fetcher, Limits
from edgeml_devices.agent.home import Home
from edgeml_devices.agent.origins import Origin
from edgeml_devices.agent.outbox import Outbox
from edgeml_devices.agent.record import StateRecord, write_record
from edgeml_devices.messages import Assignment, Event, Reason, Result, State

LOG: Final = logging.getLogger("edgeml.agent")
CHANGES_NOTHING: Final = frozenset(
    {State.IDLE, State.ACCEPTED, State.FETCHING, State.STAGED, State.SELFTEST, State.QUARANTINED}
)
"""States before SWITCHING: a failure in them leaves the device as it was."""
_RETRY_WRITE_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Wish:
    """What a model is to be, and where it would come from."""

    assignment: Assignment
    origin: Origin
    closes_at: float | None = None
    """When a switch may no longer begin, by the monotonic clock; ``None``: no limit."""
    overrules: str | None = None
    """The server's assignment that this one takes the place of."""

    @property
    def key(self) -> str:
        """Tell one assignment of the server from another."""
        return f"{self.assignment.release}/{self.assignment.attempt}"

    def is_open(self, now: float) -> bool:
        """Say whether a switch may begin."""
        return not self.assignment.hold and (self.closes_at is None or now < self.closes_at)


class Nudge:
    """Lets one thread sleep until it is woken, or told to stop."""

    def __init__(self) -> None:
        self._woken = threading.Event()
        self.stopping = False

    def wake(self) -> None:
        self._woken.set()

    def stop(self) -> None:
        self.stopping = True
        self._woken.set()

    def sleep(self, seconds: float) -> None:
        """Wait, at most until woken.

        Raises:
            StoppedError: the agent is to stop.
        """
        self._woken.wait(seconds)
        if self.stopping:
            raise StoppedError
        self._woken.clear()


SelftestCall = Callable[[Path, str, HealthPolicy], SelftestResult]


@dataclass(frozen=True, slots=True)
class Tools:
    """What all deployments of a device share."""

    home: Home
    config: AgentConfig
    store: BlobStore
    outbox: Outbox
    beats: Beats
    machine: Callable[[], tuple[Target, Mapping[str, str]]]
    """This device, and the engines that its self-tests find: runtime to version."""
    selftest: SelftestCall
    floor: Callable[[str], int]
    """The lowest release of a model that may be switched to."""
    reached_at: Callable[[], float | None] = lambda: None
    """When the server was last reached, by the monotonic clock."""
    clock: Callable[[], float] = time.time
    limits: Limits | None = None
    """Of downloads; by default as configured."""
    busy: threading.Lock = field(default_factory=threading.Lock)
    """Held by a self-test: two at once would measure each other."""
    changed: Callable[[], None] = lambda: None
    """Called when a state was entered: there is something to report."""


@dataclass(frozen=True, slots=True)
class Step:
    """Where a state leads, and what its record says then."""

    state: State
    changes: Mapping[str, Any] = field(default_factory=dict)


class Deployment:
    """One model's record with the one hand that writes it."""

    def __init__(
        self,
        tools: Tools,
        model: InstalledModel,
        record: StateRecord,
        wish: Callable[[], Wish | None],
        nudge: Nudge | None = None,
    ) -> None:
        self.tools = tools
        self.model = model
        self.record = record
        self.wish = wish
        self.nudge = nudge or Nudge()
        self.ready = False
        """Tested, and waiting to be let switch."""
        self.note = ""
        """What is waited for."""

    # --- the record

    def save(self, **changes: Any) -> None:
        """Change the record within a state.

        Raises:
            StepFailedError: the disk does not take it.
        """
        record = replace(self.record, **changes)
        try:
            write_record(self.model, record)
        except OSError as error:
            raise disk_failure(error, "cannot write the state") from error
        self.record = record

    def enter(self, step: Step) -> None:
        """Enter a state: on the disk first, then as an event.

        On a disk that takes nothing, an attempt that changed nothing ends, in memory; one that has switched
        waits: what the disk says leads to the same place after a restart.
        """
        before = self.record.state
        record = replace(
            self.record,
            **{
                "entry": self.record.entry + 1,
                "at": self.tools.clock(),
                "steps": self.record.steps + 1,
                "state": step.state,
                **step.changes,
            },
        )
        while True:
            try:
                write_record(self.model, record)
                break
            except OSError as error:
                failure = disk_failure(error, "cannot write the state")
                if before in CHANGES_NOTHING or step.state in {State.IDLE, State.FAILED}:
                    record = _ended_in_memory(record, failure)
                    break
                LOG.warning("%s: %s", self.model.name, failure)
                self.nudge.sleep(_RETRY_WRITE_S)
        self.record = record
        self.ready, self.note = False, ""
        self.tell()

    def tell(self) -> None:
        """Make the event of the state that the record is in; it is made once."""
        record = self.record
        LOG.info(
            "%s: %s %s%s",
            record.model,
            record.state,
            record.target,
            f" ({record.reason})" if record.reason else "",
        )
        event = Event(
            seq=0,
            at=record.at,
            model=record.model,
            release=record.target,
            attempt=record.attempt,
            state=record.state,
            result=record.result if record.state in _OUTCOMES else None,
            reason=record.reason,
            detail=record.detail[:DETAIL_LIMIT],
            rollout=record.rollout,
            variant=record.variant,
        )
        if record.state is not State.IDLE:
            self.tools.outbox.add_event(record.entry, event)
        self.tools.changed()

    # --- waiting

    def check(self) -> None:
        """End what a state before SWITCHING does, where it is no longer wanted.

        Raises:
            StoppedError: the agent is to stop.
            StepFailedError: the server wants something else by now.
        """
        if self.nudge.stopping:
            raise StoppedError
        wish, record = self.wish(), self.record
        if wish is None:
            raise StepFailedError(Reason.ABORTED, f"{self.model.name} is no longer to be installed")
        if (wish.assignment.release, wish.assignment.attempt) != (record.target, record.attempt):
            raise StepFailedError(Reason.SUPERSEDED, f"{wish.key} is wanted now")

    def sleep(self, seconds: float) -> None:
        """Wait in a state before SWITCHING; raises as :meth:`check`."""
        deadline = time.monotonic() + seconds
        while (left_s := deadline - time.monotonic()) > 0:
            self.nudge.sleep(left_s)
            self.check()

    def fetcher(self) -> Fetcher:
        config = self.tools.config
        limits = self.tools.limits or Limits(
            config.download_attempts, config.bandwidth_bytes_per_s, config.slowest_bytes_per_s
        )
        return Fetcher(self.tools.store, limits, self.check, self.sleep)

    # --- what states ask

    def origin(self) -> Origin:
        """Give where the attempt comes from; raises as :meth:`check`."""
        self.check()
        wish = self.wish()
        if wish is None:
            raise StepFailedError(Reason.ABORTED, f"{self.model.name} is no longer to be installed")
        return wish.origin

    def manifest(self) -> Manifest | None:
        """Give the verified manifest of the target; ``None`` where it is no longer here."""
        content = self.tools.store.read(self.record.manifest_sha256) if self.record.manifest_sha256 else None
        if content is None:
            return None
        try:
            return loads(content)
        except BundleError as error:
            raise StepFailedError(Reason.MANIFEST, str(error)) from error

    def command(self, argv: Sequence[str]) -> int | None:
        """Run a command of ``agent.toml``; give its exit code, ``None`` where it did not end in time."""
        try:
            process = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            LOG.warning("%s: %s cannot be started: %s", self.model.name, argv[0], error)
            return None
        if ended_within(process, self.tools.config.restart_timeout_s):
            return process.returncode
        kill_session(process)
        return None

    def restart_application(self) -> None:
        """Run the model's restart command, if it has one.

        Raises:
            StepFailedError: it failed.
        """
        argv = self.tools.config.restart.get(self.model.name)
        if argv is None:
            return
        code = self.command(argv)
        if code != 0:
            how = "did not end in time" if code is None else f"ended with exit code {code}"
            raise StepFailedError(Reason.RESTART_FAILED, f"{' '.join(argv)} {how}")


_OUTCOMES: Final = frozenset({State.COMMITTED, State.FAILED, State.QUARANTINED})


def _ended_in_memory(record: StateRecord, failure: StepFailedError) -> StateRecord:
    """Give the record of an attempt whose states cannot be written, and which changed nothing."""
    if record.state in {State.IDLE, State.FAILED, State.COMMITTED} and record.result is not None:
        return record
    failed = {**record.failed, str(record.target): record.attempt}
    return replace(
        record,
        state=State.FAILED,
        result=Result.FAILED_NO_STATE_CHANGE,
        reason=failure.reason,
        detail=failure.detail,
        failed=failed,
    )
