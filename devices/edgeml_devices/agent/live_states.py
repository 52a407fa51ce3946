"""SWITCHING and all that follows: what is done to the release that runs."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any, Final

from edgeml.errors import BundleError, ModelFileError
from edgeml.health import HealthPolicy, health_policy
from edgeml.installed import open_installed, read_installation
from edgeml_devices.agent.beats import Probation
from edgeml_devices.agent.deployment import LOG, Deployment, Step
from edgeml_devices.agent.failures import DETAIL_LIMIT, StepFailedError, disk_failure
from edgeml_devices.agent.keep import free_staging, keep_what_is_needed
from edgeml_devices.agent.releases import (
    factory_release,
    leads_to_factory,
    mark_committed,
    restore,
    switch,
    switch_back,
    switch_to_factory,
    why_damaged,
)
from edgeml_devices.agent.states import idle, without_limits
from edgeml_devices.messages import Reason, Result, State

_LOOK_EVERY_S: Final = 0.5
_RESULTS_TRIED_AGAIN: Final = frozenset({Reason.SUPERSEDED, Reason.ABORTED, Reason.UNREADABLE_STATE})
"""Ends that say nothing of the release: the same attempt may be wanted again."""
_TEST_DID_NOT_END: Final = frozenset({Reason.SELFTEST_CRASH, Reason.SELFTEST_TIMEOUT})
"""A machine that is short of memory or time does that to a sound release, too."""


def switching(deployment: Deployment) -> Step:
    """Rename ``current`` to the target, and let the application know."""
    record, model = deployment.record, deployment.model
    if record.target is not None:
        # before the link is renamed: what a process says right after it must count
        deployment.tools.beats.watch(model.name, record.target)
    if model.running() != record.target or (record.target is None and model.current.is_symlink()):
        try:
            switch(model, record.target)
        except OSError as error:
            raise disk_failure(error, "cannot switch") from error
    deployment.restart_application()
    if record.target is None:
        return Step(State.COMMITTED, {"result": Result.SUCCESSFUL})
    return Step(State.PROBATION)


def probation(deployment: Deployment) -> Step:
    """Watch the release until its window has passed, and the server was reached."""
    record, tools, name = deployment.record, deployment.tools, deployment.model.name
    target = record.target or 0
    policy = policy_of(deployment)
    began = time.monotonic()
    watched = tools.beats.watched(name, target)
    judge = Probation(policy, record.expects_beats, began)
    tools.changed()
    while True:
        _require_wanted(deployment)
        now = time.monotonic()
        judge.require_sound(watched, now)
        if now - began >= policy.probation_s:
            if _is_reached(deployment, policy, began):
                judge.require_passed(watched, now)
                return Step(State.COMMITTED, {"result": Result.SUCCESSFUL})
            if now - began >= max(policy.server_timeout_s, policy.probation_s):
                detail = f"the server was not reached within {now - began:.0f} s after the switch"
                raise StepFailedError(Reason.SERVER_UNREACHABLE, detail)
        left_s = began + policy.probation_s - now
        deployment.nudge.sleep(min(_LOOK_EVERY_S, left_s) if left_s > 0 else _LOOK_EVERY_S)


def policy_of(deployment: Deployment) -> HealthPolicy:
    """Give the health policy of the target.

    Raises:
        StepFailedError: its folder is damaged.
    """
    folder = deployment.model.release_folder(deployment.record.target or 0)
    try:
        return health_policy(open_installed(folder).manifest)
    except (BundleError, ModelFileError) as error:
        raise StepFailedError(Reason.HASH, str(error)) from error


def _is_reached(deployment: Deployment, policy: HealthPolicy, since: float) -> bool:
    reached_at = deployment.tools.reached_at()
    return (
        policy.offline_allowed
        or deployment.record.offline
        or (reached_at is not None and reached_at >= since)
    )


def _require_wanted(deployment: Deployment) -> None:
    wish, record = deployment.wish(), deployment.record
    if wish is None or wish.assignment.on_abort != "rollback":
        return
    wanted = wish.assignment.release
    if wanted != record.target and (wanted is None or wanted == record.previous):
        raise StepFailedError(Reason.ABORTED, "the server asks for the previous release")


def committed(deployment: Deployment) -> Step:
    """Mark the release, and remove what is not needed any more."""
    target = deployment.record.target
    try:
        if target is not None:
            mark_committed(deployment.model, target)
        manifests = keep_what_is_needed(deployment)
    except OSError as error:
        # more is on the disk than has to be; the next commit tries again
        LOG.warning("%s: cannot remove what is not needed: %s", deployment.model.name, error)
        manifests = dict(deployment.record.manifests)
    changes: dict[str, Any] = {"manifests": manifests}
    if target is not None:
        failed = {name: at for name, at in deployment.record.failed.items() if name != str(target)}
        changes |= {"failed": failed, "variant": _first_variant(deployment, target)}
    return Step(State.IDLE, changes)


def _first_variant(deployment: Deployment, release: int) -> str | None:
    with suppress(BundleError):
        return read_installation(deployment.model.release_folder(release)).variants[0]
    return None


def rolling_back(deployment: Deployment) -> Step:
    """Go back to what ran before, and see that it is sound."""
    with suppress(OSError):
        free_staging(deployment)
    try:
        back = _way_back(deployment)
        if back is None:
            _run_factory_or_nothing(deployment)
        elif deployment.model.running() != back:
            switch_back(deployment.model, back)
    except OSError as error:
        raise disk_failure(error, "cannot switch back") from error
    told = [deployment.record.detail]
    # the release that ran is back and sound: what follows tells of other troubles, and takes it away for none
    try:
        deployment.restart_application()
    except StepFailedError as error:
        told.append(f"after the rollback: {error.detail}")
    try:
        if back is not None:
            _require_golden(deployment, back)
    except StepFailedError as error:
        if error.reason not in _TEST_DID_NOT_END:
            raise
        told.append(f"the test of release {back} after the rollback: {error.detail}")
    return Step(
        State.FAILED,
        {
            "result": Result.FAILED_ROLLBACK_COMPLETE,
            "failed": failed_now(deployment),
            "detail": "; ".join(told)[:DETAIL_LIMIT],
        },
    )


def _way_back(deployment: Deployment) -> int | None:
    """Give the release to go back to; ``None``: the factory's, or nothing."""
    record, model = deployment.record, deployment.model
    back = record.previous
    if back is None:
        return None
    floor = deployment.tools.floor(model.name)
    if back < floor:
        detail = f"release {back}, which ran before, is below the signed floor {floor}"
        raise StepFailedError(Reason.BELOW_FLOOR, detail)
    folder, sha256 = model.release_folder(back), record.manifests.get(str(back))
    damage = why_damaged(folder, sha256)
    if damage is not None and not (sha256 and restore(deployment.tools.store, folder, sha256)):
        raise StepFailedError(Reason.HASH, f"release {back}, which ran before: {damage}")
    return back


