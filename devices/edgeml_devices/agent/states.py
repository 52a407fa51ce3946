"""The states before SWITCHING: each can be done again, and none touches what runs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from edgeml.bundle_checks import check_manifest
from edgeml.choice import candidates, fitting
from edgeml.errors import BundleError, EdgemlError, ModelFileError
from edgeml.health import HealthPolicy, health_policy
from edgeml.installed import needed_files as files_in_folder
from edgeml.manifest import FileEntry, Manifest
from edgeml.manifest_json import loads
from edgeml.selftest import SelftestResult
from edgeml.targets import Target
from edgeml_devices.agent.deployment import LOG, Deployment, Step, Wish
from edgeml_devices.agent.disk import make_folder
from edgeml_devices.agent.failures import StepFailedError, disk_failure
from edgeml_devices.agent.record import StateRecord
from edgeml_devices.agent.releases import build_release, keep_variant, why_damaged
from edgeml_devices.messages import Reason, Result, State, Tested

_ASK_AGAIN_S: Final = 30.0


def idle(deployment: Deployment) -> Step | None:
    """Begin what is wanted and was not tried; ``None``: there is nothing to do."""
    wish = deployment.wish()
    if wish is None or not is_due(deployment.record, wish, deployment.model.running()):
        return None
    wanted = wish.assignment
    begun: dict[str, Any] = {
        "target": wanted.release,
        "attempt": wanted.attempt,
        "rollout": wanted.rollout,
        "previous": deployment.model.running(),
        "candidates": (),
        "variant": None,
        "tested": {},
        "offline": wish.origin.offline,
        "overruled": wish.overrules,
        "steps": 1,
        "starts": 0,
        "fetched_bytes": 0,
        "result": None,
        "reason": None,
        "detail": "",
    }
    if wanted.release is None:
        return Step(State.SWITCHING, begun | {"reason": Reason.REMOVED})
    return Step(State.ACCEPTED, begun)


def is_due(record: StateRecord, wish: Wish, running: int | None) -> bool:
    """Say whether an assignment is to be worked on."""
    wanted = wish.assignment
    if not wish.origin.offline and wish.key == record.overruled:
        return False
    if wanted.release is None:
        done = record.target is None and record.attempt > 0 and record.result is Result.SUCCESSFUL
        return running is not None or (record.target is not None and not done)
    if record.failed.get(str(wanted.release), -1) >= wanted.attempt:
        return False
    done = (
        record.target == wanted.release
        and record.attempt >= wanted.attempt
        and record.result is Result.SUCCESSFUL
    )
    return not (done and running == wanted.release)


def accepted(deployment: Deployment) -> Step:
    """Verify the manifest, choose what fits, and see that there is room."""
    record, tools, origin = deployment.record, deployment.tools, deployment.origin()
    target = record.target
    if target is None:
        raise StepFailedError(Reason.MANIFEST, "no release to install")
    model = deployment.model
    signed = deployment.fetcher().persist(lambda: origin.manifest(model.name, target), origin.blobs)
    manifest = _read_manifest(signed.content, model.name, target)
    try:
        make_folder(tools.store.folder)
        tools.store.put(signed.content)
    except OSError as error:
        raise disk_failure(error, "cannot keep the manifest") from error
    manifests = {**record.manifests, str(target): signed.sha256}
    if model.running() == target:
        damage = why_damaged(model.release_folder(target), signed.sha256)
        if damage is not None:
            detail = f"release {target} runs here, and is not the one that was signed: {damage}"
            raise StepFailedError(Reason.MANIFEST, detail)
        done = {"manifests": manifests, "result": Result.SUCCESSFUL, "detail": "it ran already"}
        return Step(State.COMMITTED, done)
    chosen = choose_candidates(manifest, *tools.machine())
    _require_space(deployment, files_of(manifest, chosen))
    return Step(State.FETCHING, {"manifests": manifests, "candidates": chosen})


def _read_manifest(content: bytes, name: str, release: int) -> Manifest:
    try:
        manifest = loads(content, f"the manifest of {name} {release}")
        check_manifest(manifest, f"the manifest of {name} {release}")
        health_policy(manifest)
    except (BundleError, ModelFileError) as error:
        raise StepFailedError(Reason.MANIFEST, str(error)) from error
    if (manifest.name, manifest.release) != (name, release):
        raise StepFailedError(
            Reason.MANIFEST, f"signed as {name} {release}, it says {manifest.name} {manifest.release}"
        )
    return manifest


def choose_candidates(manifest: Manifest, machine: Target, engines: Mapping[str, str]) -> tuple[str, ...]:
    """Give the variant to install, or those to try out where nothing says which of them is the quickest."""
    try:
        ranked = fitting(manifest, machine, engines)
    except EdgemlError as error:
        raise StepFailedError(Reason.INCOMPATIBLE, str(error)) from error
    return tuple(one.variant.name for one in candidates(ranked, machine))


def files_of(manifest: Manifest, variants: Sequence[str]) -> tuple[FileEntry, ...]:
    """Give the files to fetch, each content once."""
    try:
        entries = files_in_folder(manifest, variants)
    except BundleError as error:
        raise StepFailedError(Reason.MANIFEST, str(error)) from error
    return tuple({entry.sha256: entry for entry in entries}.values())


def _require_space(deployment: Deployment, entries: Sequence[FileEntry]) -> None:
    store = deployment.tools.store
    try:
        missing = sum(entry.size_bytes for entry in entries) - store.here_bytes(entries)
        free = store.free_bytes() - deployment.tools.config.reserve_bytes
    except OSError as error:
        raise disk_failure(error, "cannot see how much of the disk is free") from error
    if missing > free:
        mib = 1024 * 1024
        raise StepFailedError(
            Reason.DISK_FULL,
            f"{missing / mib:.1f} MiB to fetch, {max(0, free) / mib:.1f} MiB free beside the reserve",
        )


def fetching(deployment: Deployment) -> Step:
    """Download what is missing."""
    manifest = deployment.manifest()
    if manifest is None:
        return Step(State.ACCEPTED)
    origin, fetcher = deployment.origin(), deployment.fetcher()
    for entry in files_of(manifest, deployment.record.candidates):
        _require_space(deployment, [entry])
        fetcher.fetch(origin.blobs, entry)
    return Step(State.STAGED)


def staged(deployment: Deployment) -> Step:
    """Hash all files once more and build the release folder."""
    manifest, store = deployment.manifest(), deployment.tools.store
    if manifest is None:
        return Step(State.ACCEPTED)
    damaged = False
    for entry in files_of(manifest, deployment.record.candidates):
        deployment.check()
        if not store.is_sound(entry.sha256):
            # the file of a release that links it is as damaged: a new one has to come
            store.drop(entry.sha256)
            damaged = True
    if damaged:
        return Step(State.FETCHING)
    record = deployment.record
    try:
        build_release(store, deployment.model, record.manifest_sha256, record.candidates)
    except OSError as error:
        raise disk_failure(error, "cannot build the release folder") from error
    except BundleError as error:
        raise StepFailedError(Reason.MANIFEST, str(error)) from error
    return Step(State.SELFTEST)


def selftest(deployment: Deployment) -> Step:
    """Run the golden samples of each candidate, keep the quickest sound one, wait for leave to switch."""
    target = deployment.record.target
    manifest = deployment.manifest()
    if manifest is None or target is None:
        return Step(State.ACCEPTED)
    folder = deployment.model.release_folder(target)
    policy = health_policy(manifest)
    if deployment.record.variant is None:
        if why_damaged(folder, deployment.record.manifest_sha256) is not None:
            return Step(State.STAGED)
        _choose(deployment, policy)
    if not _is_settled(deployment, folder):
        return Step(State.STAGED, {"variant": None})
    _wait_for_leave(deployment)
    damage = why_damaged(folder, deployment.record.manifest_sha256)
    if damage is not None:
        LOG.warning("%s: %s", deployment.model.name, damage)
        return Step(State.STAGED, {"variant": None})
    floor = deployment.tools.floor(deployment.model.name)
    if target < floor:
        raise StepFailedError(Reason.BELOW_FLOOR, f"the signed floor has risen to {floor}")
    expects = deployment.tools.beats.seen(deployment.model.name, policy.heartbeat_timeout_s)
    return Step(State.SWITCHING, {"previous": deployment.model.running(), "expects_beats": expects})


def _choose(deployment: Deployment, policy: HealthPolicy) -> None:
    """Test every candidate and note the quickest sound one."""
    tested = _test_all(deployment, policy)
    sound = [name for name, one in tested.items() if one.passed]
    if not sound:
        first = tested[deployment.record.candidates[0]]
        deployment.save(tested=tested)
        raise StepFailedError(Reason(first.reason or Reason.SELFTEST_CRASH), deployment.note)
    chosen = min(sound, key=lambda name: tested[name].p50_ms or 0.0)
    deployment.save(tested=tested, variant=chosen)


def _is_settled(deployment: Deployment, folder: Path) -> bool:
    """Leave only the chosen variant in the release folder; say whether that could be done."""
    record = deployment.record
    try:
        keep_variant(folder, record.variant or "", record.tested)
    except OSError as error:
        raise disk_failure(error, "cannot settle the release folder") from error
    except BundleError as error:
        LOG.warning("%s: %s", deployment.model.name, error)
        return False
    return True


def _test_all(deployment: Deployment, policy: HealthPolicy) -> dict[str, Tested]:
    target, found = deployment.record.target, {}
    folder = deployment.model.release_folder(target or 0)
    details = []
    for name in deployment.record.candidates:
        with deployment.tools.busy:
            deployment.check()
            result = deployment.tools.selftest(folder, name, policy)
        found[name] = as_tested(result)
        if not result.passed:
            details.append(f"{name}: {result.detail}")
    deployment.note = "; ".join(details)
    return found


def as_tested(result: SelftestResult) -> Tested:
    """Give a self-test's result as the server reads it."""
    latency = result.latency_ms
    return Tested(
        passed=result.passed,
        reason=result.reason,
        p50_ms=None if latency is None else latency.p50,
        p95_ms=None if latency is None else latency.p95,
        p99_ms=None if latency is None else latency.p99,
        load_ms=result.load_ms,
        peak_memory_bytes=result.peak_memory_bytes,
    )


