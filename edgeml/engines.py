"""Which engines are installed, from package metadata alone: nothing is imported."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final

from edgeml import plugins

_REQUIREMENT: Final = re.compile(
    r"""(?P<name>[A-Za-z0-9._-]+)\s*(\[[^\]]*\])?\s*\(?(?P<range>[^;()]*)\)?\s*(;.*extra\s*==\s*["'](?P<extra>[^"']+)["'])?"""
)
_CLAUSE: Final = re.compile(r"(>=|<=|==|!=|~=|>|<)\s*([0-9][0-9A-Za-z.]*)")


@dataclass(frozen=True, slots=True)
class Engine:
    """The engine behind a runtime driver."""

    runtime: str
    distribution: str
    """What has to be installed: ``ai-edge-litert``."""
    wanted: str
    """The version range the driver serves: ``>=2.1``."""
    version: str | None
    """What is installed; ``None``: nothing."""
    install: str
    """The command that brings it."""

    @property
    def fault(self) -> str | None:
        """Say what is wrong with what is installed; ``None`` if it serves."""
        if self.version is None:
            return f"{self.distribution} is not installed"
        if not version_fits(self.version, self.wanted):
            return f"{self.distribution} is {self.version}, needs {self.wanted}"
        return None

    @property
    def lacking(self) -> str | None:
        """Say why the engine cannot be used, and the command that brings it; ``None`` if it can."""
        return None if self.fault is None else f"{self.fault}: {self.install}"


def engine(runtime: str) -> Engine | None:
    """Look at what a driver's distribution wants in the extra of the driver's name.

    ``None`` for a driver that declares no such extra: only loading it can tell.
    """
    from importlib import metadata  # 10 ms that `edgeml.load` need not cost before it is called

    for entry in metadata.entry_points(group=plugins.RUNTIME_GROUP, name=runtime):
        for line in (entry.dist.requires if entry.dist else None) or ():
            found = _REQUIREMENT.match(line)
            if found is None or found["extra"] != runtime or entry.dist is None:
                continue
            try:
                version = metadata.version(found["name"])
            except metadata.PackageNotFoundError:
                version = None
            install = plugins.install_command(entry.dist.name, runtime)
            return Engine(runtime, found["name"], found["range"].strip(), version, install)
    return None


def wanted_range(holder: str, distribution: str) -> str:
    """Give the version range in which ``holder``, in any of its extras, asks for another distribution.

    Empty where it takes any version, does not ask for it, or is not installed itself.
    """
    from importlib import metadata  # as above

    try:
        lines = metadata.requires(holder) or []
    except metadata.PackageNotFoundError:
        return ""
    found = (_REQUIREMENT.match(line) for line in lines)
    return next(
        (one["range"].strip() for one in found if one is not None and one["name"] == distribution), ""
    )


def version_fits(version: str, wanted: str) -> bool:
    """Say whether a version lies in a range such as ``>=2.1,<3``; an empty range takes any.

    Only numbers count: ``2.1rc1`` is taken for ``2.1``. Clauses of another form are passed over.
    """
    own = _numbers(version)
    for operator, text in _CLAUSE.findall(wanted):
        order = _compare(own, _numbers(text))
        fits = {
            ">=": order >= 0,
            "<=": order <= 0,
            "==": order == 0,
            "!=": order != 0,
            ">": order > 0,
            "<": order < 0,
            "~=": order >= 0 and own[: len(_numbers(text)) - 1] == _numbers(text)[:-1],
        }[operator]
        if not fits:
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    found: list[int] = []
    for part in version.partition("+")[0].split("."):
        digits = re.match(r"\d+", part)
        if digits is None:
            break
        found.append(int(digits[0]))
    return tuple(found)


def _compare(left: tuple[int, ...], right: tuple[int, ...]) -> int:
    for one, other in zip_longest(left, right, fillvalue=0):
        if one != other:
            return -1 if one < other else 1
    return 0
