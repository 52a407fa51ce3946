"""``emulator:BOARD?mode=user``: which board is emulated, and how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args
from urllib.parse import parse_qsl

from edgeml.errors import UsageError
from edgeml_devices.emulator.boards import Board, board_named

Mode = Literal["machine", "user"]
"""``machine``: kernel and disk too. ``user``: programs only, on this machine's kernel; ready at once."""
MODES: Final[tuple[Mode, ...]] = get_args(Mode)
_SCHEME: Final = "emulator:"
_QUERY: Final = ("mode", "folder")


@dataclass(frozen=True, slots=True)
class EmulatorAddress:
    """What an ``emulator:`` URL says."""

    url: str
    board: Board
    mode: Mode = "machine"
    folder: Path | None = None
    """Of user mode: keeps what is written, and is shared by all that name it. By default one that goes with
    the connection."""


def emulator_address(url: str) -> EmulatorAddress:
    """Read ``emulator:BOARD``, with ``?mode=user`` and ``&folder=FOLDER`` where wanted.

    Raises:
        UsageError: it is written in another way, or there is no such board.
    """
    name, _, query = url.removeprefix(_SCHEME).partition("?")
    wanted = f"{url!r}: write it as emulator:raspberry-pi-4, with ?mode=user for user mode"
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError as error:
        raise UsageError(wanted) from error
    given = dict(pairs)
    if not url.startswith(_SCHEME) or len(given) < len(pairs) or not given.keys() <= set(_QUERY):
        raise UsageError(wanted)
    mode = given.get("mode", "machine")
    if mode not in MODES:
        raise UsageError(f"{url!r}: no mode {mode!r}; there are: {', '.join(MODES)}")
    folder = given.get("folder")
    if folder is not None and (mode != "user" or not folder):
        raise UsageError(f"{url!r}: folder=FOLDER goes with mode=user")
    return EmulatorAddress(url, board_named(name), mode, None if folder is None else Path(folder).absolute())
