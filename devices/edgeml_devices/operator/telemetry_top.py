"""``edgeml telemetry top``: what all models do now, redrawn on a terminal, one table elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

import click

from edgeml.commands.json_output import json_option, print_json
from edgeml.errors import ServerError
from edgeml.figures import milliseconds
from edgeml.terminal import Column, fitting, open_console, print_table, printable, table_of
from edgeml_devices.connection import Connection, server_options
from edgeml_devices.operator.shown import NOTHING, ago
from edgeml_devices.typed_options import span_s

if TYPE_CHECKING:
    from rich.console import Console, Group

    from edgeml_devices.api_client import ApiClient

_DRIFT_S: Final = 3600.0
_DRIFT_EVERY_S: Final = 300.0
"""Drift reads single windows of all devices: it is asked less often, and of the last hour."""
_HOUR_S: Final = 3600
_SHOWN_ALERTS: Final = 10


@dataclass(frozen=True, slots=True)
class Row:
    """One release of one model."""

    model: str
    release: int
    calls: int
    calls_per_s: float
    p95_s: Mapping[str, float] | None
    """``value``, ``low`` and ``high``; ``None``: no call succeeded."""
    error_rate: Mapping[str, float]
    drifted_features: int | None
    """``None``: nothing was judged."""
    alerts: int
    """That fire and name this model, and this release or none."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that is shown at once."""

    at: float
    since: float
    """Figures are of whole hours."""
    rows: tuple[Row, ...]
    alerts: tuple[Mapping[str, Any], ...]
    """Those that fire."""


