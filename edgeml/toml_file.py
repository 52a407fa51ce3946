"""Reads TOML files that people write: every key that is not known is refused by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from edgeml.errors import UsageError


def read_toml(path: Path, known: Iterable[str], error: type[UsageError] = UsageError) -> dict[str, Any]:
    """Read a file whose top-level keys are all among ``known``.

    Raises:
        UsageError: or ``error``: the file is missing, cannot be read, is not TOML, or has an unknown key
            (names the known ones).
    """
    import tomllib  # `edgeml.load` reads settings, mostly without any file

    try:
        with path.open("rb") as stream:
            table = tomllib.load(stream)
    except OSError as cause:
        raise error(f"{path}: cannot be read: {cause.strerror}") from cause
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as cause:
        raise error(f"{path}: not TOML: {cause}") from cause
    reject_unknown(table, known, str(path), error)
    return table


def reject_unknown(
    table: Mapping[str, Any], known: Iterable[str], where: str, error: type[UsageError] = UsageError
) -> None:
    """Raise ``error`` for the first key that is not known; ``where`` names the file or option."""
    names = tuple(known)
    for key in table:
        if key not in names:
            raise error(f"{where}: unknown key {key!r}; known: {', '.join(names)}")
