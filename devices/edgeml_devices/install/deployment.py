"""One release onto one device, agentless: staged, tested, switched, watched, committed or rolled back.

The states are those of docs/reference/fleet.md; ``device.sh`` keeps them on the device. Whatever stops
this side, the device stays on a whole release, and the same deploy again goes on from where it stood.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from edgeml.bundle_place import MANIFEST
from edgeml.errors import BundleError, TransportError
from edgeml.figures import readable_size
from edgeml.health import HealthPolicy, health_policy
from edgeml.installed import INSTALLED, needed_files, read_installation
from edgeml.manifest import FileEntry
from edgeml.manifest_json import loads
from edgeml.transport import Progress, ReportsProgress
from edgeml_devices.install import owner
from edgeml_devices.install.device import LEASE_S, SLOWEST_BYTES_PER_S, Device, InstalledOnDevice, opened
from edgeml_devices.install.facts import DeviceFacts, ask_facts, choose_variant
from edgeml_devices.install.gates import RESTART_TIMEOUT_S, Gates
from edgeml_devices.install.payload import Payload, sums
from edgeml_devices.install.words import Outcome, Plan, Standing, StepError, Watch
from edgeml_devices.messages import Reason, Result, State

_MARGIN_BYTES: Final = 1 << 20
"""Free space beyond the files': folders, the state."""
_BLOCK_BYTES: Final = 4096
_DAMNING: Final = frozenset({Reason.PARITY, Reason.SELFTEST_CRASH, Reason.MANIFEST})
"""What a self-test may say of the previous release that makes it unfit to go back to."""


@contextmanager
def deployment(
    url: str, home: str | None, plan: Plan, watch: Watch, stop: threading.Event
) -> Iterator[Deployment]:
    """Connect to a device; as :func:`edgeml_devices.install.device.opened`."""
    with opened(url, home) as device:
        yield Deployment(url, device, plan, watch, stop)


