"""``edgeml emulate BOARD``: starts a machine, and stays with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from edgeml.commands.json_output import print_json
from edgeml.words import RUNTIMES

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeml_devices.emulator.images.image import ImageRequest
    from edgeml_devices.emulator.machine.machine import Machine
    from edgeml_devices.emulator.machine.state import Found

_LOOKS_EVERY_S: Final = 0.2
_END: Final = "Ctrl-C ends it, and removes its disk"


def start_command(board: str, model: str) -> click.Command:
    """Give the command that starts a board: ``edgeml emulate BOARD``."""
    example = f"edgeml emulate {board}"
    text = f"""Start a {model}.

    It has a kernel and a disk of its own, and goes on from a snapshot of a booted one, in a second; image and
    snapshot are made first where there are none. It ends with Ctrl-C, and its disk with it; with --detach it
    runs until it is stopped.

    \b
    Examples:
      {example}
      {example} --name kitchen --detach
      {example} --fresh --memory-mib 256 --engine litert --engine onnxruntime
    """
    return click.Command(board, callback=_start(board), params=_start_options(), help=text)


def _start_options() -> list[click.Parameter]:
    return [
        click.Option(["--name"], default="", help="Its name; by default the board's, with a number behind."),
        click.Option(["--fresh"], is_flag=True, help="Boot it, in place of going on from a snapshot."),
        click.Option(["--detach"], is_flag=True, help="Leave it running; `emulate stop NAME` ends it."),
        click.Option(
            ["--memory-mib"], type=click.IntRange(128, 65536), help="Another memory than the board's, in MiB."
        ),
        click.Option(
            ["--engine", "engines"],
            type=click.Choice(RUNTIMES),
            multiple=True,
            help="An engine of its image; may be repeated. By default the image with most of them is taken.",
        ),
        click.Option(
            ["--flavour"],
            type=click.Choice(["minimal", "systemd"]),
            help="Of its image: minimal, or systemd for units and services.",
        ),
        click.Option(["--json", "as_json"], is_flag=True, help="Print JSON for machines; with --detach."),
    ]


def _start(board: str) -> Callable[..., None]:
    def callback(
        *,
        name: str,
        fresh: bool,
        detach: bool,
        memory_mib: int | None,
        engines: tuple[str, ...],
        flavour: str | None,
        as_json: bool,
    ) -> None:
        from edgeml_devices.emulator.boards import board_named
        from edgeml_devices.emulator.machine.starting import Wanted, start_machine
        from edgeml_devices.emulator.progress_bars import shown_progress

        if as_json and not detach:
            raise click.UsageError("--json goes with --detach: a machine in the foreground has no answer")
        memory_bytes = None if memory_mib is None else memory_mib << 20
        wanted = Wanted(board_named(board), _request(engines, flavour), memory_bytes)
        with shown_progress() as report:
            machine = start_machine(wanted, name=name, fresh=fresh, report=report)
        if not detach:
            with machine:
                stay(machine)
            return
        machine.detach()
        if as_json:
            print_json({"machine": shape_of(machine.found)})
        else:
            show(machine, f"it runs until: edgeml emulate stop {machine.name}")

    return callback


def _request(engines: tuple[str, ...], flavour: str | None) -> ImageRequest | None:
    from edgeml_devices.emulator.images.image import DEFAULT_ENGINES, ImageRequest

    if not engines and flavour is None:
        return None
    return ImageRequest(engines or DEFAULT_ENGINES, flavour or "minimal")  # type: ignore[arg-type]  # click's choices


def stay(machine: Machine) -> None:
    """Wait for Ctrl-C, or for another process to stop it; say when it goes off, and on again."""
    import signal
    import time

    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
        signal.signal(signal.SIGHUP, signal.default_int_handler)  # a terminal that is closed
    show(machine, _END)
    try:
        was_running, shown = True, machine.record
        while machine.refresh():
            running = machine.running
            if running and machine.record != shown:  # it may have been off for less than one look
                show(machine, _END)
                was_running, shown = True, machine.record
            elif was_running and not running:
                click.echo(
                    f"{machine.name} is off: shut down, rebooted or without power. "
                    f"Boot it on its disk: edgeml emulate restart {machine.name}"
                )
                was_running = False
            time.sleep(_LOOKS_EVERY_S)
    except KeyboardInterrupt:
        click.echo()
    click.echo(f"{machine.name} has ended")


def show(machine: Machine, end: str) -> None:
    """Say where a machine can be reached, and how it ends."""
    how = "from its snapshot" if machine.record.restored else "booted"
    click.echo(f"{machine.name} is up, {how}")
    for title, text in (
        ("shell", f"edgeml emulate ssh {machine.name}"),
        ("console", f"edgeml emulate console {machine.name}"),
        ("transport", machine.ssh_url),
        ("serial line", f"serial:socket://127.0.0.1:{machine.ports.serial}"),
        ("page", f"http://127.0.0.1:{machine.ports.http}/ready.json"),
    ):
        click.echo(f"  {title:<13}{text}")
    click.echo(f"{end}; its times say nothing of the board")


def shape_of(found: Found) -> dict[str, object]:
    """Give what JSON says of a machine."""
    from dataclasses import asdict

    from edgeml_devices.emulator.machine.condition import condition

    shape = {"name": found.name, "folder": str(found.folder), "running": found.running}
    return shape | {"condition": condition(found.folder)} | asdict(found.record)
