"""``edgeml deploy``: a bundle onto devices, without an agent there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeml.commands.json_output import json_option, print_json

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence

    from edgeml_devices.install.deployment import Deployment
    from edgeml_devices.install.many import Together
    from edgeml_devices.install.payload import Payload
    from edgeml_devices.install.words import Outcome, Plan, Watch


@click.command(short_help="Install a bundle on devices, agentless.")
@click.argument("bundle", metavar="BUNDLE", required=False, type=click.Path(path_type=Path))
@click.option(
    "--to",
    "urls",
    metavar="URL",
    multiple=True,
    required=True,
    help="A device: ssh://USER@HOST, serial:/dev/ttyUSB0, local:. May be given many times.",
)
@click.option(
    "--home",
    metavar="DIR",
    help="The device's EDGEML_HOME; by default as the device says.",
)
@click.option(
    "--variant", metavar="NAME", help="Install this variant; by default what suits each device best."
)
@click.option(
    "--self-test",
    metavar="CMD",
    help="Test with this shell command instead; {folder} is the release's folder.",
)
@click.option("--skip-self-test", is_flag=True, help="Install without a test on the device (unverified).")
@click.option(
    "--restart", metavar="CMD", help="Shell command that makes the application take up the release."
)
@click.option("--check", metavar="CMD", help="Shell command that must keep ending with 0 after the switch.")
@click.option(
    "--probation",
    "probation_s",
    metavar="SECONDS",
    type=click.FloatRange(0),
    help="How long --check must hold; by default as the bundle says.",
)
@click.option("--parallel", metavar="N", type=click.IntRange(1), default=8, help="Devices at a time (8).")
@click.option("--force", is_flag=True, help="Also where an agent or another deploy has the device.")
@click.option("--rollback", metavar="MODEL", help="Go back to the release of MODEL that ran before.")
@click.option("--list", "lists", is_flag=True, help="Only show what is installed.")
@json_option
@click.pass_context
def deploy(
    ctx: click.Context,
    bundle: Path | None,
    urls: tuple[str, ...],
    home: str | None,
    variant: str | None,
    self_test: str | None,
    skip_self_test: bool,
    restart: str | None,
    check: str | None,
    probation_s: float | None,
    parallel: int,
    force: bool,
    rollback: str | None,
    lists: bool,
    as_json: bool,
) -> None:
    """Install a bundle on devices that have no agent, over SSH or a serial console.

    A release is staged, tested on the device, switched to by one rename, watched, and kept or rolled back.
    Whatever is cut off, the device goes on with a whole release; the same command again finishes the work.

    Exit code 1 if a device failed, 3 if one did because the release did not pass its self-test or check.

    \b
    Examples:
      edgeml deploy kws-2.edgeml --to ssh://pi@10.0.0.7
      edgeml deploy kws-2.edgeml --to ssh://pi --restart 'sudo systemctl restart kws' --check 'pgrep kws'
      edgeml deploy --list --to ssh://pi@10.0.0.7
      edgeml deploy --rollback kws --to ssh://pi@10.0.0.7
    """  # noqa: D301 - \b is click's mark for text that keeps its lines
    from edgeml_devices.install.words import Plan

    if [bundle is not None, rollback is not None, lists].count(True) != 1:
        raise click.UsageError("give a BUNDLE to install, or --rollback MODEL, or --list")
    if probation_s is not None and check is None:
        raise click.UsageError("--probation needs --check: without it there is nothing to watch")
    if self_test is not None and skip_self_test:
        raise click.UsageError("--self-test and --skip-self-test exclude each other")
    devices = tuple(dict.fromkeys(urls))
    if lists:
        _list(ctx, devices, home, as_json)
        return
    plan = Plan(variant, self_test, skip_self_test, restart, check, probation_s, force)
    if bundle is None:
        name = str(rollback)
        together = _run(devices, lambda one: one.go_back(name), home, plan, parallel, as_json)
        _report(ctx, {"model": name, "release": None}, together, as_json)
        return
    with _payload(bundle, variant) as payload:
        together = _run(devices, lambda one: one.install(payload), home, plan, parallel, as_json)
        head = {"model": payload.manifest.name, "release": payload.manifest.release}
    _report(ctx, head, together, as_json)


def _payload(bundle: Path, variant: str | None) -> Payload:
    from edgeml.errors import UsageError
    from edgeml_devices.install.payload import Payload

    payload = Payload(bundle)
    names = [one.name for one in payload.manifest.variants]
    if variant is not None and variant not in names:
        payload.close()
        raise UsageError(f"{bundle} has no variant {variant!r}; its variants are: {', '.join(names)}")
    return payload


def _run(
    urls: Sequence[str],
    act: Callable[[Deployment], Outcome],
    home: str | None,
    plan: Plan,
    parallel: int,
    as_json: bool,
) -> Together:
    from edgeml import plugins
    from edgeml_devices.install.deployment import deployment
    from edgeml_devices.install.many import on_each
    from edgeml_devices.install.show import Board, live

    for url in urls:
        plugins.transport(url)  # a wrong URL is found before any device is touched

    def work(url: str, watch: Watch, stop: threading.Event) -> Outcome:
        with deployment(url, home, plan, watch, stop) as one:
            return act(one)

    board = Board(urls)
    with live(board, hidden=as_json):
        return on_each(urls, work, parallel=parallel, watch=board.update)


def _report(ctx: click.Context, head: dict[str, object], together: Together, as_json: bool) -> None:
    from edgeml_devices.install.show import print_outcomes
    from edgeml_devices.install.words import outcome_to_json
    from edgeml_devices.messages import Result

    if as_json:
        print_json(head | {"devices": [outcome_to_json(one) for one in together.outcomes]})
    else:
        print_outcomes(together.outcomes)
    if together.interruption is not None:
        raise together.interruption
    failed = [one for one in together.outcomes if one.result is not Result.SUCCESSFUL]
    if failed:
        ctx.exit(3 if any(one.failed_a_gate for one in failed) else 1)


def _list(ctx: click.Context, urls: Sequence[str], home: str | None, as_json: bool) -> None:
    from dataclasses import asdict

    from edgeml.errors import EdgemlError
    from edgeml_devices.install.device import InstalledOnDevice, opened
    from edgeml_devices.install.show import print_installed

    found: dict[str, tuple[InstalledOnDevice, ...] | str] = {}
    for url in urls:
        try:
            with opened(url, home) as device:
                found[url] = device.status()
        except EdgemlError as error:
            found[url] = str(error)
    if as_json:
        devices = [
            {"url": url, "error": models, "models": []}
            if isinstance(models, str)
            else {"url": url, "error": None, "models": [asdict(one) for one in models]}
            for url, models in found.items()
        ]
        print_json({"devices": devices})
    else:
        print_installed(found)
    if any(isinstance(models, str) for models in found.values()):
        ctx.exit(1)
