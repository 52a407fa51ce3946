"""Who hears of alerts: receivers in a TOML file, and the message in the format of Alertmanager."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from edgeml import typed_json
from edgeml.errors import MessageError, UsageError
from edgeml.toml_file import read_toml, reject_unknown
from edgeml_devices.server.alerts.rules import Rule, rendered
from edgeml_devices.server.alerts.states import Alert, AlertState

MOST_IN_MESSAGE: Final = 100
"""Alerts that a message names one by one; it says how many more there are."""
LONGEST_TIMEOUT_S: Final = 20.0
_NEVER: Final = "0001-01-01T00:00:00Z"
"""As Alertmanager writes an end that has not come."""


@dataclass(frozen=True, slots=True)
class Email:
    """Where mail goes, and by which server."""

    to: tuple[str, ...]
    sender: str
    server: str
    """``smtp://HOST:PORT`` (STARTTLS where the server has it) or ``smtps://HOST:PORT``."""
    user: str = ""
    password_file: str = ""


@dataclass(frozen=True, slots=True)
class Receiver:
    """One who hears. Exactly one of webhook, email and command is set."""

    name: str
    match: Mapping[str, str] = field(default_factory=dict)
    """Labels that a rule must have; none: all rules."""
    webhook: str = ""
    token_file: str = ""
    """Sent as ``Authorization: Bearer``."""
    email: Email | None = None
    command: tuple[str, ...] = ()
    """Gets the message as JSON on its standard input; exit code 0: delivered."""
    timeout_s: float = LONGEST_TIMEOUT_S
    """A delivery that takes longer has failed."""

    def wants(self, rule: Rule) -> bool:
        """Say whether a rule is for this receiver."""
        return all(rule.labels.get(name) == value for name, value in self.match.items())


@dataclass(frozen=True, slots=True)
class Receivers:
    """The whole file."""

    receivers: tuple[Receiver, ...] = ()
    repeat_s: float = 4 * 3600.0
    """How often a message comes again while an alert goes on firing."""


def read_receivers(path: Path) -> Receivers:
    """Read a file of receivers.

    Raises:
        UsageError: it cannot be read, or a receiver is not whole; it is named.
    """
    table = read_toml(path, ["receivers", "repeat_s"])
    for place, one in enumerate(table.get("receivers", [])):
        where = f"{path}: receivers[{place}]"
        reject_unknown(
            one, ["name", "match", "webhook", "token_file", "email", "command", "timeout_s"], where
        )
        reject_unknown(
            one.get("email", {}), ["to", "sender", "server", "user", "password_file"], f"{where}.email"
        )
    try:
        found = typed_json.read(Receivers, table, str(path))
    except MessageError as error:
        # what stands there instead may be a secret in the wrong place
        raise UsageError(str(error).partition(", got ")[0]) from None
    if not 60 <= found.repeat_s <= 366 * 86400:  # noqa: PLR2004 - a minute to a year
        raise UsageError(f"{path}: repeat_s is from 60 to a year, got {found.repeat_s}")
    names = [one.name for one in found.receivers]
    for one in found.receivers:
        try:
            _check(one, f"{path}: receiver {one.name!r}")
        except ValueError:
            raise UsageError(f"{path}: receiver {one.name!r}: its address cannot be read") from None
        if names.count(one.name) > 1:
            raise UsageError(f"{path}: receiver {one.name!r} stands twice")
    return found


def _check(one: Receiver, where: str) -> None:
    if not one.name or len(one.name) > 100:  # noqa: PLR2004 - of its column
        raise UsageError(f"{where}: needs a name of up to 100 characters")
    if sum([bool(one.webhook), one.email is not None, bool(one.command)]) != 1:
        raise UsageError(f"{where}: needs one of webhook, email and command")
    if not 1 <= one.timeout_s <= LONGEST_TIMEOUT_S:
        raise UsageError(f"{where}: timeout_s is from 1 to {LONGEST_TIMEOUT_S:g}, got {one.timeout_s}")
    if one.webhook:
        parts = urlsplit(one.webhook)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0:
            raise UsageError(f"{where}: webhook is no address of http or https")
    if one.email is not None:
        parts = urlsplit(one.email.server)
        if parts.scheme not in {"smtp", "smtps"} or not parts.hostname or parts.port == 0:
            raise UsageError(f"{where}: email.server is written smtp://HOST:PORT or smtps://HOST:PORT")
        if not one.email.to or not all("@" in address for address in (*one.email.to, one.email.sender)):
            raise UsageError(f"{where}: email needs addresses in to and sender")


