"""Rollouts and plans as tables and lines."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from edgeml.figures import readable_size
from edgeml.terminal import Column, open_console, print_table, printable
from edgeml_devices.operator.shown import NOTHING, ago, moment

Document = Mapping[str, Any]


def summary(rollout: Document) -> str:
    """Give a rollout in one line."""
    counts = rollout["counts"]
    parts = [f"{rollout['id']}: {rollout['state']}"]
    if rollout["wave"]:
        parts.append(f"wave {rollout['wave']} of {rollout['wave_count']}")
    parts.append(describe_counts(counts))
    line = ", ".join(part for part in parts if part)
    return f"{line}; {printable(rollout['reason'])}" if rollout["reason"] else line


def describe_counts(counts: Document) -> str:
    """Give how many devices stand where, those that are none left out."""
    under_way = counts["assigned"]
    said = (
        (counts["succeeded"], "committed"),
        (counts["failed"] + counts["forgiven"], "failed"),
        (under_way, "under way"),
        (counts["held"], "held"),
        (counts["waiting"], "waiting"),
        (counts["skipped"], "skipped"),
        (counts["cancelled"], "cancelled"),
    )
    return ", ".join(f"{number} {name}" for number, name in said if number)


def print_rollouts(found: Sequence[Document]) -> None:
    """Print the list of rollouts."""
    now = time.time()
    columns = [
        Column("id", [one["id"] for one in found], is_name=True),
        Column("release", [f"{one['model']}/{one['release']}" for one in found], is_word=True, leaves=3),
        Column("state", [one["state"] for one in found], is_word=True),
        Column("wave", [f"{one['wave']}/{one['wave_count']}" for one in found]),
        Column("committed", [str(one["counts"]["succeeded"]) for one in found]),
        Column("failed", [str(one["counts"]["failed"] + one["counts"]["forgiven"]) for one in found]),
        Column("to go", [str(_to_go(one["counts"])) for one in found], leaves=1),
        Column("created", [ago(one["created_at"], now) for one in found], leaves=2),
        Column("by", [printable(one["created_by"]) for one in found], is_word=True, leaves=4),
    ]
    print_table(open_console(), columns)


def print_rollout(rollout: Document) -> None:
    """Print all of a rollout but its single devices."""
    from rich.text import Text

    console = open_console()
    console.print(Text(f"{rollout['id']}: {rollout['model']}/{rollout['release']}", "bold"))
    for name, text in _about(rollout):
        if text:
            console.print(Text(f"{name}: {printable(text)}"), soft_wrap=True)
    console.print()
    print_table(console, wave_columns(rollout))
    for reading in rollout["gates"]:
        console.print(Text(describe_gate(reading)), soft_wrap=True)
    if rollout["failures"]:
        print_table(console, failure_columns(rollout), title="\nfailures, the latest first")


def _about(rollout: Document) -> list[tuple[str, str]]:
    window = rollout["window"]
    closed = "" if window["open"] else "closed"
    if rollout["policy"].get("windows") and window["changes_at"] is not None:
        closed = f"{'open' if window['open'] else 'closed'} until {moment(window['changes_at'])}"
    return [
        ("state", rollout["state"]),
        ("reason", rollout["reason"]),
        ("devices", rollout["selector"] or "all"),
        ("created", f"{moment(rollout['created_at'])} by {rollout['created_by']}"),
        ("approved", rollout["approved_by"] or ""),
        ("started", "" if rollout["started_at"] is None else moment(rollout["started_at"])),
        ("ended", "" if rollout["ended_at"] is None else moment(rollout["ended_at"])),
        ("window", closed),
        ("under way", _progress(rollout)),
        ("skipped", ", ".join(f"{number} {reason}" for reason, number in rollout["skipped"].items())),
    ]


def _progress(rollout: Document) -> str:
    return ", ".join(f"{number} {state or 'not begun'}" for state, number in rollout["progress"].items())


def wave_columns(rollout: Document) -> list[Column]:
    """Give the table of waves."""
    waves = rollout["waves"]
    counted = ("succeeded", "failed", "assigned", "held", "waiting", "skipped")
    titles = ("committed", "failed", "under way", "held", "waiting", "skipped")
    leaves = (0, 0, 1, 2, 0, 3)
    return [
        Column("wave", [str(wave["wave"]) for wave in waves]),
        Column("devices", [printable(wave["what"]) for wave in waves], is_name=True),
        Column("released", [moment(wave["released_at"]) for wave in waves], is_word=True, leaves=4),
        *(
            Column(title, [str(_number(wave["counts"], name)) for wave in waves], leaves=leaf)
            for name, title, leaf in zip(counted, titles, leaves, strict=True)
        ),
    ]


def _number(counts: Document, name: str) -> int:
    return int(counts[name] + (counts["forgiven"] if name == "failed" else 0))


def describe_gate(reading: Document) -> str:
    """Give a gate's reading in one line."""
    value = NOTHING if reading["value"] is None else f"{reading['value']:.3g}"
    detail = f" ({reading['detail']})" if reading["detail"] else ""
    return f"gate {reading['gate']}: {reading['state']}, {value}, at most {reading['limit']:.3g}{detail}"