def without_limits(policy: HealthPolicy) -> HealthPolicy:
    """Give a policy that asks for right outputs only."""
    return replace(policy, selftest_max_latency_p95_ms=None, selftest_max_memory_bytes=None)


def _wait_for_leave(deployment: Deployment) -> None:
    """Wait until server, application and device let the switch begin."""
    argv = deployment.tools.config.may_switch.get(deployment.model.name)
    while True:
        deployment.check()
        wish = deployment.wish()
        deferred_s = deployment.tools.beats.deferred_s(deployment.model.name)
        if wish is not None and not wish.is_open(time.monotonic()):
            _note(deployment, "tested; held by the server")
            wait_s = _ASK_AGAIN_S
        elif deferred_s > 0:
            _note(deployment, "tested; the application asks for a later switch")
            wait_s = min(deferred_s, _ASK_AGAIN_S)
        elif argv is not None and deployment.command(argv) != 0:
            _note(deployment, f"tested; {argv[0]} does not let it switch now")
            wait_s = _ASK_AGAIN_S
        else:
            return
        deployment.nudge.sleep(wait_s)


def _note(deployment: Deployment, text: str) -> None:
    if deployment.note != text or not deployment.ready:
        deployment.ready, deployment.note = True, text
        deployment.tools.changed()
