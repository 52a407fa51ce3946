"""``edgeml emulate``: boards that can be emulated, and the images that they boot."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import click

from edgeml.commands.json_output import json_option, print_json
from edgeml.words import RUNTIMES
from edgeml_devices.emulator.machine.cli import COMMANDS
from edgeml_devices.emulator.machine.start_cli import start_command

if TYPE_CHECKING:
    from edgeml_devices.emulator.boards import Board
    from edgeml_devices.emulator.images.image import Image

_KEY_LENGTH: Final = 12


class Emulate(click.Group):
    """Besides its commands, each board is one: it starts that board."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_boards()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        board = _boards().get(cmd_name)
        if board is None:
            return super().get_command(ctx, cmd_name)
        return start_command(cmd_name, board.model.partition(" Rev ")[0])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            close = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            meant = f"; did you mean {close[0]}?" if close else "."
            raise click.UsageError(
                f"no command and no board {args[0]!r}{meant} Boards are: {', '.join(_boards())}", ctx
            ) from error


def _boards() -> Mapping[str, Board]:
    from edgeml_devices.emulator.boards import BOARDS

    return BOARDS


@click.group(cls=Emulate)
def emulate() -> None:
    """Emulate boards with the real ARM engines.

    A real aarch64 kernel, Debian and the engines' own aarch64 wheels, in QEMU. A board's name starts it.
    Images are built on this machine, as an ordinary user, and kept in the cache folder.

    \b
    Examples:
      edgeml emulate boards
      edgeml emulate raspberry-pi-4
      edgeml emulate ssh raspberry-pi-4
    """  # noqa: D301 - \b is click's mark for text that keeps its lines