class Deployment:
    """One deploy on one device. Not for several threads."""

    def __init__(self, url: str, device: Device, plan: Plan, watch: Watch, stop: threading.Event) -> None:
        self._device = device
        self._plan = plan
        self._watch = watch
        self._stop = stop
        self._begun = time.monotonic()
        self._standing = Standing()
        self._has_begun = False
        self._outcome = Outcome(url, Result.FAILED_NO_STATE_CHANGE)

    def install(self, payload: Payload) -> Outcome:
        """Install a bundle's release. Failures on the device are outcomes, not errors.

        Raises:
            UsageError: the bundle has no such variant.
        """
        manifest = payload.manifest
        self._outcome = replace(self._outcome, release=manifest.release)

        def work() -> Outcome:
            facts = self._ask(State.ACCEPTED)
            variant = choose_variant(manifest, facts, self._plan.variant).variant.name
            self._outcome = replace(self._outcome, variant=variant)
            gates = self._gates(facts)
            gates.require_self_test()
            self._lock()
            policy = health_policy(manifest)
            there = self._settled(manifest.name, gates, policy, payload.manifest_sha256)
            if there is not None and self._is_done(there, payload, variant):
                return self._ended(Result.SUCCESSFUL, detail="it was there already")
            there = self._begin(manifest.name, manifest.release)
            is_resumed = there.state is State.PROBATION
            if not is_resumed:
                self._stage(payload, variant, policy)
                self._self_test(gates, manifest.name, manifest.release, policy, payload)
            return self._activate(gates, manifest.name, manifest.release, policy, is_resumed=is_resumed)

        return self._guarded(manifest.name, work)

    def go_back(self, name: str) -> Outcome:
        """Go back to the previous release of a model, by hand; the same gates hold for it."""
        policy = HealthPolicy()

        def work() -> Outcome:
            gates = self._gates(self._ask(State.ACCEPTED))
            gates.require_self_test()
            self._lock()
            left = self._status(name)
            there = self._settled(name, gates, policy, "")
            if left is not None and left.state in {State.PROBATION, State.ROLLING_BACK}:
                # the release that nobody has kept is the one to go back from
                self._outcome = replace(self._outcome, release=self._outcome.running)
                return self._ended(Result.SUCCESSFUL)
            if there is None or there.previous is None:
                raise StepError(Reason.UNKNOWN_RELEASE, f"no previous release of {name} is there")
            release = there.previous
            self._outcome = replace(self._outcome, release=release)
            self._begin(name, release)
            self._say(State.STAGED, "verifying")
            self._device.call("verify", name, str(release))
            self._self_test(gates, name, release, policy, None)
            return self._activate(gates, name, release, policy, is_resumed=False)

        return self._guarded(name, work)

    # --- before the switch

    def _guarded(self, name: str, work: Callable[[], Outcome]) -> Outcome:
        try:
            return work()
        except StepError as error:
            # what is there and verified need not be sent again by the next deploy
            if self._has_begun and error.reason not in {Reason.BUSY, Reason.ABORTED, Reason.NETWORK}:
                self._try_to_end(name, error.reason)
            return self._ended(Result.FAILED_NO_STATE_CHANGE, error.reason, error.detail)
        except TransportError as error:
            return self._ended(Result.FAILED_NO_STATE_CHANGE, Reason.NETWORK, str(error))
        except BundleError as error:
            return self._ended(Result.FAILED_NO_STATE_CHANGE, Reason.HASH, str(error))
        finally:
            self._leave()

    def _ask(self, state: State) -> DeviceFacts:
        self._say(state, "asking what the device is")
        return ask_facts(self._device)

    def _gates(self, facts: DeviceFacts) -> Gates:
        return Gates(self._device, facts.edgeml, self._plan, self._stop)

    def _lock(self) -> None:
        self._go_on()
        self._device.lock(owner.who(), force=self._plan.force)

    def _settled(
        self, name: str, gates: Gates, policy: HealthPolicy, manifest_sha256: str
    ) -> InstalledOnDevice | None:
        """End what an earlier deploy has left, unless it is this one's probation; say what is there."""
        self._device.call("recover")
        there = self._status(name)
        if there is None:
            return None
        is_resumed = (
            there.release == self._outcome.release
            and there.manifest_sha256 == manifest_sha256
            and self._outcome.variant in there.variants
        )
        if there.state is State.ROLLING_BACK or (there.state is State.PROBATION and not is_resumed):
            self._say(State.ROLLING_BACK, f"release {there.release} of an earlier deploy")
            self._take_back(name, Reason.SUPERSEDED)
            self._end_rollback(gates, name, policy, Reason.SUPERSEDED)
            there = self._status(name)
        return there

    def _status(self, name: str) -> InstalledOnDevice | None:
        there = next(iter(self._device.status(name)), None)
        return None if there is None else self._saw(there)

    def _saw(self, there: InstalledOnDevice) -> InstalledOnDevice:
        self._outcome = replace(self._outcome, running=there.running, previous=there.previous)
        if self._outcome.variant is None and there.running == self._outcome.release and there.variants:
            self._outcome = replace(self._outcome, variant=there.variants[0])
        return there

    def _is_done(self, there: InstalledOnDevice, payload: Payload, variant: str) -> bool:
        if there.state in {State.PROBATION, State.QUARANTINED}:
            return False
        if there.running != payload.manifest.release or there.variants[:1] != (variant,):
            return False
        if there.manifest_sha256 != payload.manifest_sha256:
            return False
        try:
            self._device.call("verify", there.name, str(there.running))
        except StepError:
            return False  # damaged: it is mended from the bundle
        return True

    def _begin(self, name: str, release: int) -> InstalledOnDevice:
        there = self._device.begin(name, release)
        self._has_begun = True
        self._adopt(there)
        return there

    def _adopt(self, there: InstalledOnDevice) -> None:
        """Take over what an agent has installed: list its files, so that going back to it can be verified."""
        if there.running is None or there.manifest_sha256:
            return
        folder = self._device.release_folder(there.name, there.running)
        with tempfile.TemporaryDirectory(prefix="edgeml-deploy-") as scratch:
            try:
                for file in (MANIFEST, INSTALLED):
                    self._device.transport.get(f"{folder}/{file}", Path(scratch, file))
                text = Path(scratch, MANIFEST).read_bytes()
                installation = read_installation(Path(scratch))
                files = needed_files(loads(text), installation.variants)
            except (BundleError, TransportError):
                return  # no release of edgeml's: there is no way back to it
            manifest = FileEntry(MANIFEST, len(text), installation.manifest_sha256)
            listed = Path(scratch, "list")
            listed.write_bytes(sums((manifest, *files)))
            self._device.put(listed, f"models/{there.name}/deploy/.{there.running}.sha256")
        self._device.call("adopt", there.name, str(there.running))

    def _stage(self, payload: Payload, variant: str, policy: HealthPolicy) -> None:
        manifest, files = payload.manifest, payload.files(variant)
        self._fetch(payload, files)
        self._say(State.STAGED, "hashing")
        folder = f"models/{manifest.name}/deploy"
        self._device.put(payload.scratch("list", sums(files)), f"{folder}/.{manifest.release}.sha256")
        self._device.put(payload.installed_json(variant, {}), f"{folder}/.{manifest.release}.json")
        lease_s = LEASE_S + int(policy.selftest_timeout_s)
        self._device.call("stage", manifest.name, str(manifest.release), lease_s=lease_s)

    def _fetch(self, payload: Payload, files: tuple[FileEntry, ...]) -> None:
        by_hash = {entry.sha256: entry for entry in files}
        self._say(State.FETCHING, "asking what is there")
        reply = self._device.call("missing", *by_hash)
        missing = [by_hash[digest] for digest in reply.all("missing") if digest in by_hash]
        needed = missing if reply.first("links") == "yes" else [*missing, *files]
        needed_bytes = sum(-(-entry.size_bytes // _BLOCK_BYTES) * _BLOCK_BYTES for entry in needed)
        free_bytes = (reply.number("free_kib") or 0) * 1024
        if needed_bytes + _MARGIN_BYTES > free_bytes:
            raise StepError(
                Reason.DISK_FULL,
                f"{readable_size(needed_bytes + _MARGIN_BYTES)} are needed in {self._device.home}, "
                f"{readable_size(free_bytes)} are free; make room on the device and deploy again",
            )
        whole_bytes = sum(entry.size_bytes for entry in missing)
        self._standing = replace(self._standing, whole_bytes=whole_bytes)
        for entry in missing:
            self._go_on()
            self._send(payload.local(entry), entry)

    def _send(self, local: Path, entry: FileEntry) -> None:
        before, begun = self._standing.sent_bytes, time.monotonic()
        transport = self._device.transport

        def report(progress: Progress) -> None:
            self._standing = replace(
                self._standing,
                sent_bytes=before + progress.done_bytes,
                bytes_per_second=progress.bytes_per_second,
            )
            self._say(State.FETCHING, "sending")

        # the lease must last as long as the file may take
        self._device.call("lease", lease_s=LEASE_S + entry.size_bytes // SLOWEST_BYTES_PER_S)
        self._say(State.FETCHING, "sending")
        if isinstance(transport, ReportsProgress):
            transport.on_progress(report)
        try:
            self._device.put(local, f"blobs/sha256/{entry.sha256}.part")
        finally:
            if isinstance(transport, ReportsProgress):
                transport.on_progress(None)
        self._device.call("accept", entry.sha256)
        self._standing = replace(
            self._standing,
            sent_bytes=before + entry.size_bytes,
            bytes_per_second=entry.size_bytes / max(1e-6, time.monotonic() - begun),
        )
        self._outcome = replace(self._outcome, sent_bytes=self._standing.sent_bytes)
        self._say(State.FETCHING, "sending")

    def _self_test(
        self, gates: Gates, name: str, release: int, policy: HealthPolicy, payload: Payload | None
    ) -> None:
        self._go_on()
        self._say(State.SELFTEST, "testing")
        folder = self._device.release_folder(name, release)
        variant = self._outcome.variant
        verdict = gates.self_test(folder, variant, policy.selftest_timeout_s)
        self._outcome = replace(
            self._outcome,
            verified=verdict.verified,
            measured=verdict.measured,
            emulated=verdict.emulated,
        )
        if payload is not None and variant is not None and verdict.measured:
            text = payload.installed_json(variant, verdict.measured)
            self._device.put(text, f"models/{name}/deploy/.{release}.json")
            self._device.call("describe", name, str(release))

    # --- after the switch

    def _activate(
        self, gates: Gates, name: str, release: int, policy: HealthPolicy, *, is_resumed: bool
    ) -> Outcome:
        self._go_on()
        probation_s = policy.probation_s if self._plan.probation_s is None else self._plan.probation_s
        self._say(State.SWITCHING, "switching")
        try:
            lease_s = LEASE_S + int(RESTART_TIMEOUT_S + probation_s)
            starts = self._device.call("switch", name, str(release), lease_s=lease_s).number("starts") or 1
            self._outcome = replace(self._outcome, running=release)
            if starts > policy.max_starts:
                raise StepError(Reason.TOO_MANY_STARTS, f"its probation began {starts} times")  # noqa: TRY301
            if is_resumed:
                self._self_test(gates, name, release, policy, None)
            gates.restart()
            self._say(State.PROBATION, "watching")
            gates.watch(probation_s)
            self._end(name, State.COMMITTED, Result.SUCCESSFUL, None)
        except StepError as error:
            return self._roll_back(gates, name, policy, error)
        except TransportError as error:
            return self._roll_back(gates, name, policy, StepError(Reason.NETWORK, str(error)))
        self._say(State.COMMITTED, "")
        return self._ended(Result.SUCCESSFUL)

    def _roll_back(self, gates: Gates, name: str, policy: HealthPolicy, cause: StepError) -> Outcome:
        if cause.reason is Reason.BUSY:
            detail = f"{cause.detail}; release {self._outcome.release} may run there, in probation"
            return self._ended(Result.FAILED_UNABLE_TO_ROLLBACK, cause.reason, detail)
        self._say(State.ROLLING_BACK, cause.detail)
        try:
            if cause.reason is Reason.NETWORK:
                self._connect_again()
            self._device.call("recover")
            there = self._status(name)
            if there is not None and there.state not in {State.PROBATION, State.ROLLING_BACK}:
                return self._not_switched(there, cause)
            self._take_back(name, cause.reason)
            self._end_rollback(gates, name, policy, cause.reason)
        except (StepError, TransportError) as error:
            detail = (
                f"{cause.detail}; and it could not be rolled back: {error}. Release {self._outcome.release} "
                "may run there, in probation: deploy again, or go back with --rollback"
            )
            return self._ended(Result.FAILED_UNABLE_TO_ROLLBACK, cause.reason, detail)
        return self._ended(Result.FAILED_ROLLBACK_COMPLETE, cause.reason, cause.detail)

    def _not_switched(self, there: InstalledOnDevice, cause: StepError) -> Outcome:
        """Tell from the device's own record how a deploy ended whose answer was lost."""
        if there.state is State.COMMITTED and there.running == self._outcome.release:
            return self._ended(Result.SUCCESSFUL)
        self._try_to_end(there.name, cause.reason)
        return self._ended(Result.FAILED_NO_STATE_CHANGE, cause.reason, cause.detail)

    def _take_back(self, name: str, reason: Reason) -> None:
        there = self._saw(self._device.roll_back(name, reason))
        if there.state is State.QUARANTINED:
            raise StepError(Reason.HASH, "the previous release is damaged, too: the model is in quarantine")

    def _end_rollback(self, gates: Gates, name: str, policy: HealthPolicy, reason: Reason) -> None:
        back = self._outcome.running
        gates.restart()
        if back is not None:
            self._say(State.ROLLING_BACK, f"testing release {back}")
            try:
                gates.self_test(self._device.release_folder(name, back), None, policy.selftest_timeout_s)
            except StepError as error:
                if error.reason in _DAMNING:
                    self._end(name, State.QUARANTINED, Result.FAILED_UNABLE_TO_ROLLBACK, error.reason)
                    raise
        self._end(name, State.FAILED, Result.FAILED_ROLLBACK_COMPLETE, reason)

    def _connect_again(self) -> None:
        self._device.transport.close()
        self._device.transport.connect()

    # --- words

    def _say(self, state: State, doing: str) -> None:
        self._standing = replace(self._standing, state=state, doing=doing)
        self._watch(self._standing)

    def _go_on(self) -> None:
        if self._stop.is_set():
            raise StepError(Reason.ABORTED, "stopped before the switch: nothing has changed")

    def _end(self, name: str, state: State, result: Result, reason: Reason | None) -> None:
        self._saw(self._device.end(name, state, result, reason))

    def _try_to_end(self, name: str, reason: Reason) -> None:
        """Note a failure that changed nothing, if that can be: `recover` copes without."""
        with suppress(StepError, TransportError):
            self._end(name, State.FAILED, Result.FAILED_NO_STATE_CHANGE, reason)

    def _leave(self) -> None:
        with suppress(StepError, TransportError):
            self._device.unlock()

    def _ended(self, result: Result, reason: Reason | None = None, detail: str = "") -> Outcome:
        duration_s = time.monotonic() - self._begun
        self._outcome = replace(
            self._outcome, result=result, reason=reason, detail=detail, duration_s=duration_s
        )
        return self._outcome
