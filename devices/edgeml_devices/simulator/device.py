"""One simulated device: it joins, waits for what it is to run, fetches that, and says how it went."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Final, TypeVar

from edgeml import typed_json
from edgeml.errors import MessageError
from edgeml_devices.messages import (
    Accepted,
    Assignment,
    DesiredState,
    Enrolled,
    EnrolRequest,
    Event,
    ModelStatus,
    Report,
    Result,
    State,
)
from edgeml_devices.simulator.connection import Connection, LostError, Reply
from edgeml_devices.simulator.plan import PlannedDevice, between, draw
from edgeml_devices.simulator.scenario import RUN_LABEL
from edgeml_devices.simulator.stream import PATH as TELEMETRY
from edgeml_devices.simulator.stream import Stream, Tally
from edgeml_devices.simulator.world import FACTS, File, World

T = TypeVar("T")
_JSON: Final = {"Content-Type": "application/json"}
_OK: Final = (200, 201)
_NOT_MODIFIED: Final = 304
_AGAIN_S: Final = (0.2, 1.0)
"""Before what got no answer is tried again."""
_LONGEST_WAIT_S: Final = 30.0
_LONGEST_RETRY_AFTER_S: Final = 60.0


class RefusedError(Exception):
    """The server answered, and the answer is no."""

    def __init__(self, call: str, reply: Reply) -> None:
        try:
            said = str(json.loads(reply.body)["error"]["message"])
        except (ValueError, LookupError, TypeError):
            said = reply.body[:80].decode(errors="replace")
        super().__init__(f"{call}: HTTP {reply.status}: {said}")
        self.reply = reply


class Device:
    """A device with one connection, as an agent has; telemetry goes over one of its own."""

    __slots__ = (
        "_connection",
        "_draws",
        "_epoch",
        "_event_seq",
        "_events",
        "_patience",
        "_poll_s",
        "_report_seq",
        "_world",
        "generation",
        "id",
        "models",
        "name",
        "planned",
        "said",
        "said_results",
        "sent",
        "sent_results",
        "stored",
        "streams",
        "token",
        "told_at",
    )

    def __init__(self, planned: PlannedDevice, world: World) -> None:
        self.planned, self._world = planned, world
        self._draws = 0
        self.token, self._epoch = self._secret("token"), self._secret("epoch")[:16]
        self._connection = Connection(world.endpoint, self.token, planned.number)
        self.id = self.name = ""
        self.generation = -1
        self._poll_s = 55.0
        self._patience: asyncio.Timeout | None = None
        self._report_seq = self._event_seq = 0
        self._events: list[Event] = []
        self.models: dict[str, ModelStatus] = {}
        """As they are."""
        self.sent: Mapping[str, ModelStatus] = {}
        """As they were in the last report on its way, which may have arrived."""
        self.said: Mapping[str, ModelStatus] = {}
        """As they were in the last report that was answered."""
        self.sent_results: dict[str, Result] = {}
        """How rollouts ended here, by id, as it was in the last report on its way."""
        self.said_results: Mapping[str, Result] = {}
        """The same, as the last report said that was answered."""
        self.told_at: dict[str, float] = {}
        """When it was last told to run another release, by model, seconds of the event loop's clock."""
        self.stored = Tally()
        self.streams = [Stream(planned, world.scenario.telemetry, world.run, self.stored)]

    def close(self) -> None:
        self._connection.close()

    # --- joining

    async def enrol(self, join_token: str) -> None:
        """Join, and again if the answer was lost: the same token is the same device.

        Raises:
            RefusedError: the server does not want it.
        """
        planned, world = self.planned, self._world
        request = EnrolRequest(
            join_token,
            self.token,
            f"{planned.name}-{world.run}",
            FACTS,
            {**planned.group.labels, RUN_LABEL: world.run},
        )
        body = _json(request)
        while True:
            async with world.connecting:
                try:
                    reply = await self._post("/v1/enrol", body, _JSON)
                    enrolled = self._read(Enrolled, "enrolment", reply)
                except LostError:
                    enrolled = None
                except RefusedError as error:
                    if error.reply.status < 500:  # noqa: PLR2004 - HTTP's
                        raise
                    enrolled = None
            if enrolled is not None:
                self.id, self.name = enrolled.device_id, enrolled.name
                return
            await self._pause(0)

    # --- what it is to be

    async def live(self) -> None:
        """Wait for another desired state, and come up to it, until the run stops."""
        failures = 0
        while not self._world.stopping.is_set():
            try:
                await self._online()
                desired = await self._poll()
                if desired is not None:
                    await self._obey(desired)
                failures = 0
            except (LostError, RefusedError) as error:
                failures += 1
                await self._pause(failures, error)

    async def _poll(self) -> DesiredState | None:
        wait_s = self._poll_s
        offline, now_s = self.planned.offline, self._world.now_s
        goes_s = offline[0] - now_s if offline is not None and offline[0] > now_s else None
        headers = {"If-None-Match": f'"{self.generation}"'}
        try:
            async with asyncio.timeout(goes_s) as self._patience:
                path = f"/v1/agent/state?wait={wait_s:g}"
                reply = await self._connection.call("GET", path, headers=headers, wait_s=wait_s)
        except TimeoutError:
            return None  # the network went, or the run stops
        finally:
            self._patience = None
        if reply.status == _NOT_MODIFIED:
            return None
        desired = self._read(DesiredState, "poll", reply)
        self.generation, self._poll_s = desired.generation, desired.poll_s
        return desired

    def stop_waiting(self) -> None:
        """End a poll that waits."""
        if self._patience is not None:
            self._patience.reschedule(asyncio.get_running_loop().time())

    async def _obey(self, desired: DesiredState) -> None:
        for model, wanted in desired.models.items():
            await self._bring(model, wanted)

    async def _bring(self, model: str, wanted: Assignment) -> None:
        now = self.models.get(model, ModelStatus(State.IDLE))
        if wanted.release is None:
            if self.models.pop(model, None) is not None:
                await self._report()
            return
        tried = now.target == wanted.release and now.attempt == wanted.attempt and now.result is not None
        if tried or now.running == wanted.release or (wanted.hold and now.ready):
            return
        if not now.ready or now.target != wanted.release:
            self.told_at[model] = asyncio.get_running_loop().time()
            now = replace(now, target=wanted.release, attempt=wanted.attempt, rollout=wanted.rollout)
            now = replace(now, result=None, reason=None, ready=False)
            await self._fetch(model, wanted.release)
        await self._install(model, wanted, now)

    async def _install(self, model: str, wanted: Assignment, now: ModelStatus) -> None:
        """Test, switch and commit a release, or fail as planned."""
        release = wanted.release or 0
        result, reason = self._world.ends_as(self.planned, model, release)
        if not now.ready:
            await self._work("selftest", model, release)
            if result is Result.FAILED_NO_STATE_CHANGE:
                await self._enter(model, replace(now, state=State.FAILED, result=result, reason=reason))
                return
        if wanted.hold:
            await self._enter(model, replace(now, state=State.SELFTEST, ready=True))
            return
        now = replace(now, ready=False)
        await self._enter(model, replace(now, state=State.PROBATION))
        await self._work("probation", model, release)
        if result is Result.SUCCESSFUL:
            now = replace(now, state=State.COMMITTED, running=release)
            now = replace(now, variant=self._world.release(model, release).variant)
        else:
            now = replace(now, state=State.FAILED, reason=reason)
        await self._enter(model, replace(now, result=result))

    async def _work(self, what: str, model: str, release: int) -> None:
        span = self.planned.group.install_s
        if span[1]:
            await asyncio.sleep(between(span, self.planned.seed, self.planned.number, what, model, release))

    async def _enter(self, model: str, status: ModelStatus) -> None:
        """Be in another state, and say so."""
        self.models[model] = status
        if status.result is not None and status.rollout is not None:
            self.sent_results[status.rollout] = status.result
        event = Event(
            self._event_seq,
            self._wall(),
            model,
            status.target,
            status.attempt,
            status.state,
            status.result,
            status.reason,
            rollout=status.rollout,
            variant=status.variant,
        )
        self._event_seq += 1
        self._events.append(event)
        await self._report()

    async def _report(self) -> None:
        """Report what is, until it is answered: events stay until the server has them."""
        failures = 0
        while True:
            self._report_seq += 1
            self.sent = dict(self.models)
            report = Report(
                self.id,
                self._epoch,
                self._report_seq,
                self._wall(),
                self.sent,
                tuple(self._events),
                generation=self.generation,
            )
            try:
                await self._online()
                accepted = self._read(
                    Accepted, "report", await self._post("/v1/agent/reports", _json(report), _JSON)
                )
            except (LostError, RefusedError) as error:
                failures += 1
                await self._pause(failures, error)
                continue
            self.said, self.said_results = self.sent, dict(self.sent_results)
            self._events = [event for event in self._events if event.seq > accepted.events]
            return

    # --- a release's files

    async def _fetch(self, model: str, release: int) -> None:
        for file in self._world.release(model, release).files:
            await self._download(file)

    async def _download(self, file: File) -> None:
        """Fetch a file, by ``Range`` from where it broke off, and check it; what is wrong comes anew."""
        group, failures = self.planned.group, 0
        content, got = hashlib.sha256(), 0

        def take(piece: bytes) -> None:
            nonlocal got
            content.update(piece)
            got += len(piece)

        while True:
            cut = self._chance() < group.downloads_cut
            stop_after = 1 + int(self._chance() * file.size_bytes) if cut else None
            before = got
            try:
                await self._online()
                await asyncio.sleep(group.latency_s)
                reply = await self._connection.download(
                    file.path, got, take, bytes_per_s=group.bytes_per_s, stop_after=stop_after
                )
                if reply.status not in {200, 206} or (before and reply.status != 206):  # noqa: PLR2004 - HTTP's
                    content, got = hashlib.sha256(), 0
                    raise RefusedError(f"download of {file.path}", reply)  # noqa: TRY301 - tried again below
                if content.hexdigest() == file.sha256:
                    self._world.downloaded_bytes += got
                    return
                self._world.refused[f"{file.path}: wrong content"] += 1
                content, got = hashlib.sha256(), 0
            except (LostError, RefusedError) as error:
                failures = 0 if got > before else failures + 1
                await self._pause(failures, error)

    # --- telemetry

    async def measure(self) -> None:
        """Make windows as they are due and send them, until the run stops."""
        planned, world = self.planned, self._world
        telemetry = world.scenario.telemetry
        if not telemetry.window_s:
            return
        every_s = telemetry.send_every_s or telemetry.window_s
        turn = 1
        while (due_s := planned.phase_s + turn * every_s) < world.scenario.duration_s:
            if await self._stops_within(due_s - world.now_s):
                return
            self._make(min(world.now_s, world.scenario.duration_s))
            await self.send_telemetry()
            turn = max(turn + 1, int((world.now_s - planned.phase_s) / every_s) + 1)

    async def _stops_within(self, seconds: float) -> bool:
        stopping = self._world.stopping
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await stopping.wait()
        except TimeoutError:
            return stopping.is_set()
        return True

    async def finish_telemetry(self, until_s: float) -> None:
        """Make what is due by the end of the run, and send all."""
        if self._world.scenario.telemetry.window_s:
            self._make(until_s)
            await self.send_telemetry()

    def _make(self, until_s: float) -> None:
        copied = self.planned.cloned_at_s
        if copied is not None and copied <= until_s and len(self.streams) == 1:
            self._extend(copied)
            self.streams.append(self.streams[0].copied())
        self._extend(until_s)

    def _extend(self, until_s: float) -> None:
        world, model = self._world, self._world.telemetry_model
        status = self.models.get(model)
        release = status.running if status is not None and status.running is not None else 0
        for stream in self.streams:
            stream.make(until_s, world.began_at, model, release)

    async def send_telemetry(self) -> None:
        """Send all that waits, the device's own and its copy's."""
        connection = Connection(self._world.endpoint, self.token, self.planned.number)
        try:
            for stream in self.streams:
                await self._send_stream(stream, connection)
        finally:
            connection.close()

    async def _send_stream(self, stream: Stream, connection: Connection) -> None:
        failures = 0
        while stream.waiting:
            await self._online()
            sent, encoded = stream.batch(self._world.now_s, self._wall())
            headers = {"Content-Type": encoded.content_type, "Content-Encoding": encoded.content_encoding}
            try:
                reply = await self._post(TELEMETRY, encoded.body, headers, connection)
            except LostError as error:
                failures += 1
                await self._pause(failures, error)
                continue
            why = stream.judge(sent, reply)
            if why is not None:
                failures += 1
                await self._pause(failures, RefusedError("telemetry", reply))

    # --- the network

    async def _post(
        self, path: str, body: bytes, headers: Mapping[str, str], connection: Connection | None = None
    ) -> Reply:
        """Post; lose the answer as often as the group does, before it came or unread."""
        group, way = self.planned.group, connection or self._connection
        await asyncio.sleep(group.latency_s)
        if group.answers_lost and (chance := self._chance()) < group.answers_lost:
            if chance < group.answers_lost / 2:
                await way.send_and_leave(path, body, headers)
            else:
                await way.call("POST", path, body, headers)
                way.close()
            raise LostError("lost, as the scenario has it")
        return await way.call("POST", path, body, headers)

    async def _online(self) -> None:
        """Wait while there is no network."""
        offline, now_s = self.planned.offline, self._world.now_s
        if offline is not None and offline[0] <= now_s < offline[1]:
            self._connection.close()
            await asyncio.sleep(offline[1] - now_s)

    async def _pause(self, failures: int, error: Exception | None = None) -> None:
        """Wait before another try, and count why."""
        wait_s = min(_LONGEST_WAIT_S, between(_AGAIN_S, self.planned.seed, self._count()) * 2.0**failures)
        if isinstance(error, RefusedError):
            self._world.refused[str(error)] += 1
            asked_s = error.reply.retry_after_s
            wait_s = max(wait_s, min(asked_s or 0.0, _LONGEST_RETRY_AFTER_S))
        else:
            self._world.lost += 1
        await asyncio.sleep(wait_s)

    def _read(self, kind: type[T], call: str, reply: Reply) -> T:
        if reply.status not in _OK:
            raise RefusedError(call, reply)
        try:
            return typed_json.read(kind, typed_json.parse(reply.body, call), call)
        except MessageError as error:
            raise RefusedError(f"{call}: {error}", reply) from error

    def _wall(self) -> float:
        return self._world.began_at + self._world.now_s + self.planned.clock_off_s

    def _count(self) -> str:
        self._draws += 1
        return f"{self.planned.number}/draw {self._draws}"

    def _chance(self) -> float:
        return draw(self.planned.seed, self._count())

    def _secret(self, what: str) -> str:
        names = (self._world.run, self.planned.number, what)
        return hashlib.sha256("/".join(map(str, (*names, self._world.secret))).encode()).hexdigest()


def _json(document: object) -> bytes:
    return json.dumps(typed_json.write(document)).encode()