def _complete_board(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - click's signature
    from edgeml_devices.emulator.boards import BOARDS

    return [name for name in BOARDS if name.startswith(incomplete)]


@emulate.command()
@click.argument("board", required=False, shell_complete=_complete_board)
@click.option(
    "--engine",
    "engines",
    type=click.Choice(RUNTIMES),
    multiple=True,
    help="An engine to put in; may be repeated. By default litert.",
)
@click.option(
    "--flavour",
    type=click.Choice(["minimal", "systemd"]),
    default="minimal",
    show_default=True,
    help="minimal boots in half the time; systemd is for units and services.",
)
@click.option(
    "--mirror", metavar="URL", default="", help="A Debian mirror; by default the one of this machine's apt."
)
@click.option("--update", is_flag=True, help="Take the newest packages, not those of the last build.")
@json_option
def build(
    board: str | None,
    engines: tuple[str, ...],
    flavour: str,
    mirror: str,
    update: bool,
    as_json: bool,
) -> None:
    """Build an image, from Debian packages and wheels.

    One image serves every board; BOARD is only checked. What was built is kept: run it again after an
    interruption, and it goes on. Packages come from the Debian mirror, wheels from pip's index as configured.

    \b
    Examples:
      edgeml emulate build
      edgeml emulate build raspberry-pi-5 --engine litert --engine onnxruntime
      edgeml emulate build --flavour systemd --mirror http://mirror.example/debian
    """  # noqa: D301 - as above
    from edgeml_devices.emulator.boards import board_named
    from edgeml_devices.emulator.images.build import build_image
    from edgeml_devices.emulator.images.image import DEFAULT_ENGINES, ImageRequest
    from edgeml_devices.emulator.progress_bars import shown_progress

    if board is not None:
        board_named(board)
    request = ImageRequest(engines or DEFAULT_ENGINES, flavour, mirror)  # type: ignore[arg-type]  # click's choices
    with shown_progress() as report:
        image = build_image(request, report, update=update)
    if as_json:
        print_json({"image": _image_json(image)})
        return
    click.echo(
        f"image {image.key[:_KEY_LENGTH]} ({', '.join(image.engines)}; {image.flavour}) in {image.folder}"
    )
    click.echo(f"{_megabytes(image.size_bytes)} here, {_megabytes(image.used_bytes)} used on its disk")


@emulate.command("list")
@json_option
def list_images(as_json: bool) -> None:
    """List the images that were built, the newest first.

    \b
    Examples:
      edgeml emulate list
      edgeml emulate list --json | jq '.images[].packages[] | select(.kind == "python")'
    """  # noqa: D301 - as above
    from edgeml_devices.emulator.images.build import images
    from edgeml_devices.emulator.images.cache import open_cache

    found = images()
    current = _current(found)
    if as_json:
        shapes = [_image_json(image) | {"current": image.key in current} for image in found]
        print_json({"folder": str(open_cache().folder), "images": shapes})
    elif not found:
        click.echo("no images yet: edgeml emulate build")
    else:
        _print_images(found, current)


@emulate.command()
@json_option
def boards(as_json: bool) -> None:
    """List the boards and what holds of them.

    \b
    Examples:
      edgeml emulate boards
      edgeml emulate boards --json | jq -r '.boards[].not_faithful[]'
    """  # noqa: D301 - as above
    from edgeml_devices.emulator.boards import BOARDS

    found = tuple(BOARDS.values())
    if as_json:
        print_json({"boards": [_board_json(board) for board in found]})
    else:
        _print_boards(found)


@emulate.command()
@click.option("--downloads", is_flag=True, help="Remove the downloaded packages and wheels, too.")
@json_option
def clean(downloads: bool, as_json: bool) -> None:
    """Remove images, but for those that a machine uses.

    An image's snapshots go with it. What machines left whose command was killed goes, too.

    \b
    Examples:
      edgeml emulate clean
      edgeml emulate clean --downloads
    """  # noqa: D301 - as above
    from dataclasses import asdict

    from edgeml_devices.emulator.images.clean import clean as clean_cache
    from edgeml_devices.emulator.machine.state import sweep

    left = sweep()
    done = clean_cache(downloads=downloads)
    if as_json:
        print_json(asdict(done) | {"machines": left})
        return
    if left:
        click.echo(f"ended what was left of: {', '.join(left)}")
    images = "image" if len(done.removed) == 1 else "images"
    click.echo(f"removed {len(done.removed)} {images}, {_megabytes(done.freed_bytes)} freed")
    if done.in_use:
        click.echo(f"in use, and kept: {', '.join(key[:_KEY_LENGTH] for key in done.in_use)}")


for _command in COMMANDS:
    emulate.add_command(_command)


def _current(found: tuple[Image, ...]) -> set[str]:
    """Give the keys of those that hold edgeml as it is now: the others are kept, and not started."""
    from edgeml_devices.emulator.images.build import find_image
    from edgeml_devices.emulator.images.image import ImageRequest

    requests = {ImageRequest(image.engines, image.flavour) for image in found}
    return {image.key for image in map(find_image, requests) if image is not None}


def _print_images(found: tuple[Image, ...], current: set[str]) -> None:
    from edgeml.terminal import Column, open_console, print_table

    print_table(
        open_console(),
        (
            Column("image", [image.key[:_KEY_LENGTH] for image in found], is_name=True),
            Column("engines", [" ".join(image.engines) for image in found], is_word=True),
            Column("flavour", [image.flavour for image in found], is_word=True),
            Column("edgeml", ["now" if image.key in current else "before" for image in found], is_word=True),
            Column("packages", [str(len(image.packages)) for image in found], leaves=2),
            Column("size", [_megabytes(image.size_bytes) for image in found]),
            Column("used", [_megabytes(image.used_bytes) for image in found], leaves=1),
        ),
    )


def _print_boards(found: tuple[Board, ...]) -> None:
    from edgeml.terminal import Column, open_console, print_table

    console = open_console()
    print_table(
        console,
        (
            Column("board", [board.name for board in found], is_name=True),
            Column("what", [board.model for board in found], is_word=True, leaves=1),
            Column("cpu", [board.cpu for board in found], is_word=True),
            Column("cores", [str(board.cores) for board in found]),
            Column("memory", [f"{board.memory_mib} MiB" for board in found]),
        ),
    )
    for title, sentences in (
        ("\nAs on the board:", [board.faithful for board in found]),
        ("\nNot as on the board:", [board.not_faithful for board in found]),
    ):
        click.echo(title)
        for sentence in dict.fromkeys(one for each in sentences for one in each):
            of = [board.name for board, each in zip(found, sentences, strict=True) if sentence in each]
            click.echo(f"  {sentence}" + ("" if len(of) == len(found) else f" ({', '.join(of)})"))


def _image_json(image: Image) -> dict[str, object]:
    from dataclasses import asdict

    shape = {key: str(value) if key in _PATHS else value for key, value in asdict(image).items()}
    return shape | {"packages": [asdict(package) for package in image.packages]}


_PATHS: Final = ("folder", "kernel", "initrd", "disk", "root", "site", "ssh_key")


def _board_json(board: Board) -> dict[str, object]:
    from dataclasses import asdict

    return asdict(board) | {"midr": f"{board.midr:#010x}"}


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.0f} MB"
