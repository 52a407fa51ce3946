"""Reads a driver's typed options from ``key=value`` texts."""

from __future__ import annotations

import os
import typing
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, get_args, get_origin

from edgeml.errors import UsageError
from edgeml.runtime import RuntimeOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

Options = TypeVar("Options", bound=RuntimeOptions)

_THREADS: Final = 64
_THREADS_PER_CORE: Final = 4
"""Engines crash or hang with thousands of threads; more than cores never helps."""
_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}


def parse_options(kind: type[Options], runtime: str, values: Mapping[str, str]) -> Options:
    """Build ``kind`` from texts by its field types: int, bool, str, a Literal, a tuple of str (by commas).

    Raises:
        UsageError: an unknown key, or a value that does not parse.
    """
    types = typing.get_type_hints(kind)
    known = [field.name for field in fields(kind)]
    parsed: dict[str, Any] = {}
    for key, text in values.items():
        name = key.replace("-", "_")
        if name not in known:
            raise UsageError(f"{runtime} has no option {key!r}; it has: {', '.join(known)}")
        parsed[name] = _parse(types[name], text, f"{runtime} option {key}")
    return checked_options(kind(**parsed), runtime)


def checked_options(options: Options, runtime: str) -> Options:
    """Give the options back if their numbers of threads are ones.

    Raises:
        UsageError: a number of threads below one, or so high that engines crash or hang.
    """
    for field in fields(options):
        value = getattr(options, field.name)
        if field.name.endswith("threads") and (not isinstance(value, int) or value < 1):
            raise UsageError(
                f"{runtime} option {field.name}: {value!r} is not a number of threads; use 1 or more"
            )
        most = max(_THREADS, _THREADS_PER_CORE * (os.cpu_count() or 1))
        if field.name.endswith("threads") and value > most:
            raise UsageError(
                f"{runtime} option {field.name}: {value} threads are too many; use {most} at most"
            )
    return options


def as_options(kind: type[Options], runtime: str, given: RuntimeOptions | None) -> Options:
    """Give ``given`` as the driver's own options; plain RuntimeOptions carry the number of threads over.

    Raises:
        UsageError: the options of another runtime.
    """
    if given is None:
        return kind()
    if isinstance(given, kind):
        return checked_options(given, runtime)
    if type(given) is RuntimeOptions:
        return checked_options(kind(threads=given.threads), runtime)
    raise UsageError(f"{runtime} cannot take {type(given).__name__}; use {kind.__name__} or RuntimeOptions")


def _parse(kind: Any, text: str, what: str) -> Any:
    if get_origin(kind) is Literal:
        if text not in get_args(kind):
            raise UsageError(f"{what}: {text!r} is not one of {', '.join(get_args(kind))}")
        return text
    if get_origin(kind) is tuple:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if kind is bool:
        if text.lower() not in _TRUE | _FALSE:
            raise UsageError(f"{what}: {text!r} is neither true nor false")
        return text.lower() in _TRUE
    if kind is int:
        try:
            return int(text)
        except ValueError:
            raise UsageError(f"{what}: {text!r} is not a whole number") from None
    return text
