"""The fixtures of the plug-in on a real emulated machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from edgeml_devices.emulator.machine import state

from edgeml import plugins
from edgeml.cli import main
from edgeml.errors import TransportError, UsageError
from edgeml.testing.devices import EmulatedDevice, PowerCut
from edgeml.testing.models import make_double
from tests.integration.install.releases import model_bundle
from tests.waiting import eventually

pytestmark = [
    pytest.mark.usefixtures("image", "built_cache"),
    pytest.mark.emulated_device(engines=["litert"]),
]
SENTENCE = "emulated: correctness, memory and protocol only"


def test_a_power_cut_in_the_middle_of_work_loses_the_work_and_not_the_device(
    emulated_device: EmulatedDevice, power_cut: PowerCut
) -> None:
    boot = "cat /proc/sys/kernel/random/boot_id"
    before = emulated_device.sh(boot)
    emulated_device.sh("echo kept >/opt/kept; sync")
    with power_cut.after(0.5):
        emulated_device.sh("echo begun; sleep 300; echo lost >/opt/lost; sync")
    assert emulated_device.sh("cat /opt/kept; ls /opt/lost 2>/dev/null || true") == "kept\n"
    assert emulated_device.sh(boot) != before


def test_a_device_that_lost_its_power_between_two_commands_is_lost_until_the_block_ends(
    emulated_device: EmulatedDevice, power_cut: PowerCut
) -> None:
    emulated_device.sh("echo kept >/opt/kept; sync")
    with power_cut.after(0):
        eventually(lambda: not emulated_device.machine.running, "the power is cut")
        emulated_device.sh("echo more >/opt/more; sync")
        pytest.fail("the device came back by itself")
    assert emulated_device.sh("ls /opt") == "kept\n"


def test_an_error_of_the_block_s_own_cuts_no_power(
    emulated_device: EmulatedDevice, power_cut: PowerCut
) -> None:
    with pytest.raises(TransportError, match="no-such-program"), power_cut.after(300):
        emulated_device.run(["no-such-program"])
    assert emulated_device.machine.running


def test_commands_of_edgeml_take_its_url_and_mark_its_times(
    emulated_device: EmulatedDevice, tmp_path: Path
) -> None:
    model = make_double(tmp_path, "litert")
    words = ["bench", str(model), "--runs", "3", "--on", emulated_device.url, "--json"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    (row,) = json.loads(done.stdout)["results"]
    assert (row["machine"], row["emulated"]) == ("raspberry-pi-4", True)
    assert emulated_device.machine.name in {found.name for found in state.machines()}


def test_a_release_is_deployed_to_it_and_survives_a_power_cut(
    emulated_device: EmulatedDevice, power_cut: PowerCut, tmp_path: Path
) -> None:
    bundle = model_bundle(tmp_path, 1)
    done = CliRunner().invoke(main, ["deploy", str(bundle), "--to", emulated_device.url, "--json"])
    (said,) = json.loads(done.stdout)["devices"]
    assert (said["result"], said["verified"], said["emulated"]) == ("SUCCESSFUL", "selftest", True), said
    assert said["measured"].keys() == {"peak_memory_bytes"}
    power_cut()
    tested = json.loads(emulated_device.sh("EDGEML_HOME=/var/lib/edgeml edgeml selftest double --json"))
    assert (tested["passed"], tested["release"]) == (True, 1)


def test_who_takes_a_machine_that_runs_leaves_it_running_and_takes_no_other_board_s(
    emulated_device: EmulatedDevice,
) -> None:
    with plugins.transport(emulated_device.url) as other:
        assert other.run(["true"], 60).exit_code == 0
    assert emulated_device.machine.running
    wrong = plugins.transport(emulated_device.url.replace("pi-4", "pi-5", 1))
    with pytest.raises(UsageError, match="is a raspberry-pi-4"):
        wrong.connect()
    emulated_device.machine.power_cut()
    with pytest.raises(TransportError, match="edgeml emulate restart"):
        plugins.transport(emulated_device.url).connect()
