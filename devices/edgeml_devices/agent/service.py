"""The agent as a process: polls, reports, listens for beats, and lets a thread work for each model."""

from __future__ import annotations

import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgeml import health
from edgeml.health import HealthPolicy
from edgeml.installed import MODELS, InstalledModel
from edgeml.selftest import SelftestResult, run_selftest
from edgeml.targets import host
from edgeml.telemetry.device import plan_of, run_telemetry
from edgeml_devices.agent.beats import Beats, receive
from edgeml_devices.agent.blobs import BlobStore
from edgeml_devices.agent.client import ServerClient, ServerSource
from edgeml_devices.agent.config import AgentConfig
from edgeml_devices.agent.deployment import Deployment, Tools, Wish
from edgeml_devices.agent.desired import Carried, Desired, Inbox
from edgeml_devices.agent.disk import clear, make_folder
from edgeml_devices.agent.facts import engines, gather
from edgeml_devices.agent.failures import UnreachableError
from edgeml_devices.agent.fetch import backoff_s
from edgeml_devices.agent.home import Home
from edgeml_devices.agent.identity import Identity
from edgeml_devices.agent.lock import sole_agent
from edgeml_devices.agent.origins import Origin, SignedOrigin
from edgeml_devices.agent.outbox import SENT_AT_ONCE, Outbox, size_bytes
from edgeml_devices.agent.record import StateRecord
from edgeml_devices.agent.refusal import REFUSES_DEVICE, forget_refusal, note_refusal
from edgeml_devices.agent.sources import FolderSource
from edgeml_devices.agent.status import status_of
from edgeml_devices.agent.trust import Trust
from edgeml_devices.agent.worker import RESTING, Worker
from edgeml_devices.messages import Event, Facts, Health, Report, State

if TYPE_CHECKING:
    from types import FrameType

LOG: Final = logging.getLogger("edgeml.agent")
PROBATION_WINDOW_S: Final = 10.0
QUIET_WINDOW_S: Final = 300.0
_REPORT_EVERY_S: Final = 3600.0
"""With nothing to say: facts such as the free disk change by themselves."""
_REPORT_LIMIT_BYTES: Final = 256 * 1024
"""The server takes 1 MiB; one that is cut off on a slow link is sent again whole."""
_REPORT_MODELS: Final = 200
"""As many as the server takes."""
_SHORT_DETAIL: Final = 200
_REFUSED: Final = frozenset({400, 413})
_COALESCE_S: Final = 0.1
_LOOK_EVERY_S: Final = 1.0
_STOP_S: Final = 5.0
_HURRIED_S: Final = 1.0
"""A server that holds a poll answers later, or has news."""
_FIRST_PAUSE_S: Final = 0.1


def make_tools(
    home: Home,
    config: AgentConfig,
    trust: Trust,
    *,
    reached_at: Callable[[], float | None] = lambda: None,
    changed: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.time,
) -> Tools:
    """Give the tools of a real device."""
    python = config.python or sys.executable
    found: dict[str, dict[str, str]] = {}

    def engines_now() -> dict[str, str]:
        if "engines" not in found:
            found["engines"] = engines(python)
        return found["engines"]

    def selftest(folder: Path, variant: str, policy: HealthPolicy) -> SelftestResult:
        return run_selftest(folder, variant, policy, timeout_s=policy.selftest_timeout_s, python=python)

    return Tools(
        home=home,
        config=config,
        store=BlobStore(home.blobs),
        outbox=Outbox(home.outbox),
        beats=Beats(is_installed=lambda name: (home.path / MODELS / name).is_dir()),
        machine=lambda: (host(), engines_now()),
        selftest=selftest,
        floor=trust.floor,
        reached_at=reached_at,
        changed=changed,
        clock=clock,
    )


