"""The state machine of one model: which state follows which, its limits, and how it goes on after a kill."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Final

from edgeml.errors import MessageError
from edgeml_devices.agent import live_states, states
from edgeml_devices.agent.deployment import LOG, Deployment, Step
from edgeml_devices.agent.failures import StepFailedError, StoppedError, disk_failure
from edgeml_devices.agent.home import committed_mark
from edgeml_devices.agent.record import StateRecord, new_record, read_record
from edgeml_devices.agent.releases import (
    leads_to_factory,
    releases_here,
    restore,
    switch_to_factory,
    why_damaged,
)
from edgeml_devices.messages import Reason, Result, State

MAX_STEPS: Final = 28
"""States entered and restarts of one attempt, as Mender's."""
TRANSITIONS: Final[Mapping[State, frozenset[State]]] = {
    State.IDLE: frozenset({State.ACCEPTED, State.SWITCHING}),
    State.ACCEPTED: frozenset({State.FETCHING, State.COMMITTED, State.FAILED}),
    State.FETCHING: frozenset({State.STAGED, State.ACCEPTED, State.FAILED}),
    State.STAGED: frozenset({State.SELFTEST, State.FETCHING, State.ACCEPTED, State.FAILED}),
    State.SELFTEST: frozenset({State.SWITCHING, State.STAGED, State.ACCEPTED, State.FAILED}),
    State.SWITCHING: frozenset({State.PROBATION, State.COMMITTED, State.ROLLING_BACK}),
    State.PROBATION: frozenset({State.COMMITTED, State.ROLLING_BACK}),
    State.COMMITTED: frozenset({State.IDLE}),
    State.ROLLING_BACK: frozenset({State.FAILED, State.QUARANTINED}),
    State.FAILED: frozenset({State.IDLE}),
    State.QUARANTINED: frozenset({State.ACCEPTED, State.SWITCHING}),
}
STATES: Final[dict[State, Callable[[Deployment], Step | None]]] = {
    State.IDLE: states.idle,
    State.ACCEPTED: states.accepted,
    State.FETCHING: states.fetching,
    State.STAGED: states.staged,
    State.SELFTEST: states.selftest,
    State.SWITCHING: live_states.switching,
    State.PROBATION: live_states.probation,
    State.COMMITTED: live_states.committed,
    State.ROLLING_BACK: live_states.rolling_back,
    State.FAILED: live_states.failed,
    State.QUARANTINED: live_states.quarantined,
}
_UNCOUNTED: Final = frozenset({State.IDLE, State.COMMITTED, State.FAILED, State.QUARANTINED})
"""States that end: each must be reached whatever came before."""


def run(deployment: Deployment) -> None:
    """Work until there is nothing left to do.

    Raises:
        StoppedError: the agent is to stop; the record says where to go on.
    """
    while advance(deployment):
        pass


def advance(deployment: Deployment) -> bool:
    """Do what the state asks for and enter the next; ``False``: the machine rests."""
    state = deployment.record.state
    try:
        step = STATES[state](deployment)
    except StoppedError:
        raise
    except StepFailedError as error:
        step = after_failure(deployment, error)
    except OSError as error:
        step = after_failure(deployment, disk_failure(error, f"in {state}"))
    except Exception as error:  # noqa: BLE001 - a bug must end the attempt, not the agent
        LOG.exception("%s: a bug of edgeml in %s", deployment.model.name, state)
        what = StepFailedError(
            Reason.IO_ERROR, f"a bug of edgeml in {state}: {type(error).__name__}: {error}"
        )
        step = after_failure(deployment, what)
    if step is None:
        return False
    if step.state not in TRANSITIONS[state]:
        raise RuntimeError(f"{state} does not lead to {step.state}")
    deployment.enter(_within_limits(deployment, step))
    return True


