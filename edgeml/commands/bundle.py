"""``edgeml bundle``: look into a bundle, check it, take it apart."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeml.commands.json_output import json_option, print_json
from edgeml.figures import readable_size
from edgeml.terminal import printable_lines

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeml.bundle import Bundle
    from edgeml.manifest import Measured, Variant

_PATH = click.Path(path_type=Path)


@click.group()
def bundle() -> None:
    """Look into a bundle, check it, or take it apart.

    BUNDLE is a .edgeml file, the folder that one was extracted to, or a release folder.

    \b
    Examples:
      edgeml bundle inspect kws-1.edgeml
      edgeml bundle verify kws-1.edgeml
      edgeml bundle extract kws-1.edgeml --output kws
    """  # noqa: D301 - \b is click's mark for text that keeps its lines


@bundle.command()
@click.argument("path", metavar="BUNDLE", type=_PATH)
@json_option
def inspect(path: Path, as_json: bool) -> None:
    """Show a bundle's signature, variants with figures, and files.

    \b
    Example:
      edgeml bundle inspect kws-1.edgeml --json | jq '.manifest.variants[].name'
    """  # noqa: D301 - as above
    from edgeml.installed import open_release
    from edgeml.manifest_json import to_json

    opened = open_release(path)
    if as_json:
        print_json({"bundle": str(path), "size_bytes": _size(opened), "manifest": to_json(opened.manifest)})
    else:
        _show(opened)


@bundle.command()
@click.argument("path", metavar="BUNDLE", type=_PATH)
@json_option
@click.pass_context
def verify(ctx: click.Context, path: Path, as_json: bool) -> None:
    """Check size and sha256 of every file in a bundle.

    Exit code 1 if one is damaged.

    \b
    Example:
      edgeml bundle verify kws-1.edgeml
    """  # noqa: D301 - as above
    from edgeml.bundle_checks import manifest_entries
    from edgeml.installed import open_release

    opened = open_release(path)
    damaged = opened.damaged()
    if as_json:
        files = [
            {
                "path": entry.path,
                "size_bytes": entry.size_bytes,
                "sha256": entry.sha256,
                "status": "damaged" if entry.path in damaged else "ok",
                "reason": damaged.get(entry.path),
            }
            for entry in manifest_entries(opened.manifest)
        ]
        print_json({"bundle": str(path), "status": "damaged" if damaged else "ok", "files": files})
    else:
        for reason in damaged.values():
            click.echo(f"{click.style('damaged:', fg='red', bold=True)} {reason}", err=True)
        if not damaged:
            click.echo(f"{path}: {len(opened.names)} files, all as the manifest lists them")
    if damaged:
        ctx.exit(1)


@bundle.command()
@click.argument("path", metavar="BUNDLE", type=_PATH)
@click.argument("names", metavar="[FILE]...", nargs=-1)
@click.option(
    "-o",
    "--output",
    metavar="FOLDER",
    type=_PATH,
    help="Where to; by default NAME-RELEASE in the working folder.",
)
@click.option("--variant", metavar="NAME", help="Take this variant's files only.")
@json_option
def extract(
    path: Path, names: tuple[str, ...], output: Path | None, variant: str | None, as_json: bool
) -> None:
    """Write a bundle's files to a new folder, each checked.

    With names only those files. Without, the folder is an extracted bundle, which `edgeml.load` takes, too.

    \b
    Examples:
      edgeml bundle extract kws-1.edgeml
      edgeml bundle extract kws-1.edgeml --variant litert-int8_static --output model
      edgeml bundle extract kws-1.edgeml labels.txt --output words
    """  # noqa: D301 - as above
    from edgeml.installed import open_release

    opened = open_release(path)
    manifest = opened.manifest
    wanted = () if variant is None else manifest.named([variant])
    chosen = [*names, *(entry.path for one in wanted for entry in one.files)]
    folder = output or Path(f"{manifest.name}-{manifest.release}")
    opened.extract(folder, list(dict.fromkeys(chosen)) or None)
    written = list(dict.fromkeys(chosen)) or ["manifest.json", *opened.names]
    if as_json:
        print_json({"bundle": str(path), "folder": str(folder), "files": written})
    else:
        click.echo(f"{folder}: {len(written)} files")


def _size(opened: Bundle) -> int:
    from edgeml.bundle_checks import manifest_entries

    if not opened.is_folder:
        return opened.path.stat().st_size
    return sum(entry.size_bytes for entry in manifest_entries(opened.manifest))


def _show(opened: Bundle) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from edgeml.bundle_checks import manifest_entries

    manifest = opened.manifest
    console = Console(highlight=False)
    console.print(Text(f"{manifest.name}, release {manifest.release}", "bold"))
    rows = [
        ("inputs", "\n".join(map(str, manifest.inputs))),
        ("outputs", "\n".join(map(str, manifest.outputs))),
        ("before", _declared(manifest.preprocess)),
        ("after", _declared(manifest.postprocess)),
        ("labels", manifest.labels or ""),
        ("data", "\n".join(f"{one.role}: {one.count} samples, {one.sha256[:12]}" for one in manifest.data)),
        ("drift", _reference(manifest.drift)),
        ("size", readable_size(_size(opened))),
    ]
    about = Table(box=None, show_header=False, pad_edge=False)
    for key, value in rows:
        if value:
            about.add_row(f"{key}:", Text(printable_lines(value)))
    console.print(about)
    table = Table(box=None, pad_edge=False, title="\nvariants", title_justify="left")
    metrics = {one.measured.metric for one in manifest.variants if one.measured.metric}
    judged = printable_lines(metrics.pop()) if len(metrics) == 1 else "accuracy"
    for title in ("name", "size", judged, "drop", "p50 ms", "load ms", "memory", "targets"):
        table.add_column(title, justify="left" if title in {"name", "targets"} else "right", overflow="fold")
    for variant in manifest.variants:
        table.add_row(*(Text(printable_lines(cell)) for cell in _variant_row(variant)))
    console.print(table)
    files = Table(box=None, pad_edge=False, title="\nfiles", title_justify="left")
    for title in ("path", "size", "sha256"):
        files.add_column(title, justify="right" if title == "size" else "left", overflow="fold")
    for entry in manifest_entries(manifest):
        files.add_row(Text(entry.path), readable_size(entry.size_bytes), entry.sha256[:16])
    console.print(files)


def _variant_row(variant: Variant) -> tuple[str, ...]:
    measured = variant.measured
    drop = _drop_points(measured)
    targets = " ".join(variant.targets)
    return (
        variant.name,
        readable_size(sum(entry.size_bytes for entry in variant.files)),
        "–" if measured.accuracy is None else f"{measured.accuracy:.4g}",
        "–" if drop is None else f"{drop:+.2f}",
        "–" if measured.latency_ms is None else f"{measured.latency_ms.p50:.3f}",
        "–" if measured.load_ms is None else f"{measured.load_ms:.1f}",
        readable_size(measured.peak_memory_bytes),
        targets or ("none" if drop is None or drop <= 0 else f"none (loses {drop:.2f} points)"),
    )


def _drop_points(measured: Measured) -> float | None:
    """How much worse than the source: points of a share, per cent of an error; as ``convert`` shows it.

    ``None`` for a metric of the user's own, of which a bundle does not say which way is better.
    """
    if measured.accuracy is None or measured.float_accuracy is None:
        return None
    lost = measured.float_accuracy - measured.accuracy
    if measured.metric in {None, "top1", "top5", "auc"}:
        return 100.0 * lost
    if measured.metric in {"mse", "mae"} and measured.float_accuracy:
        return -100.0 * lost / measured.float_accuracy
    return None


def _declared(declaration: Any) -> str:
    """Give what differs from the default, as it would be declared."""
    from dataclasses import fields

    return ", ".join(
        f"{field.name}={getattr(declaration, field.name)}"
        for field in fields(declaration)
        if getattr(declaration, field.name) != field.default
    )


def _reference(drift: Mapping[str, Any]) -> str:
    from edgeml.errors import BundleError
    from edgeml.telemetry.reference import reference_from_json

    try:
        found = reference_from_json(drift)
    except BundleError as error:
        return f"damaged: {error}"
    return "" if found is None else f"told by {found}"