def message(rule: Rule, receiver: str, alerts: Iterable[Alert]) -> dict[str, Any]:
    """Give the message of a group: a rule's alerts that fire or have ended, in Alertmanager's format 4."""
    told = sorted(
        (one for one in alerts if one.state is not AlertState.PENDING),
        key=lambda one: (one.state is not AlertState.FIRING, one.key),
    )
    named = {"alertname": rule.name}
    alike = [_annotations(rule, one) for one in told]
    return {
        "version": "4",
        "groupKey": f"{{}}:{{alertname={json.dumps(rule.name)}}}",
        "truncatedAlerts": max(0, len(told) - MOST_IN_MESSAGE),
        "status": "firing" if any(one.state is AlertState.FIRING for one in told) else "resolved",
        "receiver": receiver,
        "groupLabels": named,
        "commonLabels": {**named, **rule.labels},
        "commonAnnotations": {
            name: text
            for name, text in (alike[0] if alike else {}).items()
            if all(one[name] == text for one in alike)
        },
        "externalURL": "",
        "alerts": [_alert(rule, one) for one in told[:MOST_IN_MESSAGE]],
    }


def _alert(rule: Rule, alert: Alert) -> dict[str, Any]:
    labels = {"alertname": rule.name, **rule.labels, **dict(alert.key)}
    return {
        "status": "firing" if alert.state is AlertState.FIRING else "resolved",
        "labels": labels,
        "annotations": {
            **_annotations(rule, alert),
            "value": f"{alert.value:.6g}",
            "expr": rule.expression.text,
        },
        "startsAt": _moment(alert.since),
        "endsAt": _NEVER if alert.resolved_at is None else _moment(alert.resolved_at),
        "generatorURL": "",
        "fingerprint": hashlib.sha256(json.dumps(sorted(labels.items())).encode()).hexdigest()[:16],
    }


def _annotations(rule: Rule, alert: Alert) -> dict[str, str]:
    labels = {"alertname": rule.name, **rule.labels, **dict(alert.key)}
    return {name: rendered(text, labels, alert.value) for name, text in rule.annotations.items()}


def as_text(body: Mapping[str, Any]) -> tuple[str, str]:
    """Give a message as a mail's subject and text."""
    alerts: Sequence[Mapping[str, Any]] = body["alerts"]
    firing = [one for one in alerts if one["status"] == "firing"]
    name = body["groupLabels"]["alertname"]
    subject = f"[{body['status'].upper()}{f':{len(firing)}' if firing else ''}] {name}"
    lines = [f"{key}: {value}" for key, value in body["commonAnnotations"].items()]
    for one in alerts:
        own = {key: value for key, value in one["labels"].items() if key not in body["commonLabels"]}
        which = ", ".join(f"{key}={value}" for key, value in own.items()) or "the fleet"
        since = one["startsAt"] if one["status"] == "firing" else f"{one['startsAt']} to {one['endsAt']}"
        lines.append(f"{one['status']}: {which}: {one['annotations']['value']} ({since})")
        lines += [
            f"  {key}: {value}"
            for key, value in one["annotations"].items()
            if key not in body["commonAnnotations"] and key not in {"value", "expr"}
        ]
    if body["truncatedAlerts"]:
        lines.append(f"and {body['truncatedAlerts']} more")
    if alerts:
        lines.append(f"rule: {alerts[0]['annotations']['expr']}")
    return subject, "\n".join(lines) + "\n"


def _moment(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
