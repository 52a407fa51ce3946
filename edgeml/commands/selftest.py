"""``edgeml selftest``: whether a variant is sound on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeml.commands.json_output import json_option, print_json

if TYPE_CHECKING:
    from edgeml.manifest import Manifest
    from edgeml.selftest import SelftestResult


@click.command()
@click.argument("source", metavar="BUNDLE")
@click.option(
    "--variant", metavar="NAME", help="Test this variant; by default the one that would be loaded here."
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Kill the test after so long; by default what the bundle's health policy says, or 120.",
)
@json_option
@click.pass_context
def selftest(
    ctx: click.Context, source: str, variant: str | None, timeout_s: float | None, as_json: bool
) -> None:
    """Run golden samples on this machine, in a process of its own.

    BUNDLE is a .edgeml file, an extracted bundle, a release folder, or the name of an installed model. The
    outputs must be within the variant's tolerance, latency and memory within the bundle's health policy.
    Exit code 3 if they are not, or if the engine is missing, crashes or hangs.

    \b
    Examples:
      edgeml selftest kws-1.edgeml
      edgeml selftest kws-1.edgeml --variant litert-int8_static --json
    """  # noqa: D301 - \b is click's mark for text that keeps its lines
    from edgeml.health import health_policy
    from edgeml.installed import open_release
    from edgeml.selftest import run_selftest

    path = _place(source)
    manifest = open_release(path).manifest
    policy = health_policy(manifest)
    name = _chosen(path, manifest, variant)
    result = run_selftest(path, name, policy, timeout_s=timeout_s or policy.selftest_timeout_s)
    if as_json:
        from dataclasses import asdict

        print_json(
            {"bundle": str(path), "model": manifest.name, "release": manifest.release} | asdict(result)
        )
    else:
        _show(manifest, result)
    if not result.passed:
        ctx.exit(3)


def _place(source: str) -> Path:
    """Give the path of a bundle, or of the current release of an installed model."""
    from edgeml.bundle_checks import is_bundle_name
    from edgeml.installed import InstalledModel
    from edgeml.settings import settings

    path = Path(source)
    if not os.path.exists(path) and is_bundle_name(source):  # noqa: PTH110 - as in edgeml.load
        current = InstalledModel(settings().home, source).current
        if current.exists():
            return current.resolve()
    return path


def _chosen(path: Path, manifest: Manifest, variant: str | None) -> str:
    from edgeml.choice import choose, lacking_here
    from edgeml.installed import is_installed
    from edgeml.targets import host

    if variant is None and is_installed(path):
        return manifest.variants[0].name
    if variant is not None and any(one.name == variant for one in manifest.variants):
        return variant  # that its engine is missing is a result
    return choose(manifest, host(), lacking_here, variant=variant)[0].variant.name


def _show(manifest: Manifest, result: SelftestResult) -> None:
    from edgeml.figures import milliseconds, readable_size

    word = (
        click.style("passed", fg="green", bold=True)
        if result.passed
        else click.style(f"failed ({result.reason})", fg="red", bold=True)
    )
    click.echo(f"{manifest.name} release {manifest.release}, {result.variant}: {word}: {result.detail}")
    if result.emulated:
        from edgeml.measure import EMULATED

        click.echo(f"{EMULATED}; needs {readable_size(result.peak_memory_bytes)} of memory")
    if result.latency_ms is not None:
        latency = result.latency_ms
        click.echo(
            f"p50 {milliseconds(latency.p50)} ms, p95 {milliseconds(latency.p95)} ms, "
            f"p99 {milliseconds(latency.p99)} ms; loads in {milliseconds(result.load_ms or 0)} ms; "
            f"needs {readable_size(result.peak_memory_bytes)} of memory"
        )
