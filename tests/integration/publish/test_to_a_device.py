"""From a bundle to a device that runs it, by the commands that are printed on the way, as they stand."""

from __future__ import annotations

import importlib.util
import os
import shlex
import subprocess
import sys
import time

import pytest

from tests.conftest import require

WITHIN_S = 180.0


@pytest.fixture
def bundle(tmp_path):
    """A bundle with golden samples, on a real engine."""
    for engine in ("onnx", "onnxruntime"):
        require(importlib.util.find_spec(engine), f"needs {engine}")
    from tests.integration.agent.bundles import scaled

    return scaled(tmp_path / "bundles", 1)


class Device:
    """A machine with a home of its own; nothing of the operator's environment reaches it."""

    def __init__(self, home):
        self.home = home
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("EDGEML_")
        }
        self.environment["EDGEML_HOME"] = str(home)

    def run(self, *words):
        command = [sys.executable, "-m", "edgeml", *map(str, words)]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=120, check=False
        )

    def start(self, *words):
        command = [sys.executable, "-m", "edgeml", *words]
        return subprocess.Popen(
            command, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )


def test_the_printed_command_enrols_a_device_and_it_commits_what_is_assigned(own, bundle, tmp_path):
    own.do("publish", bundle)
    device = Device(tmp_path / "device")
    words = shlex.split(own.do("tokens", "join", "--label", "site=a"))
    assert words[0] == "edgeml"
    enrolled = device.run(*words[1:], "--name", "pi-7")
    assert enrolled.returncode == 0, enrolled.stderr
    assert own.ask("devices", "show", "pi-7")["labels"]["site"] == "a"
    own.do("devices", "assign", "pi-7", "times", 1)
    agent = device.start("agent", "run")
    try:
        deadline = time.monotonic() + WITHIN_S
        while "COMMITTED" not in own.do("devices", "logs", "pi-7"):
            assert time.monotonic() < deadline, own.do("devices", "logs", "pi-7")
            time.sleep(0.2)
    finally:
        agent.terminate()
        agent.wait(60)
    assert own.ask("devices", "show", "pi-7")["models"]["times"]["status"]["running"] == 1


def test_a_device_without_network_installs_an_export(own, bundle, tmp_path):
    own.do("publish", bundle, "--export", tmp_path / "usb")
    device = Device(tmp_path / "device")
    root = tmp_path / "usb" / "metadata" / "1.root.json"
    installed = device.run("agent", "install-bundle", tmp_path / "usb", "--root", root)
    assert installed.returncode == 0, installed.stdout + installed.stderr
    assert (device.home / "models" / "times" / "current").resolve().name == "1"
    (file,) = (tmp_path / "usb" / "targets").rglob("*.json")
    file.write_bytes(file.read_bytes().replace(b'"release": 1', b'"release": 2'))
    other = Device(tmp_path / "other")
    refused = other.run("agent", "install-bundle", tmp_path / "usb", "--root", root)
    assert refused.returncode == 1
    assert not (other.home / "models" / "times" / "current").exists()


def test_an_export_is_taken_whose_root_has_the_hash_that_repo_status_prints(own, bundle, tmp_path):
    own.do("publish", bundle, "--export", tmp_path / "usb")
    sha256 = own.ask("repo", "status")["root_sha256"]
    device = Device(tmp_path / "device")
    refused = device.run("agent", "install-bundle", tmp_path / "usb", "--root-sha256", "0" * 64)
    assert refused.returncode == 1
    assert f"has sha256 {sha256}, not {'0' * 64}" in refused.stderr
    installed = device.run("agent", "install-bundle", tmp_path / "usb", "--root-sha256", sha256)
    assert installed.returncode == 0, installed.stdout + installed.stderr
    assert (device.home / "models" / "times" / "current").resolve().name == "1"