def after_failure(deployment: Deployment, error: StepFailedError) -> Step | None:
    """Give where a state leads that failed."""
    state, record = deployment.record.state, deployment.record
    LOG.warning("%s: %s failed (%s): %s", record.model, state, error.reason, error.detail)
    why = {"reason": error.reason, "detail": error.detail}
    if state is State.ROLLING_BACK:
        # the first reason stays: it says why there was a rollback at all
        detail = f"{record.detail}; the rollback failed ({error.reason}): {error.detail}"
        return Step(
            State.QUARANTINED,
            {
                "result": Result.FAILED_UNABLE_TO_ROLLBACK,
                "detail": detail,
                "failed": live_states.failed_now(deployment),
            },
        )
    if state in {State.SWITCHING, State.PROBATION}:
        return Step(State.ROLLING_BACK, why)
    if state in {State.IDLE, State.QUARANTINED}:
        return None
    if state in {State.COMMITTED, State.FAILED}:
        return Step(State.IDLE)
    deployment.record = replace(record, reason=error.reason)
    return Step(
        State.FAILED,
        why | {"result": Result.FAILED_NO_STATE_CHANGE, "failed": live_states.failed_now(deployment)},
    )


def _within_limits(deployment: Deployment, step: Step) -> Step:
    """Turn a step beyond the limit into the attempt's end."""
    steps = deployment.record.steps
    is_end = step.state in _UNCOUNTED or step.state is State.ROLLING_BACK
    if is_end or steps < MAX_STEPS or step.changes.get("steps"):
        return step
    error = StepFailedError(Reason.TOO_MANY_STEPS, f"{steps} steps without an end")
    return after_failure(deployment, error) or step


# --- after a start


def recover(deployment: Deployment) -> None:
    """Bring the record to where the machine goes on: the column "after a kill" of the table.

    Raises:
        StoppedError: the agent is to stop.
    """
    record = _read(deployment)
    deployment.record = record
    if record.entry > deployment.tools.outbox.last_entry(record.model) and record.attempt:
        deployment.tell()
    if record.reason == Reason.UNREADABLE_STATE and record.entry == 0:
        _write_as_it_is(deployment)
        return
    if not _running_is_sound(deployment):
        return
    _start_factory(deployment)
    _count_start(deployment)


def _read(deployment: Deployment) -> StateRecord:
    model = deployment.model
    try:
        record = read_record(model)
    except (MessageError, OSError) as error:
        LOG.warning("%s: %s", model.name, error)
        return _unreadable(deployment, str(error))
    if record is not None:
        return record
    running = model.running()
    if running is not None and not committed_mark(model, running).exists():
        return _unreadable(deployment, "the state file is missing beside a release that was not committed")
    return new_record(model.name)


def _unreadable(deployment: Deployment, detail: str) -> StateRecord:
    """Give the record of a model of which only the folders say something."""
    model = deployment.model
    running = model.running()
    order = [running, model.before(), *sorted(releases_here(model), reverse=True)]
    back = next(
        (
            release
            for release in dict.fromkeys(order)
            if release is not None
            and committed_mark(model, release).exists()
            and why_damaged(model.release_folder(release), None) is None
        ),
        None,
    )
    return StateRecord(
        model.name,
        State.ROLLING_BACK,
        target=running,
        previous=back,
        reason=Reason.UNREADABLE_STATE,
        detail=detail,
    )


def _write_as_it_is(deployment: Deployment) -> None:
    entry = deployment.tools.outbox.last_entry(deployment.model.name) + 1
    deployment.record = replace(deployment.record, entry=entry)
    deployment.enter(Step(State.ROLLING_BACK, {"steps": 1}))


