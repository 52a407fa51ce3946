"""``edgeml plan``: the way of a model to a runtime, before anything is run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeml import completion
from edgeml.commands.json_output import json_option, print_json
from edgeml_converters.cli import options as shared

if TYPE_CHECKING:
    from edgeml.converter import State
    from edgeml_converters.graph import Plan


@click.command()
@click.argument("model", type=shared.EXISTING)
@click.option(
    "--to",
    "goals",
    multiple=True,
    metavar="RUNTIME[:SCHEME]",
    shell_complete=completion.goals,
    help="Where to; several may be given. Default: float32 for every runtime.",
)
@json_option
def plan(model: Path, goals: tuple[str, ...], as_json: bool) -> None:
    """Show the steps from MODEL to a runtime, and what is missing.

    Nothing is converted. Exit code 1 if one of the ways does not exist or lacks something.

    \b
    Examples:
      edgeml plan model.onnx --to litert:int8_static
      edgeml plan saved_model/ --to litert --to openvino --json
    """  # noqa: D301 - \b is click's mark for text that keeps its lines
    from edgeml import plugins
    from edgeml.errors import PlanError
    from edgeml.words import RUNTIMES
    from edgeml_converters import graph
    from edgeml_converters.formats.scheme import state_of

    wanted = [_goal(text) for text in goals or RUNTIMES]
    source = state_of(model)
    steps, available = plugins.conversion_steps(), graph.this_machine()
    rows: list[dict[str, Any]] = []
    for text, goal in zip(goals or RUNTIMES, wanted, strict=True):
        try:
            found = graph.plan(source, goal, steps, available)
            rows.append(_row(text, found, available))
        except PlanError as error:
            rows.append({"to": text, "goal": str(goal), "status": "none", "reason": str(error), "steps": []})
    if as_json:
        about = {"path": str(model), "format": source.format, "scheme": source.scheme}
        print_json({"source": about, "plans": rows})
    else:
        for row in rows:
            _show(str(source), row)
    if any(row["status"] != "ready" for row in rows):
        raise click.exceptions.Exit(1)


def _goal(text: str) -> State:
    from edgeml.converter import State
    from edgeml.errors import UsageError
    from edgeml.words import FORMAT_OF_RUNTIME, RUNTIMES, SCHEMES

    runtime, _, scheme = text.partition(":")
    scheme = scheme or "float32"
    runtimes = [name for name in RUNTIMES if name == runtime]
    schemes = [name for name in SCHEMES if name == scheme]
    if not runtimes:
        raise UsageError(f"no runtime {runtime!r}; known: {', '.join(RUNTIMES)}")
    if not schemes:
        raise UsageError(f"no scheme {scheme!r}; known: {', '.join(SCHEMES)}")
    return State(FORMAT_OF_RUNTIME[runtimes[0]], schemes[0])


def _row(text: str, found: Plan, available: Any) -> dict[str, Any]:
    commands = {(item.step, item.requirement): item.command for item in found.missing}
    return {
        "to": text,
        "goal": str(found.goal),
        "status": "ready" if found.runnable else "lacking",
        "reason": None,
        "cost": found.cost,
        "steps": [
            {
                "name": step.name,
                "source": str(step.source),
                "target": str(step.target),
                "requires": [
                    {
                        "kind": requirement.kind,
                        "name": requirement.name,
                        "missing": available.reason(requirement),
                        "command": commands.get((step.name, requirement)),
                    }
                    for requirement in step.requires
                ],
            }
            for step in found.steps
        ],
    }


def _show(source: str, row: dict[str, Any]) -> None:
    if row["status"] == "none":
        click.echo(f"{row['to']}: no way\n  {row['reason']}")
        return
    path = " → ".join([source, *(step["target"] for step in row["steps"])])
    click.echo(f"{click.style(row['to'], bold=True)}: {path}")
    if not row["steps"]:
        click.echo("  nothing to do: the model is what the runtime reads")
    for step in row["steps"]:
        needs = ", ".join(
            ("worker " if need["kind"] == "worker" else "") + need["name"] for need in step["requires"]
        )
        click.echo(f"  {step['name']:<28} needs {needs or 'nothing'}")
        for need in step["requires"]:
            if need["missing"]:
                mark = click.style("missing", fg="yellow")
                click.echo(f"    {mark}: {need['name']} ({need['missing']}); get it: {need['command']}")
