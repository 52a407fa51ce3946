"""``edgeml devices``: what is out there, what it runs, what happened to it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import click

from edgeml.commands.json_output import json_option, print_json
from edgeml.errors import UsageError
from edgeml.figures import readable_size
from edgeml.terminal import printable
from edgeml_devices.connection import Connection, server_options
from edgeml_devices.lazy_group import LazyGroup
from edgeml_devices.operator.consent import ask
from edgeml_devices.operator.shown import NOTHING, ago, moment, show_labels
from edgeml_devices.typed_options import read_labels

_DEVICE = click.argument("device", metavar="DEVICE")


@click.group(cls=LazyGroup, lazy={"provision": "edgeml_devices.install.provision_cli:provision"})
def devices() -> None:
    """Find devices, see what they run, label and retire them.

    DEVICE is a name or an id.

    \b
    Examples:
      edgeml devices list --selector site=berlin
      edgeml devices show pi-7
      edgeml devices label pi-7 ring=canary
    """  # noqa: D301 - \b is click's mark for text that keeps its lines


@devices.command(name="list")
@click.option("--selector", default="", metavar="SELECTOR", help="Which: site=berlin,ring in (a, b),!spare.")
@click.option("--retired", is_flag=True, help="Retired devices, too.")
@server_options
@json_option
def list_devices(selector: str, retired: bool, connection: Connection, as_json: bool) -> None:
    """List devices: labels, what they run, when last heard.

    \b
    Examples:
      edgeml devices list
      edgeml devices list --selector 'site=berlin,ring!=canary' --json
    """  # noqa: D301 - as above
    query: dict[str, str | int] = {"limit": 1000}
    if selector:
        query["selector"] = selector
    if retired:
        query["retired"] = "true"
    with connection.open() as client:
        found = list(client.pages("/v1/devices", "devices", query))
    if as_json:
        print_json({"devices": found})
    elif not found:
        click.echo("no device; edgeml tokens join prints the command that enrols one")
    else:
        _print_devices(found)


@devices.command()
@_DEVICE
@server_options
@json_option
def show(device: str, connection: Connection, as_json: bool) -> None:
    """Show one device: hardware, engines, models.

    \b
    Example:
      edgeml devices show pi-7
    """  # noqa: D301 - as above
    from edgeml_devices.api_client import endpoint

    with connection.open() as client:
        found = client.get(endpoint("devices", device))
    if as_json:
        print_json(found)
    else:
        _print_device(found)


@devices.command()
@_DEVICE
@click.argument("labels", metavar="KEY=VALUE|KEY-...", nargs=-1, required=True)
@server_options
@json_option
def label(device: str, labels: tuple[str, ...], connection: Connection, as_json: bool) -> None:
    """Set labels; KEY- removes one.

    \b
    Example:
      edgeml devices label pi-7 site=berlin ring-
    """  # noqa: D301 - as above
    from edgeml_devices.api_client import endpoint

    removed = {text[:-1]: None for text in labels if text.endswith("-") and "=" not in text}
    wanted = read_labels([text for text in labels if text[:-1] not in removed])
    with connection.open() as client:
        found = client.patch(endpoint("devices", device), {"labels": {**wanted, **removed}})
    _say(found, f"{found['name']}: {show_labels(found['labels']) or 'no labels'}", as_json)


@devices.command()
@_DEVICE
@click.argument("name")
@server_options
@json_option
def rename(device: str, name: str, connection: Connection, as_json: bool) -> None:
    """Give a device another name; its id stays.

    \b
    Example:
      edgeml devices rename pi-7 line-4
    """  # noqa: D301 - as above
    from edgeml_devices.api_client import endpoint

    with connection.open() as client:
        found = client.patch(endpoint("devices", device), {"name": name})
    _say(found, f"{device} is called {found['name']}", as_json)


@devices.command()
@_DEVICE
@click.option("--yes", is_flag=True, help="Do not ask.")
@server_options
@json_option
def retire(device: str, yes: bool, connection: Connection, as_json: bool) -> None:
    """Refuse a device from now on; it goes on running what it has.

    For one that was sold, lost or stolen. Its history stays, and there is no way back: it would have to be
    enrolled again.

    \b
    Example:
      edgeml devices retire pi-7 --yes
    """  # noqa: D301 - as above
    from edgeml_devices.api_client import endpoint

    if not yes:
        ask(f"Retire {device} for good?")
    with connection.open() as client:
        found = client.post(endpoint("devices", device, "retire"), idempotent=True)
    _say(found, f"{found['name']} is retired; its token is refused", as_json)


@devices.command()
@_DEVICE
@click.option("--model", metavar="NAME", help="This model only.")
@click.option("-n", "--last", type=click.IntRange(1), default=50, show_default=True, help="How many events.")
@server_options
@json_option
def logs(device: str, model: str | None, last: int, connection: Connection, as_json: bool) -> None:
    """Show what a device reported, the newest last.

    \b
    Example:
      edgeml devices logs pi-7 --model kws
    """  # noqa: D301 - as above
    from edgeml_devices.api_client import endpoint

    query: dict[str, str | int] = {"limit": min(last, 1000)}
    if model is not None:
        query["model"] = model
    with connection.open() as client:
        pages = client.pages(endpoint("devices", device, "events"), "events", query)
        events = list(islice(pages, last))[::-1]
    if as_json:
        print_json({"device": device, "events": events})
    else:
        for event in events:
            click.echo(_event_line(event))


@devices.command()
@_DEVICE
@click.argument("model")
@click.argument("release", type=click.IntRange(0), required=False)
@click.option("--hold", is_flag=True, help="Fetch and test, but do not switch yet.")
@click.option("--remove", is_flag=True, help="Remove the model instead.")
@server_options
@json_option
def assign(
    device: str,
    model: str,
    release: int | None,
    hold: bool,
    remove: bool,
    connection: Connection,
    as_json: bool,
) -> None:
    """Have one device run a release, by hand, without a rollout.

    The same release again after it failed is another attempt.

    \b
    Examples:
      edgeml devices assign pi-7 kws 3
      edgeml devices assign pi-7 kws --remove
    """  # noqa: D301 - as above
    from edgeml_devices.api_client import endpoint

    if (release is None) != remove:
        raise UsageError("give the release to run, or --remove")
    with connection.open() as client:
        found = client.put(endpoint("devices", device, "models", model), {"release": release, "hold": hold})
    what = "is to be removed" if remove else f"is to be at release {release}"
    _say(found, f"{found['name']}: {model} {what}", as_json)


@devices.command()
@_DEVICE
@click.argument("model")
@server_options
@json_option
def unassign(device: str, model: str, connection: Connection, as_json: bool) -> None:
    """Take an assignment back; the device keeps what it runs.

    What it has not begun to switch to is dropped.

    \b
    Example:
      edgeml devices unassign pi-7 kws
    """  # noqa: D301 - as above
    from edgeml_devices.api_client import endpoint

    with connection.open() as client:
        found = client.delete(endpoint("devices", device, "models", model))
    _say(found, f"{found['name']}: {model} is left as it is", as_json)


def _say(found: Mapping[str, Any], sentence: str, as_json: bool) -> None:
    if as_json:
        print_json(found)
    else:
        click.echo(sentence)


def _print_devices(found: Sequence[Mapping[str, Any]]) -> None:
    from edgeml.terminal import Column, open_console, print_table

    now = time.time()
    columns = [
        Column("device", [one["name"] for one in found], is_name=True),
        Column("labels", [show_labels(one["labels"]) for one in found], leaves=2, is_word=True),
        Column("target", [_target(one) for one in found], leaves=1, is_word=True),
        Column("models", [_models(one) for one in found], is_word=True),
        Column("last seen", [_seen(one, now) for one in found]),
    ]
    styles = ["dim" if one["retired_at"] else "red" if _failed(one) else "" for one in found]
    print_table(open_console(), columns, styles)


def _print_device(found: Mapping[str, Any]) -> None:
    facts = found["facts"] or {}
    lines = {
        "id": found["id"],
        "labels": show_labels(found["labels"]),
        "target": _target(found),
        "engines": ", ".join(f"{name} {version}" for name, version in facts.get("engines", {}).items()),
        "system": facts.get("system", ""),
        "edgeml": facts.get("edgeml", ""),
        "disk free": readable_size(facts.get("disk_free_bytes")),
        "enrolled": moment(found["enrolled_at"]),
        "last seen": moment(found["last_seen"]),
        "retired": "" if found["retired_at"] is None else moment(found["retired_at"]),
        "clock": _clock(found["clock_offset_s"]),
    }
    click.echo(click.style(found["name"], bold=True))
    for title, value in lines.items():
        if value and value != NOTHING:
            click.echo(f"{title + ':':<11}{printable(str(value))}")
    for model, at in found["models"].items():
        click.echo(f"\n{click.style(model, bold=True)}")
        for line in _model_lines(at["assigned"], at["status"] or {}):
            click.echo(f"  {printable(line)}")


def _model_lines(assigned: Mapping[str, Any] | None, status: Mapping[str, Any]) -> list[str]:
    lines = []
    if assigned is not None:
        wanted = "none" if assigned["release"] is None else f"release {assigned['release']}"
        attempt = f", attempt {assigned['attempt']}" if assigned["attempt"] > 1 else ""
        hold = ", held" if assigned["hold"] else ""
        lines.append(f"to be:   {wanted}{attempt}{hold}")
    if status:
        runs = "nothing" if status["running"] is None else f"release {status['running']}"
        variant = f", {status['variant']}" if status["variant"] else ""
        lines.append(f"runs:    {runs}{variant}")
        tried = "" if status["target"] is None else f" (release {status['target']})"
        lines.append(f"state:   {status['state']}{tried}")
        if status["result"]:
            reason = f", {status['reason']}" if status["reason"] else ""
            lines.append(f"result:  {status['result']}{reason}")
        if status["detail"]:
            lines.append(f"         {status['detail']}")
    return lines


def _target(found: Mapping[str, Any]) -> str:
    return printable(str(((found["facts"] or {}).get("target") or {}).get("name") or NOTHING))


def _models(found: Mapping[str, Any]) -> str:
    """Give ``kws 2 → 3 FETCHING``: what runs, what it is to be, and the state of the way there."""
    parts = []
    for model, at in found["models"].items():
        status, assigned = at["status"] or {}, at["assigned"] or {}
        running, wanted = status.get("running"), assigned.get("release")
        text = f"{model} {NOTHING if running is None else running}"
        if assigned and wanted != running:
            text += f" → {NOTHING if wanted is None else wanted} {_way(status, wanted)}"
        parts.append(text)
    return printable(", ".join(parts)) or NOTHING


def _way(status: Mapping[str, Any], wanted: int | None) -> str:
    """Say where the device is on its way to a release, or why it did not get there."""
    if status.get("target") == wanted and status.get("result") not in {None, "SUCCESSFUL"}:
        return f"FAILED ({status['reason']})" if status.get("reason") else "FAILED"
    return str(status.get("state", "not reported"))


def _failed(found: Mapping[str, Any]) -> bool:
    results = [(at["status"] or {}).get("result") for at in found["models"].values()]
    return any(result not in {None, "SUCCESSFUL"} for result in results)


def _seen(found: Mapping[str, Any], now: float) -> str:
    return "retired" if found["retired_at"] is not None else ago(found["last_seen"], now)


def _clock(offset_s: float | None) -> str:
    if offset_s is None or abs(offset_s) < 60:  # noqa: PLR2004 - a minute off matters to nobody
        return ""
    return f"{abs(offset_s):,.0f} s {'ahead' if offset_s > 0 else 'behind'}"


def _event_line(event: Mapping[str, Any]) -> str:
    release = "" if event["release"] is None else f" {event['release']}"
    words = [event["state"], event["result"], event["reason"], event["detail"]]
    text = "  ".join(str(word) for word in words if word)
    return printable(f"{moment(event['at'])}  {event['model']}{release}  {text}")
