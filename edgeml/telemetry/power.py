"""Energy of the whole machine where it is measured: at the supply, in its power chip, or in its processor."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeml.telemetry.machine import read_number, read_text, vcgencmd

_INA: Final = re.compile(r"ina(2\d\d|3221)")
_RAIL: Final = re.compile(r"^\s*(\S+)_([AV])\s+(?:current|volt)\(\d+\)=([0-9.]+)[AV]", re.MULTILINE)
_INPUT: Final = re.compile(r"(^|_)IN$")
"""Of a chip with several channels, the one of the whole board (``VDD_IN``, ``POM_5V_IN``)."""
_LONGEST_S: Final = 60.0
"""Power is not taken to have lasted over a longer pause."""


@dataclass(slots=True)
class _Counter:
    """A counter of µJ that begins again at its range."""

    path: Path
    range_uj: float
    last_uj: float

    def taken_joules(self) -> float:
        now = read_number(self.path)
        if now is None:
            return 0.0
        grown, self.last_uj = now - self.last_uj, now
        return (grown if grown >= 0 else grown + self.range_uj) / 1e6


class PowerMeter:
    """Adds up what the machine used; the best source that it has is used alone.

    INA2xx at the supply, else a processor's counter of the platform (RAPL ``psys``), else a Raspberry Pi 5's
    power chip, which leaves out what hangs on USB, else RAPL's packages, which leave out all but processor
    and memory.
    """

    def __init__(self, root: Path = Path("/"), monotonic: Callable[[], float] = time.monotonic) -> None:
        self._root, self._monotonic = root, monotonic
        self._joules = 0.0
        self._counters: list[_Counter] = []
        self._watts: Callable[[], float | None] | None = None
        chips = list(_ina_chips(root))
        platform, packages = _rapl(root)
        if chips:
            self._watts = lambda: _sum(_ina_watts(chip) for chip in chips)
        elif platform:
            self._counters = platform
        elif _pmic_watts(root) is not None:
            self._watts = lambda: _pmic_watts(root)
        else:
            self._counters = packages
        self._at = monotonic()
        self._last_watts: float | None = None

    @property
    def is_there(self) -> bool:
        """Whether this machine says what it uses."""
        return self._watts is not None or bool(self._counters)

    def sample(self) -> float | None:
        """Read once; give the power in watts since the last time."""
        now = self._monotonic()
        passed_s, self._at = now - self._at, now
        if self._watts is not None:
            watts, before = self._watts(), self._last_watts
            self._last_watts = watts
            if watts is not None and passed_s <= _LONGEST_S:
                self._joules += passed_s * (watts if before is None else (watts + before) / 2)
            return watts
        if not self._counters:
            return None
        joules = sum(one.taken_joules() for one in self._counters)
        self._joules += joules
        return joules / passed_s if passed_s > 0 else None

    def cut_joules(self) -> float | None:
        """Give the energy since the last cut; ``None``: it is not measured here."""
        joules, self._joules = self._joules, 0.0
        return joules if self.is_there else None


def _rapl(root: Path) -> tuple[list[_Counter], list[_Counter]]:
    """Give the counters of the platform and of the packages; they are for root only on most systems."""
    platform, packages = [], []
    for zone in sorted((root / "sys/class/powercap").glob("intel-rapl:*")):
        name = read_text(zone / "name")
        first, reach = read_number(zone / "energy_uj"), read_number(zone / "max_energy_range_uj")
        if first is not None and reach is not None:
            counter = _Counter(zone / "energy_uj", reach, first)
            platform += [counter] if name == "psys" else []
            packages += [counter] if name.startswith("package") else []
    return platform, packages


def _ina_chips(root: Path) -> Iterator[Path]:
    for chip in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        if _INA.fullmatch(read_text(chip / "name")) and _ina_watts(chip) is not None:
            yield chip


def _ina_watts(chip: Path) -> float | None:
    """Give what a chip measures: µW, or mV and mA (hwmon's sysfs interface)."""
    watts = _sum(
        None if (microwatts := read_number(path)) is None else microwatts / 1e6
        for path in chip.glob("power*_input")
    )
    if watts is not None:
        return watts
    channels = {path.name[4:-6]: path for path in chip.glob("curr*_input")}
    whole = {one: path for one, path in channels.items() if _INPUT.search(read_text(chip / f"in{one}_label"))}
    return _sum(
        milliamperes * millivolts / 1e6
        for one, path in (whole or channels).items()
        if (milliamperes := read_number(path)) is not None
        and (millivolts := read_number(chip / f"in{one}_input")) is not None
    )


def _pmic_watts(root: Path) -> float | None:
    """Give the sum over the rails of a Raspberry Pi 5 (``vcgencmd pmic_read_adc``)."""
    rails: dict[str, dict[str, float]] = {}
    for name, unit, number in _RAIL.findall(vcgencmd(root, "pmic_read_adc") or ""):
        rails.setdefault(name, {})[unit] = float(number)
    return _sum(one["A"] * one["V"] for one in rails.values() if len(one) == 2)  # noqa: PLR2004 - both


def _sum(values: Iterator[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return sum(found) if found else None