def failure_columns(rollout: Document) -> list[Column]:
    """Give the table of the latest failures."""
    failures = rollout["failures"]
    return [
        Column("device", [printable(one["name"]) for one in failures], is_name=True),
        Column("at", [moment(one["at"]) for one in failures], is_word=True, leaves=1),
        Column("attempt", [str(one["attempt"]) for one in failures], leaves=2),
        Column("reason", [printable(one["reason"]) for one in failures], is_word=True),
        Column("detail", [printable(one["detail"]) for one in failures], is_name=True, leaves=3),
    ]


def print_devices(found: Sequence[Document]) -> None:
    """Print the devices of a rollout."""
    if not found:
        return
    now = time.time()
    columns = [
        Column("device", [printable(one["name"]) for one in found], is_name=True),
        Column("wave", [NOTHING if one["wave"] is None else str(one["wave"]) for one in found]),
        Column("state", [one["state"] for one in found], is_word=True),
        Column("reason", [printable(one["reason"] or "") for one in found], is_word=True),
        Column("reported", [printable(one["reported"] or NOTHING) for one in found], is_word=True, leaves=1),
        Column("runs", [NOTHING if one["running"] is None else str(one["running"]) for one in found]),
        Column("variant", [printable(one["variant"] or NOTHING) for one in found], is_word=True, leaves=3),
        Column("heard", [ago(one["last_seen"], now) for one in found], leaves=2),
    ]
    print_table(open_console(), columns, title="\ndevices")


def print_plan(plan: Document) -> None:
    """Print a plan: sums by wave, what is skipped, and single devices where they were asked for."""
    from rich.text import Text

    console = open_console()
    waves = plan["waves"]
    if not any(wave["devices"] + wave["skipped"] for wave in waves):
        console.print(
            Text("no device is chosen; see edgeml devices list --selector …", "yellow"), soft_wrap=True
        )
    columns = [
        Column("wave", [str(wave["wave"]) for wave in waves]),
        Column("which", [printable(wave["what"]) for wave in waves], is_name=True),
        Column("devices", [str(wave["devices"]) for wave in waves]),
        Column("to load", [readable_size(wave["size_bytes"]) for wave in waves]),
        Column("variants", [_variants(wave["variants"]) for wave in waves], is_word=True, leaves=1),
        Column("skipped", [str(wave["skipped"]) for wave in waves], leaves=2),
    ]
    print_table(console, columns, title=f"{plan['model']}/{plan['release']}")
    unknown = sum(wave["unknown_sizes"] for wave in waves)
    whole = f"in all {readable_size(plan['size_bytes'])}"
    if unknown:
        whole += f", without {unknown} devices that have not said what they are"
    console.print(Text(whole), soft_wrap=True)
    for reason, number in plan["skipped"].items():
        console.print(Text(f"skipped: {number} {reason}"), soft_wrap=True)
    if plan["devices"]:
        print_table(console, _planned_columns(plan["devices"]), title="")


def print_rehearsal(rehearsal: Document) -> None:
    """Print what the release did on emulated boards. Their time is no device's: it is not shown."""
    from rich.text import Text

    console = open_console()
    if found := rehearsal["emulated"]:
        columns = [
            Column("emulated board", [one["board"] for one in found], is_name=True),
            Column("result", [one["result"] for one in found], is_word=True),
            Column(
                "variant", [printable(one["variant"] or NOTHING) for one in found], is_word=True, leaves=1
            ),
            Column("what", [printable(_said(one)) for one in found], is_name=True),
        ]
        print_table(console, columns, title="")
    for target in rehearsal["not_emulated"]:
        console.print(Text(f"not emulated: {printable(target)}, which there is no board of"), soft_wrap=True)


def _said(outcome: Document) -> str:
    if outcome["result"] == "SUCCESSFUL":
        return f"installed, verified by {outcome['verified']}"
    return ": ".join(filter(None, (outcome["reason"], outcome["detail"])))


def _variants(variants: Document) -> str:
    return ", ".join(f"{number} × {printable(name)}" for name, number in variants.items())


def _planned_columns(found: Sequence[Document]) -> list[Column]:
    skipped = [printable(" ".join(filter(None, (one["skipped"], one["detail"])))) for one in found]
    return [
        Column("device", [printable(one["name"]) for one in found], is_name=True),
        Column("wave", [NOTHING if one["wave"] is None else str(one["wave"]) for one in found]),
        Column("variants", [printable(", ".join(one["variants"])) for one in found], is_word=True),
        Column("to load", [readable_size(one["size_bytes"]) for one in found]),
        Column("skipped", skipped, is_name=True, leaves=1),
    ]


def _to_go(counts: Document) -> int:
    return int(counts["waiting"] + counts["held"] + counts["assigned"])
