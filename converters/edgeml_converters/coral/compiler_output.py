"""What the Edge TPU compiler prints and logs, as data; and why it gave up.

The forms are those of the versions 1.0 to 16.0. A compiler that searches for what it can compile prints one
attempt after another: the last one counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from edgeml_converters.coral.reasons import MAPPED

Fault = Literal["refused", "internal_error", "timeout"]
"""The model is none that it takes; it failed at one that it takes; its own time limit."""
INTERNAL: Final = "internal_error"

_VERSION: Final = re.compile(r"Edge TPU Compiler version ([\w.+-]{1,100})")
_TITLE: Final = re.compile(r"^Operator +Count +Status\s*$", re.MULTILINE)
_ROW: Final = re.compile(r"^(?P<name>\w+) +(?P<count>\d{1,15}) {2,}(?P<reason>\S.*?)\s*$")
_SIZE: Final = re.compile(r"(?P<number>\d{1,15}(?:\.\d{1,15})?)(?P<unit>B|KiB|MiB|GiB)")
_MOST_DIGITS: Final = 15
_UNITS: Final = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_EXPORT: Final = "export the model for an older TensorFlow Lite (of 2021), or cut it off: edgeml coral cut"
_SEARCHED: Final = "edgeml coral check says what it will not take; try a smaller input, or less of the model"
_FAULTS: Final[tuple[tuple[str, Fault, str], ...]] = (
    (r"Didn't find op for builtin opcode", "refused", _EXPORT),
    (r"Op builtin_code out of range", "refused", _EXPORT),
    (r"dynamic-sized tensors", "refused", "fix the shapes of its inputs, batch included"),
    (r"unresolved custom op", "refused", "cut the custom operator off: edgeml coral cut"),
    (r"Invalid model|could not be parsed", "refused", _EXPORT),
    (r"Model failed in Tflite interpreter", "refused", "see that it runs as it is: edgeml run"),
    (r"Compilation child process (?!completed)", "timeout", "give it more time: --timeout-s"),
    (
        r"large activation tensors",
        INTERNAL,
        "try a smaller input, or less of the model: its activations are too large",
    ),
    (r"terminating with uncaught exception", INTERNAL, _SEARCHED),
    (r"Internal compiler error", INTERNAL, _SEARCHED),
    (r"Compilation failed", INTERNAL, _SEARCHED),
)
"""What it says, what that means, and what to do; the first that stands in its output."""


@dataclass(frozen=True, slots=True)
class OperatorRow:
    """A row of the operator log."""

    name: str
    count: int
    reason: str


@dataclass(frozen=True, slots=True)
class Size:
    """A number of bytes as it was printed."""

    bytes: int
    step: float
    """One in the last digit that was printed, in bytes: how exact it is."""

    def is_of(self, size_bytes: int) -> bool:
        """Say whether it is this number, rounded or cut."""
        return abs(self.bytes - size_bytes) <= self.step


@dataclass(frozen=True, slots=True)
class Said:
    """What one run said. ``None``: nothing of it."""

    version: str | None
    rows: tuple[OperatorRow, ...]
    milliseconds: int | None
    subgraphs: int | None
    total: int | None
    mapped: int | None
    """Where all operators are mapped, it says no more than how many there are."""
    on_cpu: int | None
    on_chip: Size | None
    remaining: Size | None
    streamed: Size | None


@dataclass(frozen=True, slots=True)
class Problem:
    """Why it gave up."""

    fault: Fault
    text: str
    """Its own line."""
    remedy: str


def read_version(text: str) -> str | None:
    """Give the version that it says of itself: ``16.0.384591198``."""
    found = _VERSION.search(text)
    return found[1] if found else None


def major(version: str | None) -> int:
    """Give the number before the first point; 0 if there is none."""
    head = (version or "").partition(".")[0]
    return int(head) if head.isdecimal() else 0


def read_said(printed: str, log: str = "") -> Said:
    """Read what the compiler printed, and its operator log; without a log, the table that it printed.

    Never raises: what is not there is ``None``.
    """
    return Said(
        read_version(log) or read_version(printed),
        read_rows(log) or read_rows(printed),
        milliseconds=_last_number(r"Model compiled successfully in (\d+) ms", printed),
        subgraphs=_last_number(r"Number of Edge TPU subgraphs: (\d+)", printed),
        total=_last_number(r"Total number of operations: (\d+)", printed),
        mapped=_last_number(r"Number of operations that will run on Edge TPU: (\d+)", printed),
        on_cpu=_last_number(r"Number of operations that will run on CPU: (\d+)", printed),
        on_chip=_last_size("On-chip memory used for caching model parameters", printed),
        remaining=_last_size("On-chip memory remaining for caching model parameters", printed),
        streamed=_last_size("Off-chip memory used for streaming uncached model parameters", printed),
    )


def read_rows(text: str) -> tuple[OperatorRow, ...]:
    """Read the last table of operators in a text; none: there is no table."""
    titles = list(_TITLE.finditer(text))
    return tuple(_rows(text[titles[-1].end() :])) if titles else ()


def mapped_of(rows: tuple[OperatorRow, ...]) -> int:
    """Count the operators that rows say are on the Edge TPU."""
    return sum(row.count for row in rows if row.reason == MAPPED)


def read_problem(printed: str) -> Problem | None:
    """Find why it gave up; ``None``: it does not say."""
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    for form, fault, remedy in _FAULTS:
        for line in reversed(lines):
            if re.search(form, line):
                return Problem(fault, line.removeprefix("ERROR: ")[:300], remedy)
    return None


def _rows(text: str) -> Iterator[OperatorRow]:
    has_begun = False
    for line in text.splitlines():
        found = _ROW.match(line)
        if found is not None:
            has_begun = True
            yield OperatorRow(found["name"], int(found["count"]), found["reason"])
        elif line.strip() or has_begun:
            return


def _last_number(form: str, text: str) -> int | None:
    found = re.findall(form, text)
    return int(found[-1]) if found and len(found[-1]) <= _MOST_DIGITS else None


def _last_size(title: str, text: str) -> Size | None:
    said = re.findall(rf"{title}: (\S+)", text)
    found = _SIZE.fullmatch(said[-1]) if said else None
    if found is None:
        return None
    unit = _UNITS[found["unit"]]
    decimals = len(found["number"].partition(".")[2])
    return Size(round(float(found["number"]) * unit), unit / 10**decimals)
