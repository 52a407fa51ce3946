"""On an emulated Raspberry Pi: the count survives whatever the power does."""

from pathlib import Path

import pytest

from edgeml.testing.devices import EmulatedDevice, PowerCut, cut_moments

JOURNAL = Path(__file__).parent.parent / "journal.py"


@pytest.mark.emulated_device(board="raspberry-pi-4", engines=["litert"])
@pytest.mark.parametrize("moment_s", cut_moments(2, within_s=3))
def test_a_count_that_was_told_is_there_after_a_power_cut(
    emulated_device: EmulatedDevice, power_cut: PowerCut, moment_s: float
) -> None:
    emulated_device.put(JOURNAL, "/opt/journal.py")
    told = int(emulated_device.sh("cd /opt; python3 journal.py . 3").split()[-1])
    with power_cut.after(moment_s):
        emulated_device.sh("cd /opt; python3 journal.py . 100000")
    again = int(emulated_device.sh("cd /opt; python3 journal.py . 1"))
    assert again > told == 3
