"""``edgeml agent status``: what the files of a device say."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from edgeml import typed_json
from edgeml.errors import FleetError, MessageError
from edgeml.installed import InstalledModel
from edgeml.telemetry.device import SPOOL
from edgeml.telemetry.drift import FEWEST
from edgeml.telemetry.drift_file import ModelDrift, read_drift
from edgeml.telemetry.spool_status import spool_status
from edgeml_devices.agent.home import Home
from edgeml_devices.agent.identity import read_identity
from edgeml_devices.agent.lock import agent_process
from edgeml_devices.agent.outbox import Outbox
from edgeml_devices.agent.record import new_record, read_record
from edgeml_devices.agent.refusal import read_refusal
from edgeml_devices.agent.status import model_status
from edgeml_devices.messages import Event


def device_json(home: Home) -> dict[str, Any]:
    """Give the device's state as what ``json`` can write."""
    identity = None
    with suppress(FleetError, MessageError, Exception):
        identity = read_identity(home)
    outbox, refusal = Outbox(home.outbox), read_refusal(home)
    events, windows = outbox.waiting()
    return {
        "home": str(home.path),
        "device_id": None if identity is None else identity.device_id,
        "name": None if identity is None else identity.name,
        "server": None if identity is None else identity.server,
        "refused": None if refusal is None else typed_json.write(refusal),
        "agent": agent_process(home),
        "models": {model.name: _model(model) for model in home.models()},
        "events": [_event(event) for event in outbox.recent()],
        "unsent": {"events": len(events), "health": len(windows)},
        "telemetry": _telemetry(home),
        "drift": _drift(home),
    }


def _telemetry(home: Home) -> dict[str, Any] | None:
    try:
        found = spool_status(home.path / SPOOL)
    except (OSError, MessageError) as error:
        return {"detail": str(error)}
    return None if found is None else asdict(found)


def _drift(home: Home) -> dict[str, Any] | None:
    try:
        found = read_drift(home.path)
    except (OSError, MessageError) as error:
        return {"detail": str(error)}
    return None if found is None else {"models": [_drift_of(one) for one in found]}


def _drift_of(one: ModelDrift) -> dict[str, Any]:
    shown = asdict(one)
    del shown["sums"]
    return shown | {"slow": [asdict(slow) for slow in one.slow()]}


def _model(model: InstalledModel) -> dict[str, Any]:
    try:
        record = read_record(model) or new_record(model.name)
    except (MessageError, OSError) as error:
        return {"state": "unreadable", "running": model.running(), "detail": str(error)}
    return typed_json.write(model_status(model, record))


def _event(event: Event) -> dict[str, Any]:
    return typed_json.write(event)


def print_device(shown: dict[str, Any]) -> None:
    """Print what :func:`device_json` gave, for people."""
    import click
    from rich.text import Text

    from edgeml.terminal import Column, open_console, print_table, printable

    console = open_console()
    who = (
        f"{shown['name']} ({shown['device_id']}) of {shown['server']}" if shown["server"] else "not enrolled"
    )
    works = f"agent runs (process {shown['agent']})" if shown["agent"] else "no agent runs"
    console.print(Text(f"{who}; {works}; {shown['home']}"), soft_wrap=True)
    if shown["refused"]:
        since = _date(shown["refused"]["at"])
        told = printable(shown["refused"]["detail"])
        text = f"the server no longer knows this device since {since}, as where it was retired: {told}"
        console.print(Text(text), soft_wrap=True)
    models = shown["models"]
    if not models:
        click.echo("no models")
    else:
        rows = [(name, *_cells(one)) for name, one in models.items()]
        titles = ("model", "runs", "variant", "state", "target", "result", "reason")
        columns = [
            Column(title, [row[place] for row in rows], is_word=place != 1, is_name=place == 0)
            for place, title in enumerate(titles)
        ]
        print_table(console, columns)
        for name, one in models.items():
            if one.get("detail"):
                console.print(Text(f"{name}: {printable(one['detail'])}"), soft_wrap=True)
    if shown["telemetry"]:
        console.print(Text(_telemetry_text(shown["telemetry"])), soft_wrap=True)
    for line in _drift_lines(shown["drift"] or {}):
        console.print(Text(printable(line)), soft_wrap=True)
    for event in shown["events"]:
        at = _date(event["at"])
        reason = f" {event['reason']}" if event.get("reason") else ""
        release = event.get("release")
        console.print(Text(f"{at}  {event['model']} {release} {event['state']}{reason}"), soft_wrap=True)


def _telemetry_text(told: dict[str, Any]) -> str:
    if "detail" in told:
        return f"telemetry: {told['detail']}"
    at = told["acked_at"]
    sent = "never sent" if at is None else f"last sent {_date(at)}"
    waits = (
        f"{told['reports']} reports of {told['windows']} windows wait, {told['size_bytes'] / 1024:.0f} KiB"
    )
    lost = ", ".join(f"{count} {how}" for how, count in told["lost"].items() if count)
    return f"telemetry: {waits}; {sent}; " + (f"lost: {lost}" if lost else "nothing lost")


def _drift_lines(told: dict[str, Any]) -> list[str]:
    """Give a line for each model: of the release that was judged last."""
    if "detail" in told:
        return [f"drift: {told['detail']}"]
    rising = sorted(told.get("models", ()), key=lambda one: (one["model"], one["at"] or 0.0, one["release"]))
    newest = {one["model"]: one for one in rising}
    return [f"drift: {name} {one['release']}: {_drift_text(one)}" for name, one in newest.items()]


def _drift_text(one: dict[str, Any]) -> str:
    parts = [f"{found['name']} {found['test']} {found['effect']:.2g}" for found in one["findings"]]
    for slow in one["slow"]:
        since = "" if slow["since"] is None else f" since {_date(slow['since'])}"
        parts.append(f"{slow['name']} slowly {slow['direction']}{since}")
    what = f"DRIFTED: {', '.join(parts)}" if parts else "none"
    if not one["judged"]:
        return f"{what if parts else 'not judged yet'}; {one['values']} values, {FEWEST} are judged"
    seconds = one["seconds"]
    span = f"{seconds / 60:,.0f} min" if seconds >= 60 else f"{seconds:.0f} s"  # noqa: PLR2004 - a minute
    until = "" if one["at"] is None else f" until {_date(one['at'])}"
    return f"{what}; {one['values']:,} values of {span}{until}"


def _date(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}"


def _cells(one: dict[str, Any]) -> tuple[str, ...]:
    def text(key: str) -> str:
        return "–" if one.get(key) is None else str(one[key])

    return tuple(text(key) for key in ("running", "variant", "state", "target", "result", "reason"))