def _running_is_sound(deployment: Deployment) -> bool:
    """Hash what runs; put it right, or go back from it."""
    record, model = deployment.record, deployment.model
    running = model.running()
    if running is None or record.state in {State.ROLLING_BACK, State.QUARANTINED}:
        return True
    sha256 = record.manifests.get(str(running))
    folder = model.release_folder(running)
    damage = why_damaged(folder, sha256)
    if damage is None:
        return True
    if sha256 and restore(deployment.tools.store, folder, sha256):
        LOG.warning("%s: release %s was damaged (%s), and is whole again", record.model, running, damage)
        return True
    LOG.error("%s: release %s, which runs, is damaged: %s", record.model, running, damage)
    others = [model.before(), *sorted(releases_here(model), reverse=True)]
    back = next((one for one in others if one is not None and _is_sound(deployment, one, running)), None)
    # attempt 0: it is not the release's fault, and it is fetched again if it is still wanted
    deployment.record = replace(record, target=running, previous=back, attempt=0)
    deployment.enter(
        Step(State.ROLLING_BACK, {"steps": 1, "result": None, "reason": Reason.HASH, "detail": damage})
    )
    return False


def _is_sound(deployment: Deployment, release: int, but: int) -> bool:
    folder = deployment.model.release_folder(release)
    return (
        release != but
        and committed_mark(deployment.model, release).exists()
        and why_damaged(folder, deployment.record.manifests.get(str(release))) is None
    )


def _start_factory(deployment: Deployment) -> None:
    """Let a device that has only what came with its image run that."""
    model, record = deployment.model, deployment.record
    is_new = record.state is State.IDLE and record.attempt == 0 and not model.current.is_symlink()
    if is_new and model.factory.is_dir():
        with suppress(OSError):
            switch_to_factory(model)


def _count_start(deployment: Deployment) -> None:
    """Count a restart within an attempt, and end an attempt that does not get beyond restarts."""
    record = deployment.record
    if record.state in _UNCOUNTED or (record.state is State.SELFTEST and record.variant is not None):
        return  # a release that was tested may wait any number of days
    if record.state is State.FETCHING and _got_on(deployment):
        return  # a device that is often cut off arrives all the same
    failure = _end_of_starts(deployment)
    step = None if failure is None else after_failure(deployment, failure)
    if step is not None:
        deployment.enter(step)
        return
    starts = record.starts + (record.state is State.PROBATION)
    _save(deployment, steps=record.steps + 1, starts=starts)
    LOG.info("%s: goes on in %s", record.model, record.state)


def _end_of_starts(deployment: Deployment) -> StepFailedError | None:
    record = deployment.record
    if record.state is State.SWITCHING and not _leads_somewhere_known(deployment):
        return StepFailedError(Reason.IO_ERROR, "`current` leads to neither release")
    if record.state is State.PROBATION and record.starts >= _max_starts(deployment):
        return StepFailedError(
            Reason.TOO_MANY_STARTS, f"restarted {record.starts + 1} times in its probation"
        )
    limit = 2 * MAX_STEPS if record.state is State.ROLLING_BACK else MAX_STEPS
    if record.steps >= limit:
        return StepFailedError(Reason.TOO_MANY_STEPS, f"{record.steps} steps and restarts without an end")
    return None


def _got_on(deployment: Deployment) -> bool:
    """Say whether more of a download is here than at the last restart."""
    record = deployment.record
    manifest = deployment.manifest()
    if manifest is None:
        return False
    here = deployment.tools.store.here_bytes(states.files_of(manifest, record.candidates))
    if here <= record.fetched_bytes:
        return False
    _save(deployment, fetched_bytes=here)
    return True


def _save(deployment: Deployment, **changes: object) -> None:
    """Count a start; on a disk that takes nothing it is not counted."""
    with suppress(StepFailedError):
        deployment.save(**changes)


def _leads_somewhere_known(deployment: Deployment) -> bool:
    record, model = deployment.record, deployment.model
    running = model.running()
    if running is not None:
        return running in {record.target, record.previous}
    return record.previous is None and (not model.current.is_symlink() or leads_to_factory(model))


def _max_starts(deployment: Deployment) -> int:
    try:
        return live_states.policy_of(deployment).max_starts
    except StepFailedError:
        return 0
