"""What the machines were like while they worked: temperature, memory, throttling, energy by inference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgeml.errors import UsageError
from edgeml.telemetry.merging import merge_summaries
from edgeml.telemetry.report import Summary
from edgeml_devices.server.telemetry.questions import Dimension, Key, moments, named
from edgeml_devices.server.telemetry.store import Selection, SystemRow, TelemetryStore


@dataclass(frozen=True, slots=True)
class MachineAnswer:
    """The machines of one group."""

    key: Mapping[str, str | int]
    quantities: Mapping[str, Summary]
    """In the unit that a name says; means weighted by readings."""
    energy_per_call_joules: float | None
    """Of the whole machine; of the windows in which it was measured and something was called."""


@dataclass(slots=True)
class _Group:
    quantities: dict[str, Summary] = field(default_factory=dict)
    energy_joules: float = 0.0
    calls: int = 0

    def add(self, row: SystemRow) -> None:
        for name, one in row.system.items():
            before = self.quantities.get(name)
            self.quantities[name] = one if before is None else merge_summaries((before, one))
        if row.energy_joules is not None and row.calls:
            self.energy_joules += row.energy_joules
            self.calls += row.calls


async def machines(
    store: TelemetryStore, selection: Selection, by: tuple[Dimension, ...]
) -> list[MachineAnswer]:
    """Give what machines were like by group, groups in order of their keys.

    Raises:
        UsageError: a dimension that machines do not have.
    """
    for one in by:
        if one not in {"device", "target", "hour", "day"}:
            raise UsageError(f"a machine has no {one}; group by device, target, hour or day")
    found: dict[Key, _Group] = {}
    async for piece in store.system(selection):
        for row in piece:
            found.setdefault(_key(row, by), _Group()).add(row)
    return [
        MachineAnswer(
            named(by, key),
            dict(sorted(group.quantities.items())),
            group.energy_joules / group.calls if group.calls else None,
        )
        for key, group in sorted(found.items())
    ]


def _key(row: SystemRow, by: tuple[Dimension, ...]) -> Key:
    values: dict[Dimension, str | int] = {
        "device": row.device_id,
        "target": row.target,
        **moments(row.at),
    }
    return tuple(values[one] for one in by)
