"""What ``edgeml emulate`` does to machines that were started: each command of it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import click

from edgeml.commands.json_output import json_option, print_json
from edgeml.errors import UsageError
from edgeml_devices.emulator.machine.start_cli import shape_of, show

if TYPE_CHECKING:
    from edgeml_devices.emulator.machine.machine import Machine
    from edgeml_devices.emulator.machine.state import Found


def _complete_machine(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - click's signature
    from edgeml_devices.emulator.machine.state import machines

    return [found.name for found in machines() if found.name.startswith(incomplete)]


_machine: Final = click.argument("name", shell_complete=_complete_machine)


@click.command()
@json_option
def ps(as_json: bool) -> None:
    """List the machines that were started.

    \b
    Examples:
      edgeml emulate ps
      edgeml emulate ps --json | jq -r '.machines[].ports.ssh'
    """  # noqa: D301 - \b is click's mark for text that keeps its lines
    from edgeml_devices.emulator.machine.starting import unreadable_words
    from edgeml_devices.emulator.machine.state import machines, unreadable

    found = machines()
    for folder in unreadable():
        click.echo(f"warning: {unreadable_words(folder.name)}", err=True)
    if as_json:
        print_json({"machines": [shape_of(one) for one in found]})
    elif not found:
        click.echo("no machines: edgeml emulate raspberry-pi-4")
    else:
        _print_machines(found)


@click.command()
@click.argument("names", nargs=-1, shell_complete=_complete_machine)
@click.option("--all", "every", is_flag=True, help="Every machine.")
@json_option
def stop(names: tuple[str, ...], every: bool, as_json: bool) -> None:
    """End machines, and remove them with their disks.

    \b
    Examples:
      edgeml emulate stop raspberry-pi-4
      edgeml emulate stop --all
    """  # noqa: D301 - as above
    from edgeml_devices.emulator.machine import state

    if bool(names) == every:
        raise click.UsageError("name the machines to end, or give --all")
    damaged = state.unreadable()
    if every:
        folders = sorted({*(one.folder for one in state.machines()), *damaged})
    else:
        by_name = {folder.name: folder for folder in damaged}
        folders = [by_name.get(name) or _found(name).folder for name in names]
    for folder in folders:
        state.end(folder)
    if as_json:
        print_json({"stopped": [folder.name for folder in folders]})
    else:
        click.echo(f"ended: {', '.join(folder.name for folder in folders) or 'none was there'}")


@click.command("power-cut")
@_machine
def power_cut(name: str) -> None:
    """Pull a machine's plug.

    What is not on its disk is lost.

    \b
    Examples:
      edgeml emulate power-cut raspberry-pi-4
    """  # noqa: D301 - as above
    from edgeml_devices.emulator.machine.condition import off_text
    from edgeml_devices.emulator.machine.state import kill

    kill(_found(name).folder)
    click.echo(off_text(name))


@click.command()
@_machine
def restart(name: str) -> None:
    """Boot a machine on the disk that it has.

    If it runs, its plug is pulled first.

    \b
    Examples:
      edgeml emulate restart raspberry-pi-4
    """  # noqa: D301 - as above
    from edgeml_devices.emulator.machine.proof import prove

    machine = _machine_named(name)
    machine.restart()
    prove(machine)
    show(machine, "its ports are others now")


@click.command(context_settings={"ignore_unknown_options": True})
@_machine
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def ssh(name: str, command: tuple[str, ...]) -> None:
    """Open a shell in a machine, or run a command there.

    \b
    Examples:
      edgeml emulate ssh raspberry-pi-4
      edgeml emulate ssh raspberry-pi-4 cat /proc/cpuinfo
    """  # noqa: D301 - as above
    import subprocess

    from edgeml_devices.emulator import tools

    machine = _answering(name)
    argv = [str(tools.find(tools.SSH)), "-F", str(machine.ssh_config), name, *command]
    sys.exit(subprocess.run(argv, check=False).returncode)


@click.command()
@_machine
@click.option("--serial", is_flag=True, help="The second line, on which the kernel writes nothing.")
def console(name: str, serial: bool) -> None:
    """Attach this terminal to a machine's console.

    Ctrl-] leaves it. One at a time can be attached to a line.

    \b
    Examples:
      edgeml emulate console raspberry-pi-4
      edgeml emulate console raspberry-pi-4 --serial
    """  # noqa: D301 - as above
    from edgeml_devices.emulator.machine.command import CONSOLE, SERIAL
    from edgeml_devices.emulator.machine.condition import is_attached
    from edgeml_devices.emulator.machine.terminal import attach_terminal

    machine = _answering(name, by_network=False)
    if not sys.stdin.isatty():
        raise UsageError(f"a console needs a terminal; run commands by: edgeml emulate ssh {name} COMMAND")
    if is_attached(machine.folder, SERIAL if serial else CONSOLE):
        raise UsageError(f"somebody is attached to that line of {name}; it takes one at a time")
    click.echo(f"{name}: Ctrl-] leaves the console")
    attach_terminal(machine.ports.serial if serial else machine.ports.console, name)


@click.command()
@_machine
@click.argument("how", type=click.Choice(["on", "off", "slow"]))
@click.option("--kbit-per-s", type=click.IntRange(1), help="With slow: how much goes out, in 1000 bit/s.")
@click.option("--delay-ms", type=click.IntRange(1), help="With slow: how late it goes out.")
@click.option(
    "--loss-percent", type=click.FloatRange(0, 100), help="With slow: how many packets do not go out."
)
def network(
    name: str, how: str, kbit_per_s: int | None, delay_ms: int | None, loss_percent: float | None
) -> None:
    """Pull a machine's network cable, or slow it.

    Slow is what the machine sends: limited, late, or lost. It stays so until "on", or until the machine is
    started again.

    \b
    Examples:
      edgeml emulate network raspberry-pi-4 off
      edgeml emulate network raspberry-pi-4 slow --kbit-per-s 500 --delay-ms 100 --loss-percent 2
      edgeml emulate network raspberry-pi-4 on
    """  # noqa: D301 - as above
    limits = (kbit_per_s, delay_ms, loss_percent)
    if (how == "slow") != any(limits):
        raise click.UsageError("--kbit-per-s, --delay-ms and --loss-percent go with slow, one at least")
    if how == "off":
        _running(name).network(on=False)
        click.echo(f"{name} has no network; put its cable back: edgeml emulate network {name} on")
        return
    machine = _answering(name, by_network=False)
    machine.network(on=True)
    machine.slow_network(
        bits_per_s=1000 * (kbit_per_s or 0), delay_ms=delay_ms or 0, loss_percent=loss_percent or 0.0
    )
    machine.hang_up()
    if how == "on":
        click.echo(f"{name} has its network as it was")
    else:
        click.echo(f"{name} has a slow network; as before: edgeml emulate network {name} on")


@click.command()
@_machine
@click.option("--kb-per-s", type=click.IntRange(1), help="What it reads and writes, in 1000 byte/s.")
@click.option("--operations-per-s", type=click.IntRange(1), help="How often it reads or writes.")
def disk(name: str, kb_per_s: int | None, operations_per_s: int | None) -> None:
    """Make a machine's disk slow.

    Without a limit, it is as fast as the disk of this machine.

    \b
    Examples:
      edgeml emulate disk raspberry-pi-4 --kb-per-s 2000
      edgeml emulate disk raspberry-pi-4
    """  # noqa: D301 - as above
    _running(name).slow_disk(bytes_per_s=1000 * (kb_per_s or 0), operations_per_s=operations_per_s or 0)
    if kb_per_s or operations_per_s:
        click.echo(f"{name} has a slow disk; as before: edgeml emulate disk {name}")
    else:
        click.echo(f"{name} has its disk as it was")


@click.command()
@_machine
@click.option("--end", is_flag=True, help="Let it go on.")
def hang(name: str, end: bool) -> None:
    """Let a machine hang, or go on.

    Its processor stands still: connections stay open, and nothing answers.

    \b
    Examples:
      edgeml emulate hang raspberry-pi-4
      edgeml emulate hang raspberry-pi-4 --end
    """  # noqa: D301 - as above
    machine = _running(name)
    if end:
        machine.resume()
        click.echo(f"{name} goes on")
    else:
        machine.hang()
        click.echo(f"{name} hangs; let it go on: edgeml emulate hang {name} --end")


COMMANDS: Final = (ps, stop, power_cut, restart, ssh, console, network, disk, hang)


def _found(name: str) -> Found:
    from edgeml_devices.emulator.machine.starting import machine_folder

    return machine_folder(name)


def _machine_named(name: str) -> Machine:
    from edgeml_devices.emulator.machine.starting import find_machine

    return find_machine(name)


def _running(name: str) -> Machine:
    from edgeml_devices.emulator.machine.condition import off_text

    machine = _machine_named(name)
    if not machine.running:
        raise UsageError(off_text(name))
    return machine


def _answering(name: str, *, by_network: bool = True) -> Machine:
    from edgeml_devices.emulator.machine.condition import unreachable

    machine = _machine_named(name)
    why = unreachable(machine.folder, by_network=by_network)
    if why is not None:
        raise UsageError(why)
    return machine


def _print_machines(found: tuple[Found, ...]) -> None:
    from datetime import UTC, datetime

    from edgeml.terminal import Column, open_console, print_table
    from edgeml_devices.emulator.machine.condition import condition

    records = [one.record for one in found]
    since = [datetime.fromtimestamp(one.started_s, UTC).astimezone() for one in records]
    print_table(
        open_console(),
        (
            Column("machine", [one.name for one in found], is_name=True),
            Column("board", [one.board for one in records], is_word=True, leaves=2),
            Column("state", [condition(one.folder).replace("_", " ") for one in found], is_word=True),
            Column(
                "ends", ["by stop" if one.detached else "with its command" for one in records], is_word=True
            ),
            Column("memory", [f"{one.memory_bytes >> 20} MiB" for one in records], leaves=3),
            Column("since", [f"{one:%d %b %H:%M}" for one in since], leaves=1),
            Column("ssh", [str(one.ports.ssh) for one in records]),
        ),
    )
