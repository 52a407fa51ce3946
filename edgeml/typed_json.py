"""Dataclasses as JSON: typed both ways, with every unknown field kept and written back.

A field holds its default where it is absent. Unknown fields of an object go to its ``extra``; those of an
object that has none (a tensor, a latency) go to the ``extra`` of the object around it, under a JSON pointer
from there: ``/inputs/0/meaning``, or are dropped where no object around has one. A field whose name starts
with ``/`` is held that way, too. Numbers that JSON has no word for are the strings ``inf``, ``-inf`` and
``nan``.
"""

from __future__ import annotations

import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, Final, Literal, NoReturn, TypeVar, Union, get_args, get_origin

from edgeml.errors import MessageError
from edgeml.words import RuntimeName, Scheme

T = TypeVar("T")
_SPECIAL: Final = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}
_OPEN: Final = (RuntimeName, Scheme)
"""Vocabularies that plug-ins and later versions may extend: any text is read."""
_EXTRA: Final = "extra"


def parse(text: bytes, where: str) -> Any:
    """Parse JSON that a stranger wrote: a name may stand once in an object, numbers are numbers.

    Raises:
        MessageError: not JSON, or a name twice in one object.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise MessageError(f"{where} is not valid JSON: {error}") from error


def write(value: Any) -> dict[str, Any]:
    """Give a dataclass as what ``json`` can write; fields that hold their default are left out."""
    return _write(value)


def read(kind: type[T], data: object, where: str) -> T:
    """Read a dataclass from what ``json`` gives.

    Raises:
        MessageError: a field is missing or of a wrong type; its path in ``where`` is named.
    """
    return typing.cast("T", _read(kind, data, where, "", {}))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _default(field: Field[Any]) -> Any:
    if field.default is not MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not MISSING else MISSING


# --- writing


def _write(value: Any) -> dict[str, Any]:
    """Give a dataclass as a dict, its unknown fields put back in their places."""
    result = {
        field.name: _plain(getattr(value, field.name))
        for field in fields(value)
        if field.name != _EXTRA and getattr(value, field.name) != _default(field)
    }
    for name, unknown in getattr(value, _EXTRA, {}).items():
        if name.startswith("/"):
            _put(result, name, unknown)
        else:
            result[name] = unknown
    return result


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return _write(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    return value


def _put(root: dict[str, Any], pointer: str, value: Any) -> None:
    """Set ``value`` at a JSON pointer; one that leads nowhere any more is dropped."""
    *way, last = (part.replace("~1", "/").replace("~0", "~") for part in pointer[1:].split("/"))
    place: Any = root
    for part in way:
        if isinstance(place, dict):
            place = place.setdefault(part, {})
        elif part.isdecimal() and int(part) < len(place):
            place = place[int(part)]
        else:
            return
    if isinstance(place, dict):
        place[last] = value


# --- reading


def _read(  # noqa: PLR0911 - one for each kind of type
    kind: Any, data: object, where: str, path: str, outer: dict[str, Any], pointer: str = ""
) -> Any:
    """Read ``data`` as ``kind``; ``outer`` takes unknown fields of objects without ``extra``, by pointer."""
    if is_dataclass(kind):
        return _read_object(typing.cast("type", kind), data, where, path, outer, pointer)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in {Union, types.UnionType}:
        if data is None and type(None) in arguments:
            return None
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return _read(inner, data, where, path, outer, pointer)
    if origin is tuple:
        return _read_list(arguments, data, where, path, outer, pointer)
    if origin is Mapping:
        if not isinstance(data, dict):
            _reject(where, path, "an object", data)
        return {
            name: _read(arguments[1], inner, where, f"{path}.{name}", outer) for name, inner in data.items()
        }
    if kind is Any:
        return data
    if origin is Literal and kind not in _OPEN:
        if data not in arguments:
            _reject(where, path, "one of " + ", ".join(map(str, arguments)), data)
        return data
    return _read_value(kind, data, where, path)


def _read_object(kind: type, data: object, where: str, path: str, outer: dict[str, Any], pointer: str) -> Any:
    if not isinstance(data, dict):
        _reject(where, path, "an object", data)
    known = {field.name: field for field in fields(kind) if field.name != _EXTRA}
    extra: dict[str, Any] = {}
    keeps = any(field.name == _EXTRA for field in fields(kind))
    inner_outer, base = (extra, "") if keeps else (outer, pointer)
    values: dict[str, Any] = {}
    for name, field in known.items():
        place = f"{path}.{name}" if path else name
        if name in data:
            inner = f"{base}/{name}"
            values[name] = _read(_hints(kind)[name], data[name], where, place, inner_outer, inner)
        elif _default(field) is MISSING:
            raise MessageError(f"{where}: {place}: missing")
    for name, unknown in data.items():
        if name not in known:
            plain = keeps and not name.startswith("/")
            inner_outer[name if plain else f"{base}/{_escape(name)}"] = unknown
    return kind(**values, **({_EXTRA: extra} if keeps else {}))


def _read_list(
    kinds: tuple[Any, ...], data: object, where: str, path: str, outer: dict[str, Any], pointer: str
) -> tuple[Any, ...]:
    if not isinstance(data, list):
        _reject(where, path, "a list", data)
    fixed = len(kinds) > 1 and kinds[-1] is not Ellipsis
    if fixed and len(data) != len(kinds):
        _reject(where, path, f"a list of {len(kinds)}", data)
    return tuple(
        _read(
            kinds[place] if fixed else kinds[0], inner, where, f"{path}[{place}]", outer, f"{pointer}/{place}"
        )
        for place, inner in enumerate(data)
    )


def _read_value(kind: Any, data: object, where: str, path: str) -> Any:
    if kind is float:
        if isinstance(data, str) and data in _SPECIAL:
            return _SPECIAL[data]
        if isinstance(data, (int, float)) and not isinstance(data, bool):
            try:
                return float(data)
            except OverflowError:
                _reject(where, path, "a number that a float holds", data)
        _reject(where, path, "a number", data)
    if isinstance(kind, type) and issubclass(kind, Enum):
        if data not in list(kind):
            _reject(where, path, "one of " + ", ".join(kind), data)
        return kind(data)
    if kind is int and (not isinstance(data, int) or isinstance(data, bool)):
        _reject(where, path, "a whole number", data)
    if kind is bool and not isinstance(data, bool):
        _reject(where, path, "true or false", data)
    if (kind is str or kind in _OPEN) and not isinstance(data, str):
        _reject(where, path, "a text", data)
    return data


def _reject(where: str, path: str, wanted: str, got: object) -> NoReturn:
    text = repr(got)
    shown = text if len(text) <= 60 else text[:59] + "…"  # noqa: PLR2004 - what fits a line
    raise MessageError(f"{where}: {path or 'the whole'}: must be {wanted}, got {shown}")


def _escape(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
