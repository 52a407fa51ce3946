"""Which telemetry is asked about: a time, devices, a model. The same options for every question."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from functools import wraps
from typing import Any, Final

import click

from edgeml.errors import UsageError
from edgeml_devices.typed_options import span_s

_OPTIONS: Final = (
    click.option(
        "--since", default="24h", metavar="TIME", show_default=True, help="12h, 7d or 2026-01-31T08:00."
    ),
    click.option("--until", default="", metavar="TIME", help="The same; now where it is not given."),
    click.option("--device", multiple=True, metavar="NAME", help="These devices; several times."),
    click.option("--group", multiple=True, metavar="NAME", help="Devices of this group."),
    click.option(
        "--selector", default="", metavar="SELECTOR", help="Devices with these labels: site=berlin."
    ),
    click.option("--model", default="", metavar="NAME", help="One model, or MODEL/RELEASE."),
    click.option("--variant", default="", metavar="NAME", help="One variant of it."),
    click.option("--target", default="", metavar="NAME", help="One kind of machine: raspberry-pi-4."),
)


def selection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options; it takes ``asked``, a query, in their place."""

    @wraps(command)
    def call(
        *args: Any,
        since: str,
        until: str,
        device: tuple[str, ...],
        group: tuple[str, ...],
        selector: str,
        model: str,
        variant: str,
        target: str,
        **options: Any,
    ) -> Any:
        now = time.time()
        name, _, release = model.partition("/")
        if (release and not release.isascii()) or (release and not release.isdigit()):
            raise UsageError(f"--model {model}: write NAME or NAME/RELEASE, as in kws/3")
        query: dict[str, str | int] = {
            "since": str(read_moment(since, now)),
            "until": str(read_moment(until, now) if until else now),
            "device": ",".join(device),
            "group": ",".join(group),
            "selector": selector,
            "model": name,
            "release": release,
            "variant": variant,
            "target": target,
        }
        return command(*args, asked={key: one for key, one in query.items() if one != ""}, **options)

    for option in reversed(_OPTIONS):
        option(call)
    return call


def read_moment(text: str, now: float) -> float:
    """Read a moment: how long ago (``90m``, ``7d``) or a date, local where it names no zone.

    Raises:
        UsageError: it is neither.
    """
    if text[:4].isdigit() and "-" in text:
        try:
            return datetime.fromisoformat(text).timestamp()
        except ValueError as error:
            raise UsageError(f"{text}: no date; write 2026-01-31 or 2026-01-31T08:00") from error
    return now - span_s(text)
