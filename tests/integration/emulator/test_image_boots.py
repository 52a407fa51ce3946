"""A real image with LiteRT, booted once: what it says of itself; its engine computes as the host's."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from edgeml_devices.emulator.boards import board_named
from edgeml_devices.emulator.images.image import Image

from tests.integration.emulator.hand_booted import HandBooted, booted

pytest.importorskip("ai_edge_litert")
BOARD = board_named("raspberry-pi-4")
MOST_USED_BYTES = 600_000_000
INFERENCE = """
import hashlib, sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter
engine = Interpreter(model_path=sys.argv[1], num_threads=1)
engine.allocate_tensors()
given, wanted = engine.get_input_details()[0], engine.get_output_details()[0]
digest = hashlib.sha256()
for seed in range(4):
    values = np.random.default_rng(seed).integers(-128, 128, given["shape"]).astype(given["dtype"])
    engine.set_tensor(given["index"], values)
    engine.invoke()
    digest.update(engine.get_tensor(wanted["index"]).tobytes())
print(digest.hexdigest())
"""


@pytest.fixture(scope="module")
def machine(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HandBooted]:
    with booted(image, BOARD, tmp_path_factory.mktemp("machine")) as found:
        found.ready()
        yield found


def test_the_page_names_board_and_image(machine: HandBooted) -> None:
    said = machine.ready()
    assert (said["target"], said["image"]) == (BOARD.name, machine.image.key)


def test_edgeml_in_it_sees_the_board_and_its_engine(machine: HandBooted) -> None:
    said = machine.run("cat /proc/device-tree/model; edgeml targets host")
    assert said.startswith(BOARD.model)
    assert "target:        raspberry-pi-4" in said
    driver = "from edgeml import plugins; print(plugins.load('edgeml.runtimes', 'litert').__name__)"
    version = "from importlib.metadata import version; print(version('ai-edge-litert'))"
    said = machine.run(f'python3 -P -c "{driver}; {version}"')
    versions = {package.name: package.version for package in machine.image.packages}
    assert said.split() == ["LiteRT", versions["ai-edge-litert"]]


@pytest.mark.data
def test_an_int8_model_gives_the_same_bytes_as_here(machine: HandBooted, data_dir: Path) -> None:
    model = data_dir / "vww" / "vww_96_int8.tflite"
    machine.run("cat > /tmp/model.tflite", stdin=model.read_bytes())
    there = machine.run("python3 - /tmp/model.tflite", stdin=INFERENCE.encode())
    here = subprocess.run(
        [sys.executable, "-", model], input=INFERENCE, capture_output=True, text=True, check=True
    )
    assert there == here.stdout


def test_the_console_is_a_shell(machine: HandBooted) -> None:
    assert "uid=0(root)" in machine.type("id; echo do''ne", until="done")


def test_the_second_serial_line_is_a_shell_too(machine: HandBooted) -> None:
    assert "/dev/ttyS0" in machine.type("tty; echo do''ne", until="done", port=machine.addresses.serial)


def test_the_agent_s_home_is_the_agent_s(machine: HandBooted) -> None:
    assert machine.run("stat -c %U:%G /var/lib/edgeml /etc /root").split() == [
        *("edgeml:edgeml", "root:root", "root:root")
    ]


def test_the_agent_s_user_can_run_edgeml(machine: HandBooted) -> None:
    as_agent = "env EDGEML_HOME=/var/lib/edgeml setpriv --reuid edgeml --regid edgeml --clear-groups"
    assert "not enrolled" in machine.run(f"{as_agent} edgeml agent status 2>&1 || true")


def test_files_travel_by_sftp(machine: HandBooted, tmp_path: Path) -> None:
    sent = tmp_path / "sent"
    sent.write_bytes(bytes(range(256)) * 1000)
    subprocess.run(
        [
            *("scp", "-q", "-i", machine.image.ssh_key, "-P", str(machine.addresses.ssh)),
            *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"),
            *(sent, "root@127.0.0.1:sent"),
        ],
        check=True,
        timeout=120,
    )
    digest = hashlib.sha256(sent.read_bytes()).hexdigest()
    assert machine.run("sha256sum ~/sent").split()[0] == digest


def test_the_disk_holds_no_more_than_it_may(image: Image, machine: HandBooted) -> None:
    assert image.used_bytes <= MOST_USED_BYTES
    used_kib = int(machine.run("df -k / | tail -1").split()[2])
    assert used_kib * 1024 <= MOST_USED_BYTES


def test_the_packages_stand_beside_the_image(image: Image) -> None:
    lines = (image.folder / "packages.txt").read_text().splitlines()
    assert len(lines) == len(image.packages)
    assert any(line.startswith("debian\tlinux-image-6.1.0-") for line in lines)
    assert {"edgeml-core", "edgeml-devices", "edgeml-runtimes"} <= {one.name for one in image.packages}


def test_a_shutdown_ends_the_machine_with_everything_written(machine: HandBooted) -> None:
    machine.run("echo kept > ~/kept; (sleep 0.2; kill -USR2 1) >/dev/null 2>&1 &")
    assert machine.process.wait(timeout=60) == 0
