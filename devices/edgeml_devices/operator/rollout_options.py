"""The rules of a rollout from options and a TOML file. The server checks them: it knows every key."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, Final

import click

from edgeml.errors import UsageError
from edgeml_devices.typed_options import span_s

_OPTIONS: Final = (
    click.option(
        "--file",
        "file",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="TOML with the rules; options here win over it.",
    ),
    click.option("--group", metavar="NAME", help="Which devices."),
    click.option("--selector", metavar="SELECTOR", help="Which devices, in place of a group."),
    click.option(
        "--wave",
        "waves",
        metavar="WAVE",
        multiple=True,
        help="10% (with the waves before), 5 (devices) or ring=canary; once for each wave.",
    ),
    click.option("--success-threshold", type=float, metavar="SHARE", help="Committed before the next wave."),
    click.option("--soak", metavar="TIME", help="How long it must hold before the next wave: 30m, 1d."),
    click.option("--max-failed-share", type=float, metavar="SHARE", help="Failed outcomes, at most."),
    click.option("--max-failed", type=int, metavar="NUMBER", help="Failed devices in a wave, at most."),
    click.option("--on-error", type=click.Choice(["pause", "abort"]), help="What happens above that."),
    click.option(
        "--on-abort", type=click.Choice(["finish", "rollback"]), help="What devices that switched do then."
    ),
    click.option("--max-concurrent", type=int, metavar="NUMBER", help="Devices under way at once."),
    click.option("--priority", type=int, metavar="NUMBER", help="The higher wins a device both want."),
    click.option("--approval", is_flag=True, default=None, help="Somebody else has to approve."),
    click.option("--open-ended", is_flag=True, default=None, help="Goes on taking devices after the end."),
)


def policy_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options; it takes ``options`` in their place."""
    names = ("file", "group", "selector", "waves", "success_threshold", "soak", "max_failed_share")
    more = ("max_failed", "on_error", "on_abort", "max_concurrent", "priority", "approval", "open_ended")

    @wraps(command)
    def call(*args: Any, **given: Any) -> Any:
        options = {name: given.pop(name) for name in (*names, *more)}
        return command(*args, options=options, **given)

    for option in reversed(_OPTIONS):
        option(call)
    return call


def read_rules(what: str | None, options: dict[str, Any]) -> dict[str, Any]:
    """Give the rules as the server takes them.

    Args:
        what: ``MODEL/RELEASE``; ``None``: the file says it.
        options: of :func:`policy_options`.

    Raises:
        UsageError: the file cannot be read, or an option is not what it must be.
    """
    rules = {} if options["file"] is None else _read_file(options["file"])
    if what is not None:
        rules |= _release(what)
    if "model" not in rules or "release" not in rules:
        raise UsageError("which release? Write MODEL/RELEASE, as in kws/3, or model and release in the file")
    if options["group"] is not None or options["selector"] is not None:
        rules.pop("group", None)
        rules.pop("selector", None)
    if options["waves"]:
        rules["waves"] = [_wave(text) for text in options["waves"]]
    if options["soak"] is not None:
        rules["soak_s"] = span_s(options["soak"])
    plain = {name: value for name, value in options.items() if name not in {"file", "waves", "soak"}}
    return rules | {name: value for name, value in plain.items() if value is not None}


def _read_file(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        with path.open("rb") as stream:
            return tomllib.load(stream)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not TOML: {error}") from error


def _release(what: str) -> dict[str, Any]:
    model, slash, number = what.partition("/")
    if not slash or not model or not number.isascii() or not number.isdigit():
        raise UsageError(f"{what!r} is no release: write MODEL/RELEASE, as in kws/3")
    return {"model": model, "release": int(number)}


def _wave(text: str) -> dict[str, Any]:
    """Read a wave as it is typed."""
    if text.endswith("%"):
        try:
            return {"percent": float(text[:-1])}
        except ValueError as error:
            raise UsageError(f"{text!r} is no share: write it like 10%") from error
    return {"count": int(text)} if text.isascii() and text.isdigit() else {"selector": text}
