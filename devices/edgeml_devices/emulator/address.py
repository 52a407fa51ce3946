"""``emulator:BOARD`` and what stands behind its ``?``: which board is emulated, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, cast, get_args
from urllib.parse import parse_qsl

from edgeml.errors import UsageError
from edgeml.words import RUNTIMES, RuntimeName
from edgeml_devices.emulator.boards import Board, board_named

Mode = Literal["machine", "user"]
"""``machine``: kernel and disk too. ``user``: programs only, on this machine's kernel; ready at once."""
MODES: Final[tuple[Mode, ...]] = get_args(Mode)
_SCHEME: Final = "emulator:"
_OPTIONS: Final[Mapping[str, Mode]] = {
    "machine": "machine",
    "engines": "machine",
    "fresh": "machine",
    "folder": "user",
}
"""Which mode an option goes with."""


@dataclass(frozen=True, slots=True)
class EmulatorAddress:
    """What an ``emulator:`` URL says."""

    url: str
    board: Board
    mode: Mode = "machine"
    folder: Path | None = None
    """Of user mode: keeps what is written, and is shared by all that name it. By default one that goes with
    the connection."""
    machine: str | None = None
    """One that runs. By default one is started, and ends with the connection."""
    engines: tuple[RuntimeName, ...] = ()
    """Of the image of a machine that is started; by default as many as those that were built have."""
    fresh: bool = False
    """Boot, in place of going on from a snapshot of a booted machine."""


def emulator_address(url: str) -> EmulatorAddress:
    """Read ``emulator:BOARD`` with ``?machine=NAME``, or ``?engines=NAME,NAME&fresh=yes``, or ``?mode=user``.

    Behind ``mode=user`` may stand ``&folder=FOLDER``.

    Raises:
        UsageError: it is written in another way, or there is no such board.
    """
    name, _, query = url.removeprefix(_SCHEME).partition("?")
    given = _options(url, query)
    mode = given.pop("mode", "machine")
    if mode not in MODES:
        raise UsageError(f"{url!r}: no mode {mode!r}; there are: {', '.join(MODES)}")
    for option, value in given.items():
        if _OPTIONS[option] != mode or not value:
            raise UsageError(f"{url!r}: {option}={option.upper()} goes with mode={_OPTIONS[option]}")
    if "machine" in given and len(given) > 1:
        raise UsageError(f"{url!r}: {given['machine']} runs already; nothing else can be chosen")
    if given.get("fresh", "yes") != "yes":
        raise UsageError(f"{url!r}: write fresh=yes, or nothing")
    folder = given.get("folder")
    return EmulatorAddress(
        url,
        board_named(name),
        mode,
        None if folder is None else Path(folder).absolute(),
        given.get("machine"),
        _engines(url, given.get("engines")),
        "fresh" in given,
    )


def _options(url: str, query: str) -> dict[str, str]:
    wanted = f"{url!r}: write it as emulator:raspberry-pi-4, with ?mode=user for user mode"
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError as error:
        raise UsageError(wanted) from error
    given = dict(pairs)
    if not url.startswith(_SCHEME) or len(given) < len(pairs) or not given.keys() <= {"mode", *_OPTIONS}:
        raise UsageError(wanted)
    return given


def _engines(url: str, text: str | None) -> tuple[RuntimeName, ...]:
    names = () if text is None else tuple(text.split(","))
    unknown = [name for name in names if name not in RUNTIMES]
    if unknown:
        raise UsageError(f"{url!r}: no engine {unknown[0]!r}; there are: {', '.join(RUNTIMES)}")
    return cast("tuple[RuntimeName, ...]", names)