class Service:
    """One agent; ``run`` returns when it is told to stop."""

    def __init__(
        self,
        home: Home,
        config: AgentConfig,
        identity: Identity,
        clock: Callable[[], float] = time.time,
    ) -> None:
        ca_file = None if identity.ca_file is None else Path(identity.ca_file)
        self._home, self._config, self._identity, self._clock = home, config, identity, clock
        self._client = ServerClient(identity.server, identity.token, ca_file, clock)
        self._trust = Trust(home.trust, clock)
        self._changed = threading.Event()
        self._stop = threading.Event()
        self._tools = make_tools(
            home,
            config,
            self._trust,
            reached_at=lambda: self._client.reached_at,
            changed=self._changed.set,
            clock=clock,
        )
        server = SignedOrigin(self._trust, ServerSource(self._client), offline=False)
        self._desired = Desired(home, server)
        self._inbox = Inbox(home, self._carried_origin)
        self._workers: dict[str, Worker] = {}
        self._workers_lock = threading.Lock()
        self._at_once = SENT_AT_ONCE

    def stop(self) -> None:
        """Let ``run`` return."""
        self._stop.set()
        self._changed.set()

    def run(self) -> None:
        """Work until stopped.

        Raises:
            FleetError: another agent works in the same home folder.
            OSError: the home folder cannot be written.
        """
        with sole_agent(self._home), self._open_socket() as receiver:
            make_folder(self._home.outbox)
            self._start_workers()
            for work in (self._poll, self._report, lambda: self._listen(receiver)):
                threading.Thread(target=work, daemon=True).start()
            telemetry = self._start_telemetry()
            LOG.info("agent of %s, device %s", self._identity.server, self._identity.device_id)
            while not self._stop.wait(_LOOK_EVERY_S):
                self._start_workers()
            for worker in self._workers.values():
                worker.nudge.stop()
            deadline = time.monotonic() + _STOP_S
            for worker in self._workers.values():
                worker.join(max(0.0, deadline - time.monotonic()))
            telemetry.join(max(0.0, deadline - time.monotonic()))
            LOG.info("stopped")

    def _start_telemetry(self) -> threading.Thread:
        config = self._config
        plan = plan_of(
            self._home.path,
            window_s=config.telemetry_window_s,
            budget_bytes=config.telemetry_budget_bytes,
            durability=config.telemetry_durability,
        )
        work = (
            (lambda: run_telemetry(plan, self._client.post, self._stop))
            if config.telemetry
            else (lambda: None)
        )
        thread = threading.Thread(target=work, name="telemetry", daemon=True)
        thread.start()
        return thread

    # --- models

    def _start_workers(self) -> None:
        """See what there is to work on: new models get a thread, the inbox is looked into."""
        carried = self._inbox.look(self._next_attempt)
        here = {model.name for model in self._home.models()}
        with self._workers_lock:
            for name in sorted((here | self._desired.models() | carried) - self._workers.keys()):
                self._workers[name] = self._make_worker(self._home.model(name))
                self._workers[name].start()
            for name in carried:
                self._workers[name].nudge.wake()

    def _make_worker(self, model: InstalledModel) -> Worker:
        return Worker(self._tools, model, lambda: self._wish(model.name), self._rested)

    def _wish(self, name: str) -> Wish | None:
        server, carried = self._desired.wish(name), self._inbox.wish(name)
        if carried is None:
            return server
        return replace(carried, overrules=None if server is None else server.key)

    def _carried_origin(self, folder: Path) -> Origin:
        return SignedOrigin(self._trust, FolderSource(folder), offline=True)

    def _next_attempt(self, carried: Carried) -> int:
        with self._workers_lock:
            worker = self._workers.get(carried.model)
        return 1 if worker is None else next_attempt(worker.deployment.record, carried.release)

    def _rested(self, deployment: Deployment) -> None:
        """Forget what was carried here once its attempt has ended."""
        carried, record = self._inbox.wish(deployment.model.name), deployment.record
        if carried is not None and record.target == carried.assignment.release and record.result is not None:
            self._inbox.done(deployment.model.name)
            deployment.nudge.wake()

    # --- the server

    def _poll(self) -> None:
        failures = hurried = 0
        while not self._stop.is_set():
            generation = self._desired.generation
            wait_s = 0.0 if generation is None else self._config.poll_s or self._desired.poll_s
            began = time.monotonic()
            try:
                state = self._client.poll(generation, wait_s)
                failures = 0
                forget_refusal(self._home)
            except UnreachableError as error:
                if error.status in REFUSES_DEVICE:
                    note_refusal(self._home, self._clock(), str(error))
                failures += 1
                wait_s = backoff_s(failures, error.retry_after_s)
                LOG.log(logging.WARNING if failures == 1 else logging.DEBUG, "%s", error)
                self._stop.wait(wait_s)
                continue
            except Exception:
                LOG.exception("the poll failed")
                self._stop.wait(_LOOK_EVERY_S)
                continue
            if state is not None:
                self._desired.take(state)
                self._start_workers()
                for worker in list(self._workers.values()):
                    worker.nudge.wake()
                self._changed.set()
            hurried = hurried + 1 if time.monotonic() - began < min(_HURRIED_S, wait_s / 2) else 0
            self._stop.wait(pause_s(hurried, is_news=state is not None and state.generation != generation))

    def _report(self) -> None:
        failures = 0
        facts: Facts | None = None
        while not self._stop.is_set():
            self._changed.wait(_REPORT_EVERY_S)
            self._stop.wait(_COALESCE_S)
            self._changed.clear()
            if self._stop.is_set():
                return
            try:
                facts = self._send(facts)
                failures = 0
            except UnreachableError as error:
                failures += 1
                self._changed.set()
                self._stop.wait(backoff_s(failures, error.retry_after_s))
            except Exception:
                LOG.exception("the report failed")
                self._changed.set()
                self._stop.wait(_LOOK_EVERY_S)

    def _send(self, told: Facts | None) -> Facts | None:
        """Send what waits and fits; give the facts that the server knows now."""
        outbox = self._tools.outbox
        facts = gather(self._home.path, dict(self._tools.machine()[1]))
        report = self._status(facts if told is None or _differ(facts, told) else None)
        room_bytes = _REPORT_LIMIT_BYTES - size_bytes(report)
        events, windows = outbox.next_batch(self._at_once, room_bytes)
        report = replace(report, events=events, health=windows)
        try:
            answer = self._client.report(report)
        except UnreachableError as error:
            if error.status not in _REFUSED or not (events or windows):
                raise
            self._send_less(report, error)
            return told
        outbox.accepted(answer)
        lost_events = bool(events) and events[0].seq > answer.events
        if lost_events or (windows and windows[0].seq > answer.health):
            raise UnreachableError(f"{self._identity.server} took a report and stored nothing of it")
        self._at_once = min(2 * self._at_once, SENT_AT_ONCE)
        if any(outbox.waiting()):
            self._changed.set()
        return told if report.facts is None else facts

    def _status(self, facts: Facts | None) -> Report:
        """Give a report of how all models are now, short enough to be taken."""
        wanted = self._desired.models()
        with self._workers_lock:
            deployments = [one.deployment for one in self._workers.values() if one.recovered.is_set()]
        deployments.sort(key=lambda one: one.model.name not in wanted)
        models = {one.model.name: status_of(one) for one in deployments[:_REPORT_MODELS]}
        report = Report(
            device_id=self._identity.device_id,
            epoch=self._tools.outbox.epoch,
            seq=self._tools.outbox.next_report(),
            at=self._clock(),
            models=models,
            facts=facts,
            generation=self._desired.generation,
        )
        if size_bytes(report) <= _REPORT_LIMIT_BYTES:
            return report
        short = {name: replace(one, detail=one.detail[:_SHORT_DETAIL]) for name, one in models.items()}
        return replace(report, models=short)

    def _send_less(self, report: Report, error: UnreachableError) -> None:
        """Close in on what the server refuses, and drop that alone: what comes after it must get through."""
        items: tuple[Event | Health, ...] = (*report.events, *report.health)
        self._changed.set()
        if len(items) > 1:
            self._at_once = len(items) // 2
            return
        # where it refuses a report without items as well, it is not the item's fault
        alone = replace(report, seq=self._tools.outbox.next_report(), events=(), health=())
        self._client.report(alone)
        LOG.error("the server refuses what this device tells, dropped: %s: %s", error, items[0])
        self._tools.outbox.drop(items[0])

    # --- beats

    def _open_socket(self) -> socket.socket:
        clear(self._home.path / health.SOCKET)
        return health.listen(self._home.path)

    def _listen(self, receiver: socket.socket) -> None:
        began: dict[str, float] = {}
        next_look = 0.0
        while not self._stop.is_set():
            receive(receiver, self._tools.beats, _LOOK_EVERY_S)
            now = time.monotonic()
            if now < next_look:
                continue
            next_look = now + _LOOK_EVERY_S
            for name in self._tools.beats.models():
                since = began.setdefault(name, now)
                if now - since >= self._window_s(name):
                    for window in self._tools.beats.cut(name, now - since, self._clock()):
                        self._tools.outbox.add_health(window)
                    began[name] = now
                    self._changed.set()

    def _window_s(self, name: str) -> float:
        worker = self._workers.get(name)
        if worker is not None and worker.deployment.record.state is State.PROBATION:
            return PROBATION_WINDOW_S
        return QUIET_WINDOW_S


def pause_s(hurried: int, *, is_news: bool) -> float:
    """Give how long to leave a server alone that answered so many polls in a row at once.

    A broken one, or a proxy, that does not hold a poll must not make the agent spin; news come quickly all
    the same.
    """
    if not hurried:
        return 0.0
    wait_s = backoff_s(hurried, first_s=_FIRST_PAUSE_S)
    return min(wait_s, _HURRIED_S) if is_news else wait_s


def next_attempt(record: StateRecord, release: int) -> int:
    """Give the attempt for a release that was carried here: under way it goes on, else it is a new one."""
    if record.target == release:
        return max(1, record.attempt + (record.state in RESTING and record.attempt > 0))
    return max(1, record.failed.get(str(release), 0) + 1)


def _differ(one: Facts, other: Facts) -> bool:
    """Say whether facts changed; the free disk always does."""
    return replace(one, disk_free_bytes=None) != replace(other, disk_free_bytes=None)


def run_service(service: Service) -> None:
    """Run until SIGTERM or SIGINT."""

    def leave(number: int, frame: FrameType | None) -> None:
        del number, frame
        service.stop()

    before = {one: signal.signal(one, leave) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        service.run()
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