@dataclass(slots=True)
class Fleet:
    """Asks a server, and remembers what is not asked each time."""

    client: ApiClient
    window_s: float
    model: str = ""
    _drift: dict[tuple[str, int], int] = field(default_factory=dict)
    _drift_at: float = 0.0

    def ask(self) -> Snapshot:
        """Give what is so now.

        Raises:
            ServerError: the server did not answer, or refused.
        """
        now = time.time()
        rates = self._ask("rate", now, by="model,release")
        quantiles = self._ask("quantile", now, by="model,release", q="0.95")
        alerts = self.client.get("/v1/alerts")["alerts"]
        firing = tuple(one for one in alerts if one["state"] == "firing")
        if now - self._drift_at >= _DRIFT_EVERY_S:
            self._drift, self._drift_at = self._count_drift(now), now
        p95 = {_key(one["key"]): one["quantiles"]["0.95"] for one in quantiles["answers"]}
        rows = [
            Row(
                *_key(one["key"]),
                one["calls"],
                one["per_s"],
                p95.get(_key(one["key"])),
                one["rate"],
                self._drift.get(_key(one["key"])),
                sum(_is_about(alert["labels"], *_key(one["key"])) for alert in firing),
            )
            for one in rates["answers"]
        ]
        rows.sort(key=lambda row: (-row.calls_per_s, row.model, -row.release))
        return Snapshot(now, rates["since"] // _HOUR_S * _HOUR_S, tuple(rows), firing)

    def _ask(self, question: str, now: float, **query: str) -> dict[str, Any]:
        from edgeml_devices.api_client import endpoint

        asked = query | {"since": str(now - self.window_s), "until": str(now)}
        if self.model:
            asked["model"] = self.model
        found: dict[str, Any] = self.client.get(endpoint("telemetry", question), asked)
        return found

    def _count_drift(self, now: float) -> dict[tuple[str, int], int]:
        counts: dict[tuple[str, int], int] = {}
        for one in self._ask("drift", now, since=str(now - _DRIFT_S), by="release")["answers"]:
            key = one["group"]["model"], one["group"]["release"]
            counts[key] = counts.get(key, 0) + one["drifted"]
        return counts


@click.command()
@click.option("--window", default="1h", show_default=True, metavar="SPAN", help="How far back figures look.")
@click.option("--model", default="", metavar="NAME", help="One model.")
@click.option(
    "--every",
    type=click.FloatRange(1, 3600),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="How often it asks.",
)
@click.option("--once", is_flag=True, help="One table, as where there is no terminal.")
@server_options
@json_option
def top(window: str, model: str, every: float, once: bool, connection: Connection, as_json: bool) -> None:
    """Show what all models do, redrawn every few seconds.

    Calls, latency and errors over the whole hours that --window touches; drift of the last hour, looked at
    every 5 minutes. Ctrl+C ends it.

    \b
    Examples:
      edgeml telemetry top
      edgeml telemetry top --window 24h --once --json
    """  # noqa: D301 - \b is click's mark for text that keeps its lines
    console = open_console()
    with connection.open() as client:
        fleet = Fleet(client, span_s(window), model)
        if as_json:
            print_json(asdict(fleet.ask()))
        elif once or not console.is_terminal:
            print_once(console, fleet.ask())
        else:
            watch(console, fleet, every)


def watch(console: Console, fleet: Fleet, every_s: float) -> None:
    """Redraw until Ctrl+C; while the server does not answer, what it said last stays."""
    from rich.live import Live
    from rich.text import Text

    snapshot = fleet.ask()
    try:
        with Live(picture(snapshot, console.width), console=console, auto_refresh=False, screen=True) as live:
            while True:
                time.sleep(every_s)
                fault = ""
                try:
                    snapshot = fleet.ask()
                except ServerError as error:
                    fault = str(error)
                shown = picture(snapshot, console.width)
                if fault:
                    shown.renderables.append(Text(printable(fault), "red"))
                live.update(shown, refresh=True)
    except KeyboardInterrupt:
        print_once(console, snapshot)


def picture(snapshot: Snapshot, width: int) -> Group:
    """Draw a snapshot: a head, a line for each release, the alerts that fire."""
    from rich.console import Group
    from rich.text import Text

    parts: list[Any] = [Text(head(snapshot), "bold")]
    if snapshot.rows:
        parts.append(table_of(fitting(_columns(snapshot.rows), width), _styles(snapshot.rows)))
    parts += [Text(line, "red") for line in _alert_lines(snapshot)]
    return Group(*parts)


def print_once(console: Console, snapshot: Snapshot) -> None:
    """Print a snapshot as it is."""
    click.echo(head(snapshot))
    if snapshot.rows:
        print_table(console, _columns(snapshot.rows), _styles(snapshot.rows))
    for line in _alert_lines(snapshot):
        click.echo(line)


def head(snapshot: Snapshot) -> str:
    """Say what the figures are of."""
    clock = time.strftime("%H:%M:%S", time.localtime(snapshot.at))
    since = time.strftime("%d %b %H:%M", time.localtime(snapshot.since))
    calls = sum(row.calls_per_s for row in snapshot.rows)
    if not snapshot.rows:
        return f"{clock}  no model was called since {since}; edgeml telemetry coverage shows what came"
    return f"{clock}  since {since}: {calls:.3g} calls/s, alerts firing: {len(snapshot.alerts)}"


def _columns(rows: Sequence[Row]) -> list[Column]:
    return [
        Column("release", [printable(f"{row.model}/{row.release}") for row in rows], is_name=True),
        Column("calls/s", [f"{row.calls_per_s:.3g}" for row in rows]),
        Column("calls", [f"{row.calls:,}" for row in rows], leaves=3),
        Column("p95\nms", [_ms(row.p95_s, "value") for row in rows]),
        Column("95 % interval", [_range(row) for row in rows], leaves=2),
        Column("errors", [f"{100 * row.error_rate['value']:.3g} %" for row in rows]),
        Column("at most", [f"{100 * row.error_rate['high']:.3g} %" for row in rows], leaves=2),
        Column("drifted\nfeatures", [_count(row.drifted_features) for row in rows]),
        Column("alerts", [f"{row.alerts}" for row in rows]),
    ]


def _styles(rows: Sequence[Row]) -> list[str]:
    return ["red" if row.alerts else "yellow" if row.drifted_features else "" for row in rows]


def _alert_lines(snapshot: Snapshot) -> list[str]:
    lines = []
    for one in snapshot.alerts[:_SHOWN_ALERTS]:
        labels = ", ".join(f"{key}={value}" for key, value in one["labels"].items()) or "the fleet"
        lines.append(f"{printable(one['rule'])}: {printable(labels)}, {ago(one['since'], snapshot.at)}")
    more = len(snapshot.alerts) - _SHOWN_ALERTS
    return [*lines, f"and {more} more"] if more > 0 else lines


def _is_about(labels: Mapping[str, str], model: str, release: int) -> bool:
    return labels.get("model") == model and labels.get("release", str(release)) == str(release)


def _key(key: Mapping[str, Any]) -> tuple[str, int]:
    return str(key["model"]), int(key["release"])


def _ms(one: Mapping[str, float] | None, name: str) -> str:
    return NOTHING if one is None else milliseconds(1000 * one[name])


def _range(row: Row) -> str:
    return NOTHING if row.p95_s is None else f"{_ms(row.p95_s, 'low')}–{_ms(row.p95_s, 'high')}"


def _count(number: int | None) -> str:
    return NOTHING if number is None else f"{number}"
