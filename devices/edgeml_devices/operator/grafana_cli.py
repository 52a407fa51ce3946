"""``edgeml telemetry grafana``: the dashboard that comes with edgeml, to be imported."""

from __future__ import annotations

from importlib.resources import files

import click


@click.command()
def grafana() -> None:
    """Print a dashboard for Grafana.

    For a Prometheus that scrapes the /metrics of a server. Needs no server itself.

    \b
    Example:
      edgeml telemetry grafana > edgeml.json
    """  # noqa: D301 - \b is click's mark for text that keeps its lines
    text = (files("edgeml_devices.operator") / "grafana.json").read_text("utf-8")
    click.echo(text, nl=False)
