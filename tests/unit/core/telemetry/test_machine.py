"""Machines as sysfs shows them, laid out in a folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeml.telemetry.clock import clock_state
from edgeml.telemetry.machine import Meter
from edgeml.telemetry.power import PowerMeter

Lay = Callable[..., None]


@pytest.fixture
def lay(tmp_path: Path) -> Lay:
    """Write files of a machine: path to content."""

    def write(files: dict[str, object]) -> None:
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{content}\n")
            if name.startswith("usr/bin"):
                path.chmod(0o755)

    return write


def once(root: Path, **options: object) -> dict[str, tuple[float, float, float, int]]:
    meter = Meter(root, **options)  # type: ignore[arg-type]
    meter.sample()
    return {name: (one.min, one.mean, one.max, one.count) for name, one in meter.cut().items()}


def test_a_machine_that_shows_nothing_has_no_quantities(tmp_path: Path) -> None:
    assert once(tmp_path) == {}
    power = PowerMeter(tmp_path)
    assert (power.is_there, power.sample(), power.cut_joules()) == (False, None, None)


def test_this_machine_is_read() -> None:
    meter = Meter(pids=lambda: [os.getpid()])
    sum(range(3_000_000))
    meter.sample()
    found = meter.cut()
    assert 0 <= found["cpu_utilization"].mean <= 1
    assert found["process_memory_bytes"].mean > 5e6
    assert found["memory_bytes"].mean > 1e7


def test_summaries_are_of_all_readings_since_the_last(tmp_path: Path, lay: Lay) -> None:
    meter = None
    for kilobytes in (900, 700, 500):
        lay({"proc/meminfo": f"MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: {kilobytes} kB"})
        meter = meter or Meter(tmp_path)
        meter.sample()
    assert meter is not None
    found = meter.cut()["memory_bytes"]
    assert (found.min, found.mean, found.max, found.count) == (102400, 307200, 512000, 3)
    assert meter.cut() == {}


def test_utilization_is_of_the_time_between_readings(tmp_path: Path, lay: Lay) -> None:
    lay({"proc/stat": "cpu  100 0 100 800 0 0 0 0 0 0"})
    meter = Meter(tmp_path)
    lay({"proc/stat": "cpu  150 0 125 825 50 0 0 0 0 0"})
    meter.sample()
    assert meter.cut()["cpu_utilization"].mean == 0.5


def test_the_processors_zone_is_read_not_the_batterys(tmp_path: Path, lay: Lay) -> None:
    lay(
        {
            "sys/class/thermal/thermal_zone0/type": "battery",
            "sys/class/thermal/thermal_zone0/temp": 90000,
            "sys/class/thermal/thermal_zone1/type": "cpu-thermal",
            "sys/class/thermal/thermal_zone1/temp": 51234,
            "sys/class/thermal/thermal_zone2/type": "soc-thermal",
            "sys/class/thermal/thermal_zone2/temp": -273000,
        }
    )
    assert once(tmp_path)["temperature_celsius"] == (51.234, 51.234, 51.234, 1)


def test_without_zones_the_processors_chip_is_read(tmp_path: Path, lay: Lay) -> None:
    lay(
        {
            "sys/class/hwmon/hwmon0/name": "nvme",
            "sys/class/hwmon/hwmon0/temp1_input": 70000,
            "sys/class/hwmon/hwmon1/name": "coretemp",
            "sys/class/hwmon/hwmon1/temp1_input": 48000,
            "sys/class/hwmon/hwmon1/temp2_input": 47000,
        }
    )
    assert once(tmp_path)["temperature_celsius"][1] == 48


def test_the_clock_is_the_mean_of_all_clusters(tmp_path: Path, lay: Lay) -> None:
    lay({f"sys/devices/system/cpu/cpufreq/policy{k}/scaling_cur_freq": 1_000_000 * (k + 1) for k in (0, 1)})
    assert once(tmp_path)["cpu_frequency_hertz"][1] == 1.5e9


@pytest.mark.parametrize(
    ("bits", "throttled", "under_voltage"),
    [("0x0", 0, 0), ("0x50005", 1, 1), ("0x50000", 0, 0), ("0x2", 1, 0), ("0x8", 1, 0), ("0x1", 0, 1)],
)
@pytest.mark.parametrize("way", ["sysfs", "vcgencmd"])
def test_a_raspberry_pi_says_that_it_is_slowed_down(
    tmp_path: Path, lay: Lay, way: str, bits: str, throttled: int, under_voltage: int
) -> None:
    if way == "sysfs":
        lay({"sys/devices/platform/soc/soc:firmware/get_throttled": bits.removeprefix("0x")})
    else:
        lay({"usr/bin/vcgencmd": f'#!/bin/sh\ntest "$1" = get_throttled && echo "throttled={bits}"'})
    found = once(tmp_path)
    assert (found["throttled"][1], found["under_voltage"][1]) == (throttled, under_voltage)


def test_an_x86_processor_counts_how_often_it_was_slowed_down(tmp_path: Path, lay: Lay) -> None:
    path = "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"
    lay({path: 3})
    meter = Meter(tmp_path)
    for count in (3, 5, 5, 5):
        lay({path: count})
        meter.sample()
    assert meter.cut()["throttled"].mean == 0.25


def test_what_cannot_be_read_or_is_no_number_is_absent(tmp_path: Path, lay: Lay) -> None:
    lay(
        {
            "proc/stat": "nonsense",
            "proc/meminfo": "MemTotal: many kB",
            "sys/class/thermal/thermal_zone0/type": "cpu",
            "sys/class/thermal/thermal_zone0/temp": "",
            "sys/class/thermal/thermal_zone1/type": "cpu",
            "sys/class/thermal/thermal_zone1/temp": "nan",
            "usr/bin/vcgencmd": "#!/bin/sh\nexit 1",
        }
    )
    assert once(tmp_path) == {}


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_processors_counter_goes_on_when_it_wraps(tmp_path: Path, lay: Lay) -> None:
    zone = "sys/class/powercap/intel-rapl:0"
    lay(
        {
            f"{zone}/name": "package-0",
            f"{zone}/max_energy_range_uj": 10_000_000,
            f"{zone}/energy_uj": 9_000_000,
        }
    )
    # a part of the package, which is in it already
    lay({f"{zone}:0/name": "core", f"{zone}:0/max_energy_range_uj": 10_000_000, f"{zone}:0/energy_uj": 1})
    clock = Clock()
    power = PowerMeter(tmp_path, clock)
    clock.now_s = 2.0
    lay({f"{zone}/energy_uj": 3_000_000, f"{zone}:0/energy_uj": 9_000_000})
    assert power.sample() == 2.0
    assert power.cut_joules() == 4.0
    assert power.cut_joules() == 0.0


def test_the_whole_platform_is_better_than_its_packages(tmp_path: Path, lay: Lay) -> None:
    for number, name in enumerate(("package-0", "psys")):
        zone = f"sys/class/powercap/intel-rapl:{number}"
        lay({f"{zone}/name": name, f"{zone}/max_energy_range_uj": 10**9, f"{zone}/energy_uj": 0})
    power = PowerMeter(tmp_path)
    lay(
        {
            "sys/class/powercap/intel-rapl:0/energy_uj": 5_000_000,
            "sys/class/powercap/intel-rapl:1/energy_uj": 8_000_000,
        }
    )
    power.sample()
    assert power.cut_joules() == 8.0


def test_a_raspberry_pi_5_adds_up_its_rails(tmp_path: Path, lay: Lay) -> None:
    rails = """ 3V7_WL_SW_A current(0)=0.10000000A
   VDD_CORE_A current(7)=2.00000000A
 3V7_WL_SW_V volt(8)=3.70000000V
   VDD_CORE_V volt(15)=0.80000000V
     EXT5V_V volt(24)=5.15000000V"""
    lay({"usr/bin/vcgencmd": f"#!/bin/sh\ntest $1 = pmic_read_adc && cat <<'X'\n{rails}\nX"})
    clock = Clock()
    power = PowerMeter(tmp_path, clock)
    watts = []
    for clock.now_s in (5.0, 10.0):
        watts.append(power.sample())
    assert watts == pytest.approx([1.97, 1.97])
    assert power.cut_joules() == pytest.approx(19.7)


def test_a_chip_at_the_supply_is_best(tmp_path: Path, lay: Lay) -> None:
    lay(
        {
            "sys/class/hwmon/hwmon0/name": "ina219",
            "sys/class/hwmon/hwmon0/power1_input": 4_500_000,
            "sys/class/powercap/intel-rapl:0/name": "psys",
            "sys/class/powercap/intel-rapl:0/energy_uj": 0,
            "sys/class/powercap/intel-rapl:0/max_energy_range_uj": 100,
        }
    )
    assert PowerMeter(tmp_path).sample() == 4.5


def test_of_a_chip_with_several_channels_the_boards_input_is_read(tmp_path: Path, lay: Lay) -> None:
    chip = "sys/class/hwmon/hwmon3"
    lay({f"{chip}/name": "ina3221"})
    for channel, (label, millivolts, milliamperes) in enumerate(
        [("VDD_IN", 5000, 1200), ("VDD_CPU", 5000, 400), ("VDD_SOC", 5000, 300)], start=1
    ):
        lay(
            {
                f"{chip}/in{channel}_label": label,
                f"{chip}/in{channel}_input": millivolts,
                f"{chip}/curr{channel}_input": milliamperes,
            }
        )
    assert PowerMeter(tmp_path).sample() == pytest.approx(6.0)


def test_power_is_not_taken_to_last_over_a_long_pause(tmp_path: Path, lay: Lay) -> None:
    lay({"sys/class/hwmon/hwmon0/name": "ina226", "sys/class/hwmon/hwmon0/power1_input": 1_000_000})
    clock = Clock()
    power = PowerMeter(tmp_path, clock)
    for clock.now_s in (10.0, 4000.0, 4010.0):
        power.sample()
    assert power.cut_joules() == 20.0


def test_a_clock_is_believed_when_somebody_set_it(tmp_path: Path, lay: Lay) -> None:
    assert clock_state(tmp_path, now=1.9e9) == "unknown"
    assert clock_state(tmp_path, now=100.0) == "unsynced"
    lay({"run/systemd/timesync/synchronized": ""})
    assert clock_state(tmp_path, now=1.9e9) == "synced"
