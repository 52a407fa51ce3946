"""Selectors choose devices: ``site=berlin,ring in (a, b),!spare,model!=x``. A comma is "and".

Keys are labels, or ``name``, ``id`` and ``target``. ``key`` alone: the device has it; ``!key``: it has not;
``!=`` and ``notin`` hold for a device that has no such label. The empty selector chooses all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, and_, not_, or_, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeml.errors import UsageError
from edgeml_devices.server.tables import devices

KEY: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?")
"""Of a label."""
VALUE: Final = re.compile(r"[A-Za-z0-9._+:/@-]{0,128}")
"""Of a label."""
_LONGEST: Final = 4000
_MOST_TERMS: Final = 32
_TERM: Final = re.compile(
    r"\s*(?:(?P<absent>!)\s*(?P<without>[^\s!=,()]+)"
    r"|(?P<key>[^\s!=,()]+)\s*"
    r"(?:(?P<operator>==|=|!=)\s*(?P<value>[^\s!=,()]*)|(?P<set>in|notin)\s*\((?P<values>[^()]*)\))?)\s*(?:,|$)"
)


@dataclass(frozen=True, slots=True)
class Term:
    """One condition."""

    key: str
    values: tuple[str, ...] | None
    """``None``: any value will do."""
    negated: bool

    def holds(self, value: str | None) -> bool:
        """Say whether it holds for the key's value; ``None``: the device has none."""
        found = value is not None and (self.values is None or value in self.values)
        return found != self.negated


@dataclass(frozen=True, slots=True)
class Selector:
    """All its terms must hold."""

    terms: tuple[Term, ...]

    def matches(self, labels: Mapping[str, str], name: str, id: str, target: str | None) -> bool:  # noqa: A002 - a key
        """Say whether a device is chosen."""
        own = {"name": name, "id": id, "target": target}
        return all(
            term.holds(own[term.key] if term.key in own else labels.get(term.key)) for term in self.terms
        )

    def where(self) -> ColumnElement[bool]:
        """Give the condition on rows of ``devices``."""
        return and_(true(), *(_where(term) for term in self.terms))


def parse(text: str) -> Selector:
    """Read a selector.

    Raises:
        UsageError: it is not one; the place is named.
    """
    if len(text) > _LONGEST:
        raise UsageError(f"a selector may have {_LONGEST} characters, this has {len(text)}")
    terms: list[Term] = []
    place = 0
    while place < len(text) and text.strip():
        found = _TERM.match(text, place)
        if found is None or (found.end() == len(text) and text[found.end() - 1] == ","):
            raise UsageError(
                f"selector {text!r}: cannot read {text[place:].strip()!r}; "
                "write it like site=berlin,ring in (a, b),!spare"
            )
        terms.append(_term(text, found))
        place = found.end()
    if len(terms) > _MOST_TERMS:
        raise UsageError(f"a selector may have {_MOST_TERMS} terms, this has {len(terms)}")
    return Selector(tuple(terms))


async def select_ids(connection: AsyncConnection, selector: Selector) -> list[str]:
    """Give the ids of the devices that are chosen and not retired, in order."""
    statement = select(devices.c.id).where(devices.c.retired_at.is_(None), selector.where())
    return list((await connection.execute(statement.order_by(devices.c.id))).scalars())


def _term(text: str, found: re.Match[str]) -> Term:
    key = found["without"] or found["key"]
    values: tuple[str, ...] | None = None
    if found["operator"]:
        values = (found["value"],)
    elif found["set"]:
        values = tuple(value.strip() for value in found["values"].split(","))
    if not KEY.fullmatch(key):
        raise UsageError(f"selector {text!r}: {key!r} cannot be a label")
    for value in values or ():
        if not VALUE.fullmatch(value):
            raise UsageError(f"selector {text!r}: {value!r} cannot be a label's value")
    return Term(key, values, bool(found["absent"]) or found["operator"] == "!=" or found["set"] == "notin")


def _where(term: Term) -> ColumnElement[bool]:
    column: ColumnElement[str]
    match term.key:
        case "name":
            column = devices.c.name
        case "id":
            column = devices.c.id
        case "target":
            column = devices.c.facts[("target", "name")].as_string()
        case label:
            column = devices.c.labels[label].as_string()
    if term.values is None:
        return column.is_(None) if term.negated else column.is_not(None)
    if term.negated:
        return or_(column.is_(None), not_(column.in_(term.values)))
    return column.in_(term.values)
