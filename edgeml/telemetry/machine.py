"""What the machine is like: processor, memory, temperature, clock, throttling, power. Absent is not zero.

Each source is read below a root folder, so that a test can lay out another machine.
"""

from __future__ import annotations

import math
import os
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeml.telemetry.report import Summary

_LIKELY_CELSIUS: Final = (-50.0, 150.0)
"""A sensor that says something else is broken, or not connected."""
_CPU_ZONE: Final = re.compile(r"cpu|soc|pkg|package|tdie|tctl|core", re.IGNORECASE)
_CPU_CHIPS: Final = frozenset({"coretemp", "k10temp", "zenpower", "cpu_thermal", "soc_thermal"})
_PI_THROTTLED: Final = "sys/devices/platform/soc/soc:firmware/get_throttled"
_VCGENCMD: Final = ("usr/bin/vcgencmd", "opt/vc/bin/vcgencmd")
_VCGENCMD_S: Final = 2.0
_UNDER_VOLTAGE: Final = 0x1
_THROTTLED: Final = 0xE
"""Frequency capped, throttled, soft temperature limit (Raspberry Pi documentation, ``get_throttled``)."""


def read_number(path: Path) -> float | None:
    """Give the number in a file of sysfs; ``None`` where there is none that can be read."""
    try:
        found = float(path.read_text().split(maxsplit=1)[0])
    except (OSError, ValueError, IndexError):
        return None
    return found if math.isfinite(found) else None


def read_text(path: Path) -> str:
    """Give the text of a file of sysfs; empty where there is none that can be read."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeError):
        return ""


def vcgencmd(root: Path, *arguments: str) -> str | None:
    """Ask a Raspberry Pi's firmware; ``None``: this is none, or it does not answer."""
    for place in _VCGENCMD:
        program = root / place
        if program.exists():
            with suppress(OSError, subprocess.SubprocessError, UnicodeError):
                done = subprocess.run(
                    [str(program), *arguments],
                    capture_output=True,
                    text=True,
                    timeout=_VCGENCMD_S,
                    check=True,
                )
                return done.stdout
    return None


@dataclass(slots=True)
class _Seen:
    """Readings of one quantity."""

    least: float
    most: float
    total: float = 0.0
    count: int = 0

    def add(self, value: float) -> None:
        self.least, self.most = min(self.least, value), max(self.most, value)
        self.total, self.count = self.total + value, self.count + 1


class Meter:
    """Reads the machine again and again; :meth:`cut` gives what a window saw."""

    def __init__(self, root: Path = Path("/"), pids: Callable[[], Iterable[int]] = tuple) -> None:
        """See what there is.

        Args:
            root: where ``proc`` and ``sys`` are.
            pids: the processes whose memory is summed.
        """
        self._root, self._pids = root, pids
        self._seen: dict[str, _Seen] = {}
        self._cpu = _cpu_ticks(root)
        self._thermal = list(_temperature_files(root))
        self._throttle_counts = sorted(
            (root / "sys/devices/system/cpu").glob("cpu*/thermal_throttle/*_throttle_count")
        )
        self._throttled = sum(filter(None, map(read_number, self._throttle_counts)))
        self._has_pi = (root / _PI_THROTTLED).exists() or vcgencmd(root, "get_throttled") is not None

    def sample(self) -> None:
        """Read all quantities once; a fraction of a millisecond, and one process on a Raspberry Pi."""
        for name, value in self._readings():
            self._seen.setdefault(name, _Seen(value, value)).add(value)

    def add(self, name: str, value: float) -> None:
        """Count a reading that was taken elsewhere."""
        self._seen.setdefault(name, _Seen(value, value)).add(value)

    def cut(self) -> dict[str, Summary]:
        """Give what was read since the last cut."""
        seen, self._seen = self._seen, {}
        return {
            name: Summary(one.least, one.total / one.count, one.most, one.count) for name, one in seen.items()
        }

    def _readings(self) -> Iterator[tuple[str, float]]:
        ticks, before = _cpu_ticks(self._root), self._cpu
        if ticks is not None and before is not None and ticks[1] > before[1]:
            yield "cpu_utilization", min(1.0, max(0.0, (ticks[0] - before[0]) / (ticks[1] - before[1])))
        self._cpu = ticks
        yield from _memory(self._root)
        resident = [size for pid in self._pids() if (size := _resident_bytes(self._root, pid)) is not None]
        if resident:
            yield "process_memory_bytes", float(sum(resident))
        celsius = [
            value / 1000
            for path in self._thermal
            if (value := read_number(path)) is not None
            and _LIKELY_CELSIUS[0] < value / 1000 < _LIKELY_CELSIUS[1]
        ]
        if celsius:
            yield "temperature_celsius", max(celsius)
        policies = (self._root / "sys/devices/system/cpu/cpufreq").glob("policy*/scaling_cur_freq")
        kilohertz = [value for path in policies if (value := read_number(path)) is not None]
        if kilohertz:
            yield "cpu_frequency_hertz", 1000 * sum(kilohertz) / len(kilohertz)
        yield from self._throttling()

    def _throttling(self) -> Iterator[tuple[str, float]]:
        """Give 1 where the machine is slowed down, else 0: the mean is the share of the time."""
        if self._has_pi:
            bits = _pi_throttled(self._root)
            if bits is not None:
                yield "throttled", float(bool(bits & _THROTTLED))
                yield "under_voltage", float(bool(bits & _UNDER_VOLTAGE))
        elif self._throttle_counts:
            count = sum(filter(None, map(read_number, self._throttle_counts)))
            yield "throttled", float(count > self._throttled)
            self._throttled = count


def _cpu_ticks(root: Path) -> tuple[int, int] | None:
    """Give busy and all ticks of all processors (proc_stat(5))."""
    try:
        with (root / "proc/stat").open() as file:
            fields = [int(text) for text in file.readline().split()[1:9]]
    except (OSError, ValueError):
        return None
    if len(fields) < 4:  # noqa: PLR2004 - user, nice, system, idle
        return None
    idle = sum(fields[3:5])  # idle, iowait
    return sum(fields) - idle, sum(fields)


def _memory(root: Path) -> Iterator[tuple[str, float]]:
    found: dict[str, float] = {}
    with suppress(OSError, ValueError, IndexError), (root / "proc/meminfo").open() as file:
        for line in file:
            name, _, rest = line.partition(":")
            if name in {"MemTotal", "MemAvailable"}:
                found[name] = 1024 * float(rest.split()[0])
    if len(found) == 2:  # noqa: PLR2004 - both
        yield "memory_bytes", found["MemTotal"] - found["MemAvailable"]
        yield "memory_available_bytes", found["MemAvailable"]


def _resident_bytes(root: Path, pid: int) -> int | None:
    try:
        return int((root / f"proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def _temperature_files(root: Path) -> Iterable[Path]:
    """Give the sensors of the processor; all thermal zones where none says that it is one."""
    zones = sorted((root / "sys/class/thermal").glob("thermal_zone*"))
    named = [zone for zone in zones if _CPU_ZONE.search(read_text(zone / "type"))]
    if named or zones:
        return [zone / "temp" for zone in named or zones]
    chips = (root / "sys/class/hwmon").glob("hwmon*")
    return [
        path
        for chip in sorted(chips)
        if read_text(chip / "name") in _CPU_CHIPS
        for path in chip.glob("temp*_input")
    ]


def _pi_throttled(root: Path) -> int | None:
    text = read_text(root / _PI_THROTTLED) or (vcgencmd(root, "get_throttled") or "").rpartition("=")[2]
    try:
        return int(text, 16)
    except ValueError:
        return None
