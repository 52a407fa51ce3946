"""Releases that are carried to a device by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.integration.agent.fixture_server import Server
from tests.integration.agent.processes import Device
from tests.integration.agent.tiny_repository import TinyRepository


def exported(repository: TinyRepository, folder: Path, release: int) -> Path:
    """Copy what one release needs, as `edgeml releases export` does."""
    for part in ("metadata", "blobs"):
        shutil.copytree(repository.folder / part, folder / part)
    for path in (repository.folder / "targets" / "models" / "times").glob(f"*.{release}.json"):
        place = folder / "targets" / "models" / "times" / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    return folder


def test_a_release_is_carried_to_a_device_without_a_server(
    repository_here: TinyRepository, tmp_path: Path
) -> None:
    device = Device(tmp_path / "alone", "")
    folder = exported(repository_here, tmp_path / "usb", 1)
    assert "--root" in device.command("install-bundle", str(folder), check=False).stderr
    root = tmp_path / "root.json"
    root.write_bytes(repository_here.first_root)
    done = device.command("install-bundle", str(folder), "--root", str(root), "--json")
    assert json.loads(done.stdout)["result"] == "SUCCESSFUL"
    assert device.current("times") == "releases/1"
    # the same trust: a tampered file is refused, and what ran goes on
    other = exported(repository_here, tmp_path / "usb2", 2)
    for blob in (other / "blobs" / "sha256").iterdir():
        blob.write_bytes(blob.read_bytes()[:-1] + b"?")
    failed = device.command("install-bundle", str(other), check=False)
    assert failed.returncode == 1
    assert "FAILED" in failed.stdout
    assert device.current("times") == "releases/1"


def test_a_release_is_carried_to_a_running_agent(
    device: Device, fleet: Server, repository_here: TinyRepository, tmp_path: Path
) -> None:
    device.start()
    fleet[0].assign("times", 1)
    fleet[0].wait_for_state("times", "COMMITTED", 1)
    done = device.command("install-bundle", str(exported(repository_here, tmp_path / "usb", 2)))
    assert "handed to the agent" in done.stdout
    fleet[0].wait_for_state("times", "COMMITTED", 2)
    device.wait(lambda: not list((device.home / "inbox").iterdir()))
    # what the server said before does not come back; it wins once it says something new
    fleet[0].wait_for(lambda found: found.reports[-1].models["times"].state == "IDLE")
    assert device.current("times") == "releases/2"
    fleet[0].assign("times", 1, attempt=2)
    fleet[0].wait_for(lambda found: found.states("times").count("COMMITTED") == 3)
    committed = [one for one in fleet[0].events.values() if one.state == "COMMITTED"]
    assert [(one.release, one.attempt) for one in committed] == [(1, 1), (2, 1), (1, 2)]
    assert device.current("times") == "releases/1"


def test_a_bundle_that_nobody_signed_needs_a_device_without_trust(
    device: Device, repository_here: TinyRepository, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundles" / "times-1.edgeml"
    refused = device.command("install-bundle", str(bundle), "--unsigned", check=False)
    assert refused.returncode == 2
    assert "signed releases only" in refused.stderr
    alone = Device(tmp_path / "alone", "")
    alone.command("install-bundle", str(bundle), "--unsigned")
    assert alone.current("times") == "releases/1"
