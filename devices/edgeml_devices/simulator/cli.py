"""``edgeml simulate``: a fleet of simulated devices against a real server."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeml.commands.json_output import json_option, print_json
from edgeml_devices.connection import Connection, server_options

if TYPE_CHECKING:
    from edgeml_devices.simulator.run import Ran
    from edgeml_devices.simulator.scenario import Scenario

_INTERRUPTED = 130


@click.command()
@click.argument("scenario", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option(
    "--join-token",
    metavar="TOKEN",
    help="Lets the devices in, from `edgeml tokens join`; without it one is made, which takes an admin.",
)
@click.option("--seed", type=int, metavar="NUMBER", help="In place of the scenario's: another fleet.")
@click.option(
    "--devices", type=click.IntRange(1), metavar="NUMBER", help="How many, in place of the scenario's."
)
@click.option("--plan", "only_plan", is_flag=True, help="Say what a server should hold, and ask none.")
@server_options
@json_option
def simulate(
    scenario: Path,
    join_token: str | None,
    seed: int | None,
    devices: int | None,
    only_plan: bool,
    connection: Connection,
    as_json: bool,
) -> None:
    """Run thousands of simulated devices against a server.

    SCENARIO is a TOML file: how many devices, what goes wrong on them, what is rolled out. At the end the
    server is asked what it holds; exit code 3 if that is not what the devices said. Ctrl-C ends a run early,
    and checks what came so far. The devices stay on the server, with the label simulation=RUN.

    \b
    Examples:
      edgeml simulate small.toml --server http://localhost:8350
      edgeml simulate small.toml --devices 10000 --seed 7 --json
      edgeml simulate small.toml --plan
    """  # noqa: D301 - \b is click's mark for text that keeps its lines
    from edgeml_devices.simulator.scenario import check_scenario, read_scenario

    read = read_scenario(scenario)
    read = replace(
        read, seed=read.seed if seed is None else seed, devices=read.devices if devices is None else devices
    )
    check_scenario(read, str(scenario))
    if only_plan:
        _show_plan(read, as_json=as_json)
        return
    from edgeml_devices.simulator.run import simulate as run

    with connection.open() as client:
        ran = run(read, client, join_token=join_token, ca_file=connection.ca_file, tell=_tell)
    _show(ran, as_json=as_json)


def _tell(line: str) -> None:
    click.echo(line, err=True)


def _show_plan(scenario: Scenario, *, as_json: bool) -> None:
    from edgeml_devices.simulator.plan import foresee, plan
    from edgeml_devices.simulator.shown import plan_json, print_plan

    foreseen = foresee(scenario, plan(scenario))
    if as_json:
        print_json(plan_json(scenario, foreseen))
    else:
        print_plan(scenario, foreseen)


def _show(ran: Ran, *, as_json: bool) -> None:
    from edgeml.errors import GateError
    from edgeml_devices.simulator.shown import print_run, run_json

    if as_json:
        print_json(run_json(ran))
    else:
        print_run(ran)
    if not ran.is_good:
        wrong = [line.what for line in ran.lines if not line.is_good]
        raise GateError(
            f"run {ran.run}: {ran.server} does not hold what it should: {', '.join(wrong) or ran.problems[0]}"
        )
    if not ran.is_whole:
        click.get_current_context().exit(_INTERRUPTED)
