"""``edgeml rollout``: one release to a group of devices, in waves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from edgeml.commands.json_output import json_option, print_json
from edgeml.errors import ServerError
from edgeml_devices.connection import Connection, server_options
from edgeml_devices.operator.rollout_options import policy_options, read_rules

if TYPE_CHECKING:
    from edgeml_devices.operator.rehearsal import Mode

_ID = click.argument("rollout_id", metavar="ID")
_WHAT = click.argument("what", metavar="[MODEL/RELEASE]", required=False)
_REASON = click.option("--reason", default="", metavar="TEXT", help="Why; others read it.")


@click.group()
def rollout() -> None:
    """Roll a release out to a group of devices, in waves.

    \b
    Examples:
      edgeml rollout plan kws/3 --group kitchen --wave ring=canary --wave 20% --wave 100%
      edgeml rollout create kws/3 --file rollout.toml --start
      edgeml rollout watch kws-3-1f9c2a
    """  # noqa: D301 - \b is click's mark for text that keeps its lines


@rollout.command()
@_WHAT
@policy_options
@click.option("--start", is_flag=True, help="Let the first wave begin at once.")
@server_options
@json_option
def create(
    what: str | None, start: bool, options: dict[str, Any], connection: Connection, as_json: bool
) -> None:
    """Create a rollout; nothing moves before it is started.

    \b
    Examples:
      edgeml rollout create kws/3 --group kitchen --wave 5 --wave 20% --wave 100% --soak 30m
      edgeml rollout create kws/3 --selector site=berlin --max-failed 2 --on-error abort --start
      edgeml rollout create --file rollout.toml --approval
    """  # noqa: D301 - as above
    from edgeml_devices.api_client import endpoint

    with connection.open() as client:
        made = client.post("/v1/rollouts", read_rules(what, options))
        if not as_json:
            click.echo(made["id"])  # before anything can go wrong: it exists
        if start and made["state"] == "READY":
            try:
                made = client.post(endpoint("rollouts", made["id"], "start"))
            except ServerError as error:
                then = f"edgeml rollout start {made['id']}, or end it: edgeml rollout abort {made['id']}"
                raise ServerError(
                    f"{made['id']} was created and not started: {error}\nstart it: {then}"
                ) from error
    if as_json:
        print_json(made)
    elif made["state"] == "READY":
        click.echo(f"start it: edgeml rollout start {made['id']}", err=True)
    elif made["state"] == "WAITING_FOR_APPROVAL":
        then = f", then start it: edgeml rollout start {made['id']}"
        click.echo(
            f"somebody else has to approve it: edgeml rollout approve {made['id']}{then if start else ''}",
            err=True,
        )


@rollout.command()
@click.argument("what", metavar="[MODEL/RELEASE|ID]", required=False)
@policy_options
@click.option("--devices", is_flag=True, help="Each device, not the sums alone.")
@click.option("--emulate", is_flag=True, help="Install and test it on an emulated board of each kind.")
@click.option(
    "--mode",
    type=click.Choice(["machine", "user"]),
    default="machine",
    help="Of --emulate: a whole machine, or its programs alone, which is quicker.",
)
@server_options
@json_option
def plan(
    what: str | None,
    devices: bool,
    emulate: bool,
    mode: Mode,
    options: dict[str, Any],
    connection: Connection,
    as_json: bool,
) -> None:
    """Show who would get which variant, and how many bytes.

    Nothing moves. With the rules of a rollout to create, or the id of one that is there.

    With --emulate exit code 3 if the release does not work on one of the boards; kinds of machine that cannot
    be emulated are named.

    \b
    Examples:
      edgeml rollout plan kws/3 --group kitchen --wave 5 --wave 100%
      edgeml rollout plan kws/3 --group kitchen --wave 100% --emulate
      edgeml rollout plan kws-3-1f9c2a --devices
      edgeml rollout plan --file rollout.toml --json
    """  # noqa: D301 - as above
    from edgeml_devices.api_client import endpoint
    from edgeml_devices.operator.rehearsal import rehearse_release, require_passed
    from edgeml_devices.operator.rollout_tables import print_plan, print_rehearsal

    with connection.open() as client:
        if what is not None and "/" not in what:
            rules = client.get(endpoint("rollouts", what))["policy"]
        else:
            rules = read_rules(what, options)
        limit = 100_000 if devices or as_json else 0
        planned = client.post(f"/v1/rollouts/plan?limit={limit}", rules, idempotent=True)
        if not as_json:
            print_plan(planned)
        rehearsal = rehearse_release(client, planned, mode) if emulate else None
    if as_json:
        print_json(planned if rehearsal is None else planned | rehearsal)
    if rehearsal is not None:
        if not as_json:
            print_rehearsal(rehearsal)
        require_passed(rehearsal["emulated"])


@rollout.command(name="list")
@click.option("--model", metavar="NAME", help="Those of one model.")
@click.option("--state", metavar="STATE", help="Those in one state, as RUNNING or PAUSED.")
@server_options
@json_option
def list_rollouts(model: str | None, state: str | None, connection: Connection, as_json: bool) -> None:
    """List rollouts, the newest first.

    \b
    Examples:
      edgeml rollout list
      edgeml rollout list --model kws --state RUNNING
    """  # noqa: D301 - as above
    from edgeml_devices.operator.rollout_tables import print_rollouts

    query: dict[str, str | int] = {"limit": 1000}
    query |= {} if model is None else {"model": model}
    query |= {} if state is None else {"state": state.upper()}
    with connection.open() as client:
        found = list(client.pages("/v1/rollouts", "rollouts", query))
    if as_json:
        print_json({"rollouts": found})
    elif not found:
        click.echo("no rollout; create one: edgeml rollout create MODEL/RELEASE --group NAME")
    else:
        print_rollouts(found)


@rollout.command()
@_ID
@click.option("--devices", is_flag=True, help="Each device, too.")
@server_options
@json_option
def show(rollout_id: str, devices: bool, connection: Connection, as_json: bool) -> None:
    """Show a rollout: what it waits for, its waves, gates and failures.

    \b
    Examples:
      edgeml rollout show kws-3-1f9c2a
      edgeml rollout show kws-3-1f9c2a --devices --json
    """  # noqa: D301 - as above
    from edgeml_devices.api_client import endpoint
    from edgeml_devices.operator.rollout_tables import print_devices, print_rollout

    with connection.open() as client:
        found = client.get(endpoint("rollouts", rollout_id))
        each = []
        if devices:
            path = endpoint("rollouts", rollout_id, "devices")
            each = list(client.pages(path, "devices", {"limit": 1000}))
    if as_json:
        print_json(found | ({"devices": each} if devices else {}))
    else:
        print_rollout(found)
        print_devices(each)


@rollout.command()
@_ID
@server_options
@json_option
def watch(rollout_id: str, connection: Connection, as_json: bool) -> None:
    """Watch a rollout until it ends.

    Exit code 3 if it was aborted or denied. On a terminal it is redrawn, elsewhere each change is a line.

    \b
    Example:
      edgeml rollout watch kws-3-1f9c2a
    """  # noqa: D301 - as above
    from edgeml.errors import GateError
    from edgeml_devices.operator.rollout_watch import watch_rollout

    with connection.open() as client:
        found = watch_rollout(client, rollout_id, quiet=as_json)
    if as_json:
        print_json(found)
    if found["state"] != "FINISHED":
        raise GateError(f"{rollout_id} is {found['state']}: {found['reason']}")


@rollout.command()
@_ID
@server_options
@json_option
def start(rollout_id: str, connection: Connection, as_json: bool) -> None:
    """Let the first wave begin.

    \b
    Example:
      edgeml rollout start kws-3-1f9c2a
    """  # noqa: D301 - as above
    _act(connection, rollout_id, "start", as_json)


@rollout.command()
@_ID
@server_options
@json_option
def approve(rollout_id: str, connection: Connection, as_json: bool) -> None:
    """Approve a rollout that somebody else created.

    \b
    Example:
      edgeml rollout approve kws-3-1f9c2a
    """  # noqa: D301 - as above
    _act(connection, rollout_id, "approve", as_json)


@rollout.command()
@_ID
@_REASON
@server_options
@json_option
def deny(rollout_id: str, reason: str, connection: Connection, as_json: bool) -> None:
    """End a rollout before it began.

    \b
    Example:
      edgeml rollout deny kws-3-1f9c2a --reason 'not on a Friday'
    """  # noqa: D301 - as above
    _act(connection, rollout_id, "deny", as_json, {"reason": reason})


@rollout.command()
@_ID
@_REASON
@server_options
@json_option
def pause(rollout_id: str, reason: str, connection: Connection, as_json: bool) -> None:
    """Start no device any more; those under way go on.

    \b
    Example:
      edgeml rollout pause kws-3-1f9c2a
    """  # noqa: D301 - as above
    _act(connection, rollout_id, "pause", as_json, {"reason": reason})


@rollout.command()
@_ID
@server_options
@json_option
def resume(rollout_id: str, connection: Connection, as_json: bool) -> None:
    """Go on: failures so far are forgiven, and health counts anew.

    \b
    Example:
      edgeml rollout resume kws-3-1f9c2a
    """  # noqa: D301 - as above
    _act(connection, rollout_id, "resume", as_json)


@rollout.command()
@_ID
@_REASON
@server_options
@json_option
def abort(rollout_id: str, reason: str, connection: Connection, as_json: bool) -> None:
    """End a rollout: what has not switched gets back what it had.

    \b
    Example:
      edgeml rollout abort kws-3-1f9c2a --reason 'wrong labels'
    """  # noqa: D301 - as above
    _act(connection, rollout_id, "abort", as_json, {"reason": reason})


@rollout.command(name="next")
@_ID
@server_options
@json_option
def advance(rollout_id: str, connection: Connection, as_json: bool) -> None:
    """Let the next wave begin whatever the rules; at the end, finish.

    \b
    Example:
      edgeml rollout next kws-3-1f9c2a
    """  # noqa: D301 - as above
    _act(connection, rollout_id, "next", as_json)


@rollout.command()
@_ID
@click.argument("devices", metavar="[DEVICE]...", nargs=-1)
@server_options
@json_option
def retry(rollout_id: str, devices: tuple[str, ...], connection: Connection, as_json: bool) -> None:
    """Try devices again that failed; without names all of them.

    \b
    Examples:
      edgeml rollout retry kws-3-1f9c2a
      edgeml rollout retry kws-3-1f9c2a pi-7 pi-9
    """  # noqa: D301 - as above
    _act(connection, rollout_id, "retry", as_json, {"devices": list(devices)})


@rollout.command()
@click.argument("device", metavar="DEVICE")
@server_options
@json_option
def pardon(device: str, connection: Connection, as_json: bool) -> None:
    """Let a device out of the penalty box.

    \b
    Example:
      edgeml rollout pardon pi-7
    """  # noqa: D301 - as above
    from edgeml_devices.api_client import endpoint

    with connection.open() as client:
        found = client.delete(endpoint("devices", device, "penalty"))
    if as_json:
        print_json(found)
    else:
        click.echo(f"{device} takes part in rollouts again")


def _act(
    connection: Connection, rollout_id: str, verb: str, as_json: bool, body: dict[str, Any] | None = None
) -> None:
    from edgeml_devices.api_client import endpoint
    from edgeml_devices.operator.rollout_tables import summary

    with connection.open() as client:
        found = client.post(endpoint("rollouts", rollout_id, verb), body)
    if as_json:
        print_json(found)
    else:
        click.echo(summary(found))