def _run_factory_or_nothing(deployment: Deployment) -> None:
    model = deployment.model
    factory = factory_release(model)
    floor = deployment.tools.floor(model.name)
    if factory is not None and factory >= floor and (leads_to_factory(model) or switch_to_factory(model)):
        return
    switch_back(model, None)


def _require_golden(deployment: Deployment, release: int) -> None:
    """Run the golden samples of the release that runs again; its figures are not judged."""
    folder = deployment.model.release_folder(release)
    try:
        bundle = open_installed(folder)
        policy = without_limits(health_policy(bundle.manifest))
    except (BundleError, ModelFileError) as error:
        raise StepFailedError(Reason.HASH, str(error)) from error
    with deployment.tools.busy:
        result = deployment.tools.selftest(folder, bundle.manifest.variants[0].name, policy)
    if not result.passed:
        raise StepFailedError(Reason(result.reason or Reason.SELFTEST_CRASH), result.detail)


def failed_now(deployment: Deployment) -> dict[str, int]:
    """Give the attempts that are not repeated by themselves, this one among them."""
    record = deployment.record
    failed = dict(record.failed)
    if record.target is not None and record.reason not in _RESULTS_TRIED_AGAIN and record.attempt > 0:
        failed[str(record.target)] = record.attempt
    return failed


def failed(deployment: Deployment) -> Step:
    """Free what was staged."""
    with suppress(OSError):
        if deployment.record.reason != Reason.NETWORK:  # what came of it is of use to the next attempt
            free_staging(deployment)
    return Step(State.IDLE)


def quarantined(deployment: Deployment) -> Step | None:
    """Run what ran before if it is sound, else the factory bundle, or nothing; leave for another attempt."""
    factory_or_nothing = leads_to_factory(deployment.model) or not deployment.model.current.is_symlink()
    if not factory_or_nothing and not _runs_what_ran_before(deployment):
        try:
            _run_factory_or_nothing(deployment)
            deployment.restart_application()
        except (OSError, StepFailedError) as error:
            LOG.warning("%s: %s", deployment.model.name, error)
    return idle(deployment)


def _runs_what_ran_before(deployment: Deployment) -> bool:
    """Say whether `current` leads to the release from before the attempt, and every file of it is whole."""
    record, model = deployment.record, deployment.model
    running = model.running()
    if running is None or running != record.previous or running < deployment.tools.floor(model.name):
        return False
    return why_damaged(model.release_folder(running), record.manifests.get(str(running))) is None
