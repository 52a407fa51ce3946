"""What a release must pass on a device: the self-test before the switch, the operator's check after it."""

from __future__ import annotations

import json
import shlex
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from edgeml.errors import TransportError
from edgeml.transport import CommandResult
from edgeml_devices.install.device import Device
from edgeml_devices.install.words import Plan, StepError
from edgeml_devices.messages import Reason

RESTART_TIMEOUT_S: Final = 120.0
CHECK_TIMEOUT_S: Final = 30.0
CHECK_EVERY_S: Final = 2.0
START_S: Final = 10.0
"""So long an application may take after a restart until its check first passes."""
_SELFTEST_MARGIN_S: Final = 60.0
"""What starting Python may take on top of the self-test's own limit."""
_WHY_STARTS: Final = 126
"""Exit codes from here on mean that a shell did not find or may not run a command."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A self-test that passed."""

    verified: str
    """``selftest``, ``command``, or ``nothing``."""
    measured: Mapping[str, float] = field(default_factory=dict)
    emulated: bool = False
    """By an emulated device: no times are among what was measured."""


class Gates:
    """The gates on one device."""

    def __init__(self, device: Device, edgeml: str | None, plan: Plan, stop: threading.Event) -> None:
        self._device = device
        self._edgeml = edgeml
        self._plan = plan
        self._stop = stop

    def require_self_test(self) -> None:
        """Refuse early where nothing could test a release.

        Raises:
            StepError: edgeml is not on the device, and the operator has not said what to do about it.
        """
        if self._edgeml or self._plan.self_test or self._plan.skip_self_test:
            return
        raise StepError(
            Reason.ENGINE,
            "edgeml is not on the device, so that the release cannot be tested there: put it there by "
            "`edgeml devices provision`, or give a test of your own (--self-test), or --skip-self-test",
        )

    def self_test(self, folder: str, variant: str | None, timeout_s: float) -> Verdict:
        """Test a release folder on the device.

        Raises:
            StepError: it did not pass.
        """
        if self._plan.self_test:
            self._own_test(self._plan.self_test, folder, timeout_s)
            return Verdict("command")
        if self._plan.skip_self_test or not self._edgeml:
            return Verdict("nothing")
        argv = [self._edgeml, "selftest", folder, "--json"]
        argv += [] if variant is None else ["--variant", variant]
        try:
            done = self._device.transport.run(argv, timeout_s + _SELFTEST_MARGIN_S)
        except TransportError as error:
            raise StepError(Reason.SELFTEST_TIMEOUT, f"the self-test did not end: {error}") from error
        answer = _passed(done)
        return Verdict("selftest", _figures(answer), bool(answer.get("emulated")))

    def _own_test(self, command: str, folder: str, timeout_s: float) -> None:
        try:
            done = self._device.shell(command.replace("{folder}", shlex.quote(folder)), timeout_s)
        except TransportError as error:
            raise StepError(Reason.SELFTEST_TIMEOUT, f"the self-test did not end: {error}") from error
        if done.exit_code >= _WHY_STARTS:
            raise StepError(Reason.SELFTEST_CRASH, _ending("the self-test", done))
        if done.exit_code != 0:
            raise StepError(Reason.PARITY, _ending("the self-test", done))

    def restart(self) -> None:
        """Run the operator's restart command, if there is one.

        Raises:
            StepError: it failed.
        """
        if not self._plan.restart:
            return
        try:
            done = self._device.shell(self._plan.restart, RESTART_TIMEOUT_S)
        except TransportError as error:
            raise StepError(Reason.RESTART_FAILED, f"the restart command: {error}") from error
        if done.exit_code != 0:
            raise StepError(Reason.RESTART_FAILED, _ending("the restart command", done))

    def watch(self, probation_s: float) -> None:
        """Let the operator's check pass again and again until the probation is over.

        Raises:
            StepError: it failed, or the operator stops the deploy.
        """
        if not self._plan.check:
            return
        begun = time.monotonic()
        has_passed = False
        while True:
            fault = self._check(self._plan.check)
            waited_s = time.monotonic() - begun
            if fault is not None and (has_passed or waited_s >= START_S):
                raise StepError(Reason.HEALTH_CHECK, f"{fault}, {waited_s:.0f} s after the switch")
            has_passed = has_passed or fault is None
            if has_passed and waited_s >= probation_s:
                return
            left_s = probation_s - waited_s if has_passed else CHECK_EVERY_S
            if self._stop.wait(min(CHECK_EVERY_S, max(0.0, left_s))):
                raise StepError(Reason.ABORTED, "stopped during probation")

    def _check(self, command: str) -> str | None:
        """Say what is wrong; ``None`` if nothing is."""
        try:
            done = self._device.shell(command, CHECK_TIMEOUT_S)
        except TransportError as error:
            return f"the check: {error}"
        return None if done.exit_code == 0 else _ending("the check", done)


def _passed(done: CommandResult) -> Mapping[str, Any]:
    """Read what ``edgeml selftest --json`` says.

    Raises:
        StepError: not passed.
    """
    try:
        answer = json.loads(done.stdout)
        if "error" in answer:
            raise StepError(Reason.MANIFEST, str(answer["error"]["message"]))
        passed, reason, detail = answer["passed"], answer["reason"], str(answer["detail"])
    except (ValueError, LookupError, TypeError):
        raise StepError(Reason.SELFTEST_CRASH, _ending("edgeml selftest", done)) from None
    if not passed:
        known = reason in set(Reason)
        raise StepError(Reason(reason) if known else Reason.SELFTEST_CRASH, detail or "the self-test failed")
    found: Mapping[str, Any] = answer
    return found


def _figures(result: Mapping[str, Any]) -> dict[str, float]:
    times = result.get("latency_ms") or {}
    found = {f"{name}_ms": times.get(name) for name in ("p50", "p95", "p99")}
    found |= {name: result.get(name) for name in ("load_ms", "peak_memory_bytes")}
    return {name: value for name, value in found.items() if isinstance(value, int | float)}


def _ending(what: str, done: CommandResult) -> str:
    text = " ".join((done.stderr or done.stdout).decode(errors="replace").split())[-500:]
    return f"{what} ended with {done.exit_code}" + (f": {text}" if text else "")
