"""``edgeml telemetry``: is the model still good, everywhere, and how sure is that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgeml.commands.json_output import json_option, print_json
from edgeml.errors import UsageError
from edgeml.figures import readable_size
from edgeml_devices.connection import Connection, server_options
from edgeml_devices.lazy_group import LazyGroup
from edgeml_devices.operator.telemetry_options import selection_options

_BY = click.option(
    "--by",
    default="",
    metavar="LIST",
    help="Group by device, model, release, variant, target, hour, day; several with commas.",
)
_QUANTILES = click.option(
    "--q", default="0.5,0.95,0.99", metavar="LIST", show_default=True, help="Shares below, with commas."
)


@click.group(
    cls=LazyGroup,
    lazy={
        "grafana": "edgeml_devices.operator.grafana_cli:grafana",
        "top": "edgeml_devices.operator.telemetry_top:top",
    },
)
def telemetry() -> None:
    """Ask what models do in the field, and how sure that is.

    \b
    Examples:
      edgeml telemetry top
      edgeml telemetry quantile --model kws --by release
      edgeml telemetry compare --model kws/8 --against 7 --since 7d
      edgeml telemetry coverage --since 30d
    """  # noqa: D301 - \b is click's mark for text that keeps its lines


@telemetry.command()
@_QUANTILES
@_BY
@click.option(
    "--metric",
    type=click.Choice(["total", "preprocess", "run", "postprocess", "confidence"]),
    default="total",
    show_default=True,
    help="Of the whole call, of a stage of it, or how sure the model was.",
)
@selection_options
@server_options
@json_option
def quantile(
    q: str, by: str, metric: str, asked: dict[str, Any], connection: Connection, as_json: bool
) -> None:
    """Show quantiles of latency, of a stage or of confidence.

    With their 95 % intervals.

    \b
    Examples:
      edgeml telemetry quantile --model kws --by device --since 1h
      edgeml telemetry quantile --q 0.99 --by hour --since 7d --json
    """  # noqa: D301 - as above
    from edgeml_devices.operator.telemetry_tables import print_quantiles

    found = _ask(connection, "quantile", {**asked, "q": q, "by": by, "metric": metric})
    print_json(found) if as_json else print_quantiles(found, is_time=metric != "confidence")


@telemetry.command()
@_BY
@selection_options
@server_options
@json_option
def rate(by: str, asked: dict[str, Any], connection: Connection, as_json: bool) -> None:
    """Show errors by calls, with their 95 % intervals.

    \b
    Example:
      edgeml telemetry rate --model kws --by release,target
    """  # noqa: D301 - as above
    from edgeml_devices.operator.telemetry_tables import print_rates

    found = _ask(connection, "rate", {**asked, "by": by})
    print_json(found) if as_json else print_rates(found)


@telemetry.command()
@click.option("--against", type=int, required=True, metavar="RELEASE", help="The release to compare against.")
@_QUANTILES
@click.option(
    "--pairing",
    type=click.Choice(["device-hour", "device", "target-hour"]),
    default="device-hour",
    show_default=True,
    help="What is held fixed.",
)
@selection_options
@server_options
@json_option
def compare(
    against: int, q: str, pairing: str, asked: dict[str, Any], connection: Connection, as_json: bool
) -> None:
    """Compare a release with another, like with like.

    On the same devices in the same hours: only hours in which a device ran both count, and both weigh alike.
    Where releases never met in an hour, --pairing device takes all hours of devices that ran both,
    --pairing target-hour takes other devices of the same kind in the same hours.

    \b
    Example:
      edgeml telemetry compare --model kws/8 --against 7 --since 7d
    """  # noqa: D301 - as above
    from edgeml_devices.operator.telemetry_tables import print_comparison

    if "release" not in asked:
        raise UsageError("which release? Write --model NAME/RELEASE, as in --model kws/8 --against 7")
    found = _ask(connection, "compare", {**asked, "against": against, "q": q, "pairing": pairing})
    print_json(found) if as_json else print_comparison(found)


@telemetry.command()
@click.option(
    "--by",
    type=click.Choice(["device", "target", "release", "fleet"]),
    default="release",
    show_default=True,
    help="What is judged by itself.",
)
@click.option(
    "--level",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="SHARE",
    help="Share of false findings among all findings.",
)
@click.option("--all", "every", is_flag=True, help="Features that did not drift, too.")
@click.option("--slow", is_flag=True, help="Small changes that last, and since when.")
@selection_options
@server_options
@json_option
def drift(
    by: str,
    level: float | None,
    every: bool,
    slow: bool,
    asked: dict[str, Any],
    connection: Connection,
    as_json: bool,
) -> None:
    """Show what is distributed otherwise than in the reference.

    The reference was made by `edgeml convert` and travels in the bundle. What counts is significant over all
    groups and features together, and large enough to matter. --slow sums up what no single hour shows.

    \b
    Examples:
      edgeml telemetry drift --model kws/8 --since 7d
      edgeml telemetry drift --model kws/8 --slow --since 30d
      edgeml telemetry drift --by device --all --json
    """  # noqa: D301 - as above
    from edgeml_devices.operator.telemetry_tables import print_drift, print_slow_drift

    if slow and (every or level is not None):
        raise UsageError("--slow goes with neither --level nor --all")
    if slow:
        found = _ask(connection, "drift", {**asked, "by": by, "slow": "true"})
        print_json(found) if as_json else print_slow_drift(found)
        return
    found = _ask(connection, "drift", {**asked, "by": by, "level": "" if level is None else level})
    if not as_json:
        print_drift(found, every=every)
        return
    found["judged"] = len(found["answers"])
    found["answers"] = [one for one in found["answers"] if every or one["drifted"]]
    print_json(found)


@telemetry.command()
@click.option("--by", default="device", metavar="LIST", show_default=True, help="device, target, hour, day.")
@selection_options
@server_options
@json_option
def machine(by: str, asked: dict[str, Any], connection: Connection, as_json: bool) -> None:
    """Show temperature, memory, throttling and energy of the machines.

    \b
    Example:
      edgeml telemetry machine --by target --since 7d
    """  # noqa: D301 - as above
    from edgeml_devices.operator.telemetry_tables import print_machines

    found = _ask(connection, "machine", {**asked, "by": by})
    print_json(found) if as_json else print_machines(found)


@telemetry.command()
@selection_options
@server_options
@json_option
def coverage(asked: dict[str, Any], connection: Connection, as_json: bool) -> None:
    """Show what came and what is missing, by device and day.

    \b
    Example:
      edgeml telemetry coverage --device pi-7 --since 7d
    """  # noqa: D301 - as above
    from edgeml_devices.operator.telemetry_tables import print_coverage

    found = _ask(connection, "coverage", asked)
    print_json(found) if as_json else print_coverage(found)


@telemetry.command()
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="The newest so many."
)
@click.option(
    "--save",
    metavar="FOLDER",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write inputs that devices sent there, .npz each.",
)
@selection_options
@server_options
@json_option
def samples(
    limit: int, save: Path | None, asked: dict[str, Any], connection: Connection, as_json: bool
) -> None:
    """Show inferences that were kept as examples.

    Random ones, errors, and those the model was least sure of. Inputs are there only of devices whose owner
    lets them be sent (samples = "raw").

    \b
    Examples:
      edgeml telemetry samples --model kws/8 --limit 20
      edgeml telemetry samples --model kws/8 --since 7d --limit 1000 --save inputs/
    """  # noqa: D301 - as above
    from edgeml_devices.operator.telemetry_tables import print_samples

    found = _ask(connection, "samples", {**asked, "limit": limit})
    saved = {} if save is None else {"saved": _save_inputs(found["answers"], save)}
    if as_json:
        print_json(found | saved)
        return
    print_samples(found)
    if save is not None:
        click.echo(f"{save}: {saved['saved']} inputs" if saved["saved"] else "no input was sent with these")


@telemetry.command()
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
@selection_options
@server_options
@json_option
def export(file: Path, asked: dict[str, Any], connection: Connection, as_json: bool) -> None:
    """Write windows to a Parquet file, a row for each model in each.

    \b
    Example:
      edgeml telemetry export kws.parquet --model kws --since 30d
    """  # noqa: D301 - as above
    from edgeml_devices.api_client import endpoint

    with connection.open() as client:
        size_bytes = client.save(endpoint("telemetry", "export"), asked, file)
    if as_json:
        print_json({"file": str(file), "size_bytes": size_bytes})
    else:
        click.echo(f"{file}: {readable_size(size_bytes)}")


def _save_inputs(answers: list[dict[str, Any]], folder: Path) -> int:
    """Write inputs, each under its device, model, moment (UTC, microseconds) and label; say how many."""
    import base64
    import re
    from datetime import UTC, datetime

    count = 0
    for one in answers:
        sample = one["sample"]
        if not sample["raw"]:
            continue
        at = datetime.fromtimestamp(sample["at"], UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        words = (one["device"], one["model"], str(one["release"]), at, sample["why"], sample["label"] or "")
        name = "-".join(re.sub(r"[^\w.]+", "_", word) for word in words if word)[:200]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.npz").write_bytes(base64.b64decode(sample["raw"]))
        count += 1
    return count


def _ask(connection: Connection, question: str, query: dict[str, Any]) -> Any:
    from edgeml_devices.api_client import endpoint

    with connection.open() as client:
        return client.get(endpoint("telemetry", question), {k: v for k, v in query.items() if v != ""})
